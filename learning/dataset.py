"""A data set in memory or in files, and its shape: what readers make and workers train on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..program.effects import Array


@dataclass(frozen=True)
class DataShape:
    """What a timing-only run needs of a data set."""

    input_shape: tuple[int, ...]  # of one example
    classes: int
    train: int  # examples in the training set
    test: int  # examples in the test set
    itemsize: int = 4  # bytes of a training input's value as it is stored; 0 where inputs stay in their files
    stored: tuple[int, ...] | None = None  # the shape in which an example is stored; None: input_shape

    @property
    def nbytes(self) -> int:
        """Bytes of all examples in memory: inputs as they are stored, and int64 labels."""
        return (self.train + self.test) * (self.itemsize * math.prod(self.stored or self.input_shape) + 8)


class Stored(Protocol):
    """Examples that become float32 (examples, *input_shape) when they are taken, a few at a time."""

    shape: tuple[int, ...]
    itemsize: int  # bytes of a value in memory; 0 where the examples stay in their files
    stored: tuple[int, ...] | None  # the shape of an example in memory; None: input_shape

    def __len__(self) -> int: ...

    def take(self, indices: Array, out: NDArray[np.float32], /) -> None:
        """Write the examples at these places into `out`, (len(indices), *input_shape). Threads may call it at once."""


class Packed:
    """Examples in the type in which they are stored, in memory or mapped from files. They are converted when taken.

    pieces: arrays (examples, *input_shape) of one type, which follow one another. They are neither copied nor changed.
    scale, shift: float32, broadcast over an example. The float32 values are x / scale - shift; without a scale, x.
    """

    def __init__(self, pieces: Sequence[Array], scale: Array | None = None, shift: Array | None = None) -> None:
        self.pieces = [np.asarray(piece) for piece in pieces]  # of a mapped file, plain arrays: they cost less to use
        self._scale, self._shift = scale, shift
        self.shape: tuple[int, ...] = (sum(map(len, pieces)), *pieces[0].shape[1:])
        self.itemsize = pieces[0].itemsize
        self.stored: tuple[int, ...] | None = None

    def __len__(self) -> int:
        return self.shape[0]

    def take(self, indices: Array, out: NDArray[np.float32]) -> None:
        """See Stored. Each value has the bits that it would have if all examples were converted at once."""
        raw, start = np.empty(out.shape, self.pieces[0].dtype), 0
        for piece in self.pieces:
            here = (indices >= start) & (indices < start + len(piece))
            raw[here] = piece[indices[here] - start]
            start += len(piece)
        out[...] = raw
        if self._scale is not None:
            out /= self._scale
        if self._shift is not None:
            out -= self._shift

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        """All examples as one array, for numpy.asarray."""
        whole = np.empty(self.shape, np.float32)
        self.take(np.arange(len(self)), whole)
        return whole if dtype is None else whole.astype(dtype, copy=False)


@dataclass(frozen=True, eq=False)
class Pixels:
    """How the float32 values x of an image follow from its bytes, 0 to 255: x = bytes / scale - shift."""

    scale: Array | float = 1.0  # float32, broadcast over an image
    shift: Array | float = 0.0

    def to_bytes(self, x: NDArray[np.float32]) -> NDArray[np.uint8]:
        """The nearest bytes. Values between two of them, as scaling gives, are rounded."""
        rounded: NDArray[np.uint8] = np.rint((x + self.shift) * self.scale).clip(0, 255).astype(np.uint8)
        return rounded

    def from_bytes(self, bytes: NDArray[np.uint8]) -> NDArray[np.float32]:
        return bytes.astype(np.float32) / np.float32(self.scale) - np.float32(self.shift)


@dataclass(frozen=True, eq=False)
class Dataset:
    """x: (examples, *input_shape), images as channels x height x width. y: int64 labels, (examples,).

    An x that is an array may be of any type of numbers. Batches of it are float32.
    classes: of a classifier's outputs; None: up to the highest label.
    pixels: of images, how their values follow from bytes; None: they do not, or nothing is known of it.
    notes: what a reader of the results must know: a line each.
    """

    train_x: Array | Stored
    train_y: NDArray[np.int64]
    test_x: Array | Stored
    test_y: NDArray[np.int64]
    classes: int | None = field(default=None, kw_only=True)
    pixels: Pixels | None = field(default=None, kw_only=True)
    notes: tuple[str, ...] = field(default=(), kw_only=True)

    @property
    def shape(self) -> DataShape:
        """Its numbers."""
        classes = self.classes or int(max(self.train_y.max(), self.test_y.max(initial=0))) + 1
        x, stored = self.train_x, None if isinstance(self.train_x, np.ndarray) else self.train_x.stored
        return DataShape(x.shape[1:], classes, len(x), len(self.test_x), x.itemsize, stored)
