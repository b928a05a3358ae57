"""CIFAR's binary files and folders of images, in small."""

from __future__ import annotations

import hashlib
import mmap
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from paceline.learning import cifar, images
from paceline.learning.data import load, shape_of
from paceline.learning.dataset import Dataset, DataShape
from paceline.learning.sources import Source

FILES = {"cifar10": ({f"data_batch_{i}.bin": 4 for i in range(1, 6)}, {"test_batch.bin": 3})}
FILES["cifar100"] = ({"train.bin": 20}, {"test.bin": 3})


def write(folder: Path, name: str) -> dict[str, np.ndarray]:
    """Small files of the official format; returns their rows."""
    random = np.random.default_rng(0)
    rows = {}
    for file, count in (FILES[name][0] | FILES[name][1]).items():
        kind = cifar.FORMATS[name]
        rows[file] = random.integers(0, 256, (count, kind.record), np.uint8)
        rows[file][:, : kind.labels] = random.integers(0, kind.classes, (count, kind.labels))
        (folder / file).write_bytes(rows[file].tobytes())
    return rows


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_binary_files_are_read_and_normalised_per_channel(name, tmp_path):
    rows, kind = write(tmp_path, name), cifar.FORMATS[name]
    args = {"path": str(tmp_path), "verify": False}
    found = load(name, args)
    assert shape_of(name, args) == DataShape((3, 32, 32), kind.classes, 20, 3, 3072)
    assert (found.train_x.shape, found.test_x.shape) == ((20, 3, 32, 32), (3, 3, 32, 32))
    assert found.train_y.dtype == np.int64
    own = np.concatenate([rows[file] for file in kind.train])
    assert found.train_y.tolist() == own[:, kind.labels - 1].tolist()
    for channel in range(3):
        raw = own[:, kind.labels :].reshape(20, 3, 32, 32)[:, channel]
        expected = (raw / 255 - kind.mean[channel]) / kind.deviation[channel]
        assert np.allclose(np.asarray(found.train_x)[:, channel], expected, atol=1e-5)


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_images_stay_bytes_in_mapped_files_and_batches_have_the_bits_of_a_conversion_of_all(name, tmp_path):
    rows, kind = write(tmp_path, name), cifar.FORMATS[name]
    found = load(name, {"path": str(tmp_path), "verify": False})
    for x, files in ((found.train_x, kind.train), (found.test_x, kind.test)):
        own = np.concatenate([rows[file] for file in files])
        expected = own[:, kind.labels :].astype(np.float32).reshape(-1, 3, 32, 32)
        for channel, (mean, deviation) in enumerate(zip(kind.mean, kind.deviation, strict=True)):
            expected[:, channel] /= np.float32(255 * deviation)
            expected[:, channel] -= np.float32(mean / deviation)
        chosen = np.random.default_rng(1).permutation(len(own))
        assert np.array_equal(Source(x).take(chosen).numpy(), expected[chosen])
        assert [(piece.dtype, _mapped(piece)) for piece in x.pieces] == [(np.uint8, True)] * len(files)
    assert not [entry for entry in tmp_path.iterdir() if entry.name not in rows], "nothing is left behind"


def _mapped(array: np.ndarray) -> bool:
    """Whether an array is a view of a mapped file."""
    while isinstance(array.base, np.ndarray):
        array = array.base
    return isinstance(array, np.memmap) or isinstance(array.base, mmap.mmap)


def test_few_files_have_all_classes(tmp_path):
    """The model of a run is as large as that of its prediction, whichever labels the files hold."""
    write(tmp_path, "cifar100")
    args = {"path": str(tmp_path), "verify": False, "size": 40}
    found = load("cifar100", args)
    assert found.train_y.max() < 99
    assert found.shape == shape_of("cifar100", args) == DataShape((3, 40, 40), 100, 20, 3, 3072)


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_official_numbers_need_no_files(name):
    assert shape_of(name, {}) == DataShape((3, 32, 32), cifar.FORMATS[name].classes, 50_000, 10_000, 3072)
    assert shape_of(name, {}).nbytes == 60_000 * (3072 + 8)


