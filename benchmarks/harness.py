"""What all benchmarks share: blocks in turns within a budget of seconds, and functions on the ranks of an mpirun.

A benchmark is a module with a docstring (its first line says what it asks), SECONDS (the budget of its turns) and
`measure(run) -> Found`. `python -m benchmarks NAME` runs it.
"""

from __future__ import annotations

import gc
import pickle
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

from paceline.runtime.launcher import launch
from paceline.runtime.star import Star

from .form import Row

LEAST = 5  # turns that are made even where the budget is used up
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

    def turns(self, count: int, comm: Any = None) -> Iterator[int]:
        """-1, a turn that warms up and does not count; then 0 to count - 1, or fewer, as the seconds allow.

        comm: of the ranks that take these turns together; its rank 0 decides.
        """
        begin = perf_counter()
        for turn in range(-1, SMALL if self.small else count):
            over = perf_counter() - begin > self.seconds
            if turn >= LEAST and (over if comm is None else comm.bcast(over)):
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


def on_ranks(function: Callable[..., Any], ranks: int, *arguments: Any, star: Star | None = None) -> Any:
    """What `function(comm, *arguments)` returns on rank 0 of an mpirun. The function is one of a benchmark's module.

    star: the network on whose nodes the ranks run. RuntimeError where a rank fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        task, answer = Path(folder, "task"), Path(folder, "answer")
        task.write_bytes(pickle.dumps((function, arguments)))
        status = launch([str(task), str(answer)], ranks, program=["-m", "benchmarks.ranks"], rounds=False, star=star)
        if status:
            raise RuntimeError(f"{function.__module__}.{function.__name__} on {ranks} ranks: status {status}")
        return pickle.loads(answer.read_bytes())


def slowest(comm: Any, taken: Mapping[str, Sequence[float]]) -> dict[str, list[float]]:
    """The costs of the slowest rank, turn by turn: a step is over when it is over everywhere. Collective."""
    everyone = comm.allgather(dict(taken))
    return {name: [max(costs) for costs in zip(*(own[name] for own in everyone), strict=True)] for name in taken}


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
