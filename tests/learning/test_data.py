"""Data sets: what they hold, their shapes, which are known without loading them, and errors."""

from __future__ import annotations

import io
import tracemalloc
import zipfile

import numpy as np
import pytest

from kit.learning import SGD, make_plan, train_in_lockstep
from paceline.algorithms.rounds import Interval
from paceline.algorithms.worker import EVALUATION_BATCH
from paceline.learning import data, npz
from paceline.learning.build import build_workers
from paceline.learning.data import load, shape_of
from paceline.learning.dataset import DataShape
from paceline.learning.memory_meter import Tensors
from paceline.learning.sources import Source


def arrays(train=(6, 1, 4, 4), test=(3, 1, 4, 4)):
    x, y = np.zeros(train, np.float32), np.arange(train[0])
    return {"x_train": x, "y_train": y, "x_test": np.zeros(test, np.float32), "y_test": np.arange(test[0])}


def own_data(size: int = 6):
    """Data as a user would make them."""
    return tuple(arrays((size, 5), (3, 5)).values())


def own_none():
    return None


def test_digits_are_those_of_scikit_learn():
    """They are read without importing it."""
    from sklearn.datasets import load_digits

    bunch, found = load_digits(), load("digits", {})
    x = np.concatenate([found.train_x, found.test_x]).reshape(-1, 64)
    pixels = np.rint(16 * (x - x.min()) / (x.max() - x.min()))  # those of scikit-learn go from 0 to 16
    ours = np.column_stack([pixels, np.concatenate([found.train_y, found.test_y])])
    theirs = np.column_stack([bunch.data, bunch.target])
    assert sorted(map(tuple, ours)) == sorted(map(tuple, theirs))


def test_digits():
    found = load("digits", {})
    assert found.shape == shape_of("digits", {}) == DataShape((1, 8, 8), 10, 1437, 360)
    assert (found.train_x.dtype, found.train_y.dtype) == (np.float32, np.int64)
    assert abs(found.train_x.mean()) < 1e-6
    assert abs(found.train_x.std() - 1) < 1e-6
    counts = np.bincount(found.test_y)
    assert counts.min() >= 35
    assert counts.max() <= 37
    rows = {row.tobytes() for row in found.train_x.reshape(1437, -1)}
    assert not any(row.tobytes() in rows for row in found.test_x.reshape(360, -1))
    assert np.array_equal(load("digits", {}).test_x, found.test_x)


def test_synthetic():
    args = {"train": 1100, "test": 50, "noise": 2.0}
    found = load("synthetic", args)
    assert found.shape == shape_of("synthetic", args) == DataShape((3, 32, 32), 10, 1100, 50)
    assert abs(found.train_x.std() - 1) < 0.05
    assert set(np.bincount(found.train_y)) == {110}
    again, other = load("synthetic", args), load("synthetic", {**args, "seed": 1})
    assert np.array_equal(again.train_x, found.train_x)
    assert not np.array_equal(other.train_x, found.train_x)
    easy, hard = (load("synthetic", {"train": 300, "noise": n}) for n in (0.1, 3.0))
    assert distinctness(easy) > 1.5 * distinctness(hard)


def distinctness(found: data.Dataset) -> float:
    """How far apart the classes' means lie, relative to the spread within a class."""
    groups = [found.train_x[found.train_y == c] for c in range(10)]
    return float(np.std([g.mean(0) for g in groups], 0).mean() / np.mean([g.std(0).mean() for g in groups]))


def test_npz_scales_pixels_and_reads_only_heads_for_the_shape(tmp_path, monkeypatch):
    path = tmp_path / "a.npz"
    given = arrays() | {f"x_{part}": np.full((n, 1, 4, 4), 255, np.uint8) for part, n in (("train", 6), ("test", 3))}
    np.savez_compressed(path, **given)
    found = load(str(path), {"images": True})
    assert np.asarray(found.train_x).dtype == np.float32
    assert np.asarray(found.train_x).max() == np.asarray(found.test_x).max() == 1.0
    assert not found.notes
    assert found.shape == shape_of(str(path), {}) == DataShape((1, 4, 4), 6, 6, 3, 16)
    read = []
    original = np.lib.npyio.NpzFile.__getitem__
    monkeypatch.setattr(np.lib.npyio.NpzFile, "__getitem__", lambda self, k: read.append(k) or original(self, k))
    shape_of(str(path), {})
    assert read == ["y_train", "y_test"]


