"""Where a run is, and intervals of it: "1 epoch", "200 steps", "5 rounds"."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

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
