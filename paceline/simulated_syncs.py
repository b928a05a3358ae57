"""The syncs to which a simulated run can return after a loss: those of its workers' last rounds, and its checkpoints.

They are kept in memory, since a simulation may write nothing. A timing-only run keeps states without snapshots.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from math import inf

import numpy as np

from .algorithms.rounds import State
from .handover import Division
from .program.effects import Array, Checkpoint

Snapshot = dict[str, Array]


@dataclass(eq=False)
class Sync:
    """A sync of a part, whose workers are numbered as in this part."""

    state: State
    division: Division  # of the part's work
    workers: Sequence[int]  # the part's, by their numbers at the start of the run
    passed: dict[int, float]  # worker -> when it came by, in virtual seconds
    left_out: float = 0.0  # virtual seconds that the run's clock does not count up to here: evaluations
    saved: bool = False  # whether it is a checkpoint
    snapshots: dict[int, Snapshot] = field(default_factory=dict)  # by worker, where they are kept


class Syncs:
    """Those of one part.

    begin: the sync with which the part begins. All workers have passed it.
    saved: the newest checkpoint of the parts before, or the beginning of the run.
    earlier: what the run's clock shows more than that of the part's programs.
    numbers: whether the run computes, so that snapshots are needed.
    every: whether workers may return to any sync, not only to a checkpoint.
    """

    def __init__(self, begin: Sync, saved: Sync, earlier: float, numbers: bool, every: bool) -> None:
        self._saved, self._earlier, self._numbers, self._every = saved, earlier, numbers, every
        self._begin = begin
        self._kept = {begin.state.round: begin}  # the oldest first

    def keep(self, worker: int, now: float, clock: float, effect: Checkpoint, saved: bool) -> None:
        """A worker comes by a sync; see sim.parts.Keep."""
        assert effect.round is not None
        sync = self._kept.get(effect.round)
        if sync is None:
            # Phantoms share a program, so that the state may have moved on when the next of them comes by.
            state: State = copy.copy(effect.state)
            sync = self._kept[effect.round] = replace(self._begin, state=state, passed={}, saved=saved, snapshots={})
        sync.passed[worker] = now
        if worker == 0:
            sync.left_out = now - clock - self._earlier
        if self._numbers and (saved or self._every):
            sync.snapshots[worker] = copied(effect.snapshot())
        if self._whole(sync):
            self._forget(effect.round)

    def _whole(self, sync: Sync) -> bool:
        return len(sync.passed) == len(self._begin.workers)

    def _forget(self, round: int) -> None:
        """Forget what is not needed, since all workers have passed the sync after `round`.

        The sync before it stays: one worker may have passed this one only after another one was lost.
        """
        *earlier, before = (sync for number, sync in self._kept.items() if number < round)
        for sync in earlier:
            del self._kept[sync.state.round]
        if before.saved:
            self._saved = before
        else:
            before.snapshots = {}

    def last(self, workers: Collection[int]) -> Sync:
        """The newest sync that all of these workers have passed."""
        return next(sync for sync in self._newest_first() if sync.passed.keys() >= {*workers})

    def checkpoint(self, moment: float) -> Sync:
        """The newest checkpoint that was whole at a moment, or the beginning of the run."""
        whole = (
            sync
            for sync in self._newest_first()
            if sync.saved and self._whole(sync) and max(sync.passed.values()) <= moment
        )
        return next(whole, self._saved)

    def reached(self, worker: int, moment: float) -> Sync:
        """The newest sync that a worker had passed by then."""
        return next(sync for sync in self._newest_first() if sync.passed.get(worker, inf) <= moment)

    def _newest_first(self) -> Iterator[Sync]:
        return reversed(self._kept.values())


def copied(snapshot: Snapshot) -> Snapshot:
    """The arrays as they are now: some are a worker's own memory."""
    return {name: np.array(array) for name, array in snapshot.items()}