def test_what_is_wrong_with_cifar_is_one_line(tmp_path):
    with pytest.raises(
        ValueError, match=r"data cifar10 needs a path: a folder with data_batch_1.bin, .*kriz/cifar.html"
    ):
        load("cifar10", {})
    with pytest.raises(
        ValueError, match=r"no file .*train.bin; the folder must hold .* cifar-100-binary.tar.gz from http"
    ):
        load("cifar100", {"path": str(tmp_path)})
    write(tmp_path, "cifar100")
    with pytest.raises(ValueError, match=r"train.bin has 61480 bytes; expected 3074 bytes for each of 50000 examples"):
        load("cifar100", {"path": str(tmp_path)})
    (tmp_path / "test.bin").write_bytes(bytes(5))
    with pytest.raises(ValueError, match=r"test.bin has 5 bytes; expected 3074 bytes for each of its examples"):
        load("cifar100", {"path": str(tmp_path), "verify": False})
    (tmp_path / "test.bin").write_bytes(b"\x01\xff" + bytes(3072))
    with pytest.raises(ValueError, match=r"test.bin holds the label 255; 100 classes count from 0"):
        load("cifar100", {"path": str(tmp_path), "verify": False})
    with pytest.raises(ValueError, match="data cifar10: verify is 'no'; write true or false"):
        load("cifar10", {"verify": "no"})
    with pytest.raises(ValueError, match="data cifar10: path is 3; write a folder"):
        load("cifar10", {"path": 3})


def test_files_of_the_right_size_are_held_against_checksums(tmp_path, monkeypatch):
    monkeypatch.setattr(cifar, "TRAIN", 20)
    monkeypatch.setattr(cifar, "TEST", 3)
    write(tmp_path, "cifar10")
    with pytest.raises(
        ValueError, match=r"data_batch_1.bin has the MD5 checksum \w+, not 5dd7e06a.*; unpack cifar-10-bin"
    ):
        load("cifar10", {"path": str(tmp_path)})
    write(tmp_path, "cifar100")
    with pytest.raises(ValueError, match=r"train.bin: the classes are not equally frequent"):
        load("cifar100", {"path": str(tmp_path)})


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_an_archive_is_read_as_it_is_once_its_checksum_holds(name, tmp_path, monkeypatch):
    (tmp_path / "unpacked").mkdir()
    write(tmp_path / "unpacked", name)
    kind, args = cifar.FORMATS[name], {"path": str(tmp_path)}
    archive = tmp_path / kind.archive
    with tarfile.open(archive, "w:gz") as packed:
        packed.add(tmp_path / "unpacked", arcname="cifar-binary")
    with pytest.raises(ValueError, match=rf"{kind.archive} has the MD5 .*, not {kind.archive_md5}; get it again"):
        load(name, args)
    found, expected = (load(name, {"path": str(p), "verify": False}) for p in (tmp_path, tmp_path / "unpacked"))
    for key in ("train_x", "train_y", "test_x", "test_y"):
        assert np.array_equal(getattr(found, key), getattr(expected, key))
    assert shape_of(name, args | {"verify": False}) == DataShape((3, 32, 32), kind.classes, 20, 3, 3072)
    assert found.shape == expected.shape
    md5 = hashlib.md5(archive.read_bytes(), usedforsecurity=False).hexdigest()
    monkeypatch.setitem(cifar.FORMATS, name, replace(kind, archive_md5=md5))
    with pytest.raises(ValueError, match="bytes for each of"):
        load(name, args)  # the archive is the right one by now, its files are not of the official size
    archive.write_bytes(archive.read_bytes()[:-40])
    with pytest.raises(ValueError, match="is not an archive with"):
        load(name, args | {"verify": False})
    assert not list(tmp_path.glob("*.bin")), "nothing is unpacked to disk"


def folder_of_images(folder: Path, train: int = 3, test: int = 2) -> None:
    from PIL import Image

    for part, count in (("train", train), ("val", test)):
        for label, kind in enumerate(("ant", "bee")):
            (folder / part / kind).mkdir(parents=True)
            for i in range(count):
                Image.new("RGB", (40, 30), (100 * label, 10 * i, 0)).save(folder / part / kind / f"{i}.png")


def test_a_folder_of_images_is_known_without_opening_any(tmp_path):
    folder_of_images(tmp_path)
    (tmp_path / "train" / "ant" / "notes.txt").write_text("no image")
    assert shape_of("images", {"path": str(tmp_path), "size": 16}) == DataShape((3, 16, 16), 2, 6, 4, stored_bytes=0)
    assert shape_of("imagenet", {}) == DataShape((3, 224, 224), 1000, 1_281_167, 50_000, stored_bytes=0)
    with pytest.raises(ValueError, match=r"data images needs a path: a folder with train/CLASS"):
        shape_of("images", {})
    with pytest.raises(
        ValueError, match=r"data imagenet: no folder .*train; the path must be a folder with train/CLASS"
    ):
        load("imagenet", {"path": str(tmp_path / "train")})
    (tmp_path / "val" / "cat").mkdir()
    with pytest.raises(ValueError, match=r"2 classes in .*train and 3 in .*val"):
        shape_of("images", {"path": str(tmp_path)})


