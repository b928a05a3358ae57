"""Emulated and described computing times: sleeping accurately, without using the processor.

An emulated worker has a machine of its own. So what a computation took is counted in the processor's seconds: those in
which another rank or program had the core are none of its own, and are made up for by a shorter sleep.

A sleep ends about 60 us late by default. Two remedies: the kernel is asked for precise timers, which brings it to about
5 us; and if one sleep was late, the next one is that much shorter, so that the mean is exact.
"""

from __future__ import annotations

import ctypes
import sys
import time
from collections.abc import Callable

from ..program.effects import Work

SHORTEST = 20e-6  # seconds; a shorter sleep is added to the next one


class Emulation:
    """Makes computations last longer. Each thread makes its own.

    slowness: k makes a computation that took s seconds of the processor last k s in all. (torch also waits for a GPU on
        the processor.)
    price: if given, a computation lasts price(work) seconds in all instead.

    Call `begin` before a computation. Calling it with (work, start, stop) afterwards sleeps, and returns the new stop.
    ValueError where slowness is below 1.
    """

    def __init__(self, slowness: float, price: Callable[[Work], float] | None) -> None:
        if not slowness >= 1.0:
            raise ValueError(f"slowness {slowness} is below 1: a device cannot be emulated faster than it is")
        self._slowness, self._price, self._due = slowness, price, 0.0
        self._begun = (0.0, 0.0)  # when the computation began, by the bare clock and by the processor's
        precise_sleep()

    def begin(self) -> None:
        """A computation begins."""
        self._begun = time.perf_counter(), time.thread_time()

    def __call__(self, work: Work, start: float, stop: float) -> float:
        self._due += self.wanted(work, self.busy(start)) - (stop - start)
        if self._due < SHORTEST:
            return stop
        time.sleep(self._due)
        now = time.perf_counter()
        self._due -= now - stop
        return now

    def busy(self, start: float) -> float:
        """Seconds of the processor that the computation has taken, with what came before it since `start`."""
        begun, processor = self._begun
        return begun - start + time.thread_time() - processor

    def wanted(self, work: Work, busy: float) -> float:
        """Seconds that a computation is to last which has taken so many of the processor."""
        return busy * self._slowness if self._price is None else self._price(work)


def precise_sleep() -> None:
    """Ask Linux to end this thread's sleeps on time. On other systems this does nothing."""
    if sys.platform == "linux":
        PR_SET_TIMERSLACK, nanoseconds = 29, 1
        ctypes.CDLL(None).prctl(PR_SET_TIMERSLACK, nanoseconds, 0, 0, 0)
