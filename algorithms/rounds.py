"""Rounds: where a run is, the intervals in which it is counted, and one round as it is planned.

Rule: nothing here knows how a round is planned (plan.py) or what happens in it (loop.py and the axes).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import accumulate
from typing import Literal, NamedTuple

from .learning_rates import Rate

Unit = Literal["epochs", "steps", "rounds"]


class Moment(NamedTuple):
    """The start of a round."""

    rounds: int  # done before
    steps: int  # nominal ones, done before
    epochs: float  # done before, as the plan counts them
    lr: float  # the learning rate here


@dataclass(frozen=True)
class Interval:
    """So many epochs, steps or rounds."""

    amount: float
    unit: Unit

    def reached(self, now: Moment) -> bool:
        """Whether at least so much has been done at `now`."""
        # A relative 1e-9: 3 * 0.1 epochs must count as 0.3.
        return bool(getattr(now, self.unit) >= self.amount * (1 - 1e-9))


NEVER = Interval(float("inf"), "steps")


@dataclass(slots=True)
class State:
    """All that outlives a round. So `train` can start from any sync, and to train 2k rounds is to train k and resume k.

    A nominal step is one of the fastest workers, whose pace is 1. Slower workers take fewer steps in the same round.
    """

    round: int = 0  # rounds done
    step: int = 0  # nominal steps done
    samples: int = 0  # examples processed by all workers
    H: int = 0  # nominal steps of the last round
    loss: float = 0.0  # the training loss, summed over the nominal steps since the last report
    weight: int = 0  # how many steps that are
    refreshed: tuple[int, int, int] = (0, 0, 0)  # the mark of biased sampling's last refresh
    epoch_offset: float = 0.0  # reference epochs in addition to those that the plan counts, done by other workers

    def __post_init__(self) -> None:
        first, second, third = self.refreshed
        self.refreshed = (first, second, third)  # JSON gives a list

    def mark(self) -> tuple[int, int, int]:
        """(round, step, samples): what a plan needs to know to go on from here."""
        return self.round, self.step, self.samples

    def after(self, r: Round, loss: float) -> None:
        """Move past round r, whose mean training loss was `loss`."""
        self.round += 1
        self.step += r.H
        self.samples += r.samples
        self.H = r.H
        self.loss += loss * r.H
        self.weight += r.H


@dataclass(frozen=True, slots=True)
class Due:
    """What follows a round."""

    evaluate: bool = False  # an evaluation and its line
    scheduled: bool = False  # an evaluation by the report's interval, not only since the run ends; see report()
    log: bool = False  # a line without an evaluation
    save: bool = False  # a checkpoint


due = lru_cache(maxsize=None)(Due)  # there are sixteen of them


@dataclass(eq=False)
class Division:
    """How a round of H nominal steps is divided among the workers."""

    steps: Sequence[int]  # of each worker
    batches: Sequence[int]  # samples in a batch of each worker
    samples: int  # of all workers
    by_step: bool  # see Sampling.by_step

    @cached_property
    def offsets(self) -> tuple[int, ...]:
        """From the round's position to each worker's first batch, in samples. Only workers that compute ask for it."""
        used = self.batches if self.by_step else [n * b for n, b in zip(self.steps, self.batches, strict=True)]
        return tuple(accumulate(used[:-1], initial=0))


@dataclass(slots=True, eq=False)
class Round:
    """One round as planned. All workers share the object and must not change it. (Frozen, it took three times as long
    to make.) A position is the number of samples that the whole run has drawn before."""

    start: Moment
    H: int  # nominal steps
    division: Division
    position: int  # of the round's first sample
    progress: float  # in the budget's unit, at the first nominal step
    slope: float  # progress per nominal step
    rate: Rate
    due: Due
    stride: int | None = None  # from a worker's batch to its next one, in samples; None: the batch's own size

    @property
    def steps(self) -> Sequence[int]:
        """Of each worker."""
        return self.division.steps

    @property
    def batches(self) -> Sequence[int]:
        """Samples in a batch of each worker."""
        return self.division.batches

    @property
    def samples(self) -> int:
        """Of all workers in this round."""
        return self.division.samples

    @property
    def last_lr(self) -> float:
        """Learning rate of the last nominal step."""
        return self.rate(self.progress + self.slope * (self.H - 1))

    def batch(self, worker: int, i: int) -> tuple[int, int]:
        """(position, size) of the worker's batch i."""
        size = self.batches[worker]
        return self.position + self.division.offsets[worker] + i * (self.stride or size), size

    def coming(self, worker: int, i: int, count: int) -> list[tuple[int, int]]:
        """(position, size) of the worker's `count` batches after batch i, if the next rounds are like this one."""
        found = []
        for n in range(i + 1, i + 1 + count):
            rounds, j = divmod(n, self.steps[worker])
            position, size = self.batch(worker, j)
            found.append((position + rounds * self.samples, size))
        return found

    def nominal(self, worker: int, i: int) -> int:
        """The nominal step at which the worker takes its step i: a slower worker's are spread evenly over the H."""
        return self.start.steps + i * self.H // self.steps[worker]

    def lr(self, worker: int, i: int) -> float:
        """Learning rate of the worker's step i."""
        return self.rate(self.progress + self.slope * (self.nominal(worker, i) - self.start.steps))
