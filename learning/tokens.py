"""Tokens in files: long rows of them on disk, cut into sequences when they are used.

An example is `sequence` tokens in a row. Its target is the same shifted by one: the token that comes after each one.
Nothing is copied: an example is a view of its file, which all processes of a host share.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..program.effects import Array
from . import npz, raw_files, user_code
from .dataset import WHOLE, Dataset, DataShape, Packed
from .model_arguments import MOST
from .recipe import TIMING_ONLY

PIECE = 1 << 24  # tokens that are looked at in one go
Rows = tuple[Array, Array]  # training tokens, test tokens


@dataclass(frozen=True)
class Cut:
    """How rows of tokens become examples."""

    sequence: int  # tokens of an example
    stride: int | None = None  # tokens from the beginning of one example to that of the next; None: the sequence
    test_share: float = 0.1  # of a single row, at its end, that is the test set
    train: int | None = None  # the most training examples; None: as many as there are
    test: int | None = None  # the most test examples

    @property
    def step(self) -> int:
        """The stride in tokens."""
        return self.stride or self.sequence

    def lengths(self, tokens: int) -> tuple[int, int]:
        """Of a single row of so many tokens, how many are for training and how many for testing."""
        test = int(tokens * self.test_share)
        return tokens - test, test

    def parts(self, row: Array) -> Rows:
        """A single row cut into one for training and one for testing: views."""
        at, _ = self.lengths(len(row))
        return row[:at], row[at:]

    def shape(self, lengths: tuple[int, int], vocabulary: int, itemsize: int, what: str) -> DataShape:
        """The shape of the examples of two rows of so many tokens. ValueError where a row is too short for one."""
        counts = list[int]()  # of training and of test examples
        for part, tokens, most in zip(("training", "test"), lengths, (self.train, self.test), strict=True):
            if tokens <= self.sequence:
                raise ValueError(
                    f"{what}: its {part} set has {tokens} tokens, and a sequence of {self.sequence} needs one more; "
                    "write a smaller sequence, or another test_share"
                )
            counts.append(min((tokens - self.sequence - 1) // self.step + 1, most or tokens))
        stored, each = itemsize * min(self.step, self.sequence), (self.sequence,)
        return DataShape(
            each, vocabulary, counts[0], counts[1], stored, target_shape=each, target_bytes=0, kinds="int64"
        )

    def dataset(self, rows: Rows, vocabulary: int, what: str, notes: tuple[str, ...] = ()) -> Dataset:
        """The examples of the two rows. ValueError as `shape`."""
        known = self.shape((len(rows[0]), len(rows[1])), vocabulary, rows[0].itemsize, what)
        made = list[Packed]()
        for row, count in zip(rows, (known.train, known.test), strict=True):
            both = np.lib.stride_tricks.sliding_window_view(row, self.sequence + 1)[:: self.step][:count]
            made += [Packed([both[:, :-1]], dtype=WHOLE), Packed([both[:, 1:]], dtype=WHOLE)]
            made[-2].stored_bytes, made[-1].stored_bytes = known.stored_bytes or 0, 0  # they share their memory
        return Dataset(*made, classes=vocabulary, notes=notes)


def load(
    *,
    path: str | Mapping[str, str] | None = None,
    dtype: str = "uint16",
    vocabulary: int | None = None,
    sequence: int = 512,
    stride: int | None = None,
    test_share: float = 0.1,
    train: int | None = None,
    test: int | None = None,
) -> Dataset:
    """The examples of a token file, whose end is the test set, or of two files.

    path: a file, or {"train": a file, "test": a file}. dtype: of a file that is not .npy.
    vocabulary: how many tokens there are; None: the highest one in the files + 1. Others: see Cut.
    ValueError of one line: a file is missing, damaged or too short, or has a token beyond the vocabulary.
    """
    if path is None:
        raise ValueError(f"data tokens without a path is for timing-only runs: write path: FILE, or {TIMING_ONLY}")
    cut = Cut(sequence, stride, test_share, train, test)
    rows, what = read(path, dtype, cut), _named(path)
    return cut.dataset(rows, counted(rows, vocabulary, what), what)


def shape(
    *,
    path: str | Mapping[str, str] | None,
    dtype: str,
    vocabulary: int | None,
    sequence: int,
    stride: int | None,
    test_share: float,
    train: int | None,
    test: int | None,
) -> DataShape:
    """The shape of these examples. Where the vocabulary is given, only the files' lengths are looked at.

    Without a path it is that of examples that need not exist, as many as `train` and `test` say.
    """
    if path is None:
        return DataShape(
            (sequence,), vocabulary or 256, train or 1_000_000, test or 10_000, target_shape=(sequence,), kinds="int64"
        )
    cut = Cut(sequence, stride, test_share, train, test)
    rows, what = read(path, dtype, cut), _named(path)
    known = vocabulary or counted(rows, None, what)
    return cut.shape((len(rows[0]), len(rows[1])), known, rows[0].itemsize, what)


def read(path: str | Mapping[str, str], dtype: str, cut: Cut) -> Rows:
    """The tokens of one file, cut in two, or of two files: mapped."""
    if isinstance(path, str):
        return cut.parts(row(Path(path), dtype))
    if set(path) != {"train", "test"} or not all(isinstance(file, str) for file in path.values()):
        raise ValueError(f"data tokens: path is {dict(path)!r:.60}; write a file, or {{train: FILE, test: FILE}}")
    rows = row(Path(path["train"]), dtype), row(Path(path["test"]), dtype)
    if rows[0].dtype != rows[1].dtype:
        raise ValueError(f"{_named(path)} hold {rows[0].dtype} and {rows[1].dtype}; write both in one type")
    return rows


def row(file: Path, dtype: str) -> Array:
    """A file's tokens, 1-D and mapped. dtype: of a file that is not .npy; those say themselves what they hold."""
    content = raw_files.mapped(file)
    if file.suffix != ".npy":
        kind = _unsigned(dtype)
        if len(content) % kind.itemsize:
            raise ValueError(f"{file} has {len(content)} bytes, and a token of {kind} takes {kind.itemsize}; see dtype")
        return content.view(kind)
    with file.open("rb") as opened:
        shape, _, kind = user_code.call(npz.header, f"{file}: reading its header", opened)
        values = content[opened.tell() :]
    if kind.kind != "u" or len(shape) != 1:
        raise ValueError(f"{file} holds {kind} {shape}; expected one row of tokens of an unsigned type, like uint16")
    if len(values) != math.prod(shape) * kind.itemsize:
        raise ValueError(f"{file}: its header says {kind} {shape}, and {len(values)} bytes follow; write it again")
    return values.view(kind)


def counted(rows: Rows, vocabulary: int | None, what: str) -> int:
    """How many tokens there are: `vocabulary`, or the highest in the rows + 1. ValueError where one is beyond it.

    The rows are read through, unless their type has no number beyond it.
    """
    if vocabulary is not None and int(np.iinfo(rows[0].dtype).max) < vocabulary:
        return vocabulary
    pieces = (row[at : at + PIECE] for row in rows for at in range(0, len(row), PIECE))
    highest = max((int(piece.max()) for piece in pieces), default=0)
    if highest >= (vocabulary or MOST):
        known = f"the vocabulary is {vocabulary}, counted from 0" if vocabulary else f"tokens go from 0 to {MOST - 1}"
        raise ValueError(f"{what}: it holds the token {highest}; {known}")
    return vocabulary or highest + 1


def _unsigned(dtype: str) -> np.dtype[np.unsignedinteger]:
    try:
        found = np.dtype(dtype)
    except TypeError:
        found = np.dtype(object)
    if found.kind != "u":
        raise ValueError(f"data tokens: dtype is {dtype!r:.60}; write uint8, uint16, uint32 or uint64")
    return found


def _named(path: str | Mapping[str, str]) -> str:
    return path if isinstance(path, str) else " and ".join(path.values())
