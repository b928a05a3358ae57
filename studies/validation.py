"""Predictions against real runs: goes through the rounds of a validation with given functions, and keeps the record.

Rule: rounds are interleaved. All cases have their first round, then all have their second, and so on, so that a machine
that becomes slower meanwhile is slower for all of them. In each round a case is profiled, predicted, and run twice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from .judgement import AB_MOST, clock, complete, verdict
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
        """Where the seconds go, from a traced simulation and a traced real run that counts for nothing else.

        predicted, measured: for each worker, seconds by kind; see `analysis.where`.
        seconds: of the two runs.
        """


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
        new = "b" not in kept
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
        self._trace(again=new)

    def _trace(self, again: bool) -> None:
        """Find out where the seconds go, if that is not known. again: also if the traced run was no usual one."""
        whole = self.record.case(self.case.name)
        usual, known = clock(complete(whole)).measured, whole.get("where")

        def apart(where: dict[str, Any]) -> float:
            return abs(float(where["seconds"][1]) / usual - 1)

        if known is None or (again and apart(known) > AB_MOST):
            self._told("trace")
            found = self.world.where(self.case, whole["rounds"][self.number - 1]["predicted"], self.number)
            whole["where"] = found if known is None else min(known, found, key=apart)

    def _told(self, what: str) -> None:
        self.tell(f"round {self.number}: {what} {self.case.name}", *self.done)
