"""CIFAR-10 and CIFAR-100 from their official binary files, unpacked or in their archive. Nothing is downloaded, nothing
is unpickled, and nothing of an archive is written to disk.

Images stay bytes. Unpacked files are mapped, so all processes of a host share one copy of them, the system's own. What
is in an archive is unpacked into the memory of each process.

A. Krizhevsky, "Learning multiple layers of features from tiny images", 2009, https://www.cs.toronto.edu/~kriz/cifar.html
"""

from __future__ import annotations

import hashlib
import tarfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from . import raw_files
from .dataset import Dataset, DataShape, Packed, Pixels

PAGE = "https://www.cs.toronto.edu/~kriz/cifar.html"
PIXELS = 3 * 32 * 32


@dataclass(frozen=True)
class BinaryFormat:
    """The files of one of the two data sets."""

    archive: str
    archive_md5: str  # as PAGE publishes it
    train: tuple[str, ...]
    test: tuple[str, ...]
    labels: int  # bytes of labels before each image; the last label is the class
    classes: int
    mean: tuple[float, float, float]  # per channel, of values in [0, 1]
    deviation: tuple[float, float, float]
    # Of the files, where they are known. Of other unpacked files, the sizes, the labels and the number of examples in
    # each class are verified.
    md5: dict[str, str]

    @property
    def record(self) -> int:
        """Bytes of one example."""
        return self.labels + PIXELS


# CIFAR-10's normalisation is the one in common use, of the released code of the papers that Paceline follows; its
# checksums are those that several independent projects ship.
FORMATS = {
    "cifar10": BinaryFormat(
        "cifar-10-binary.tar.gz",
        "c32a1d4ab5d03f1284b67883e8d87530",
        tuple(f"data_batch_{i}.bin" for i in range(1, 6)),
        ("test_batch.bin",),
        1,
        10,
        (0.4914, 0.4822, 0.4465),
        (0.2023, 0.1994, 0.2010),
        {
            "data_batch_1.bin": "5dd7e06a14cb22eb9f671a540d1b7c25",
            "data_batch_2.bin": "5ea93a67294ea407fff1d09f752e9692",
            "data_batch_3.bin": "942cd6a4bcdd0dd3c604fbe906cb4421",
            "data_batch_4.bin": "ae636b3ba5c66a11e91e8cb52e771fcb",
            "data_batch_5.bin": "53f37980c15c3d472c316c40844f3f0d",
            "test_batch.bin": "803d5f7f4d78ea53de84dbe85f74fb6d",
        },
    ),
    "cifar100": BinaryFormat(
        "cifar-100-binary.tar.gz",
        "03b5dce01913d631647c71ecec9e9cb8",
        ("train.bin",),
        ("test.bin",),
        2,
        100,
        (0.5071, 0.4865, 0.4409),
        (0.2673, 0.2564, 0.2762),
        {},
    ),
}
TRAIN, TEST = 50_000, 10_000


def shape(name: str, *, path: str | None = None, verify: bool = True) -> DataShape:
    """The official numbers, for which no file is needed; without `verify`, those of the files' sizes."""
    kind, train, test = FORMATS[name], TRAIN, TEST
    if not verify:
        found = _contents(name, path, verify)
        train, test = (sum(len(found[file]) // kind.record for file in part) for part in _parts(kind))
    return DataShape((3, 32, 32), kind.classes, train, test, PIXELS)


def load(name: str, *, path: str | None = None, verify: bool = True) -> Dataset:
    """The data in the folder `path`, normalised per channel. verify: compare them with the official files.

    ValueError of one line: a file is missing, or holds something else.
    """
    kind, made = FORMATS[name], list[Packed | NDArray[np.int64]]()
    scale = np.array([255 * deviation for deviation in kind.deviation], np.float32)[:, None, None]
    shift = np.array([m / d for m, d in zip(kind.mean, kind.deviation, strict=True)], np.float32)[:, None, None]
    found = _contents(name, path, verify)
    for part, total in zip(_parts(kind), (TRAIN, TEST), strict=True):
        rows = [_rows(file, found[file], kind, total // len(part) if verify else None) for file in part]
        y = np.concatenate([each[:, kind.labels - 1] for each in rows]).astype(np.int64)
        if verify and set(np.bincount(y, minlength=kind.classes)) != {total // kind.classes}:
            raise ValueError(f"{', '.join(part)}: the classes are not equally frequent, as they are in {kind.archive}")
        images = [each[:, kind.labels :].reshape(-1, 3, 32, 32) for each in rows]  # views: nothing is copied
        made += [Packed(images, scale, shift), y]
    return Dataset(*made, classes=kind.classes, pixels=Pixels(scale, shift))


def _parts(kind: BinaryFormat) -> tuple[tuple[str, ...], tuple[str, ...]]:
    return kind.train, kind.test


def _contents(name: str, path: str | None, verify: bool) -> dict[str, NDArray[np.uint8]]:
    """The bytes of each file, by its name: of those in the folder, mapped, else of those in the archive there.

    verify: compare the archive's MD5 checksum.
    """
    kind = FORMATS[name]
    files = kind.train + kind.test
    wanted = f"{', '.join(files)} of {kind.archive} from {PAGE}"
    if path is None:
        raise ValueError(f"data {name} needs a path: a folder with {wanted}")
    missing = [file for file in files if not (Path(path) / file).is_file()]
    if not missing:
        return {file: raw_files.mapped(Path(path) / file) for file in files}
    archive = Path(path) / kind.archive
    if not archive.is_file():
        raise ValueError(
            f"data {name}: no file {Path(path) / missing[0]}; the folder must hold {wanted}, or that archive itself"
        )
    if verify:
        with archive.open("rb") as file:
            found = hashlib.file_digest(file, raw_files.md5).hexdigest()
        raw_files.compare(str(archive), found, kind.archive_md5, f"get it again from {PAGE}")
    try:
        return _unpacked(archive, files)
    except (tarfile.TarError, OSError, EOFError, zlib.error, KeyError) as error:
        raise ValueError(f"{archive} is not an archive with {', '.join(files)}: {error}") from error


def _unpacked(archive: Path, files: Sequence[str]) -> dict[str, NDArray[np.uint8]]:
    """The bytes of these files of the archive, which is read once, from its beginning to its end."""
    found = dict[str, NDArray[np.uint8]]()
    with tarfile.open(archive, mode="r:gz") as opened:
        for member in opened:
            name = Path(member.name).name
            if member.isfile() and name in files:
                found[name] = np.frombuffer(opened.extractfile(member).read(), np.uint8)  # type: ignore[union-attr]
    return {file: found[file] for file in files}


def _rows(file: str, content: NDArray[np.uint8], kind: BinaryFormat, count: int | None) -> NDArray[np.uint8]:
    """uint8 (examples, record), a view. count: how many there must be, None for any whole number."""
    expected = f"{kind.labels + PIXELS} bytes for each of {'its' if count is None else count} examples"
    if not len(content) or len(content) % kind.record or (count is not None and len(content) != count * kind.record):
        raise ValueError(f"{file} has {len(content)} bytes; expected {expected}")
    if count is not None and file in kind.md5:
        raw_files.compare(file, raw_files.md5(content).hexdigest(), kind.md5[file], f"unpack {kind.archive} again")
    raw = content.reshape(-1, kind.record)
    highest = int(raw[:, kind.labels - 1].max())
    if highest >= kind.classes:
        raise ValueError(f"{file} holds the label {highest}; {kind.classes} classes count from 0")
    return raw
