"""Rounds: where a run is, the stretches in which it is counted, and one round as it is planned.

Rule: nothing here knows how a round comes about (plan.py) or what is done in it (loop.py and the axes).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, NamedTuple

from .learning_rates import Rate

Unit = Literal["epochs", "steps", "rounds"]


class Moment(NamedTuple):
    """The start of a round. steps: nominal ones. epochs: as the budget counts them. lr: the learning rate here."""

    rounds: int
    steps: int
    epochs: float
    lr: float


@dataclass(frozen=True)
class Interval:
    """So many epochs, steps or rounds."""

    amount: float
    unit: Unit

    def reached(self, now: Moment) -> bool:
        """Whether that much lies behind `now`."""
        # A relative 1e-9: 3 * 0.1 epochs must count as 0.3.
        return bool(getattr(now, self.unit) >= self.amount * (1 - 1e-9))


NEVER = Interval(float("inf"), "steps")


@dataclass(slots=True)
class State:
    """All that outlives a round: `train` starts from any sync, and train 2k == train k + resume k.

    step: nominal steps taken (those of pace 1). samples: examples processed by all workers. loss, weight: the
    training loss summed since the last report, and over how many nominal steps. refreshed: the mark of the last refresh
    of biased sampling.
    """

    round: int = 0
    step: int = 0
    samples: int = 0
    H: int = 0
    loss: float = 0.0
    weight: int = 0
    refreshed: tuple[int, int, int] = (0, 0, 0)

    def __post_init__(self) -> None:
        first, second, third = self.refreshed
        self.refreshed = (first, second, third)  # JSON gives a list

    def mark(self) -> tuple[int, int, int]:
        """(round, step, samples), from which a plan goes on."""
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
    """What follows a round. evaluate: an evaluation and its line. log: a line without one. save: a checkpoint.

    scheduled: the evaluation is not there only because the run ends; the mean training loss begins anew after it.
    """

    evaluate: bool = False
    scheduled: bool = False
    log: bool = False
    save: bool = False


due = lru_cache(maxsize=None)(Due)  # there are sixteen of them


@dataclass(slots=True, eq=False)
class Round:
    """One round as planned. steps, batches, offsets: per worker; offsets in samples from `position`.

    stride: samples from a worker's batch to its next one; None: it goes on where the one before ended. progress, slope:
    the budget's progress at the first nominal step, and per nominal step. All workers share it, and nobody changes it;
    a frozen one takes three times as long to make.
    """

    start: Moment
    H: int
    steps: tuple[int, ...]
    batches: tuple[int, ...]
    offsets: tuple[int, ...]
    samples: int
    position: int
    progress: float
    slope: float
    rate: Rate
    due: Due
    stride: int | None = None

    @property
    def last_lr(self) -> float:
        """Learning rate of the last nominal step."""
        return self.rate(self.progress + self.slope * (self.H - 1))

    def batch(self, worker: int, i: int) -> tuple[int, int]:
        """(position, size) of the worker's batch i."""
        size = self.batches[worker]
        return self.position + self.offsets[worker] + i * (self.stride or size), size

    def coming(self, worker: int, i: int, count: int) -> list[tuple[int, int]]:
        """(position, size) of the worker's `count` batches after batch i, should the rounds to come be like this."""
        found = []
        for n in range(i + 1, i + 1 + count):
            rounds, j = divmod(n, self.steps[worker])
            position, size = self.batch(worker, j)
            found.append((position + rounds * self.samples, size))
        return found

    def nominal(self, worker: int, i: int) -> int:
        """The nominal step of the worker's step i; a slower worker's few steps are spread over the round's H."""
        return self.start.steps + i * self.H // self.steps[worker]

    def lr(self, worker: int, i: int) -> float:
        """Learning rate of the worker's step i."""
        return self.rate(self.progress + self.slope * (self.nominal(worker, i) - self.start.steps))
