"""Token files and texts: which examples they are cut into, and the one line for what they cannot be."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest

from kit.cli import call, scenario
from kit.paths import DOCS
from paceline.config import yaml
from paceline.learning import tokens
from paceline.learning.data import load, shape_of
from paceline.learning.sources import Source

ROW = np.arange(100) * 7 % 50  # tokens up to 49


def put(path: Path, row: np.ndarray, dtype: str) -> str:
    """A file of these tokens, whose path is returned."""
    if path.suffix == ".npy":
        np.save(path, row.astype(dtype))
    else:
        row.astype(dtype).tofile(path)
    return str(path)


@pytest.mark.parametrize(
    ("name", "dtype", "said"),
    [
        ("a.bin", "uint16", {}),
        ("a.bin", "uint8", {"dtype": "uint8"}),
        ("a.bin", ">u4", {"dtype": ">u4"}),
        ("a.tokens", "uint64", {"dtype": "uint64"}),
        ("a.npy", "uint8", {}),
        ("a.npy", ">u2", {"dtype": "uint8"}),
    ],
)
@pytest.mark.parametrize("stride", [None, 2, 12])
def test_an_example_is_a_sequence_and_its_target_the_same_shifted_by_one(name, dtype, said, stride, tmp_path):
    args = {"path": put(tmp_path / name, ROW, dtype), "sequence": 8, "stride": stride, "test_share": 0.3, **said}
    found, step = load("tokens", args), stride or 8
    assert found.shape == shape_of("tokens", args)
    assert (found.shape.input_shape, found.shape.classes, found.shape.target_shape) == ((8,), 50, (8,))
    for x, y, row in ((found.train_x, found.train_y, ROW[:70]), (found.test_x, found.test_y, ROW[70:])):
        begins = range(0, len(row) - 8, step)
        chosen = np.random.default_rng(1).permutation(len(begins))
        assert len(x) == len(y) == len(begins)
        inputs, targets = Source(x).take(chosen), Source(y, target=True).take(chosen)
        assert str(inputs.dtype) == str(targets.dtype) == "torch.int64"
        assert inputs.tolist() == [row[begins[i] : begins[i] + 8].tolist() for i in chosen]
        assert targets.tolist() == [row[begins[i] + 1 : begins[i] + 9].tolist() for i in chosen]
        assert not x.pieces[0].flags.writeable, "mapped"
        assert np.shares_memory(x.pieces[0], y.pieces[0])


def test_a_second_file_for_testing_and_the_most_examples(tmp_path):
    files = {part: put(tmp_path / f"{part}.bin", row, "uint16") for part, row in (("train", ROW), ("test", ROW[:20]))}
    found = load("tokens", {"path": files, "sequence": 9})
    assert (len(found.train_x), len(found.test_x)) == (11, 2)
    few = {"path": files, "sequence": 9, "train": 10, "test": 1, "vocabulary": 64}
    found = load("tokens", few)
    assert (len(found.train_x), len(found.test_x), found.shape.classes) == (10, 1, 64)
    assert found.shape == shape_of("tokens", few)
    assert found.shape.nbytes < 2 * (100 + 20), "inputs and targets share a file"


def test_the_vocabulary_is_found_piece_by_piece_and_not_at_all_where_no_type_goes_beyond_it(tmp_path, monkeypatch):
    monkeypatch.setattr(tokens, "PIECE", 7)
    row = ROW.copy()
    row[-1] = 61
    path = put(tmp_path / "a.bin", row, "uint8")
    assert shape_of("tokens", {"path": path, "dtype": "uint8", "sequence": 4}).classes == 62
    monkeypatch.setattr(tokens, "PIECE", 0)  # range() would refuse it
    whole = {"path": path, "dtype": "uint8", "sequence": 4, "vocabulary": 256}
    assert load("tokens", whole).shape.classes == 256


def test_without_a_path_only_their_shape_is_there():
    found = shape_of("tokens", {})
    assert (found.input_shape, found.classes, found.train, found.test) == ((512,), 256, 1_000_000, 10_000)
    with pytest.raises(ValueError, match=r"^data tokens without a path is for timing-only runs: write path: FILE, or"):
        load("tokens", {})


def damaged(folder: Path) -> dict[str, tuple[dict, str]]:
    """By what is wrong: the arguments, and what is said."""
    good = put(folder / "good.bin", ROW, "uint16")
    half = folder / "half.npy"
    half.write_bytes(Path(put(folder / "whole.npy", ROW, "uint16")).read_bytes()[:-40])
    (folder / "odd.bin").write_bytes(bytes(9))
    (folder / "empty.bin").write_bytes(b"")
    (folder / "head.npy").write_bytes(half.read_bytes()[:20])
    at = {name: str(folder / name) for name in ("odd.bin", "empty.bin", "head.npy", "none.bin")}
    signed, table = put(folder / "signed.npy", ROW, "int64"), put(folder / "table.npy", ROW.reshape(10, 10), "uint8")
    small = put(folder / "small.npy", ROW, "uint8")
    return {
        "promises more": ({"path": str(half)}, "its header says uint16 (100,), and 160 bytes follow; write it again"),
        "cut head": ({"path": at["head.npy"]}, "head.npy: reading its header failed: ValueError: EOF"),
        "empty": ({"path": at["empty.bin"]}, "its training set has 0 tokens, and a sequence of 8 needs one more"),
        "odd": ({"path": at["odd.bin"]}, "odd.bin has 9 bytes, and a token of uint16 takes 2; see dtype"),
        "missing": ({"path": at["none.bin"]}, "none.bin cannot be read: No such file or directory"),
        "short": (
            {"path": good, "sequence": 90},
            "its training set has 90 tokens, and a sequence of 90 needs one more",
        ),
        "short test": ({"path": good, "test_share": 0.08}, "its test set has 8 tokens, and a sequence of 8 needs one"),
        "beyond": ({"path": good, "vocabulary": 49}, "it holds the token 49; the vocabulary is 49, counted from 0"),
        "as bytes": ({"path": good, "dtype": "uint64", "test_share": 0.4}, "; tokens go from 0 to 2147483646"),
        "signed": ({"path": signed}, "signed.npy holds int64 (100,); expected one row of tokens of an unsigned type"),
        "table": ({"path": table}, "table.npy holds uint8 (10, 10); expected one row"),
        "two types": ({"path": {"train": good, "test": small}}, "small.npy hold uint16 and uint8; write both in one"),
        "one of two": ({"path": {"train": good}}, "write a file, or {train: FILE, test: FILE}"),
        "dtype": ({"path": good, "dtype": "int16"}, "dtype is 'int16'; write uint8, uint16, uint32 or uint64"),
        "no dtype": ({"path": good, "dtype": "fine"}, "dtype is 'fine'; write uint8"),
        "number": ({"path": 3}, "path is 3; write a file, or {train: FILE, test: FILE}"),
        "stride": ({"path": good, "stride": 0}, "stride is 0; write a number of 1 or more"),
        "share": ({"path": good, "test_share": 2}, "test_share is 2; write a number of 0 or more, up to 1"),
    }


def test_what_is_wrong_with_a_token_file_is_one_line(tmp_path):
    for name, (args, message) in damaged(tmp_path).items():
        for action in (load, shape_of):
            if (action, name) == (shape_of, "beyond"):
                continue  # only the lengths are looked at
            with pytest.raises(ValueError, match=r".") as caught:
                action("tokens", {"sequence": 8, **args})
            assert message in str(caught.value), name
            assert "\n" not in str(caught.value)


def test_a_scenarios_paths_are_relative_to_it_and_its_mistakes_leave_nothing(tmp_path, monkeypatch, capsys):
    put(tmp_path / "train.bin", ROW, "uint8")
    put(tmp_path / "test.bin", ROW[:5], "uint8")
    files = {"train": "train.bin", "test": "test.bin"}
    made = scenario(2, {"name": "gpt", "dim": 8, "depth": 1, "heads": 2}, {"preset": "sync_sgd"}, 1)
    made["workload"]["data"] = {"name": "tokens", "path": files, "sequence": 8, "dtype": "uint8"}
    path = tmp_path / "s.yaml"
    path.write_text(yaml.dump(made))
    status, _, err = call(monkeypatch, capsys, "simulate", path, "--out", tmp_path / "run")
    assert status == 2
    assert "workload.data: " in err
    assert "test.bin: its test set has 5 tokens" in err
    assert err.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_a_text_is_the_bytes_of_its_files_in_order(tmp_path):
    for name, text in (("b.md", "second"), ("a.md", "first "), ("c.txt", "not this"), ("sub/a.md", " third")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    args = {"path": str(tmp_path), "files": "**/*.md", "sequence": 4, "stride": 1, "test_share": 0.3}
    found = load("text", args)
    assert found.shape == shape_of("text", args)
    assert found.shape.classes == 256
    whole = [bytes(row).decode() for row in Source(found.train_x).take(np.arange(len(found.train_x))).tolist()]
    assert "".join(row[0] for row in whole[:-1]) + whole[-1] == "first second"
    assert load("text", {"path": str(tmp_path / "a.md"), "sequence": 2, "test_share": 0.5}).shape.train == 1


def test_the_standard_librarys_text_is_the_same_each_time():
    args = {"sequence": 64, "train": 1000, "test": 100}
    found = load("text", args)
    assert found.shape == shape_of("text", args)
    assert (found.shape.train, found.shape.test) == (1000, 100)
    begin = Source(found.train_x).take(np.arange(2)).numpy().astype(np.uint8).tobytes()
    first = min(
        name
        for name in sys.stdlib_module_names
        if name[0] != "_" and Path(os.__file__).with_name(f"{name}.py").is_file()
    )
    assert begin == Path(os.__file__).with_name(f"{first}.py").read_bytes()[:128]
    assert found.notes[0].startswith("data text: the standard library of Python 3.")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"path": "/no/such"}, "data text: no file or folder /no/such"),
        ({"path": str(DOCS), "files": "*.none"}, "has no files *.none; write a pattern like"),
        ({"path": str(DOCS), "files": "/x"}, "data text: files '/x' failed: NotImplementedError"),
        ({"path": str(DOCS), "files": 3}, "data text: files is 3; write a pattern of file names"),
        ({"path": str(DOCS), "files": "*.md", "sequence": 1 << 30}, "a sequence of 1073741824 needs one more"),
    ],
)
def test_what_is_wrong_with_a_text_is_one_line(args, message):
    for action in (load, shape_of):
        with pytest.raises(ValueError, match=r".") as caught:
            action("text", args)
        assert message in str(caught.value)
        assert "\n" not in str(caught.value)
