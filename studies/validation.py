"""Predictions against real runs: goes through the rounds of a validation with given functions, and keeps the record.

Rule: rounds are interleaved. All cases have their first round, then all have their second, and so on, so that a machine
that becomes slower meanwhile is slower for all of them. In each round a case is profiled, predicted, and run twice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from .judgement import AB_MOST, complete, verdict
from .sweep import in_a_line
from .validation_record import Record

Measurement = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """One scenario to validate."""

    name: str
    family: str  # the preset
    group: str  # cases of one group have the same model, workers, speeds and network, so that they can be compared
    need: str  # names what is profiled for it; cases with one need share a profile. Empty: it needs none
    base: str  # a hash of its scenario and options


Tell = Callable[[str, int, int], None]  # (what runs now, rounds of a case that are done, of how many)


class World(Protocol):
    """What runs the cases. Rounds count from 1. Any exception becomes the case's error."""

    def profile(self, case: Case, round: int) -> None:
        """Measure the machine for a case's need."""

    def predict(self, case: Case, round: int) -> Measurement:
        """Simulate the case; see `analysis.measurements.prediction`."""

    def train(self, case: Case, which: str, round: int) -> Measurement:
        """Run the case for real; which: "a" or "b". See `analysis.measurements.measurement`."""

    def where(self, case: Case, prediction: Measurement, round: int) -> dict[str, Any]:
        """Where the seconds go: for "predicted" and "measured", a list of seconds by kind for each worker."""


@dataclass(frozen=True)
class Rounds:
    """How many rounds there are."""

    least: int  # of each case
    most: int  # of a case whose two real runs differ too much; see AB_MOST


def run(
    cases: Sequence[Case],
    world: World,
    record: Record,
    rounds: Rounds,
    tell: Tell = lambda what, done, total: None,
) -> None:
    """Run what the record lacks. A case that fails is left, and its error kept; other cases go on.

    Cases with one need are profiled once in a round. A profile is not kept for a later command, which has another
    machine before it, perhaps.
    """
    profiled = set[tuple[str, int]]()
    ordered = sorted(cases, key=lambda case: [other.need for other in cases].index(case.need))
    for number in range(1, rounds.most + 1):
        pending = [case for case in ordered if not record.case(case.name)["error"]]
        if number > rounds.least:
            pending = [case for case in pending if unsettled(record.case(case.name))]
        for place, case in enumerate(pending):
            done, total = place, len(pending)
            if number <= rounds.least:
                done, total = (number - 1) * len(pending) + place, rounds.least * len(pending)
            step = _Step(case, number, world, record, profiled, tell, (done, total))
            try:
                step.run()
            except Exception as error:
                record.case(case.name)["error"] = in_a_line(error)
            record.save()


def unsettled(kept: dict[str, Any]) -> bool:
    """Whether a case's two real runs differ by more than can be judged."""
    found = verdict("", kept).clock
    return found is not None and found.ab > AB_MOST


@dataclass
class _Step:
    """One round of one case."""

    case: Case
    number: int
    world: World
    record: Record
    profiled: set[tuple[str, int]]  # (need, round)
    tell: Tell
    done: tuple[int, int]  # rounds of a case: how many are done, of how many

    def run(self) -> None:
        """Run what the record lacks of the round, and save after each run."""
        case, number, world = self.case, self.number, self.world
        kept = self.record.round(case.name, number)
        if "predicted" not in kept:
            if case.need and (case.need, number) not in self.profiled:
                self._told("profile")
                world.profile(case, number)
                self.profiled.add((case.need, number))
            self._told("simulate")
            kept["predicted"] = world.predict(case, number)
        for which in "ab":
            if which not in kept:
                self._told(f"train {which.upper()}")
                kept[which] = world.train(case, which, number)
                self.record.save()
        whole = self.record.case(case.name)
        if "where" not in whole:
            self._told("trace")
            whole["where"] = world.where(case, complete(whole)[0]["predicted"], number)

    def _told(self, what: str) -> None:
        self.tell(f"round {self.number}: {what} {self.case.name}", *self.done)
