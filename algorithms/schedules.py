"""The schedule axis: how many steps until the next sync?

A schedule looks at the moment at which a round begins; H changes at syncs only. The plan caps H to the budget.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from .rounds import Interval, Moment

UNLIMITED = 1 << 62  # steps; the plan cuts H to what is left of the budget


class Schedule:
    """Base of the members: how many nominal steps (those of a worker of pace 1) does the next round take?"""

    @property
    def grows(self) -> bool:
        """Whether H may grow without a bound, so that only a budget of steps or epochs ends a round."""
        return False

    def steps(self, now: Moment) -> int:
        """H of the round that begins now, at least 1."""
        raise NotImplementedError

    def resolve(self, speeds: Sequence[float], warm_up: Interval | None = None) -> Schedule:
        """The schedule with what follows from the workers' speeds and the learning rate's warm-up filled in.

        speeds: samples/s.
        warm_up: None where there is none.
        Raises ValueError where something would have no effect.
        """
        return self

    def remarks(self, speeds: Sequence[float]) -> Iterator[str]:
        """What a user may not expect of the schedule on workers of these speeds, one line each."""
        yield from ()


@dataclass(frozen=True)
class Every(Schedule):
    """Sync after every step."""

    def steps(self, now: Moment) -> int:
        return 1


@dataclass(frozen=True)
class Fixed(Schedule):
    """Sync after H steps; "auto" is `round(fastest speed / slowest speed)`, so by_steps gives the slowest one step."""

    H: int | Literal["auto"] = "auto"

    def __post_init__(self) -> None:
        if self.H != "auto":
            _check_steps("H", self.H, "or auto")

    def steps(self, now: Moment) -> int:
        if not isinstance(self.H, int):
            raise ValueError("H is auto: resolve(speeds) comes first")
        return self.H

    def resolve(self, speeds: Sequence[float], warm_up: Interval | None = None) -> Schedule:
        return Fixed(max(1, int(max(speeds) / min(speeds) + 0.5))) if self.H == "auto" else self

    def remarks(self, speeds: Sequence[float]) -> Iterator[str]:
        if self.H == "auto" and self.resolve(speeds) == Fixed(1):
            yield (
                "H is auto, which among workers of about equal speed is 1, a sync after every step; "
                "write a number of steps, like H: 16"
            )


@dataclass(frozen=True)
class Qsr(Schedule):
    """The quadratic synchronization rule: `H = max(h_base, floor((alpha / lr)^power))`, lr at the round's first step.

    Gu et al., "A quadratic synchronization rule for distributed deep learning", ICLR 2024, arXiv 2310.14423; power 3 is
    their cubic rule. As in their released code, H is init_h (h_base by default) while the learning rate warms up, since
    the low rates of a warm-up would give the longest rounds; if alpha is 0, H is that in all rounds. init_t: where this
    ends, if not with the warm-up. A relative 1e-9 is added before the floor, since (0.2 / (0.8 * 0.1**2))**2 is
    624.9999999 in floating point and means 625.
    """

    alpha: float
    h_base: int = 1
    power: float = 2.0
    init_t: Interval | None = None
    init_h: int | None = None
    grows = True

    def __post_init__(self) -> None:
        if not (math.isfinite(self.alpha) and self.alpha >= 0):
            raise ValueError(f"alpha is {self.alpha!r}; write a number of 0 or more, like 0.0175")
        if not (math.isfinite(self.power) and self.power > 0):
            raise ValueError(f"power is {self.power!r}; write a number above 0, like 2")
        _check_steps("h_base", self.h_base)
        if self.init_h is not None:
            _check_steps("init_h", self.init_h)

    def steps(self, now: Moment) -> int:
        early = self.init_t is not None and not self.init_t.reached(now)
        if early or self.alpha == 0:
            return self.init_h or self.h_base
        if now.lr <= 0 or math.log(self.alpha / now.lr) * self.power > math.log(UNLIMITED):
            return UNLIMITED
        ratio = float((self.alpha / now.lr) ** self.power)
        return max(self.h_base, math.floor(ratio * (1 + 1e-9)))

    def resolve(self, speeds: Sequence[float], warm_up: Interval | None = None) -> Schedule:
        if self.init_t is not None:
            return self
        if self.init_h is not None and self.alpha > 0 and warm_up is None:
            raise ValueError(
                "init_h is of the learning rate's warm-up, and there is none; give lr_schedule a warm_up, give init_t, "
                "or leave init_h out"
            )
        return dataclasses.replace(self, init_t=warm_up)


@dataclass(frozen=True)
class Then(Schedule):
    """Schedule `a` until `t`, schedule `b` afterwards; a round begun under `a` may run past t."""

    t: Interval
    a: Schedule
    b: Schedule

    @property
    def grows(self) -> bool:
        return self.a.grows or self.b.grows

    def steps(self, now: Moment) -> int:
        return (self.b if self.t.reached(now) else self.a).steps(now)

    def resolve(self, speeds: Sequence[float], warm_up: Interval | None = None) -> Schedule:
        return dataclasses.replace(self, a=self.a.resolve(speeds, warm_up), b=self.b.resolve(speeds, warm_up))

    def remarks(self, speeds: Sequence[float]) -> Iterator[str]:
        yield from self.a.remarks(speeds)
        yield from self.b.remarks(speeds)


def warm_up(t: Interval, H: int, then: Schedule) -> Schedule:
    """H steps per round until t, then another schedule."""
    return Then(t, Fixed(H), then)


def _check_steps(name: str, value: object, more: str = "") -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{name} is {value!r}; write a whole number of steps, 1 or more{', ' if more else ''}{more}")


# The members by the names that scenarios use.
SCHEDULES: dict[str, Callable[..., Schedule]] = {
    "every": Every,
    "fixed": Fixed,
    "qsr": Qsr,
    "then": Then,
    "warm_up": warm_up,
}
