"""Batches loaded ahead of time, by threads.

Why threads: other threads run while files are read and decoded and while torch computes. Further processes next to
MPI's would have to be started, sent the data and shielded from signals.

Rule: a wrong guess at which batch comes next costs time, and changes no bits.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

import numpy as np

from ..program.effects import Array

T = TypeVar("T")


class AheadLoader(Generic[T]):
    """Calls load(position, indices): in one of `threads` threads for a batch that was announced, else when asked.

    `load` must depend on its arguments alone, and may be called from several threads at once.
    """

    def __init__(self, load: Callable[[int, Array], T], threads: int) -> None:
        self._load, self.threads = load, threads
        self._pool = ThreadPoolExecutor(threads, "paceline loader") if threads else None
        self._begun: dict[int, tuple[Array, Future[T]]] = {}

    def knows(self, position: int) -> bool:
        """Whether the batch at `position` is being loaded."""
        return position in self._begun

    def begin(self, position: int, indices: Array) -> None:
        """Load the batch at `position`, which is likely to be asked for soon."""
        if self._pool is not None:
            self._begun[position] = indices, self._pool.submit(self._load, position, indices)

    def get(self, position: int, indices: Array) -> T:
        """load(position, indices), and what it raises. Positions rise from call to call."""
        expected, future = self._begun.pop(position, (None, None))
        for passed in [place for place in self._begun if place < position]:
            self._begun.pop(passed)[1].cancel()
        if future is None or not np.array_equal(expected, indices):  # type: ignore[arg-type]
            return self._load(position, indices)
        return future.result()
