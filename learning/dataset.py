"""A data set in memory or in files, and its shape: what readers make and workers train on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from ..program.effects import Array
from .trees import Tree, leaves, mapped

Shape = tuple[int, ...]
Kind = np.dtype[Any]
REAL, WHOLE = np.dtype(np.float32), np.dtype(np.int64)


def batch_kind(stored: Kind, target: bool = False) -> Kind:
    """The type in which values that are stored in another one reach the model or the loss.

    Real numbers become float32, and later take the precision of the model. Bytes (uint8) of an input are an image's,
    and become float32 as well. Other whole numbers are tokens or labels and become int64. Truth values stay.
    """
    if stored.kind == "b":
        return stored
    return WHOLE if stored.kind in "iu" and (target or stored != np.uint8) else REAL


@dataclass(frozen=True)
class DataShape:
    """What a timing-only run needs of a data set."""

    input_shape: Any  # a Shape, of one example's input; of several inputs a tuple or a dict of them
    classes: int | None  # outputs that a model needs; None where the targets do not say
    train: int  # examples in the training set
    test: int  # examples in the test set
    stored_bytes: int | None = None  # of one example's inputs in memory; 0: in files only; None: as in a batch
    target_shape: Shape = ()  # of one example's target
    target_bytes: int = 8  # of one example's target in memory
    kinds: Tree[str] = "float32"  # types of the inputs in a batch, a tree like input_shape

    def __post_init__(self) -> None:
        if self.stored_bytes is None:
            object.__setattr__(self, "stored_bytes", self.batch_bytes)

    @property
    def inputs(self) -> list[tuple[Shape, str]]:
        """(shape of an example, type in a batch) of each input."""
        # A shape is a tuple itself, so `kinds` tells whether there are several.
        every = [self.input_shape] if isinstance(self.kinds, str) else leaves(self.input_shape)
        return list(zip(every, leaves(self.kinds), strict=True))

    @property
    def batch_bytes(self) -> int:
        """Bytes of one example's inputs in a batch."""
        return sum(np.dtype(kind).itemsize * math.prod(shape) for shape, kind in self.inputs)

    @property
    def targets(self) -> int:
        """Targets of an example."""
        return math.prod(self.target_shape)

    @property
    def nbytes(self) -> int:
        """Bytes of all examples in memory."""
        assert self.stored_bytes is not None, "set in the beginning"
        return (self.train + self.test) * (self.stored_bytes + self.target_bytes)


@runtime_checkable
class Stored(Protocol):
    """Examples that are made when they are taken, a few at a time: arrays (examples, *shape) of one type."""

    shape: Shape  # of all of them: (examples, *shape of one)
    dtype: Kind  # of what is taken; see batch_kind
    stored_bytes: int  # of one example in memory; 0 where the examples stay in their files

    def __len__(self) -> int: ...

    def take(self, indices: Array, out: Array, /) -> None:
        """Write the examples at these places into `out`, (len(indices), *shape[1:]). Threads may call it at once."""


class Packed:
    """Examples in the type in which they are stored, in memory or mapped from files. They are converted when taken.

    pieces: arrays (examples, *shape) of one type, which follow one another. They are neither copied nor changed.
    scale, shift: float32, broadcast over an example. The float32 values are x / scale - shift; without a scale, x.
    """

    def __init__(
        self, pieces: Sequence[Array], scale: Array | None = None, shift: Array | None = None, dtype: Kind = REAL
    ) -> None:
        self.pieces = [np.asarray(piece) for piece in pieces]  # of a mapped file, plain arrays: they cost less to use
        self._scale, self._shift, self.dtype = scale, shift, dtype
        self.shape: Shape = (sum(map(len, pieces)), *pieces[0].shape[1:])
        self.stored_bytes = example_bytes(pieces[0])

    def __len__(self) -> int:
        return self.shape[0]

    def take(self, indices: Array, out: Array) -> None:
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
        whole = np.empty(self.shape, self.dtype)
        self.take(np.arange(len(self)), whole)
        return whole if dtype is None else whole.astype(dtype, copy=False)


def example_bytes(x: Array | Stored) -> int:
    """Bytes of one example in memory."""
    return x.itemsize * math.prod(x.shape[1:]) if isinstance(x, np.ndarray) else x.stored_bytes


def kind_of(x: Array | Stored, target: bool = False) -> Kind:
    """The type of the values in a batch."""
    return batch_kind(x.dtype, target) if isinstance(x, np.ndarray) else x.dtype


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
    """Examples to train with and to test with.

    train_x, test_x: the inputs, (examples, *shape of one), images as channels x height x width. A model with several
        inputs is given a tuple of them and called with each in its place, or a dict and called with each by its name.
    train_y, test_y: the targets, (examples, *shape of one): labels of examples, of pixels or of places in a sequence,
        real numbers, truth values. Of numbers of any type; see batch_kind.
    classes: outputs that a model needs. None: one for each label from 0 to the highest, where targets in arrays are
        labels, and otherwise unknown.
    pixels: of images, how their values follow from bytes; None: they do not, or nothing is known of it.
    notes: what a reader of the results must know: a line each.
    """

    train_x: Tree[Array | Stored]
    train_y: Array | Stored
    test_x: Tree[Array | Stored]
    test_y: Array | Stored
    classes: int | None = field(default=None, kw_only=True)
    pixels: Pixels | None = field(default=None, kw_only=True)
    notes: tuple[str, ...] = field(default=(), kw_only=True)

    @property
    def shape(self) -> DataShape:
        """Its numbers."""
        x, y = self.train_x, self.train_y
        return DataShape(
            mapped(lambda leaf: leaf.shape[1:], x),
            self.classes or labels_of(y, self.test_y),
            len(y),
            len(self.test_y),
            sum(map(example_bytes, leaves(x))),
            y.shape[1:],
            example_bytes(y),
            mapped(lambda leaf: kind_of(leaf).name, x),
        )


def labels_of(*targets: Array | Stored) -> int | None:
    """How many labels there are from 0 to the highest; None where targets are not labels in arrays."""
    there = [y for y in targets if isinstance(y, np.ndarray) and y.dtype.kind in "iu"]
    highest = max((int(y.max()) for y in there if y.size), default=-1)
    return highest + 1 if len(there) == len(targets) and highest >= 0 else None
