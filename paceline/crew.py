"""The workers of a training that is started again and again: which rank is which, and which are left out."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING

from .records.recoveries import Recovery, numbers

if TYPE_CHECKING:
    from .runtime.launcher import End


class Crew:
    """The workers of one training, by their numbers when the command began."""

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self.now = list(range(workers))  # the worker of each rank
        self.gone: set[int] = set()  # those that are left out
        self._unstarted: tuple[int, ...] | None = None  # the ranks that have failed before the first step, just before

    def failed(self, end: End, stepped: bool) -> bool:
        """Whether the ranks of a job were lost before their first step, and would be lost there again.

        A crash would come again; anything else may be an accident, unless it happens twice.
        """
        before, self._unstarted = self._unstarted, None if stepped else end.ranks
        return not stepped and (end.again or before == end.ranks)

    def numbers(self, ranks: Sequence[int]) -> list[int]:
        """The workers of some ranks. More ranks may have been started than there are workers."""
        return [self.now[rank] for rank in ranks if rank < len(self.now)]

    def on_host(self, ranks: Sequence[int], nodes: Sequence[Hashable]) -> list[int]:
        """The ranks on the nodes of some ranks. nodes: the node of each rank."""
        lost = {nodes[rank] for rank in ranks if rank < len(nodes)}
        return [rank for rank in range(len(self.now)) if nodes[rank] in lost]

    def go_on(self, recoveries: Sequence[Recovery]) -> list[int]:
        """The next job's workers. Returns those to leave out, by their numbers in the scenario that it goes on with.

        recoveries: what the run's record tells since the command began; its scenario has the workers after them.
        """
        there = numbers(self.workers, recoveries)
        self.now = [worker for worker in there if worker not in self.gone]
        return [place for place, worker in enumerate(there) if worker in self.gone]
