"""What one rank measures for a profile: the trials of trials.py, several times over, and what overlapping costs."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from .algorithms.balance import fixed_total
from .algorithms.splits import Shares
from .algorithms.strategy import Strategy
from .config.tables import interpolate
from .job import Job
from .memory_check import record
from .trials import (
    FLAT,
    LOCAL_STEPS,
    OVERLAPPED,
    Bench,
    Change,
    Measurements,
    Piece,
    run_trial,
    steps_for,
    trial_plan,
    trials,
    unchanged,
    with_exchanges,
)

SECONDS = 12.0  # to spend on trials in all, where a step is short
LONGEST = 30.0  # seconds, where a step is long: then trials are repeated less
REPEATS = 5  # of every trial, spread over the time of the measurement
SLOWEST = 3  # steps of the slowest rank in a round of the local trial: the first one has a price of its own
EQUAL = 0.8  # ranks whose speeds differ by less are taken as equal: the difference may be chance
EXTRA = (4_000, 64_000, 1_000_000)  # bytes of all-reduces for the network's fit, in addition to the model's own
AT_ALL_SIZES = ("local", "flat", "kept", "fetched")  # trials of several batches
COMPUTED = ("step", "gradient", "update")  # phases of a step in one piece
STEP = (*COMPUTED, "forward", "backward")  # phases of which steps are made


@dataclass
class RankTimes:
    """What a rank has measured: for each trial and piece, the mean seconds of each repeat."""

    means: dict[tuple[str, Piece], list[float]] = field(default_factory=lambda: defaultdict(list))
    met: dict[tuple[str, Piece], list[float]] = field(default_factory=lambda: defaultdict(list))  # see Measurements
    counts: dict[tuple[str, Piece], float] = field(default_factory=dict)  # of a step
    series: list[list[float]] = field(default_factory=list)  # times of consecutive steps at the scenario's batch
    repeats: int = 0  # that are complete
    memory: int = 0  # bytes that the process grew by, beyond what is predicted of its arrays

    def add(self, trial: str, found: Measurements) -> None:
        """Add a trial of this repeat. Two divisions of a batch may give a rank the same one: they are averaged."""
        for piece, taken in found.times.items():
            means, mean = self.means[trial, piece], float(np.mean(taken))
            if len(means) > self.repeats:
                means[-1] = (means[-1] + mean) / 2
            else:
                means.append(mean)
            self.counts[trial, piece] = found.counts[piece]
        for piece, part in found.met.items():
            self.met[trial, piece].append(part)

    def longer(self) -> dict[str, float]:
        """By how many seconds a step computes longer in each trial that overlaps, than in the same trial without.

        The two are compared within each repeat, in which they follow one another: from repeat to repeat the machine's
        speed changes by more. It is the median over the repeats, and negative where chance made it so.
        """
        found = dict[str, float]()
        for over in dict.fromkeys(trial for trial, _ in self.means if trial.endswith(OVERLAPPED)):
            pieces = [piece for trial, piece in self.means if trial == over and piece.name in STEP]
            steps = [
                [self.counts[trial, piece] * np.array(self.means[trial, piece]) for piece in pieces]
                for trial in (over, over.removesuffix(OVERLAPPED))
            ]
            with_it, without = (np.sum(step, axis=0) for step in steps)
            found[over] = float(np.median(with_it - without))
        return found

    def drift(self) -> float:
        """How far the machine moved: the standard deviation of the repeats, as a part.

        A repeat counts by its mean over all pieces of steps. It lasts some seconds, as runs do: what changes faster is
        in the residuals.
        """
        kept = [key for key, means in self.means.items() if key[1].name in STEP and len(means) > 2]
        if not kept:
            return 0.0
        means = np.array([self.means[key] for key in kept])  # (pieces, repeats)
        usual = np.median(means, axis=1)
        weights = usual * [self.counts[key] for key in kept]
        each = np.average(means / usual[:, None], axis=0, weights=weights)
        return float(np.std(each, ddof=1))


def measure(bench: Bench, batch: int) -> RankTimes:
    """Measure all trials. All ranks call it together. batch: the scenario's; others are measured around it."""
    job = bench.job
    found = RankTimes()
    sizes = [batch] if bench.phantom else sorted({max(1, batch // 16), max(1, batch // 4), batch, 2 * batch})
    if not bench.phantom:
        found.memory = _beyond_arrays(bench, FLAT, _even(job, batch))
    curve = [(size, run_trial(bench, FLAT, _even(job, size), LOCAL_STEPS).computing) for size in sizes]
    paces, balanced = _divided(bench.comm, curve, batch)
    every = max(LOCAL_STEPS, math.ceil(SLOWEST / min(paces)))
    strategies = trials(len(job.problem.cost.units), job.workers, every)
    # Only a round of local steps is longer where workers are unequal: in the others the slowest takes all steps.
    rounds = {name: every if name == "local" else LOCAL_STEPS for name in strategies}
    tried = {name: run_trial(bench, each, _even(job, batch), rounds[name]).seconds for name, each in strategies.items()}
    wanted = list(_wanted(job, list(strategies), sizes, batch, paces, balanced))
    part = 4 if bench.phantom else 1  # only messages are measured, and computations are waited for
    lengths = [tried[name] * max(shares.batches) / batch for name, shares, _, _ in wanted]
    least = sum(rounds[name] * length for (name, *_), length in zip(wanted, lengths, strict=True))  # seconds
    for _ in range(max(1, min(REPEATS, int(LONGEST / part / least)))):
        for (name, shares, change, label), length in zip(wanted, lengths, strict=True):
            steps = steps_for(SECONDS / part / len(wanted) / REPEATS, length, rounds[name])
            measured = run_trial(bench, strategies[name], shares, steps, change)
            found.add(label or name, measured)
            if not label and shares.batches == (batch,) * job.workers and name in ("local", "flat"):
                found.series += [t for p, t in measured.times.items() if p.name in ("step", "gradient") and not p.first]
        found.repeats += 1
    return found


def _beyond_arrays(bench: Bench, strategy: Strategy, shares: Shares) -> int:
    """What this process grows by in its first trial, less the predicted arrays. Later ones begin with what it kept."""
    from .runtime.resident import resident, resident_peak

    job, rank = bench.job, bench.comm.Get_rank()
    plan = trial_plan(job, strategy, shares, LOCAL_STEPS)
    job.problem.load_libraries(plan)
    before = resident()
    run_trial(bench, strategy, shares, LOCAL_STEPS)
    predicted = record(job.problem.phantoms(plan).works, job.problem, plan)
    arrays = math.fsum(each[rank] for each in predicted.values())
    return max(0, round(resident_peak() - before - arrays))


def _even(job: Job, batch: int) -> Shares:
    return Shares((batch,) * job.workers, (1.0,) * job.workers)


def _divided(
    comm: Any, curve: Sequence[tuple[int, float]], batch: int
) -> tuple[tuple[float, ...], tuple[int, ...] | None]:
    """(each rank's pace, the batches that keep all ranks busy), from each rank's seconds by batch.

    None: the ranks are about equally fast.
    """
    n = comm.Get_size()
    own, every = np.array(curve), np.empty((n, len(curve), 2))
    comm.Allgather(own, every)
    tables = [tuple((float(size), float(seconds)) for size, seconds in rank) for rank in every]
    taken = [interpolate(table, batch) for table in tables]
    if min(taken) > EQUAL * max(taken):
        return (1.0,) * n, None
    batches = fixed_total([partial(interpolate, table) for table in tables], [n * batch] * n, n * batch)
    return tuple(min(taken) / seconds for seconds in taken), batches


def _wanted(
    job: Job,
    strategies: Sequence[str],
    sizes: Sequence[int],
    batch: int,
    paces: tuple[float, ...],
    balanced: tuple[int, ...] | None,
) -> Iterator[tuple[str, Shares, Change, str]]:
    """(strategy, its shares, what is added to it, what its times are called, if not as the strategy) of each trial.

    Unequal ranks are also measured at the division that keeps all of them busy, since a worker that has waited finds
    its data no longer in the caches: its next step takes up to a third longer. So batches that are divided by speed are
    priced by steps without waiting, and equal batches by steps with it. Local steps do not wait. What overlapping costs
    is measured only where all are busy: an exchange of a worker that waits hardly meets a computation.
    """
    n = job.workers
    usual = (batch,) * n
    for name in strategies:
        divisions = [usual] if name == "fetched whole" else [balanced or usual]
        if name in AT_ALL_SIZES:
            divisions = [(size,) * n for size in sizes] + ([balanced] if balanced and name != "local" else [])
        for batches in divisions:
            yield name, Shares(batches, paces if name == "local" else (1.0,) * n), unchanged, ""
    if n > 1:
        yield "flat", _even(job, batch), with_exchanges(EXTRA), "extra"
