"""MNIST and Fashion-MNIST from small IDX files, and known images at other sizes, with more classes."""

from __future__ import annotations

import gzip
import hashlib
import inspect
import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from kit.cli import call, scenario
from kit.idx import FILES, idx, put, write_idx
from kit.learning import SGD, make_plan, train_in_lockstep
from kit.paths import DOCS
from paceline.algorithms.rounds import Interval
from paceline.config import yaml
from paceline.learning import idx as reader
from paceline.learning import raw_files
from paceline.learning.build import build_workers
from paceline.learning.data import BUILT_IN, load, shape_of
from paceline.learning.dataset import DataShape, Packed
from paceline.learning.recipe import Augment, Recipe
from paceline.learning.resized import Resized
from paceline.learning.sources import Source
from paceline.learning.works import cost_of

IMAGES, LABELS, TEST_IMAGES, TEST_LABELS = FILES
ONE_CHANNEL = [
    ("cnn", {"channels": [4, 4]}),
    ("resnet20", {"width": 0.25}),
    ("mlp", {"hidden": [8]}),
    ("vit", {"dim": 8, "depth": 1, "heads": 2}),
]


@pytest.mark.parametrize("packed", [(), FILES, (IMAGES, TEST_LABELS)])
@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
def test_files_are_read_packed_or_not_and_batches_have_the_bits_of_a_conversion_of_all(name, packed, tmp_path):
    values, known = write_idx(tmp_path, packed=packed), reader.SETS[name]
    args = {"path": str(tmp_path), "verify": False}
    found = load(name, args)
    assert found.shape == shape_of(name, args) == DataShape((1, 28, 28), 10, 30, 12, 784)
    scale, shift = np.float32(255 * known.deviation), np.float32(known.mean / known.deviation)
    for x, y, part in ((found.train_x, found.train_y, "train"), (found.test_x, found.test_y, "t10k")):
        images, labels = values[f"{part}-images-idx3-ubyte"], values[f"{part}-labels-idx1-ubyte"]
        assert y.dtype == np.int64
        assert y.tolist() == labels.tolist()
        assert np.allclose(np.asarray(x)[:, 0], (images / 255 - known.mean) / known.deviation, atol=1e-5)
        chosen = np.random.default_rng(1).permutation(len(images))
        whole = images[:, None].astype(np.float32) / scale - shift
        assert np.array_equal(Source(x).take(chosen).numpy(), whole[chosen])
        assert [piece.dtype for piece in x.pieces] == [np.uint8]
        assert x.pieces[0].flags.writeable == (f"{part}-images-idx3-ubyte" in packed), "mapped, or in memory"


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
def test_official_numbers_need_no_files(name):
    assert shape_of(name, {}) == DataShape((1, 28, 28), 10, 60_000, 10_000, 784)
    large = shape_of(name, {"size": 224, "classes": 1000})
    assert (large.input_shape, large.classes) == ((1, 224, 224), 1000)
    assert large.nbytes == shape_of(name, {}).nbytes == 70_000 * (784 + 8), "as they are stored"


def wrong(values) -> dict[str, tuple[str, bytes, str]]:
    """By what is wrong: a file, what it holds instead, and what is said. * stands for .gz where the file is packed."""
    images, labels = values[IMAGES], values[LABELS]
    return {
        "nothing": (IMAGES, b"", "begins with the bytes (none); an IDX file of images begins with 00 00 08 03"),
        "cut head": (LABELS, idx(labels)[:7], "begins with the bytes 00 00 08 01; an IDX file of labels"),
        "magic": (TEST_LABELS, idx(values[TEST_IMAGES]), "begins with the bytes 00 00 08 03; an IDX file of labels"),
        "type": (IMAGES, b"\0\0\x0d" + idx(images)[3:], "begins with the bytes 00 00 0d 03"),
        "promises more": (IMAGES, idx(images)[:-1], "30 images, which take 23520 bytes, and holds 23519"),
        "promises all": (LABELS, b"\0\0\x08\x01" + b"\xff" * 4, "labels, which take 4294967295 bytes, and holds 0"),
        "promises less": (
            TEST_LABELS,
            idx(values[TEST_LABELS]) + b"\0",
            "12 labels, which take 12 bytes, and holds more",
        ),
        "pixels": (IMAGES, idx(np.zeros((30, 32, 32))), "its images have 32 x 32 pixels; expected 28 x 28"),
        "none": (TEST_IMAGES, idx(np.zeros((0, 28, 28))), "t10k-images-idx3-ubyte* has no images"),
        "label": (LABELS, idx(np.full(30, 10)), "train-labels-idx1-ubyte* holds the label 10; 10 classes count from 0"),
        "counts": (TEST_LABELS, idx(values[TEST_LABELS][:9]), "has 12 images and t10k-labels-idx1-ubyte* 9 labels"),
    }


