"""The comparison of two runs: are their losses equal, where do they first differ, how far are their clocks apart?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from .run import Run

# The numbers in the reports of a run that computes, except in a report before its first step. Metrics may have none.
_EXPECTED = ("train_loss", "test_loss", "grad_norm", "param_norm")
# The numbers that must be equal to the last bit, as metrics must be.
_NUMBERS = ("train_loss", "test_loss", "grad_norm", "param_norm", "m_norm", "v_norm")
_PLAN = ("round", "step", "samples", "H", "lr")


@dataclass(frozen=True)
class Difference:
    """The first place where two runs differ, or where neither has a number. line: number of the report, from 0."""

    line: int
    field: str
    left: Any
    right: Any

    @property
    def nothing(self) -> bool:
        """Whether neither run has a number here."""
        return not _known(self.left) and not _known(self.right)

    def __str__(self) -> str:
        if self.nothing:
            return f"report {self.line}: {self.field} is not a number in either run"
        if self.left is None or self.right is None:
            lacking, other = ("first", self.right) if self.left is None else ("second", self.left)
            return f"report {self.line}: {self.field} is {other!r} in one run and not known in the {lacking}"
        return f"report {self.line}: {self.field} is {self.left!r} in the first run and {self.right!r} in the second"


@dataclass(frozen=True)
class Verdict:
    """What a comparison comes to, in words."""

    good: bool  # whether the runs are equal, as far as can be told
    text: str  # "same numbers", for example
    more: tuple[str, ...] = ()  # sentences; the first one belongs to the text


@dataclass(frozen=True)
class Comparison:
    """How two runs compare. Numbers that cannot be computed, for example since a run took no time, are NaN."""

    same: bool  # losses and parameters are numbers and, like metrics, equal to the last bit
    same_plan: bool  # rounds, steps, samples and learning rates are equal: all that a timing-only run can agree in
    difference: Difference | None  # the first one
    worst: float  # the largest relative difference of a loss
    seconds: tuple[float, float]  # of each run
    per_round: tuple[float, float]  # seconds per round of each run
    error: float  # (left - right) / right: of a prediction on the left, its error
    per_report_error: float  # the median of |error| over the intervals between reports
    explained: list[str]  # differences of the environments that can change bits, such as the instruction set

    def verdict(self, left: Run, right: Run) -> Verdict:
        """What it comes to, for the runs that were compared."""
        reports = f"{len(left.lines)} reports"
        timed = [run for run in (left, right) if run.summary.get("timing_only")]
        if self.same:
            both = left.summary.get("params_sha256") is not None
            what = f"{reports}{' and the final parameters' if both else ''} agree to the last bit"
            return Verdict(True, "same numbers", (what,))
        if self.same_plan and len(timed) == 1:
            return Verdict(True, "same plan", (f"{reports}; {timed[0].name} is timing-only",))
        if self.difference and self.difference.nothing:
            return Verdict(False, "no numbers to compare", (str(self.difference),))
        worst = f"largest relative difference of a loss: {self.worst:.3g}"
        bits = (f"this can change bits: {line}" for line in self.explained)
        return Verdict(False, "the runs differ", (str(self.difference), worst, *bits))


def compare(left: Run, right: Run) -> Comparison:
    """Compare two runs of a scenario: `left` is by convention the simulated one, `right` the real one."""
    metrics = [name for name in left.metric_names if name in right.metric_names]
    difference = _first_difference(left, right, (*_PLAN, *_NUMBERS, *metrics))
    hashes = left.summary.get("params_sha256"), right.summary.get("params_sha256")
    if difference is None and hashes[0] != hashes[1]:
        difference = Difference(len(left.lines), "params_sha256", *hashes)
    first, second = (run.summary.get("seconds") for run in (left, right))
    seconds = math.nan if first is None else float(first), math.nan if second is None else float(second)
    rounds = left.summary["rounds"], right.summary["rounds"]
    return Comparison(
        same=difference is None,
        same_plan=difference is None or _first_difference(left, right, _PLAN) is None,
        difference=difference,
        worst=_worst(left, right),
        seconds=seconds,
        per_round=(seconds[0] / rounds[0], seconds[1] / rounds[1]),
        error=_relative(*seconds),
        per_report_error=_median_interval_error(left, right),
        explained=_environment_differences(left, right),
    )


@dataclass(frozen=True)
class Interval:
    """The rounds between two reports that both runs have."""

    round: int  # the last one
    seconds: tuple[float, float]  # of a round, the mean, in each run

    @property
    def error(self) -> float:
        """(left - right) / right."""
        return _relative(*self.seconds)


def intervals(left: Run, right: Run) -> list[Interval]:
    """What a round took in each run, from one common report to the next one."""
    times = [{line["round"]: line["seconds"] for line in run.lines if _known(line["seconds"])} for run in (left, right)]
    common = [(round, times[0][round], times[1][round]) for round in sorted(times[0].keys() & times[1].keys())]
    return [
        Interval(late[0], ((late[1] - early[1]) / (late[0] - early[0]), (late[2] - early[2]) / (late[0] - early[0])))
        for early, late in pairwise([(0, 0.0, 0.0), *common])
        if late[0] > early[0]
    ]


def one_scenario(left: Run, right: Run) -> bool:
    """Whether two runs are of one scenario: the same training on the same machines, whatever priced or varied them."""
    return _described(left) == _described(right)


def _described(run: Run) -> list[Any]:
    """What one scenario is: its parts that say what is trained and on what."""
    machines = {key: value for key, value in run.scenario["cluster"].items() if key not in ("profile", "noise")}
    parts = ("seed", "workload", "strategy", "budget", "reduction", "faults")
    return [machines, *(run.scenario.get(part) for part in parts)]


def _relative(left: float, right: float) -> float:
    return (left - right) / right if right else math.nan


def _first_difference(left: Run, right: Run, fields: Sequence[str]) -> Difference | None:
    expected = _expected(left, right)
    for number, (a, b) in enumerate(zip(left.lines, right.lines, strict=False)):
        for name in fields:
            nothing = name in expected and name in a and a["step"] > 0 and not _known(a[name])
            if nothing or not _equal(a.get(name), b.get(name)):
                return Difference(number, name, a.get(name), b.get(name))
    if len(left.lines) != len(right.lines):
        return Difference(
            min(len(left.lines), len(right.lines)), "number of reports", len(left.lines), len(right.lines)
        )
    return None


def _equal(a: Any, b: Any) -> bool:
    """Whether two values are equal to the last bit. Two values that are not numbers are equal."""
    return bool(a == b) if _known(a) and _known(b) else _known(a) == _known(b)


def _known(value: Any) -> bool:
    """Whether a value is a finite number. Files hold null for others."""
    return value is not None and not (isinstance(value, float) and not math.isfinite(value))


def _expected(left: Run, right: Run) -> set[str]:
    """The fields that must be numbers, if the runs are to be the same: none of them in timing-only runs."""
    if left.summary.get("timing_only") and right.summary.get("timing_only"):
        return set()
    return {
        name
        for name in _EXPECTED
        if name == "train_loss" or any(_known(line.get(name)) for run in (left, right) for line in run.lines)
    }


def _worst(left: Run, right: Run) -> float:
    """The largest relative difference of a loss; 0 where all are equal."""
    pairs = [
        (a[name], b[name])
        for a, b in zip(left.lines, right.lines, strict=False)
        for name in ("train_loss", "test_loss")
        if _known(a.get(name)) and _known(b.get(name))
    ]
    return max((abs(x - y) / max(abs(y), 1e-12) for x, y in pairs), default=0.0)


def _median_interval_error(left: Run, right: Run) -> float:
    """The median of |error| over the intervals between reports, which a single delay does not change."""
    lines = zip(left.lines, right.lines, strict=False)
    times = [(a["seconds"], b["seconds"]) for a, b in lines if _known(a.get("seconds")) and _known(b.get("seconds"))]
    known: list[tuple[float, float]] = [(0.0, 0.0), *times]
    spans = [(late[0] - early[0], late[1] - early[1]) for early, late in pairwise(known)]
    errors = sorted(abs(_relative(a, b)) for a, b in spans if b > 0)
    return errors[len(errors) // 2] if errors else math.nan


def _environment_differences(left: Run, right: Run) -> list[str]:
    a, b = ((run.scenario.get("recorded") or {}).get("environment", {}) for run in (left, right))
    return [
        f"{key}: {a.get(key)} against {b.get(key)}"
        for key in ("torch", "numpy", "instruction_set", "threads")
        if a.get(key) != b.get(key)
    ]
