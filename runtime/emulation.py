"""Emulated and described computing times: sleeping accurately, without using the processor.

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

    slowness: k makes a computation that took s seconds be followed by a sleep of (k - 1) s.
    price: if given, a computation lasts price(work) seconds in all instead.

    Calling it with (work, start, stop) sleeps, and returns the new stop. ValueError where slowness is below 1.
    """

    def __init__(self, slowness: float, price: Callable[[Work], float] | None) -> None:
        if not slowness >= 1.0:
            raise ValueError(f"slowness {slowness} is below 1: a device cannot be emulated faster than it is")
        self._slowness, self._price, self._due = slowness, price, 0.0
        precise_sleep()

    def __call__(self, work: Work, start: float, stop: float) -> float:
        took = stop - start
        self._due += self.wanted(work, took) - took
        if self._due < SHORTEST:
            return stop
        time.sleep(self._due)
        now = time.perf_counter()
        self._due -= now - stop
        return now

    def wanted(self, work: Work, took: float) -> float:
        """Seconds that a computation is to last which took so many."""
        return took * self._slowness if self._price is None else self._price(work)


def precise_sleep() -> None:
    """Ask Linux to end this thread's sleeps on time. On other systems this does nothing."""
    if sys.platform == "linux":
        PR_SET_TIMERSLACK, nanoseconds = 29, 1
        ctypes.CDLL(None).prctl(PR_SET_TIMERSLACK, nanoseconds, 0, 0, 0)
