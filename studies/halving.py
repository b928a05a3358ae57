"""Which of several trainings reaches a target first on its own clock? Successive halving in virtual time.

All runs get the same budget, the better half of them goes on with twice as much, and so on (Jamieson and Talwalkar,
AISTATS 2016, arXiv 1502.07943; with one bracket of Hyperband: Li et al., JMLR 18, 2018, arXiv 1603.06560). A budget is
virtual seconds here, since the question is who is first by the clock, and a run goes on instead of beginning again.

Rules, so that no run is cut that may still win, as far as can be said:

- The run that has learned most from equally many samples stays in as well. Its epochs may be slow, so that it is behind
  at first, and it may still reach what others do not.
- A run that has reported nothing yet is not cut. It costs less than one report.
- Of the runs that are left, the one whose clock is furthest behind goes on. So none is trained much past the moment at
  which the first one reaches the target: later than that, a run has lost.
- What is cut only stands still. `prove` lets it go on to the winner's moment. The answer is then that of training every
  run to its end.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import NamedTuple, Protocol

from ..config.metrics import Target

ETA = 2  # of how many runs one stays in


class Point(NamedTuple):
    """A report of a run."""

    seconds: float  # by its clock, evaluation excluded
    samples: int  # that it has processed
    value: float  # of the target's metric


class Training(Protocol):
    """A run that stands still between two reports."""

    @property
    def points(self) -> Sequence[Point]:
        """Its reports so far."""

    @property
    def over(self) -> bool:
        """Whether it has no further report."""

    def go_on(self) -> None:
        """Train to the next report, or to the end."""

    def close(self) -> None:
        """Let go of what it needs to go on."""


@dataclass(eq=False)
class Halving:
    """Runs on their way to a target. An error or KeyboardInterrupt leaves what is known until then."""

    runs: Sequence[Training]
    target: Target
    horizon: float  # seconds; the last rung but one ends at a half of them
    kept: frozenset[int] = frozenset()  # the runs that are never cut
    tell: Callable[[Halving], None] = lambda halving: None  # called before each report; it may raise to end this
    deadline: float = inf  # seconds; what is reached later does not count
    reached: dict[int, float] = field(default_factory=dict, init=False)  # by run, seconds to the target
    cut: dict[int, float] = field(default_factory=dict, init=False)  # by run, the seconds at which it was cut
    rung: str = field(default="", init=False)  # what is done now, in words

    @property
    def best(self) -> float:
        """Seconds to the target of the first run that reached it; infinite where none has yet."""
        return min(self.reached.values(), default=inf)

    def clock(self, run: int) -> float:
        """How far a run has come, in seconds."""
        points = self.runs[run].points
        return points[-1].seconds if points else 0.0

    def value(self, run: int, seconds: float = inf, samples: float = inf) -> float:
        """The best value of a run's reports until then, the larger the better; -inf without one."""
        sign = 1 if self.target.least else -1
        known = (p.value for p in self.runs[run].points if p.seconds <= seconds and p.samples <= samples)
        return max((sign * value for value in known if not math.isnan(value)), default=-inf)

    def halve(self) -> None:
        """Go on rung by rung until a run has reached the target, or those that stay in have all ended."""
        alive = list(range(len(self.runs)))
        rungs = math.ceil(math.log(max(1, len(alive)), ETA))
        for rung in range(rungs):
            until = self.horizon * ETA ** float(rung - rungs)
            self.rung = f"{len(alive)} ways"
            self._advance(alive, until)
            if self.best <= until:
                break
            stay = self._better(alive, until)
            self.cut |= {run: until for run in alive if run not in stay}
            alive = [run for run in alive if run in stay]
        self.rung = f"{len(alive)} ways"
        self._advance(alive, inf)

    def prove(self) -> None:
        """Let all runs go on to the moment at which the first one reached the target; without one, to their ends."""
        self.rung = "those that were cut"
        self._advance(range(len(self.runs)), inf)

    def finish(self, runs: Iterable[int]) -> None:
        """Let these go on to the target or to their ends, each."""
        self.rung = "the others"
        self._advance(list(runs), inf, first=False)

    def ranking(self) -> list[int]:
        """All runs: those that reached the target by their seconds, then the others by their best value."""
        return sorted(range(len(self.runs)), key=lambda run: (self.reached.get(run, inf), -self.value(run), run))

    def _advance(self, runs: Sequence[int], until: float, first: bool = True) -> None:
        """Let runs go on to `until`, in the order of their clocks. first: and not past the best run's target."""
        while True:
            stop = min(until, self.best, self.deadline) if first else min(until, self.deadline)
            behind = [
                (self.clock(run), run)
                for run in runs
                if run not in self.reached and not self.runs[run].over and self.clock(run) < stop
            ]
            if not behind:
                return
            self.tell(self)
            _, run = min(behind)
            self.runs[run].go_on()
            points = self.runs[run].points
            if points and self.target.reached(points[-1].value) and points[-1].seconds <= self.deadline:
                self.reached[run] = points[-1].seconds
                self.runs[run].close()

    def _better(self, alive: Sequence[int], until: float) -> set[int]:
        """Those that stay in at the end of a rung."""
        judged = [run for run in alive if self.value(run, until) > -inf]
        order = sorted(judged, key=lambda run: (-self.value(run, until), run))
        stay = {*order[: math.ceil(len(order) / ETA)], *self.kept, *(set(alive) - set(judged))}
        if judged:  # and who has learned most from as many samples as all of these have had
            seen = min(max(p.samples for p in self.runs[run].points if p.seconds <= until) for run in judged)
            stay.add(max(judged, key=lambda run: (self.value(run, until, seen), -run)))
        return stay
