"""The ranks that remain of a training when workers are lost, and what they begin the next part with.

Rule: the remaining ranks do everything here together, in the same order. A rank may be lost at any moment, so what they
have prepared counts only once all of them have agreed that they have it.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import numpy as np

from .algorithms.rounds import State
from .handover import Division, Handover
from .job import Job
from .kept_syncs import KeptSyncs
from .program.errors import WorkerLost, are_lost
from .records.recoveries import Recovery
from .recovering import decided
from .runtime import ulfm


class NextPart(NamedTuple):
    """What a rank begins the next part of a training with."""

    job: Job
    state: State
    worker: Any
    handover: Handover
    lost: tuple[int, ...]  # the workers lost since the part before began, by their numbers when the command began
    redone: int  # rounds that some worker had done, and that are lost

    def recovery(self, at: float, seconds: float) -> Recovery:
        """The entry for the run's records. at, seconds: see Recovery."""
        return Recovery(
            how="shrink",
            lost=self.lost,
            workers=self.job.workers,
            at=at,
            from_round=self.state.round,
            redone=self.redone,
            seconds=seconds,
        )

    def lines(self) -> list[str]:
        """What was lost and how the others go on, for the user."""
        again = f", and {self.redone} round{'s are' if self.redone > 1 else ' is'} done again" if self.redone else ""
        head = f"{are_lost(self.lost)}: the others go on from the sync after round {self.state.round}{again}"
        return [head, *self.handover.lines(self.lost)]


class Survivors:
    """The ranks of a training that are left. They keep the last syncs, to go back to.

    members: the present part's workers, by their numbers when the command began.
    """

    def __init__(self, comm: Any, members: Sequence[int]) -> None:
        self.comm, self.members = comm, members
        self.kept = KeptSyncs()
        self._left = [*range(len(members))]  # those that are left, by their numbers in the present part

    def sync(self, worker: int, seconds: float, effect: Any) -> None:
        """Keep a sync: the Hooks.sync of a run."""
        self.kept.keep(effect.state, effect.snapshot())

    def next_part(self, job: Job) -> NextPart:
        """Make the next part, of the ranks that are left, after all of them have come out of the part before.

        job: the part before's. WorkerLost where these workers cannot go on.
        """
        while True:
            following = self._shrunk(job)
            prepared: NextPart | None = None
            with suppress(WorkerLost), ulfm.noticing(self.comm):
                prepared = self._prepared(job, following)
            if ulfm.agreed(self.comm, prepared is not None) and prepared is not None:
                self.members = [self.members[worker] for worker in self._left]
                self._left = [*range(len(self.members))]
                self.kept.restart(prepared.state, prepared.worker.snapshot())
                return prepared

    def _shrunk(self, job: Job) -> Job:
        """Leave the lost ranks out; the job of the others."""
        self.comm, lost = ulfm.without_lost(self.comm)
        self._left = [worker for place, worker in enumerate(self._left) if place not in lost]
        spec, gone = job.scenario.recovery, self._gone(job)
        spec = spec.model_copy(update={"max_restarts": 1})  # a restart is for the launcher to decide
        decision, following = decided(job, spec, gone, 0)
        if following is None:
            lost = self._named(gone)
            raise WorkerLost(f"{are_lost(lost)}, and the others cannot go on by themselves: {decision.why}", lost)
        return following

    def _prepared(self, job: Job, following: Job) -> NextPart:
        round, newest = self._rounds()
        state, arrays = self.kept.at(round)
        following.problem.began_with = job.problem.began_with
        following.problem.hosts = tuple(job.problem.hosts[worker] for worker in self._left)
        handover = Handover(Division.of(job.plan), following.plan, [*self._left])
        rank = self.comm.Get_rank()
        worker = make_worker(following, rank, resumed=True)
        worker.restore(handover.snapshot(rank, lambda earlier: arrays, worker.snapshot()))
        return NextPart(
            following, handover.state(state), worker, handover, self._named(self._gone(job)), newest - round
        )

    def _gone(self, job: Job) -> list[int]:
        return [worker for worker in range(job.workers) if worker not in self._left]

    def _rounds(self) -> tuple[int, int]:
        """(the sync that all have, the newest that any has), as numbers of rounds."""
        from mpi4py import MPI

        found = np.array([self.kept.newest, -self.kept.newest])
        self.comm.Allreduce(MPI.IN_PLACE, found, MPI.MIN)
        return int(found[0]), int(-found[1])

    def _named(self, workers: Sequence[int]) -> tuple[int, ...]:
        """Workers of the present part, by their numbers when the command began."""
        return tuple(self.members[worker] for worker in workers)


def make_worker(job: Job, rank: int, resumed: bool) -> Any:
    """The worker of a rank. resumed: whether what it begins with will be replaced."""
    if job.scenario.train.phantom:
        return job.problem.phantoms(job.plan)[rank]
    (worker,) = job.problem.workers(job.plan, [rank], shared_process=False, resumed=resumed)
    return worker
