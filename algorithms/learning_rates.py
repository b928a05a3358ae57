"""Learning rates: pure functions of progress, since schedules (QSR) and aggregations (SlowMo) read them too.

Progress counts in the budget's unit (epochs, steps or rounds): milestones of an `epochs: 100` budget are epochs.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass
from typing import Protocol


class Rate(Protocol):
    """A learning-rate schedule."""

    def __call__(self, progress: float) -> float:
        """The learning rate at `progress`, in the budget's unit."""


@dataclass(frozen=True)
class Constant:
    """The same learning rate throughout."""

    lr: float

    def __call__(self, progress: float) -> float:
        return self.lr


@dataclass(frozen=True)
class Multistep:
    """lr * gamma^(milestones passed); a milestone counts from the moment it is reached."""

    lr: float
    milestones: tuple[float, ...]
    gamma: float = 0.1

    def __post_init__(self) -> None:
        if list(self.milestones) != sorted(self.milestones):
            raise ValueError(f"milestones {list(self.milestones)} must not fall; write them in order")

    def __call__(self, progress: float) -> float:
        return self.lr * self.gamma ** bisect_right(self.milestones, progress * (1 + 1e-12))


@dataclass(frozen=True)
class Decay:
    """From lr at `start` to final_lr at `total`; its kinds differ in the way down."""

    lr: float
    total: float
    final_lr: float = 0.0
    start: float = 0.0

    def __post_init__(self) -> None:
        if not self.start < self.total:
            raise ValueError(f"the warm-up of {self.start:g} is not shorter than the whole schedule of {self.total:g}")

    def behind(self, progress: float) -> float:
        """The share of the way from start to total that lies behind."""
        return min(max((progress - self.start) / (self.total - self.start), 0.0), 1.0)


@dataclass(frozen=True)
class Linear(Decay):
    """On a straight line."""

    def __call__(self, progress: float) -> float:
        return self.final_lr + (self.lr - self.final_lr) * (1 - self.behind(progress))


@dataclass(frozen=True)
class Cosine(Decay):
    """final_lr + (lr - final_lr) (1 + cos(pi p)) / 2, p the share that lies behind."""

    def __call__(self, progress: float) -> float:
        height = (1 + math.cos(math.pi * self.behind(progress))) / 2
        return self.final_lr + (self.lr - self.final_lr) * height


@dataclass(frozen=True)
class CosineStep(Cosine):
    """The cosine rounded to the nearest power of `base` (QSR's released cosine_step); 0 stays 0."""

    base: float = 2.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.base > 1:
            raise ValueError(f"base is {self.base!r}; write a number above 1, like 2")

    def __call__(self, progress: float) -> float:
        smooth = super().__call__(progress)
        return float(self.base ** round(math.log(smooth) / math.log(self.base))) if smooth > 0 else 0.0


@dataclass(frozen=True)
class WarmUp:
    """On a straight line from `low` to `peak` until `until`, then `after`."""

    until: float
    low: float
    peak: float
    after: Rate

    def __call__(self, progress: float) -> float:
        if progress < self.until:
            return self.low + (self.peak - self.low) * progress / self.until
        return self.after(progress)


@dataclass(frozen=True)
class Table:
    """rates[i] from the progress at[i] on: what a training loop of the user's own has used, as its record tells."""

    lr: float  # before the first of them
    at: tuple[float, ...]
    rates: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.at) != len(self.rates) or list(self.at) != sorted(self.at):
            raise ValueError(f"at has {len(self.at)} places and rates {len(self.rates)}; give as many, at in order")

    def __call__(self, progress: float) -> float:
        place = bisect_right(self.at, progress)
        return self.rates[place - 1] if place else self.lr


class Used:
    """The learning rates that a training loop of the user's own uses, as it tells them step by step.

    The rate of a step that it has not told yet is NaN, so that no plan is made with it.
    """

    def __init__(self) -> None:
        self.at: list[float] = []  # where the rate changes
        self.rates: list[float] = []
        self._known = -math.inf  # up to where rates were told

    def tell(self, progress: float, lr: float) -> None:
        """The rate from `progress` on, which is not less than what was told before; told again, it is corrected."""
        if self.at and self.at[-1] == progress:
            del self.at[-1], self.rates[-1]
        if not self.rates or self.rates[-1] != lr:
            self.at.append(progress)
            self.rates.append(lr)
        self._known = progress

    def __call__(self, progress: float) -> float:
        if progress > self._known or not self.at:
            return math.nan
        return self.rates[bisect_right(self.at, progress) - 1]