def test_a_class_without_images_is_a_class_and_a_folder_without_any_is_refused(tmp_path):
    folder_of_images(tmp_path)
    for part in ("train", "val"):
        (tmp_path / part / "cat").mkdir()
    args = {"path": str(tmp_path), "size": 16}
    assert load("images", args).shape == shape_of("images", args) == DataShape((3, 16, 16), 3, 6, 4, stored_bytes=0)
    with pytest.raises(
        ValueError, match=r"data imagenet: .* has 3 classes and 6 \+ 4 images, not 1000 .*; write data: {name"
    ):
        load("imagenet", args)  # its plan would be for as many as ImageNet has
    for file in (tmp_path / "val").rglob("*.png"):
        file.unlink()
    for attempt in (load, shape_of):
        with pytest.raises(ValueError, match=r"data images: no images in .*val; it should hold CLASS/"):
            attempt("images", args)


def noisy(folder: Path, name: str, breadth: int, height: int, mode: str = "RGB") -> Path:
    """An image file without any regularity; a JPEG is what its decoder makes of it."""
    from PIL import Image

    values = np.random.default_rng(breadth).integers(0, 256, (height, breadth, 3), np.uint8)
    Image.fromarray(values).convert(mode).save(folder / name)
    return folder / name


def test_stored_images_are_read_as_they_are_asked_for(tmp_path):
    files = [noisy(tmp_path, f"{i}.png", 9 + i, 8) for i in range(3)]
    found = images.Images([*files, tmp_path / "none.png"], 4)
    assert (len(found), found.shape) == (4, (4, 3, 4, 4))
    data = Dataset(found, np.arange(4) % 2, found, np.arange(4) % 2)
    assert data.shape == DataShape((3, 4, 4), 2, 4, 4, stored_bytes=0)
    files[1].write_bytes(files[2].read_bytes())
    one, two = Source(found).take(np.array([1, 2]))
    assert torch.equal(one, two), "nothing was read before"
    with pytest.raises(ValueError, match=r"image .*none.png failed: FileNotFoundError"):
        Source(found).take(np.array([3]))
    files[0].write_bytes(b"\x89PNG")
    with pytest.raises(ValueError, match=r"image .*0.png failed: UnidentifiedImageError"):
        Source(found).take(np.array([0]))
    files[0].write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n")
    with pytest.raises(ValueError, match=r"failed: UnidentifiedImageError"):  # and it does not start Ghostscript
        Source(found).take(np.array([0]))


@pytest.mark.parametrize(
    ("name", "breadth", "height", "mode"),
    [("a.jpg", 61, 47, "RGB"), ("b.png", 33, 90, "L"), ("c.png", 18, 18, "RGB"), ("d.png", 40, 30, "P")],
)
def test_an_image_is_what_torchvisions_transforms_make_of_it(tmp_path, name, breadth, height, mode):
    """Resize, CenterCrop, ToTensor and Normalize, by hand. With torchvision, the same bits from itself."""
    from PIL import Image

    size, file = 16, noisy(tmp_path, name, breadth, height, mode)
    found = Source(images.Images([file], size)).take(np.array([0]))[0]
    image = Image.open(file).convert("RGB")
    scaled = (18, int(18 * height / breadth)) if breadth <= height else (int(18 * breadth / height), 18)
    left, top = (round((side - size) / 2.0) for side in scaled)
    image = image.resize(scaled, Image.Resampling.BILINEAR).crop((left, top, left + size, top + size))
    x = torch.from_numpy(np.array(image).transpose(2, 0, 1)).to(torch.float32).div(255)
    mean, deviation = (torch.tensor(v)[:, None, None] for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    assert torch.equal(found, x.sub(mean).div(deviation))


def test_an_image_is_torchvisions(tmp_path):
    transforms = pytest.importorskip("torchvision.transforms", exc_type=ImportError)
    from PIL import Image

    file = noisy(tmp_path, "a.jpg", 61, 47)
    steps = [transforms.Resize(18), transforms.CenterCrop(16), transforms.ToTensor()]
    steps.append(transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    expected = transforms.Compose(steps)(Image.open(file).convert("RGB"))
    assert torch.equal(Source(images.Images([file], 16)).take(np.array([0]))[0], expected)
