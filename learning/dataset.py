"""A data set in memory or in files, and its shape: what readers make and workers train on."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Protocol

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

    @property
    def nbytes(self) -> int:
        """Bytes of all examples, each a float32 input and an int64 label."""
        return (self.train + self.test) * (4 * math.prod(self.input_shape) + 8)


class Stored(Protocol):
    """Examples that are not in memory: they look like float32 (examples, *input_shape), and `take` reads some."""

    shape: tuple[int, ...]

    def __len__(self) -> int: ...

    def take(self, indices: Array, /) -> NDArray[np.float32]:
        """The examples at these places."""


@dataclass(frozen=True, eq=False)
class Dataset:
    """x: float32 (examples, *input_shape), images as channels x height x width. y: int64 labels, (examples,).

    notes: what a reader of the results must know: a line each.
    """

    train_x: NDArray[np.float32] | Stored
    train_y: NDArray[np.int64]
    test_x: NDArray[np.float32] | Stored
    test_y: NDArray[np.int64]
    notes: tuple[str, ...] = field(default=(), kw_only=True)

    @property
    def shape(self) -> DataShape:
        """Its numbers; classes are 0 to the highest label."""
        classes = int(max(self.train_y.max(), self.test_y.max(initial=0))) + 1
        return DataShape(self.train_x.shape[1:], classes, len(self.train_x), len(self.test_x))
