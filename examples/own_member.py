"""A member of an axis of one's own: a schedule that says how many steps the next round takes."""

import math
from dataclasses import dataclass

from paceline.algorithms.schedules import Schedule


@dataclass(frozen=True)
class SquareRoot(Schedule):
    """H grows as the square root of the rounds that are done: H = first * floor(sqrt(1 + rounds))."""

    first: int = 2  # steps of the first round

    def __post_init__(self):
        if self.first < 1:
            raise ValueError(f"first is {self.first}; write 1 or more")

    def steps(self, now):
        """now: the moment at which the round begins; see paceline.algorithms.rounds.Moment."""
        return self.first * math.isqrt(1 + now.rounds)
