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
class Cosine:
    """final + (lr - final) (1 + cos(pi p)) / 2, p the share that lies behind of what is between start and total."""

    lr: float
    total: float
    final_lr: float = 0.0
    start: float = 0.0

    def __post_init__(self) -> None:
        _check_end(self.start, self.total)

    def __call__(self, progress: float) -> float:
        return self.final_lr + (self.lr - self.final_lr) * (1 + math.cos(math.pi * _share(self, progress))) / 2


@dataclass(frozen=True)
class Linear:
    """From lr at `start` to final_lr at `total` on a straight line."""

    lr: float
    total: float
    final_lr: float = 0.0
    start: float = 0.0

    def __post_init__(self) -> None:
        _check_end(self.start, self.total)

    def __call__(self, progress: float) -> float:
        return self.final_lr + (self.lr - self.final_lr) * (1 - _share(self, progress))


@dataclass(frozen=True)
class CosineStep:
    """The cosine rounded to the nearest power of `base` (QSR's released cosine_step); 0 stays 0."""

    lr: float
    total: float
    final_lr: float = 0.0
    start: float = 0.0
    base: float = 2.0

    def __post_init__(self) -> None:
        _check_end(self.start, self.total)
        if not self.base > 1:
            raise ValueError(f"base is {self.base!r}; write a number above 1, like 2")

    def __call__(self, progress: float) -> float:
        smooth = Cosine(self.lr, self.total, self.final_lr, self.start)(progress)
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


def _share(rate: Cosine | Linear, progress: float) -> float:
    return min(max((progress - rate.start) / (rate.total - rate.start), 0.0), 1.0)


def _check_end(start: float, total: float) -> None:
    if not start < total:
        raise ValueError(f"the warm-up of {start:g} is not shorter than the whole schedule of {total:g}")
