"""Started effects: what runs next to the program until the program waits for it.

The collectives of each group have a thread of their own, a *lane*; computations and moves share one more. A lane
performs its effects one after another, in the order of starting. That is how exchanges find each other without tags:
the k-th that one member starts in a group meets the k-th of every other member. Members may start the exchanges of two
groups in different orders, and a lane for both would then wait for ever; hence one for each. A lane has a Collectives
of its own, since MPI, too, matches the collectives of one communicator in order.

Lanes wait for messages asleep (polling.py), so that the program keeps its core. Their threads are daemons, so a rank
that fails can end. Where MPI does not allow several threads, an effect is performed when it is started: the answers are
the same, nothing overlaps.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue
from time import perf_counter
from typing import Any

from ..program.checks import group_members, never_waited, startable, waited_twice
from ..program.effects import COLLECTIVES, Collective, Compute, Effect, Startable
from ..program.loans import Loan
from .collectives import Collectives
from .emulation import Emulation
from .polling import Polling

REVOKING = 0.05  # seconds between two times that a thread's communicators are revoked, if it still runs
Lane = tuple[int, ...] | None  # the workers of a group; None: computations and moves


class StartedEffect:
    """One started effect."""

    __slots__ = ("answer", "effect", "error", "halt", "loan", "ready", "sent", "start", "stop", "taken", "told")

    def __init__(self, effect: Startable, loan: Loan | None) -> None:
        self.effect = effect
        self.loan = loan  # what it has borrowed; None without debug
        self.ready = threading.Event()  # set when it is over
        self.answer: Any = None
        self.error: BaseException | None = None  # what Wait is to raise
        self.start = self.stop = 0.0  # when it ran, by the bare clock
        self.sent, self.halt, self.told = 0.0, False, False  # of a collective: see Collectives
        self.taken = False  # whether the program has the answer


class StartedEffects:
    """One rank's started effects.

    open_lane: makes a Collectives, to be used by one thread only.
    make_emulation: makes an Emulation, in the thread that uses it.
    threads: whether several threads may call MPI at the same time.
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
        self._open: list[StartedEffect] = []  # those not waited for

    def begin(self, effect: Effect[Any], debug: bool) -> StartedEffect:
        """Start the effect. ProtocolError where it is not one that can be started."""
        inner = startable(effect, self._rank)
        lane = group_members(inner, self._rank, self._size) if isinstance(inner, Collective) else None
        started = StartedEffect(inner, Loan(effect, self._rank) if debug else None)
        self._open.append(started)
        if lane not in self._queues:
            self._open_queue(lane)
        if self._threads:
            self._queues[lane].put(started)
        else:
            self._perform(lane, started)
        return started

    def wait(self, started: StartedEffect) -> Any:
        """Wait for a started effect; its answer. Raises what it raised; ProtocolError if it was waited for before."""
        if started.taken:
            raise waited_twice(started.effect, self._rank)
        self._polling.hurried = type(started.effect) in COLLECTIVES
        started.ready.wait()
        self._polling.hurried = False
        started.taken = True
        self._open.remove(started)
        if started.error is not None:
            raise started.error
        return started.answer if started.loan is None else started.loan.settle(started.answer)

    def close(self) -> None:
        """Let all that was started end, and free what the lanes made. ProtocolError where a Wait is missing."""
        left = [started.effect for started in self._open]
        for started in self._open:
            started.ready.wait()
        self.leave()
        for thread in self._running:
            thread.join()
        for _, collectives in sorted(self._collectives.items(), key=lambda item: item[0] or ()):
            collectives.close()
        if left:
            raise never_waited(left, self._rank)

    def leave(self) -> None:
        """Let each thread end after what was started: one that waits for ever would keep a worker's memory."""
        for queue in self._queues.values():
            queue.put(None)

    def give_up(self) -> None:
        """Return when the threads have ended, after a worker was lost. The lanes' communicator is revoked."""
        self.leave()
        for thread in self._running:
            while thread.is_alive():
                # Time and again: the thread may just make a group's communicator, which then needs it, too.
                for collectives in self._collectives.values():
                    collectives.revoke()
                thread.join(REVOKING)

    def _open_queue(self, lane: Lane) -> None:
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
        while (started := self._queues[lane].get()) is not None:
            self._perform(lane, started)

    def _perform(self, lane: Lane, started: StartedEffect) -> None:
        effect: Any = started.effect if started.loan is None else started.loan.performed
        started.start = perf_counter()
        try:
            if lane is not None:
                collectives = self._collectives[lane]
                started.answer = collectives.perform(effect)
                started.sent, started.halt, started.told = collectives.sent, collectives.halt, collectives.told
            elif type(effect) is Compute:
                since, work = started.start, effect.first or effect.work
                for _ in range(effect.times):
                    if self._emulation is not None:
                        self._emulation.begin()
                    started.answer = effect.run()
                    if self._emulation is not None:
                        since = self._emulation(work, since, perf_counter())
                    work = effect.work
            else:
                started.answer = effect.copied()
        except BaseException as error:
            started.error = error
        started.stop = perf_counter()
        started.ready.set()