def test_a_users_data():
    found = load(f"{__name__}:own_data", {"size": 8})
    assert found.shape == shape_of(f"{__name__}:own_data", {"size": 8}) == DataShape((5,), 8, 8, 3)


def typed(dtype: str, folder: str = ""):
    """Data of one type, mapped from files of the folder if one is given."""
    x_train, y_train, x_test, y_test = arrays((50, 2, 4, 4), (20, 2, 4, 4)).values()
    random = np.random.default_rng(0)
    made = [(random.random(x.shape) * 100 - 50 * (dtype[0] != "u")).astype(dtype) for x in (x_train, x_test)]
    if folder:
        for place, x in enumerate(made):
            np.save(f"{folder}/{place}.npy", x)
            made[place] = np.load(f"{folder}/{place}.npy", mmap_mode="r")
    return made[0], y_train % 3, made[1], y_test % 3


@pytest.mark.parametrize("mapped", [False, True])
@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "float16", "float32", ">f4", "int64", "float64"])
def test_batches_have_the_bits_of_data_that_are_converted_at_once(dtype, mapped, tmp_path):
    given = typed(dtype, str(tmp_path) if mapped else "")
    found = load(f"{__name__}:typed", {"dtype": dtype, "folder": str(tmp_path) if mapped else ""})
    wanted = np.dtype(np.int64 if dtype in ("int8", "uint16", "int64") else np.float32)
    kept = np.dtype(dtype) if mapped or np.dtype(dtype).itemsize < wanted.itemsize else wanted
    assert found.shape.kinds == wanted.name
    assert (found.train_x.dtype, found.test_x.dtype) == (kept, kept)
    assert found.shape.stored_bytes == 32 * kept.itemsize
    assert isinstance(found.train_x, np.memmap) == mapped
    for x, whole in ((found.train_x, given[0]), (found.test_x, given[2])):
        chosen = np.random.default_rng(1).permutation(len(whole))[:12]
        batch = Source(x).take(chosen)
        assert batch.numpy().dtype == wanted
        assert batch.numpy().tobytes() == whole.astype(wanted)[chosen].tobytes()


@pytest.mark.parametrize("name", ["digits", "synthetic"])
def test_batches_of_what_is_made_have_its_bits(name):
    found = load(name, {})
    chosen = np.random.default_rng(1).permutation(len(found.train_x))[:12]
    assert found.train_x.dtype == np.float32
    assert np.array_equal(Source(found.train_x).take(chosen).numpy(), found.train_x[chosen])


@pytest.mark.parametrize(("dtype", "pixels"), [("uint8", True), ("uint8", False), ("float32", None), ("float64", None)])
def test_a_large_npz_is_mapped_unless_it_is_compressed(dtype, pixels, tmp_path, monkeypatch):
    given = dict(zip(npz.KEYS, typed(dtype), strict=True))
    np.savez(tmp_path / "raw.npz", **given)
    np.savez_compressed(tmp_path / "packed.npz", **given)
    args = {} if pixels is None else {"images": pixels}
    small = load(str(tmp_path / "raw.npz"), args)
    monkeypatch.setattr(npz, "LARGE", 0)
    packed, raw = (load(str(tmp_path / f"{name}.npz"), args) for name in ("packed", "raw"))
    assert raw.shape == shape_of(str(tmp_path / "raw.npz"), args)
    assert packed.shape == shape_of(str(tmp_path / "packed.npz"), args) == small.shape
    expected = given["x_train"].astype(np.float32) / np.float32(255 if pixels else 1)
    for found in (small, packed, raw):
        assert np.array_equal(Source(found.train_x).take(np.array([7, 3])).numpy(), expected[[7, 3]])
        assert found.train_y.tolist() == given["y_train"].tolist()
    if not pixels:
        assert [isinstance(x.train_x, np.memmap) for x in (small, packed, raw)] == [False, False, True]


