"""What a rank can go back to when a worker is lost: the state and its worker's snapshot at the last two syncs.

Why two: a collective may succeed on one rank and fail on another, so ranks may differ by one sync.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping

import numpy as np

from .algorithms.rounds import State
from .program.effects import Array


class KeptSyncs:
    """Copies of the last two syncs. A third one is written over the first."""

    def __init__(self) -> None:
        self._kept: list[tuple[State, dict[str, Array]]] = []  # the newest last

    def keep(self, state: State, arrays: Mapping[str, Array]) -> None:
        """Copy a sync. arrays: the worker's snapshot."""
        over = self._kept.pop(0)[1] if len(self._kept) == 2 else {}
        self._kept.append((copy.copy(state), {name: _copied(array, over.get(name)) for name, array in arrays.items()}))

    def restart(self, state: State, arrays: Mapping[str, Array]) -> None:
        """Keep this sync alone, with which other workers begin."""
        self._kept = []
        self.keep(state, arrays)

    @property
    def newest(self) -> int:
        """The number of rounds at the newest sync."""
        return self._kept[-1][0].round

    def at(self, round: int) -> tuple[State, dict[str, Array]]:
        """The state and the snapshot after so many rounds."""
        return next((state, arrays) for state, arrays in reversed(self._kept) if state.round == round)

    @property
    def nbytes(self) -> int:
        """The bytes of the copies."""
        return sum(array.nbytes for _, arrays in self._kept for array in arrays.values())


def _copied(array: Array, over: Array | None) -> Array:
    """A copy; in the memory of `over`, where that fits, since fresh memory takes longer to write to."""
    if over is None or over.shape != array.shape or over.dtype != array.dtype:
        return array.copy()
    np.copyto(over, array)
    return over
