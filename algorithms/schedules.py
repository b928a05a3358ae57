"""The schedule axis: how many steps until the next sync?

A schedule looks at the moment at which a round begins; H changes at syncs only. The plan caps H to the budget.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from .progress import Interval, Moment

UNLIMITED = 1 << 62  # steps; the plan's cap makes of it what is left


class Schedule(Protocol):
    """How many nominal steps (of a worker of pace 1) the next round takes."""

    def steps(self, now: Moment) -> int:
        """H of the round that begins now, at least 1."""

    def resolve(self, speeds: Sequence[float]) -> Schedule:
        """The schedule with everything that depends on the workers' speeds (samples/s) filled in."""


@dataclass(frozen=True)
class Every:
    """Sync after every step."""

    def steps(self, now: Moment) -> int:
        return 1

    def resolve(self, speeds: Sequence[float]) -> Schedule:
        return self


@dataclass(frozen=True)
class Fixed:
    """Sync after H steps; "auto" is H = round(fastest speed / slowest speed), so the slowest takes one."""

    H: int | Literal["auto"] = "auto"

    def __post_init__(self) -> None:
        if self.H != "auto":
            _check_steps("H", self.H, "or auto")

    def steps(self, now: Moment) -> int:
        if not isinstance(self.H, int):
            raise ValueError("H is auto: resolve(speeds) comes first")
        return self.H

    def resolve(self, speeds: Sequence[float]) -> Schedule:
        return Fixed(max(1, int(max(speeds) / min(speeds) + 0.5))) if self.H == "auto" else self


@dataclass(frozen=True)
class Qsr:
    """The quadratic synchronization rule: H = max(h_base, floor((alpha / lr)^power)), lr at the round's first step.

    Gu et al., "A quadratic synchronization rule for distributed deep learning", ICLR 2024, arXiv 2310.14423; power 3 is
    their cubic rule. alpha 0 is fixed(h_base). A relative 1e-9 is added before the floor, since
    (0.2 / (0.8 * 0.1**2))**2 is 624.9999999 in floating point and means 625.
    """

    alpha: float
    h_base: int = 1
    power: float = 2.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.alpha) and self.alpha >= 0):
            raise ValueError(f"alpha is {self.alpha!r}; write a number of 0 or more, like 0.0175")
        if not (math.isfinite(self.power) and self.power > 0):
            raise ValueError(f"power is {self.power!r}; write a number above 0, like 2")
        _check_steps("h_base", self.h_base)

    def steps(self, now: Moment) -> int:
        if self.alpha == 0:
            return self.h_base
        if now.lr <= 0 or math.log(self.alpha / now.lr) * self.power > math.log(UNLIMITED):
            return UNLIMITED
        ratio = float((self.alpha / now.lr) ** self.power)
        return max(self.h_base, math.floor(ratio * (1 + 1e-9)))

    def resolve(self, speeds: Sequence[float]) -> Schedule:
        return self


@dataclass(frozen=True)
class Then:
    """Schedule `a` until `t`, schedule `b` afterwards; a round begun under `a` may run past t."""

    t: Interval
    a: Schedule
    b: Schedule

    def steps(self, now: Moment) -> int:
        return (self.b if self.t.reached(now) else self.a).steps(now)

    def resolve(self, speeds: Sequence[float]) -> Schedule:
        return dataclasses.replace(self, a=self.a.resolve(speeds), b=self.b.resolve(speeds))


def warm_up(t: Interval, H: int, then: Schedule) -> Schedule:
    """H steps per round until t, then another schedule: QSR's init_h during the learning rate's warm-up."""
    return Then(t, Fixed(H), then)


def _check_steps(name: str, value: object, more: str = "") -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{name} is {value!r}; write a whole number of steps, 1 or more{', ' if more else ''}{more}")
