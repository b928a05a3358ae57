"""MNIST and Fashion-MNIST from their four official IDX files, packed (.gz) or not. Nothing is downloaded.

An IDX file begins with two zero bytes, a byte for the type of its values (8: unsigned bytes) and a byte for the number
of dimensions. Then come the sizes, as 4 bytes each, the highest first, and then the values.

Images stay bytes. Unpacked files are mapped, so all processes of a host share one copy of them, the system's own. A .gz
file is unpacked into the memory of each process.

Y. LeCun, L. Bottou, Y. Bengio, P. Haffner, "Gradient-based learning applied to document recognition", 1998.
H. Xiao, K. Rasul, R. Vollgraf, "Fashion-MNIST: a novel image dataset for benchmarking machine learning algorithms",
2017, arXiv 1708.07747.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from . import raw_files
from .dataset import Dataset, DataShape, Packed, Pixels

Part = Literal["train", "t10k"]  # as the files' names begin; t10k is the test set
PARTS: tuple[Part, Part] = ("train", "t10k")
NUMBERS = {"train": 60_000, "t10k": 10_000}  # examples in the official files
KINDS = {"images": "images-idx3-ubyte", "labels": "labels-idx1-ubyte"}  # as the files' names end
IMAGE, CLASSES = (28, 28), 10
SIZES = {"images": IMAGE, "labels": ()}  # of one example
PACKED = ".gz"


@dataclass(frozen=True)
class IdxSet:
    """One of the data sets."""

    page: str  # where the files are
    mean: float  # of the training set's pixels, as values in [0, 1]
    deviation: float
    # Of the unpacked files: Debian, for one, has packed them again, and its .gz files differ. Several independent
    # projects give the same checksums.
    md5: dict[str, str]


# Mean and deviation are those of the training images, in the four digits of common use: MNIST's are in PyTorch's
# example, Fashion-MNIST's were computed again from its files (0.28604, 0.35302).
SETS = {
    "mnist": IdxSet(
        "http://yann.lecun.com/exdb/mnist/",
        0.1307,
        0.3081,
        {
            "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
            "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
            "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
            "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
        },
    ),
    "fashion_mnist": IdxSet(
        "https://github.com/zalandoresearch/fashion-mnist",
        0.2860,
        0.3530,
        {
            "train-images-idx3-ubyte": "f4a8712d7a061bf5bd6d2ca38dc4d50a",
            "train-labels-idx1-ubyte": "9018921c3c673c538a1fc5bad174d6f9",
            "t10k-images-idx3-ubyte": "8181f5470baa50b63fa0f6fddb340f0a",
            "t10k-labels-idx1-ubyte": "15d484375f8d13e6eb1aabb0c3f46965",
        },
    ),
}


def shape(name: str, *, path: str | None = None, verify: bool = True) -> DataShape:
    """The official numbers, for which no file is needed; without `verify`, those of the files."""
    train, test = NUMBERS.values()
    if not verify:
        train, test = (len(_read(name, path, part, verify)[1]) for part in PARTS)
    return DataShape((1, *IMAGE), CLASSES, train, test, math.prod(IMAGE))


def load(name: str, *, path: str | None = None, verify: bool = True) -> Dataset:
    """The data in the folder `path`, normalised. verify: compare them with the official files.

    ValueError of one line: a file is missing, is damaged, or holds something else.
    """
    kind, made = SETS[name], list[Packed | NDArray[np.int64]]()
    scale, shift = (np.asarray(n, np.float32) for n in (255 * kind.deviation, kind.mean / kind.deviation))
    for part in PARTS:
        images, labels = _read(name, path, part, verify)
        made += [Packed([images[:, None]], scale, shift), labels.astype(np.int64)]
    return Dataset(*made, classes=CLASSES, pixels=Pixels(scale, shift))


def _read(name: str, path: str | None, part: Part, verify: bool) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """(images, labels) of the training set or of the test set: uint8 (examples, 28, 28) and (examples,)."""
    files = {kind: _find(name, path, f"{part}-{ending}") for kind, ending in KINDS.items()}
    images, labels = (_values(file, kind, SETS[name], verify) for kind, file in files.items())
    if len(images) != len(labels):
        counted = f"{files['images']} has {len(images)} images and {files['labels'].name} {len(labels)} labels"
        raise ValueError(f"{counted}; they must match")
    highest = int(labels.max())
    if highest >= CLASSES:
        raise ValueError(f"{files['labels']} holds the label {highest}; {CLASSES} classes count from 0")
    return images, labels


def _find(name: str, path: str | None, file: str) -> Path:
    """The file in the folder, or its .gz."""
    wanted = f"{', '.join(SETS[name].md5)} from {SETS[name].page}, each packed (.gz) or not"
    if path is None:
        raise ValueError(f"data {name} needs a path: a folder with {wanted}")
    plain, packed = Path(path) / file, Path(path) / (file + PACKED)
    if not (plain.is_file() or packed.is_file()):
        raise ValueError(f"data {name}: no file {plain} or {packed.name}; the folder must hold {wanted}")
    return plain if plain.is_file() else packed


def _values(file: Path, kind: str, known: IdxSet, verify: bool) -> NDArray[np.uint8]:
    """The file's values, a view. ValueError where they are not as many as the file's beginning says, or none at all."""
    size = SIZES[kind]
    head, each = 4 + 4 * (1 + len(size)), math.prod(size)
    begin, magic = _bytes(file, head)[:head].tobytes(), bytes((0, 0, 8, 1 + len(size)))
    if len(begin) < head or begin[:4] != magic:
        raise ValueError(
            f"{file} begins with the bytes {begin[:4].hex(' ') or '(none)'}; an IDX file of {kind} begins with "
            f"{magic.hex(' ')} and has {head} bytes or more"
        )
    count, *sizes = struct.unpack(f">{1 + len(size)}I", begin[4:])
    if tuple(sizes) != size:
        raise ValueError(f"{file} says that its images have {sizes[0]} x {sizes[1]} pixels; expected 28 x 28")
    if not count:
        raise ValueError(f"{file} has no {kind}")
    promised = count * each
    content = _bytes(file, head + promised)
    held = len(content) - head
    if held != promised:
        found = "more" if held > promised else f"{held}"
        raise ValueError(f"{file} says that it has {count} {kind}, which take {promised} bytes, and holds {found}")
    if verify:
        remedy = f"get it again from {known.page}, or write verify: false for other data of this form"
        expected = known.md5[file.name.removesuffix(PACKED)]
        raw_files.compare(str(file), raw_files.md5(content).hexdigest(), expected, remedy)
    return content[head:].reshape(count, *size)


def _bytes(file: Path, most: int) -> NDArray[np.uint8]:
    """The file's bytes: all, or a few more than `most` where there are more."""
    return raw_files.unpacked(file, most) if file.suffix == PACKED else raw_files.mapped(file)
