"""A part of a data set: some of its training examples, drawn once, and all of its test examples."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..program.effects import Array
from ..program.streams import stream
from .dataset import Dataset, Stored
from .trees import mapped


class Part:
    """Some of the examples that are made when they are taken; see Stored. indices: their places."""

    def __init__(self, whole: Stored, indices: Array) -> None:
        self._whole, self._indices = whole, indices
        self.dtype, self.stored_bytes = whole.dtype, whole.stored_bytes
        self.shape = (len(indices), *whole.shape[1:])

    def __len__(self) -> int:
        return len(self._indices)

    def take(self, indices: Array, out: Array) -> None:
        """See Stored."""
        self._whole.take(self._indices[indices], out)


def sampled(whole: Dataset, share: float) -> Dataset:
    """A share of the training examples, which does not depend on a run's seed."""
    count = len(whole.train_y)
    chosen = np.sort(stream(0, "sample of data").permutation(count)[: max(1, round(share * count))])

    def part(x: Array | Stored) -> Array | Stored:
        return x[chosen] if isinstance(x, np.ndarray) else Part(x, chosen)

    return replace(whole, train_x=mapped(part, whole.train_x), train_y=part(whole.train_y), classes=whole.shape.classes)