def test_a_mapped_npz_is_held_against_its_checksum(tmp_path, monkeypatch):
    path = tmp_path / "a.npz"
    np.savez(path, **dict(zip(npz.KEYS, typed("float32"), strict=True)))
    content = bytearray(path.read_bytes())
    content[1000] ^= 1
    path.write_bytes(content)
    monkeypatch.setattr(npz, "LARGE", 0)
    with pytest.raises(ValueError, match=r"a\.npz: reading x_train failed: BadZipFile: Bad CRC-32"):
        load(str(path), {})


def test_training_on_bytes_and_on_their_floats_is_the_same_and_an_evaluation_goes_by_batches():
    random, H = np.random.default_rng(0), 3072
    pixels = [random.integers(0, 256, (count, H), np.uint8) for count in (200, 3000)]
    y = [np.arange(200) % 10, np.arange(3000) % 10]
    plan = make_plan([16], H=3, budget=Interval(9, "steps"))
    ends = []
    for kept in (lambda x: x, lambda x: x.astype(np.float32)):
        given = data.Dataset(kept(pixels[0]), y[0], kept(pixels[1]), y[1])
        (worker,) = build_workers(
            plan, given, model="mlp", model_args={"hidden": [8]}, optimizer=SGD, seed=7, shared_process=False
        )
        _, lines = train_in_lockstep(plan, [worker])
        ends.append((worker.digest(), lines))
        tracemalloc.start()
        assert worker.evaluate(worker.buffers).run()[1] == 3000
        numpys = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        with Tensors() as torchs:
            worker.evaluate(worker.buffers).run()
        assert max(numpys, torchs.peak) < 2 * 4 * EVALUATION_BATCH * H, "not all of the test set at once"
    assert ends[0] == ends[1]


@pytest.mark.parametrize(
    ("name", "args", "message"),
    [
        (
            "digit",
            {},
            "no data 'digit'; did you mean 'digits'?; write digits, synthetic, mnist, fashion_mnist, cifar10, "
            "cifar100, images, imagenet, tokens, text, sized, a file that ends in .npz",
        ),
        ("digits", {"train": 3}, "data digits has no argument 'train'; it takes no arguments"),
        ("synthetic", {"sise": 3}, "data synthetic has no argument 'sise'; it takes train, test, noise, seed"),
        ("synthetic", {"train": 0}, "data synthetic: train is 0; write a number of 10 or more"),
        ("synthetic", {"noise": "much"}, "data synthetic: noise is 'much'; write a number of 0 or more"),
        ("nowhere/a.npz", {}, "no file nowhere/a.npz; it should be a .npz file with x_train, y_train, x_test, y_test"),
        (
            f"{__name__}:own_none",
            {},
            "gave a NoneType; its function must return train_x, train_y, test_x, test_y, or two torch Datasets",
        ),
        (f"{__name__}:own_data", {"length": 3}, "failed: TypeError"),
    ],
)
def test_wrong_data_is_one_line(name, args, message):
    for attempt in (load, shape_of):
        with pytest.raises(ValueError) as caught:  # noqa: PT011 - the text is compared below
            attempt(name, args)
        assert message in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"y_test": None}, "has no y_test; it holds x_train, y_train, x_test"),
        ({"y_train": np.arange(5)}, "x_train has 6 examples and y_train 5; they must match"),
        ({"y_train": np.zeros((6, 2), int)}, "examples are (2,) in y_train and () in y_test"),
        ({"y_train": np.arange(6.0)}, "examples are float32 in y_train and int64 in y_test"),
        ({"y_train": np.array(["a"] * 6)}, "y_train is <U1 (6,); expected numbers, a row or a number for each example"),
        ({"y_train": np.full(6, 2**31)}, "y_train holds the label 2147483648; labels go from 0 to 2147483646"),
        ({"y_test": np.full(3, 2**64 - 1, np.uint64)}, "y_test holds the label 18446744073709551615; labels go from 0"),
        ({"x_train": np.zeros(())}, "x_train is float64 (); expected numbers, a row or a number for each example"),
        ({"x_train": np.zeros((6, 1, 0, 4))}, "x_train is float64 (6, 1, 0, 4); expected numbers, a row"),
        ({"x_test": np.zeros((3, 1, 5, 5))}, "examples are (1, 4, 4) in x_train and (1, 5, 5) in x_test"),
        ({"x_train": np.zeros((0, 1, 4, 4)), "y_train": np.zeros(0, int)}, "x_train has no examples"),
        ({"y_train": np.array([None] * 6)}, "it holds Python's objects, which are not loaded; write numbers"),
    ],
)
def test_a_wrong_npz_is_one_line(tmp_path, change, message):
    path = tmp_path / "wrong.npz"
    np.savez(path, **{k: v for k, v in (arrays() | change).items() if v is not None})
    for attempt in (load, shape_of):
        with pytest.raises(ValueError) as caught:  # noqa: PT011
            attempt(str(path), {})
        assert message in str(caught.value)
        assert str(caught.value).startswith(str(path))
        assert "\n" not in str(caught.value)


