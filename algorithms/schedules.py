"""The schedule axis: how many steps until the next sync?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol


class Schedule(Protocol):
    """How many nominal steps (of a worker of pace 1) the next round takes."""

    def steps(self, step: int, lr: float) -> int:
        """H of the round that begins at `step` with learning rate `lr`, at least 1; the plan caps it to the budget."""

    def resolve(self, speeds: Sequence[float]) -> Schedule:
        """The schedule with everything that depends on the workers' speeds (samples/s) filled in."""


@dataclass(frozen=True)
class Every:
    """Sync after every step."""

    def steps(self, step: int, lr: float) -> int:
        return 1

    def resolve(self, speeds: Sequence[float]) -> Schedule:
        return self


@dataclass(frozen=True)
class Fixed:
    """Sync after H steps; "auto" is H = round(fastest speed / slowest speed), so the slowest takes one."""

    H: int | Literal["auto"] = "auto"

    def __post_init__(self) -> None:
        if self.H != "auto" and (not isinstance(self.H, int) or self.H < 1):
            raise ValueError(f"H is {self.H!r}; write a whole number of steps, 1 or more, or auto")

    def steps(self, step: int, lr: float) -> int:
        if self.H == "auto":
            raise ValueError("H is auto: resolve(speeds) comes first")
        return self.H

    def resolve(self, speeds: Sequence[float]) -> Schedule:
        return Fixed(max(1, int(max(speeds) / min(speeds) + 0.5))) if self.H == "auto" else self
