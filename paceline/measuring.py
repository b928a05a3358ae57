"""What one rank measures for a profile: the trials of trials.py, several times over, and what overlapping costs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import numpy as np

from .algorithms.strategy import Strategy
from .job import Job
from .program.effects import AllReduce, Effect, Move
from .trials import (
    LOCAL_STEPS,
    Change,
    Measurements,
    Piece,
    next_to,
    run_trial,
    steps_for,
    trials,
    unchanged,
    with_exchanges,
)

SECONDS = 16.0  # to spend on trials in all, where a step is short
REPEATS = 3  # of every trial, spread over the time of the measurement
EXTRA = (4_000, 64_000, 1_000_000, 4_000_000)  # bytes of all-reduces for the network's fit
COMPUTED = ("step", "gradient", "update")  # phases of a step in one piece


@dataclass
class RankTimes:
    """What a rank has measured: for each trial and piece, the mean seconds of each repeat."""

    means: dict[tuple[str, Piece], list[float]] = field(default_factory=lambda: defaultdict(list))
    series: list[list[float]] = field(default_factory=list)  # times of consecutive steps at the scenario's batch

    def add(self, trial: str, found: Measurements) -> None:
        """Add a repeat of a trial."""
        for piece, taken in found.times.items():
            self.means[trial, piece].append(float(np.mean(taken)))

    def moved(self) -> float:
        """How far the machine moved between repeats: the range of a piece's means by their median, the usual one."""
        ranges = [
            (max(means) - min(means)) / median(means)
            for (_, piece), means in self.means.items()
            if piece.name in COMPUTED and len(means) > 1
        ]
        return median(ranges) if ranges else 0.0


def measure(job: Job, comm: Any, batch: int, slowness: float) -> RankTimes:
    """Measure all trials. All ranks of `comm` call it together.

    batch: the scenario's; others are measured around it.
    slowness: of this rank, which it emulates.
    """
    found, wanted = RankTimes(), list(_wanted(job, batch))
    lengths = [_length(job, comm, strategy, size, SECONDS / len(wanted) / REPEATS) for _, strategy, size, _ in wanted]
    for _ in range(REPEATS):
        for (name, strategy, size, change), steps in zip(wanted, lengths, strict=True):
            measured = run_trial(job, comm, strategy, [size] * job.workers, steps, slowness, change)
            found.add(name, measured)
            if size == batch and name in ("local", "flat"):
                found.series += [t for p, t in measured.times.items() if p.name in ("step", "gradient")]
    return found


def _wanted(job: Job, batch: int) -> Sequence[tuple[str, Strategy, int, Change]]:
    """(name, strategy, batch, what is added to it) of each trial."""
    strategies, nbytes = trials(len(job.problem.cost.units), job.workers), 4 * job.problem.cost.parameters
    sizes = sorted({max(1, batch // 4), max(1, batch // 2), batch, 2 * batch})
    wanted: list[tuple[str, Strategy, int, Change]] = []
    for name, strategy in strategies.items():
        measured = {"fetched whole": [batch], "sharded": [batch]}.get(name, sizes)
        wanted += [(name, strategy, size, unchanged) for size in measured]
    beside: dict[str, Callable[[np.ndarray], Effect[Any]]] = {"next to a move": lambda v: Move(v, "host")}
    if job.workers > 1:
        wanted.append(("extra", strategies["flat"], batch, with_exchanges(EXTRA)))
        beside["next to an exchange"] = lambda v: AllReduce(v, out=v, phase="started")
    for name, make in beside.items():
        for size in {nbytes, max(4000, nbytes // 16)}:
            vector = np.zeros(size // 4, np.float32)
            wanted.append((f"{name} of {size}", strategies["flat"], batch, next_to(lambda v=vector, m=make: m(v))))
    return wanted


def _length(job: Job, comm: Any, strategy: Strategy, size: int, seconds: float) -> int:
    """How many steps of a trial take so long: tried with a few, which also warm it up."""
    tried = run_trial(job, comm, strategy, [size] * job.workers, LOCAL_STEPS)
    return steps_for(seconds, tried.step_seconds)
