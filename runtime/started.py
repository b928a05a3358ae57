"""Started effects: what runs beside the program until it waits for it.

One thread serves each group's collectives, another computations and moves, each in the order of starting: the
exchanges of one group match in that order, and those of different groups do not wait for each other. They wait for
messages asleep (polling.py), so that the program keeps the core. The threads are daemons, so a rank that fails can
end. Where MPI does not allow several threads, effects run at their start: the same answers, no overlap.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue
from time import perf_counter
from typing import Any

from ..program.checks import check_startable, group_members, never_waited, waited_twice
from ..program.effects import COLLECTIVES, Collective, Compute, Effect, Move
from ..program.loans import Loan
from .collectives import Collectives
from .emulation import Emulation
from .polling import Polling

Lane = tuple[int, ...] | None  # a group's workers; None for computations and moves


class StartedEffect:
    """One started effect. start, stop: when it ran. error: what Wait is to raise. sent, halt, told: see Collectives."""

    __slots__ = ("answer", "effect", "error", "halt", "loan", "ready", "sent", "start", "stop", "taken", "told")

    def __init__(self, effect: Any, loan: Loan | None) -> None:
        self.effect, self.loan, self.ready = effect, loan, threading.Event()
        self.answer: Any = None
        self.error: BaseException | None = None
        self.start = self.stop = self.sent = 0.0
        self.halt = self.told = self.taken = False


class StartedEffects:
    """One rank's started effects.

    open_lane: makes a Collectives, to be used by one thread only.
    make_emulation: makes an Emulation, in the thread that uses it.
    threads: whether MPI may be called from several threads at a time.
    polling: how lanes wait for messages.
    """

    def __init__(
        self,
        rank: int,
        size: int,
        open_lane: Callable[[], Collectives],
        make_emulation: Callable[[], Emulation | None],
        threads: bool,
        polling: Polling,
    ) -> None:
        self._rank, self._size, self._threads, self._polling = rank, size, threads, polling
        self._open_lane, self._make_emulation = open_lane, make_emulation
        self._queues: dict[Lane, SimpleQueue[StartedEffect | None]] = {}
        self._collectives: dict[Lane, Collectives] = {}
        self._running: list[threading.Thread] = []
        self._emulation: Emulation | None = None
        self.jobs: list[StartedEffect] = []  # those not waited for

    def begin(self, effect: Effect[Any], debug: bool) -> StartedEffect:
        """Start the effect. ProtocolError where it is not one that can be started."""
        check_startable(effect, self._rank)
        lane = group_members(effect, self._rank, self._size) if isinstance(effect, Collective) else None
        job = StartedEffect(effect, Loan(effect, self._rank) if debug else None)
        self.jobs.append(job)
        if lane not in self._queues:
            self._open(lane)
        if self._threads:
            self._queues[lane].put(job)
        else:
            self._perform(lane, job)
        return job

    def wait(self, job: StartedEffect) -> Any:
        """The job's answer, once it is there. Raises what it raised; ProtocolError if it was waited for before."""
        if job.taken:
            raise waited_twice(job.effect, self._rank)
        self._polling.hurried = type(job.effect) in COLLECTIVES
        job.ready.wait()
        self._polling.hurried = False
        job.taken = True
        self.jobs.remove(job)
        if job.error is not None:
            raise job.error
        return job.answer if job.loan is None else job.loan.settle(job.answer)

    def close(self) -> None:
        """Let everything started end, then free what the lanes made. ProtocolError where a Wait is missing."""
        left = [job.effect for job in self.jobs]
        for job in self.jobs:
            job.ready.wait()
        self.leave()
        for thread in self._running:
            thread.join()
        for _, collectives in sorted(self._collectives.items(), key=lambda item: item[0] or ()):
            collectives.close()
        if left:
            raise never_waited(left, self._rank)

    def leave(self) -> None:
        """Let the threads end after what was started, so that nothing of it, a worker's memory, stays with them."""
        for queue in self._queues.values():
            queue.put(None)

    def _open(self, lane: Lane) -> None:
        self._queues[lane] = SimpleQueue()
        if lane is not None:
            self._collectives[lane] = self._open_lane()
        if self._threads:
            thread = threading.Thread(target=self._serve, args=(lane,), daemon=True, name=f"paceline {lane}")
            self._running.append(thread)
            thread.start()
        else:
            self._emulation = self._emulation or self._make_emulation()

    def _serve(self, lane: Lane) -> None:
        if lane is None:
            self._emulation = self._make_emulation()
        while (job := self._queues[lane].get()) is not None:
            self._perform(lane, job)

    def _perform(self, lane: Lane, job: StartedEffect) -> None:
        effect: Any = job.effect if job.loan is None else job.loan.performed
        job.start = perf_counter()
        try:
            if lane is not None:
                collectives = self._collectives[lane]
                job.answer = collectives.perform(effect)
                job.sent, job.halt, job.told = collectives.sent, collectives.halt, collectives.told
            elif type(effect) is Compute:
                job.answer = effect.run()
                if self._emulation is not None:
                    self._emulation(effect.work, job.start, perf_counter())
            else:
                job.answer = moved(effect)
        except BaseException as error:
            job.error = error
        job.stop = perf_counter()
        job.ready.set()


def moved(effect: Move) -> Any:
    """The answer of a Move: what the worker's `copy` makes, else a copy of the array."""
    if effect.copy is not None:
        return effect.copy()
    value: Any = effect.value
    return value.copy() if hasattr(value, "copy") else value
