"""Emulated and described computing times: sleeping, accurately and without burning the processor.

A sleep ends some 60 us late by default. Two remedies: the kernel is asked for precise timers (that alone brings it to
some 5 us), and what one sleep is late the next sleeps less, so that the mean is exact.
"""

from __future__ import annotations

import ctypes
import sys
import time
from collections.abc import Callable

from ..program.effects import Work

SHORTEST = 20e-6  # seconds below which a sleep is left to the next one


class Emulation:
    """Makes computations last longer. One per thread, made in that thread.

    slowness k: a computation that took s is followed by a sleep of (k - 1) s. price: instead, it lasts price(work)
    seconds in all. Calling it with (work, start, stop) sleeps and answers the new stop.
    """

    def __init__(self, slowness: float, price: Callable[[Work], float] | None) -> None:
        if not slowness >= 1.0:
            raise ValueError(f"slowness {slowness} is below 1: a device cannot be emulated faster than it is")
        self._extra, self._price, self._due = slowness - 1.0, price, 0.0
        precise_sleep()

    def __call__(self, work: Work, start: float, stop: float) -> float:
        took = stop - start
        self._due += took * self._extra if self._price is None else self._price(work) - took
        if self._due < SHORTEST:
            return stop
        time.sleep(self._due)
        now = time.perf_counter()
        self._due -= now - stop
        return now


def precise_sleep() -> None:
    """Ask Linux to end this thread's sleeps on time; elsewhere nothing happens."""
    if sys.platform == "linux":
        PR_SET_TIMERSLACK, nanoseconds = 29, 1
        ctypes.CDLL(None).prctl(PR_SET_TIMERSLACK, nanoseconds, 0, 0, 0)
