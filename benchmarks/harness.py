"""What all benchmarks share: blocks in turns within a budget of seconds.

A benchmark is a module with a docstring (its first line says what it asks), SECONDS (the budget of its turns) and
`measure(run) -> Found`. `python -m benchmarks NAME` runs it.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from time import perf_counter, process_time
from typing import Any

from .form import Row

LEAST = 5  # turns that are made even where the budget is used up, unless a benchmark says otherwise
SMALL = 2  # turns of --small


class Skipped(Exception):
    """This machine cannot run the benchmark; the message says why."""


@dataclass
class Found:
    """What a benchmark returns."""

    rows: list[Row] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)  # what is not a comparison
    skipped: list[str] = field(default_factory=list)  # what this machine could not measure, and why


@dataclass(frozen=True)
class Run:
    """How a benchmark is to be run. small: a try of a few seconds, of which nothing is kept."""

    small: bool
    seconds: float  # that the turns may take

    def share(self, parts: int) -> Run:
        """The same for one of so many parts of the benchmark."""
        return replace(self, seconds=self.seconds / parts)

    def turns(self, count: int, comm: Any = None, least: int = LEAST) -> Iterator[int]:
        """-1, a turn that warms up and does not count; then 0 to count - 1, or fewer, as the seconds allow.

        comm: of the ranks that take these turns together; its rank 0 decides. least: turns that are made in any case.
        """
        begin = perf_counter()
        for turn in range(-1, SMALL if self.small else count):
            over = perf_counter() - begin > self.seconds
            if turn >= least and (over if comm is None else comm.bcast(over)):
                return
            yield turn


def alternate(blocks: Mapping[str, Callable[[], float]], turns: Iterator[int]) -> dict[str, list[float]]:
    """Run one block of each kind in each turn, in reverse order in every second one. name -> its cost, turn by turn.

    Each block returns what it cost. A busy minute of the machine meets all blocks of a turn.
    """
    taken: dict[str, list[float]] = {name: [] for name in blocks}
    for turn in turns:
        names = list(blocks)
        for name in reversed(names) if turn % 2 else names:
            gc.collect()
            cost = blocks[name]()
            if turn >= 0:
                taken[name].append(cost)
    return taken


def timed(block: Callable[[], Any], comm: Any = None, clock: Callable[[], float] = perf_counter) -> float:
    """Seconds of a call. comm: the ranks begin and end it together."""
    if comm is not None:
        comm.Barrier()
    begin = clock()
    block()
    if comm is not None:
        comm.Barrier()
    return clock() - begin


def process_seconds(block: Callable[[], Any]) -> float:
    """Processor seconds of a call in this process: a shared machine stretches all others."""
    return timed(block, clock=process_time)
