"""What one rank measures for a profile: the trials of trials.py, several times over, and what overlapping costs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from statistics import median
from typing import Any

import numpy as np

from .algorithms.splits import Shares
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
LONGEST = 45.0  # seconds, where a step is long: then trials are repeated less
REPEATS = 3  # of every trial, spread over the time of the measurement
EQUAL = 0.8  # ranks whose speeds differ by less are taken as equal: the difference may be chance
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
    found, strategies = RankTimes(), trials(len(job.problem.cost.units), job.workers)
    even = Shares((batch,) * job.workers, (1.0,) * job.workers)
    tried = {name: run_trial(job, comm, strategy, even, LOCAL_STEPS, slowness) for name, strategy in strategies.items()}
    wanted = list(_wanted(job, strategies, batch, _paces(comm, tried["flat"].computing)))
    least = sum(LOCAL_STEPS * tried[name].seconds * max(shares.batches) / batch for name, shares, _, _ in wanted)
    repeats = max(1, min(REPEATS, int(LONGEST / least)))
    for _ in range(repeats):
        for name, shares, change, label in wanted:
            step = tried[name].seconds * max(shares.batches) / batch
            steps = steps_for(SECONDS / len(wanted) / REPEATS, step)
            measured = run_trial(job, comm, strategies[name], shares, steps, slowness, change)
            found.add(label or name, measured)
            if not label and shares.batches == even.batches and name in ("local", "flat"):
                found.series += [t for p, t in measured.times.items() if p.name in ("step", "gradient")]
    return found


def _paces(comm: Any, computing: float) -> tuple[float, ...]:
    """Each rank's speed as a part of the fastest's, from its seconds for the same work."""
    own, every = np.array([computing]), np.empty(comm.Get_size())
    comm.Allgather(own, every)
    ratios: list[float] = (every.min() / every).tolist()
    return tuple(1.0 if ratio > EQUAL else ratio for ratio in ratios)


def _wanted(
    job: Job, strategies: Mapping[str, Strategy], batch: int, paces: tuple[float, ...]
) -> Iterator[tuple[str, Shares, Change, str]]:
    """(strategy, its shares, what is added to it, what its times are called, if not as the strategy) of each trial.

    In local steps no rank waits for another, so unequal ranks take as many as their speed allows: a fast rank that
    waits leaves a slow one the caches and the memory, and its steps then take less time than in training.
    """
    n, nbytes = job.workers, 4 * job.problem.cost.parameters
    sizes = sorted({max(1, batch // 16), max(1, batch // 4), batch, 2 * batch})
    for name in strategies:
        for size in [batch] if name in ("fetched whole", "sharded") else sizes:
            yield name, Shares((size,) * n, paces if name == "local" else (1.0,) * n), unchanged, ""
    even = Shares((batch,) * n, (1.0,) * n)
    beside: dict[str, Callable[[np.ndarray], Effect[Any]]] = {"next to a move": lambda v: Move(v, "host")}
    if n > 1:
        yield "flat", even, with_exchanges(EXTRA), "extra"
        beside["next to an exchange"] = lambda v: AllReduce(v, out=v, phase="started")
    for label, make in beside.items():
        for number in sorted({nbytes, max(4000, nbytes // 16)}):
            vector = np.zeros(number // 4, np.float32)
            yield "flat", even, next_to(partial(make, vector)), f"{label} of {number}"
