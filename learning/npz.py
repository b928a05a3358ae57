"""Data in a .npz file with x_train, y_train, x_test and y_test.

A large array that is not compressed is mapped from the file: then all processes of a host share one copy of it, the
system's own, and only what is used is read. Others are read into the memory of each process.
"""

from __future__ import annotations

import math
import struct
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy

from ..program.effects import Array
from ..program.errors import brief
from . import user_code
from .arrays import Given, Head, check_heads, check_labels, checked, checked_classes, kept_kind, noted
from .dataset import Dataset, DataShape, Packed, Pixels, batch_kind, labels_of
from .trees import Tree

KEYS = ("x_train", "y_train", "x_test", "y_test")  # the names that .npz files use, after Keras
LARGE = 1 << 25  # bytes from which an array is mapped. A smaller one is read, so that its file may change meanwhile
LOCAL_HEADER = 30  # bytes before a member's name in a zip file; their last four are the lengths of name and extra field
BLOCK = 1 << 20  # bytes that are read at a time


def load(path: Path, args: Mapping[str, Any]) -> Dataset:
    """The data in the file, whose bytes are pixels where `args` say so. ValueError of one line where they are wrong."""
    pixels, classes = _pixels(path, args), _classes(path, args)
    with _open(path) as archive:
        arrays = {key: user_code.call(_array, f"{path}: reading {key}", archive, path, key) for key in KEYS}
    kinds = [str(arrays[key].dtype) for key in ("x_train", "x_test")]
    if pixels and kinds != ["uint8", "uint8"]:
        found = " and ".join(kinds)
        raise ValueError(f"{path}: images: true is for bytes (uint8), to divide by 255; x_train and x_test are {found}")
    data = checked(dict[str, Given](arrays), str(path), classes)
    if pixels:
        scale = np.array(255, np.float32)
        train, test = (Packed([np.asarray(x)], scale) for x in (data.train_x, data.test_x))
        return replace(data, train_x=train, test_x=test, pixels=Pixels(scale))
    how = f"write data: {{name: {path}, images: true}}"
    return noted(data, f"data {path}", how) if pixels is None else data


def shape(path: Path, args: Mapping[str, Any]) -> DataShape:
    """The shape of the data in the file, from the arrays' headers and the labels. ValueError as for `load`."""
    _pixels(path, args)
    classes = _classes(path, args)
    with _open(path) as archive:
        heads = {key: user_code.call(_head, f"{path}: reading {key}'s header", archive, key) for key in KEYS}
        check_heads(dict[str, Tree[Head]](heads), str(path))
        if heads["y_train"].dtype.kind in "iu":
            known = {key: user_code.call(_array, f"{path}: reading {key}", archive, path, key) for key in KEYS[1::2]}
            for key, y in known.items():
                check_labels(y, key, str(path))
            classes = classes or labels_of(*known.values())
        x, y = (
            math.prod(head.shape[1:]) * kept_kind(head, _mappable(archive, key), "y" in key).itemsize
            for key, head in heads.items()
            if "train" in key
        )
    first, tests, target = heads["x_train"], heads["x_test"].shape[0], heads["y_train"].shape[1:]
    kind = batch_kind(first.dtype).name
    return DataShape(first.shape[1:], classes, first.shape[0], tests, x, target, y, kind)


def _options(*, images: bool | None = None, classes: int | None = None) -> None:
    """What the data take. images: whether the bytes are pixels, to be scaled to [0, 1]; None: not said.

    classes: outputs of the model; None: one for each label up to the highest, if the targets are labels.
    """


def _classes(path: Path, args: Mapping[str, Any]) -> int | None:
    return checked_classes(user_code.options(_options, args, f"data {path}")["classes"], f"data {path}")


def _pixels(path: Path, args: Mapping[str, Any]) -> bool | None:
    found = user_code.options(_options, args, f"data {path}")["images"]
    if found is not None and not isinstance(found, bool):
        raise ValueError(f"data {path}: images is {brief(found)}; write true or false")
    return found


@contextmanager
def _open(path: Path) -> Iterator[np.lib.npyio.NpzFile]:
    """The archive, known to hold the four arrays."""
    if not path.is_file():
        raise ValueError(f"no file {path}; it should be a .npz file with {', '.join(KEYS)}")
    with path.open("rb") as file:
        try:
            archive: Any = np.load(file, allow_pickle=False)
        except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
            raise ValueError(f"{path} is not an .npz file: {user_code.in_words(error)}") from error
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise ValueError(f"{path} holds a single array; write it with numpy.savez and {', '.join(KEYS)}")
        missing = [key for key in KEYS if key not in archive.files]
        if missing:
            raise ValueError(f"{path} has no {', '.join(missing)}; it holds {', '.join(archive.files) or 'nothing'}")
        yield archive


def _member(archive: np.lib.npyio.NpzFile, key: str) -> zipfile.ZipInfo:
    """The array's place in the archive."""
    return archive.zip.getinfo(f"{key}.npy")  # type: ignore[union-attr]


def _mappable(archive: np.lib.npyio.NpzFile, key: str) -> bool:
    """Whether the array is large and lies in the file as it does in memory: neither compressed nor encrypted."""
    member = _member(archive, key)
    return member.file_size >= LARGE and member.compress_type == zipfile.ZIP_STORED and not member.flag_bits & 1


def _array(archive: np.lib.npyio.NpzFile, path: Path, key: str) -> Array:
    """One array, mapped where that can be. Its checksum is compared either way."""
    shape, fortran, kind = _read_head(archive, key)
    if not _mappable(archive, key):
        found: Array = archive[key]
        return found
    member = _member(archive, key)
    with archive.zip.open(member) as content:  # type: ignore[union-attr]
        while content.read(BLOCK):  # compares the checksum at the end
            pass
    with path.open("rb") as file:
        file.seek(member.header_offset + LOCAL_HEADER - 4)
        file.seek(sum(struct.unpack("<HH", file.read(4))), 1)
        header(file)
        return np.memmap(path, kind, "r", file.tell(), shape, "F" if fortran else "C")


def _head(archive: np.lib.npyio.NpzFile, key: str) -> Head:
    """Shape and type of one array, from its header."""
    shape, _, kind = _read_head(archive, key)
    return Head(shape, kind)


def _read_head(archive: np.lib.npyio.NpzFile, key: str) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """What `_header` gives for the array. ValueError where the header says that it has more or less than it has."""
    member = _member(archive, key)
    with archive.zip.open(member) as file:  # type: ignore[union-attr]
        shape, fortran, kind = header(file)
        held = member.file_size - file.tell()
    if kind.hasobject:
        raise ValueError("it holds Python's objects, which are not loaded; write numbers")
    if math.prod(shape) * kind.itemsize != held:
        raise ValueError(f"its header says {kind} {shape}, and {held} bytes follow; write the file again")
    return shape, fortran, kind


def header(file: Any) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """(shape, whether in Fortran's order, dtype), read from where a .npy begins up to where its numbers begin."""
    version = npy.read_magic(file)
    return npy.read_array_header_1_0(file) if version == (1, 0) else npy.read_array_header_2_0(file)
