"""The faults of a scenario on a rank of a real run: it kills, pauses and slows itself.

Rule: nothing of this exists on a rank that no fault names. What counts rounds or steps, and what says `during`, is done
between the effects of the program (config/fault_plan.py), what counts seconds by a thread with a clock.
"""

from __future__ import annotations

import math
import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from ..config.fault_plan import FaultPlan, failure
from ..config.faults import Fault, Numbered, Once, Pause, SlowLink, Strike, WorkerException
from ..program.effects import Checkpoint, Effect, Work
from .emulation import SHORTEST, Emulation
from .pausing import Pausing


class RankFaults(FaultPlan):
    """The faults of this rank, for one program.

    faults: those that have not struck yet, with their numbers.
    seed: of the stragglers' chances.
    slow_port: makes the bandwidth of this rank's port so many times less; None where that is not this rank's task.
    """

    def __init__(self, faults: Sequence[Numbered], seed: int, slow_port: Callable[[float], None] | None = None) -> None:
        super().__init__(faults, seed)
        self.zero = 0.0  # the start of the run, by perf_counter
        self._slow_port = slow_port
        self._links = [each for each in self.by_clock if isinstance(each[3], SlowLink)]
        self._pausing = Pausing(os.getpid()) if any(isinstance(fault, Pause) for _, fault in faults) else None
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def begin(self, origin: float, since: float) -> None:
        """The rank's program begins at `since`. origin: of the clock. By perf_counter.

        What was to strike before, while no program ran, does not strike.
        """
        self.zero = origin - self.began
        self.go_on(self._done["rounds"], self._done["steps"], since - self.zero)
        self._thread = threading.Thread(target=self._keep_time, daemon=True, name="paceline faults")
        self._thread.start()

    def end(self) -> None:
        """The rank's program has ended, or it is given up."""
        self._over.set()
        if self._thread is not None:
            self._thread.join()
        if self._pausing is not None:
            self._pausing.close()
        if self._links and self._slow_port is not None:
            self._slow_port(1.0)

    def now(self) -> float:
        """Seconds since the start of the run."""
        return time.perf_counter() - self.zero

    def strike(self, number: int, fault: Once, effect: Effect[Any], now: float) -> Effect[Any]:
        if type(effect) is Checkpoint and effect.due and not isinstance(fault, Pause):
            return _as_it_is_written(effect, lambda: self._strike(number, fault))
        self._strike(number, fault)
        return effect

    def _strike(self, number: int, fault: Once) -> None:
        now = self.now()
        self.note(number, fault, now, now + fault.lasts)
        if isinstance(fault, WorkerException):
            raise failure(number, fault)
        self._act(fault)

    def _act(self, fault: Fault) -> None:
        if isinstance(fault, Pause):
            assert self._pausing
            self._pausing.pause(fault.duration)
        elif isinstance(fault, Strike):
            os.kill(os.getpid(), signal.SIGKILL)

    def _keep_time(self) -> None:
        """The thread for what counts seconds."""
        changes = {moment for start, end, _, _ in self._links for moment in (start, end)}
        moments = sorted({*changes, *(start for start, _, _, _ in self.by_clock)} - {math.inf})
        for moment in moments:
            if self._over.wait(max(0.0, moment - self.now())):
                return
            for _, _, _, fault in self.due(moment):
                self._act(fault)
            if moment in changes and self._slow_port is not None:
                self._slow_port(math.prod(_factor(each[3]) for each in self._links if each[0] <= moment < each[1]))

    def paused(self, start: float, stop: float) -> float:
        """Seconds of pauses between two moments, by perf_counter."""
        return 0.0 if self._pausing is None else self._pausing.within(start, stop)


def _factor(fault: Fault) -> float:
    return fault.factor if isinstance(fault, SlowLink) else 1.0


def _as_it_is_written(effect: Checkpoint, act: Callable[[], None]) -> Checkpoint:
    """The Checkpoint, in which `act` is done once all ranks have begun to write it."""

    def snapshot() -> dict[str, Any]:
        act()
        return effect.snapshot()

    return replace(effect, snapshot=snapshot)


class FaultyEmulation(Emulation):
    """Makes computations last as long as faults want. A pause within one is not made longer."""

    def __init__(self, slowness: float, price: Callable[[Work], float] | None, faults: RankFaults) -> None:
        super().__init__(slowness, price)
        self._faults = faults

    def __call__(self, work: Work, start: float, stop: float) -> float:
        faults = self._faults
        took = stop - start - faults.paused(start, stop)
        wanted = self.wanted(work, self.busy(start))
        self._due += faults.computing(start - faults.zero, wanted, work.phase) - took
        while self._due >= SHORTEST:
            time.sleep(self._due)
            now = time.perf_counter()
            self._due -= now - stop - faults.paused(stop, now)
            stop = now
        return stop
