"""Two runs held against each other: the same losses? where do they part? how far are their clocks apart?"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from .run import Run

# What two worlds must agree on to the last bit.
_NUMBERS = ("train_loss", "test_loss", "accuracy", "grad_norm", "param_norm", "m_norm", "v_norm")
_PLAN = ("round", "step", "samples", "H", "lr")


@dataclass(frozen=True)
class Difference:
    """The first place where two runs part. line: number of the report, from 0."""

    line: int
    field: str
    left: Any
    right: Any

    def __str__(self) -> str:
        return f"report {self.line}: {self.field} is {self.left!r} in the first run and {self.right!r} in the second"


@dataclass(frozen=True)
class Comparison:
    """same: losses, accuracies and parameters agree to the last bit. worst: the largest relative loss difference.

    seconds: each run's total. per_round: each run's seconds per round. error: (left - right) / right, so that with the
    prediction left and the real run right it is the prediction's error. explained: environment differences that can
    change bits, such as the instruction set.
    """

    same: bool
    difference: Difference | None
    worst: float
    seconds: tuple[float, float]
    per_round: tuple[float, float]
    error: float
    per_report_error: float
    explained: list[str]


def compare(left: Run, right: Run) -> Comparison:
    """Compare two runs of a scenario, by custom the simulated one first."""
    difference = _first_difference(left, right)
    hashes = left.summary.get("params_sha256"), right.summary.get("params_sha256")
    if difference is None and hashes[0] != hashes[1]:
        difference = Difference(len(left.lines), "params_sha256", *hashes)
    seconds = float(left.summary["seconds"]), float(right.summary["seconds"])
    rounds = left.summary["rounds"], right.summary["rounds"]
    return Comparison(
        same=difference is None,
        difference=difference,
        worst=_worst(left, right),
        seconds=seconds,
        per_round=(seconds[0] / rounds[0], seconds[1] / rounds[1]),
        error=_relative(*seconds),
        per_report_error=_median_interval_error(left, right),
        explained=_environment_differences(left, right),
    )


def _relative(left: float, right: float) -> float:
    return (left - right) / right if right else math.nan


def _first_difference(left: Run, right: Run) -> Difference | None:
    for number, (a, b) in enumerate(zip(left.lines, right.lines, strict=False)):
        for name in (*_PLAN, *_NUMBERS):
            if not _equal(a.get(name), b.get(name)):
                return Difference(number, name, a.get(name), b.get(name))
    if len(left.lines) != len(right.lines):
        return Difference(
            min(len(left.lines), len(right.lines)), "number of reports", len(left.lines), len(right.lines)
        )
    return None


def _equal(a: Any, b: Any) -> bool:
    """Equal to the last bit; not a number, which files hold as null, is equal to itself."""
    missing = [value is None or value != value for value in (a, b)]
    return missing[0] == missing[1] if any(missing) else bool(a == b)


def _worst(left: Run, right: Run) -> float:
    """Largest relative difference of any loss, 0 where all are equal."""
    pairs = [
        (a[name], b[name])
        for a, b in zip(left.lines, right.lines, strict=False)
        for name in ("train_loss", "test_loss")
        if a.get(name) is not None and b.get(name) is not None
    ]
    return max((abs(x - y) / max(abs(y), 1e-12) for x, y in pairs), default=0.0)


def _median_interval_error(left: Run, right: Run) -> float:
    """Median of |error| over the intervals between reports: typical where a hiccup spoils the total."""
    times = [[0.0, *(line["seconds"] for line in run.lines)] for run in (left, right)]
    spans = [[b - a for a, b in pairwise(t)] for t in times]
    errors = sorted(abs(_relative(a, b)) for a, b in zip(*spans, strict=False) if b > 0)
    return errors[len(errors) // 2] if errors else math.nan


def _environment_differences(left: Run, right: Run) -> list[str]:
    a, b = (run.scenario.get("recorded", {}).get("environment", {}) for run in (left, right))
    return [
        f"{key}: {a.get(key)} against {b.get(key)}"
        for key in ("torch", "numpy", "instruction_set", "threads")
        if a.get(key) != b.get(key)
    ]
