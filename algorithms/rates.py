"""Learning rates: pure functions of progress, since schedules (QSR) and aggregations (SlowMo) read them too.

Progress counts in the budget's unit (epochs, steps or rounds): milestones of an `epochs: 100` budget are epochs.
"""

from __future__ import annotations

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
        return self.lr * self.gamma ** bisect_right(self.milestones, progress)