@pytest.mark.parametrize("packed", [False, True])
def test_what_is_wrong_is_one_line(packed, tmp_path):
    values = write_idx(tmp_path)
    args = {"path": str(tmp_path), "verify": False}
    for what, (file, content, message) in wrong(values).items():
        put(tmp_path, file, content, packed)
        for attempt in (load, shape_of):
            with pytest.raises(ValueError, match=r"\A[^\n]*\Z") as caught:
                attempt("mnist", args)
            assert message.replace("*", ".gz" * packed) in str(caught.value), what
        put(tmp_path, file, idx(values[file]))
    load("mnist", args)


def test_what_is_no_gz_is_one_line(tmp_path):
    write_idx(tmp_path, packed=FILES)
    args = {"path": str(tmp_path), "verify": False}
    whole = (tmp_path / f"{IMAGES}.gz").read_bytes()
    damaged = bytearray(whole)
    damaged[len(whole) // 2] ^= 0xFF
    for content in (b"no gz", whole[:-9], bytes(damaged), b""):
        (tmp_path / f"{IMAGES}.gz").write_bytes(content)
        with pytest.raises(ValueError, match=r"\A[^\n]*train-images-idx3-ubyte.gz (is not a whole .gz|begins with)"):
            load("mnist", args)
    (tmp_path / f"{IMAGES}.gz").unlink()
    with pytest.raises(
        ValueError, match=r"data mnist: no file .*/train-images-idx3-ubyte or train-images-idx3-ubyte\.gz"
    ):
        load("mnist", args)
    with pytest.raises(
        ValueError, match=r"data fashion_mnist needs a path: a folder with train-images-idx3-ubyte, .*http"
    ):
        load("fashion_mnist", {})
    with pytest.raises(ValueError, match=r"\A[^\n]* cannot be read: Is a directory\Z"):
        raw_files.mapped(tmp_path)


@pytest.mark.parametrize("packed", [(), FILES])
def test_files_are_held_against_checksums_however_they_are_packed(packed, tmp_path, monkeypatch):
    values = write_idx(tmp_path, packed=packed)
    args, known = {"path": str(tmp_path)}, reader.SETS["mnist"]
    with pytest.raises(
        ValueError, match=r"train-images-idx3-ubyte\S* has the MD5 checksum \w+, not 6bbc9ace.*; get it"
    ):
        load("mnist", args)
    own = {name: hashlib.md5(idx(v), usedforsecurity=False).hexdigest() for name, v in values.items()}
    monkeypatch.setitem(reader.SETS, "mnist", replace(known, md5=own))
    assert load("mnist", args).train_y.tolist() == values[LABELS].tolist()
    if packed:  # at another level of compression
        (tmp_path / f"{IMAGES}.gz").write_bytes(gzip.compress(idx(values[IMAGES]), 1))
        load("mnist", args)


@pytest.mark.parametrize(("model", "options"), ONE_CHANNEL)
def test_built_in_models_train_on_one_channel(model, options, tmp_path):
    write_idx(tmp_path, train=200)
    found = load("fashion_mnist", {"path": str(tmp_path), "verify": False})
    data, plan = (
        replace(found, test_x=found.train_x, test_y=found.train_y),
        make_plan([20], budget=Interval(30, "steps")),
    )
    plan = replace(plan, examples=200)
    workers = build_workers(
        plan,
        data,
        model=model,
        model_args=options,
        optimizer=SGD,
        seed=7,
        shared_process=False,
        recipe=Recipe(augment=Augment(crop=1, flip=True)),
    )
    before = workers[0].evaluate(workers[0].buffers).run()
    _, lines = train_in_lockstep(plan, workers)
    assert lines[-1]["test_loss"] < before[0] / before[1]
    counted = sum(p.numel() for p in workers[0].model.parameters())
    assert cost_of(model, options, shape_of("fashion_mnist", {})).parameters == counted


# --- other sizes and more classes -------------------------------------------------------------------------------------


def triangle(size: int, wanted: int) -> np.ndarray:
    """Weights (wanted, size) of bilinear scaling; where it shrinks, the triangle is as much wider."""
    place = (np.arange(wanted) + 0.5) * size / wanted - 0.5
    weights = np.maximum(0, 1 - abs(place[:, None] - np.arange(size)) / max(1, size / wanted))
    return weights / weights.sum(1, keepdims=True)


@pytest.mark.parametrize("size", [7, 28, 33, 64])
def test_images_are_scaled_bilinearly_with_bits_of_their_own(size):
    raw = np.random.default_rng(0).integers(0, 256, (9, 3, 28, 28), np.uint8)
    x = Resized(Packed([raw], np.array(255, np.float32)), size)
    assert (len(x), x.shape) == (9, (9, 3, size, size))
    found, rows = Source(x).take(np.arange(9)).numpy(), triangle(28, size)
    assert np.allclose(found, np.einsum("ij,ncjk,lk->ncil", rows, raw / 255, rows), atol=1e-5)
    assert np.array_equal(Source(x).take(np.array([4])).numpy(), found[4:5]), "whatever else is in the batch"
    threads = torch.get_num_threads()
    torch.set_num_threads(3)
    assert np.array_equal(Source(x).take(np.arange(9)).numpy(), found), "on however many threads"
    torch.set_num_threads(threads)


def test_a_size_and_more_classes(tmp_path):
    write_idx(tmp_path)
    args = {"path": str(tmp_path), "verify": False}
    plain, same, large = (load("mnist", args | more) for more in ({}, {"size": 28}, {"size": 40, "classes": 1000}))
    assert isinstance(same.train_x, Packed), "nothing is scaled"
    assert large.shape == shape_of("mnist", args | {"size": 40, "classes": 1000})
    assert large.shape == DataShape((1, 40, 40), 1000, 30, 12, 784)
    assert large.train_y.tolist() == plain.train_y.tolist()
    assert shape_of("cifar10", {"size": 224, "classes": 1000}).input_shape == (3, 224, 224)
    for attempt in (load, shape_of):
        with pytest.raises(ValueError, match="data mnist: classes is 9, and its labels need 10 or more"):
            attempt("mnist", args | {"classes": 9})
        with pytest.raises(ValueError, match="data mnist: size is 0; write a number of 1 or more"):
            attempt("mnist", args | {"size": 0})


def test_a_wrong_file_ends_a_command_with_one_line_and_nothing_written(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    values = write_idx(tmp_path / "files")
    document = scenario(2, {"name": "mlp", "hidden": [8]}, {"preset": "sync_sgd"}, 2)
    document["workload"]["data"] = {"name": "mnist", "path": "files", "verify": False, "size": 14}
    (tmp_path / "s.yaml").write_text(yaml.dump(document))
    status, _, _ = call(monkeypatch, capsys, "simulate", "s.yaml", "--out", "run")
    assert status == 0
    put(tmp_path / "files", LABELS, idx(values[LABELS])[:-2])
    status, out, err = call(monkeypatch, capsys, "simulate", "s.yaml", "--out", "other")
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert "workload.data: " in err
    assert "train-labels-idx1-ubyte says that it has 30 labels, which take 30 bytes, and holds 28" in err
    assert not (tmp_path / "other").exists()


def test_the_page_tells_every_argument_of_data_by_name():
    table = re.findall(r"^\| (`\w+`(?:, `\w+`)*) \| (.*?) \| .* \|$", (DOCS / "scenarios.md").read_text(), re.M)
    told = {name: re.findall(r"`(\w+)", args) for names, args in table for name in re.findall(r"`(\w+)`", names)}
    for name, (function, _) in BUILT_IN.items():
        known = [p.name for p in inspect.signature(function).parameters.values() if p.kind is p.KEYWORD_ONLY]
        assert told.get(name) == known, f"docs/scenarios.md, the table of data, {name}"
