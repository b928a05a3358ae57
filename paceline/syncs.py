"""The syncs to which a simulated run can return after a loss: those of its workers' last rounds, and its checkpoints.

They are kept in memory, since a simulation may write nothing. Of a timing-only run, only the states are kept.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from math import inf

import numpy as np

from .algorithms.rounds import State
from .handover import Division
from .program.effects import Array, Checkpoint
from .records.checkpoints import OPTIMIZER, Kept

Snapshot = dict[str, Array]


@dataclass(eq=False)
class Sync:
    """A sync of a part, whose workers are numbered as in this part."""

    state: State
    division: Division  # of the part's work
    left_out: float = 0.0  # virtual seconds that the run's clock does not count up to here: evaluations
    saved: bool = False  # whether it is a checkpoint
    passed: dict[int, float] = field(default_factory=dict)  # worker -> when it came by, in virtual seconds
    snapshots: dict[int, Snapshot] = field(default_factory=dict)  # by worker, where they are kept


class Syncs:
    """Those of one part.

    begin: the sync with which the part begins.
    saved: the newest checkpoint of the parts before, or the beginning of the run.
    earlier: what the run's clock shows more than that of the part's programs.
    numbers: whether the run computes, so that snapshots are needed.
    every: whether workers may return to any sync, not only to a checkpoint.
    """

    def __init__(self, workers: int, begin: Sync, saved: Sync, earlier: float, numbers: bool, every: bool) -> None:
        self._workers, self.begin, self._numbers, self._every = workers, begin, numbers, every
        self._saved, self._earlier = saved, earlier
        self._kept: dict[int, Sync] = {}  # by round, the oldest first

    def keep(self, worker: int, now: float, clock: float, effect: Checkpoint, saved: bool) -> None:
        """A worker comes by a sync; see sim.parts.Keep."""
        assert effect.round is not None
        sync = self._kept.get(effect.round)
        if sync is None:
            # Phantoms share a program, so that the state may have moved on when the next of them comes by.
            state: State = copy.copy(effect.state)
            sync = self._kept[effect.round] = Sync(state, self.begin.division, saved=saved)
        sync.passed[worker] = now
        if worker == 0:
            sync.left_out = now - clock - self._earlier
        if self._numbers and (saved or self._every):
            sync.snapshots[worker] = copied(effect.snapshot())
        if len(sync.passed) == self._workers:
            self._forget(effect.round)

    def _forget(self, round: int) -> None:
        """All workers have passed this round's sync: of earlier ones, only the newest checkpoint may be needed."""
        for earlier in [number for number in self._kept if number < round]:
            sync = self._kept.pop(earlier)
            self._saved = sync if sync.saved else self._saved
        self.begin.snapshots = {}

    def last(self, workers: Collection[int]) -> Sync:
        """The newest sync that all of these workers have passed."""
        common = (sync for sync in self._newest_first() if sync.passed.keys() >= {*workers})
        return next(common, self.begin)

    def checkpoint(self, moment: float) -> Sync:
        """The newest checkpoint that was whole at a moment, or the beginning of the run."""
        whole = (
            sync
            for sync in self._newest_first()
            if sync.saved and len(sync.passed) == self._workers and max(sync.passed.values()) <= moment
        )
        return next(whole, self._saved)

    def reached(self, worker: int, moment: float) -> Sync:
        """The newest sync that a worker had passed by then."""
        passed = (sync for sync in self._newest_first() if sync.passed.get(worker, inf) <= moment)
        return next(passed, self.begin)

    def _newest_first(self) -> Iterator[Sync]:
        return reversed(self._kept.values())


def copied(snapshot: Snapshot) -> Snapshot:
    """The arrays as they are now: some are a worker's own memory."""
    return {name: np.array(array) for name, array in snapshot.items()}


def reader(snapshots: Mapping[int, Snapshot], kept: Kept, fresh: Snapshot) -> Callable[[int], Snapshot]:
    """What gives a worker's snapshot as a checkpoint has it, which keeps no more of the optimizers than `kept` says.

    fresh: the snapshot of a new worker, whose optimizer state is zeros.
    """

    def read(worker: int) -> Snapshot:
        own = snapshots[worker]
        source = {"local": own, "shared": snapshots[0], "none": fresh}[kept]
        others = {name: array for name, array in own.items() if not name.startswith(OPTIMIZER)}
        return others | {name: array for name, array in source.items() if name.startswith(OPTIMIZER)}

    return read