def test_the_classes_of_an_npz_can_be_given(tmp_path):
    """More than the labels need."""
    path = str(tmp_path / "a.npz")
    np.savez(path, **arrays())
    assert load(path, {"classes": 9}).shape == shape_of(path, {"classes": 9}) == DataShape((1, 4, 4), 9, 6, 3)
    for attempt in (load, shape_of):
        with pytest.raises(ValueError, match=r"a\.npz: classes is 0; write a whole number, 1 or more"):
            attempt(path, {"classes": 0})


@pytest.mark.parametrize("said", [(7, 1, 4, 4), (5, 1, 4, 4), (10**12, 1, 4, 4)])
@pytest.mark.parametrize("least", [0, npz.LARGE])
def test_a_head_that_promises_more_or_less_than_there_is(said, least, tmp_path, monkeypatch):
    """A mapped array would else go on in what follows it in the file."""
    monkeypatch.setattr(npz, "LARGE", least)
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        for key, array in arrays().items():
            content = io.BytesIO()
            head = {
                "descr": array.dtype.str,
                "fortran_order": False,
                "shape": said if key == "x_train" else array.shape,
            }
            np.lib.format.write_array_header_1_0(content, head)
            archive.writestr(f"{key}.npy", content.getvalue() + array.tobytes())
    for attempt in (load, shape_of):
        with pytest.raises(
            ValueError, match=r"reading x_train.* its header says float32 \(\d+, .*, and 384 bytes follow"
        ):
            attempt(str(tmp_path / "a.npz"), {})


def test_what_is_no_npz(tmp_path):
    path = tmp_path / "text.npz"
    path.write_text("hello")
    with pytest.raises(ValueError, match=r"text\.npz is not an \.npz file"):
        load(str(path), {})
    with path.open("wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(ValueError, match="holds a single array; write it with"):
        load(str(path), {})
    whole = tmp_path / "whole.npz"
    np.savez(whole, **arrays())
    whole.write_bytes(whole.read_bytes()[:200])
    with pytest.raises(ValueError, match=r"whole\.npz is not an \.npz file"):
        shape_of(str(whole), {})


@pytest.mark.parametrize("value", [np.nan, 1e300])
def test_values_that_are_no_numbers_are_refused(value, tmp_path):
    given = arrays()
    given["x_train"] = given["x_train"].astype(np.float64)
    given["x_train"][0] = value
    np.savez(tmp_path / "nan.npz", **given)
    with pytest.raises(ValueError, match="x_train holds values that are not finite numbers"):
        load(str(tmp_path / "nan.npz"), {})
