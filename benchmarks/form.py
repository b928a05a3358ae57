"""The one form of a results file: rows, each the ratio of a way to its baseline, and where and when it was measured."""

from __future__ import annotations

import os
import statistics
import subprocess
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from paceline.records.environment import environment

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
# Files in RESULTS of other forms: of `paceline validate`, of kills/ and of plan_real.py.
OTHERS = {"published", "validation", "kills", "plan_real"}

Measure = Literal["speed", "time", "memory", "accuracy", "exponent"]
# speed: the baseline's cost / the way's, how many times as fast it is. accuracy: the way's / the baseline's. time,
# memory: the way's / the baseline's. exponent: the slope of log time over log size, whose baseline is linear growth, 1.
MORE_IS_BETTER: dict[Measure, bool] = {
    "speed": True,
    "time": False,
    "memory": False,
    "accuracy": True,
    "exponent": False,
}


def cores() -> int:
    """The number of cores that this process may use; also where an older commit of Paceline is measured."""
    return len(os.sched_getaffinity(0))


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Limit(_Strict):
    """What the machine allows, as a ratio to the same baseline."""

    what: str
    ratio: float


class Row(_Strict):
    """One way against its baseline."""

    case: str  # what was done
    way: str  # who did it
    against: str  # the baseline
    measure: Measure
    ratio: float  # the median of the turns' ratios
    quartiles: tuple[float, float] | None  # of the turns' ratios; None: an earlier form of the benchmark did not tell
    turns: int = Field(ge=1)
    bar: float | None = None  # the least ratio, or the greatest one where less is better
    limit: Limit | None = None
    unit: str = ""  # of `costs`
    costs: dict[str, float] = {}  # medians, by way

    @property
    def holds(self) -> bool | None:
        """Whether the bar holds; None without one."""
        if self.bar is None:
            return None
        return self.ratio >= self.bar if MORE_IS_BETTER[self.measure] else self.ratio <= self.bar


class Result(_Strict):
    """What a benchmark found."""

    benchmark: str
    about: str  # the first line of its docstring
    date: date
    commit: str
    machine: dict[str, Any]  # versions, processor, cores, load before
    rows: tuple[Row, ...]
    figures: dict[str, Any] = {}  # what is not a comparison
    skipped: tuple[str, ...] = ()  # what this machine could not measure, and why
    converted: str | None = None  # of a run by an earlier form of the benchmark: what was different

    def write(self, path: Path | None = None) -> None:
        """Into its results file, or another one."""
        path = RESULTS / f"{self.benchmark}.json" if path is None else path
        path.write_text(self.model_dump_json(indent=1) + "\n")


def load_all() -> dict[str, Result]:
    """benchmark -> what its results file holds."""
    found = [path for path in sorted(RESULTS.glob("*.json")) if path.stem not in OTHERS]
    return {path.stem: Result.model_validate_json(path.read_text()) for path in found}


def rounded(value: float) -> float:
    """To four digits: no figure here is known better."""
    return float(f"{value:.4g}")


def spread(values: Sequence[float]) -> tuple[float, tuple[float, float]]:
    """(median, (lower, upper) quartile)."""
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else [values[0]] * 3
    return rounded(middle), (rounded(low), rounded(high))


def ratios(way: Sequence[float], against: Sequence[float], measure: Measure) -> list[float]:
    """The way's ratio to the baseline, turn by turn."""
    if measure == "speed":
        way, against = against, way
    return [a / b for a, b in zip(way, against, strict=True)]


def compare(
    case: str,
    way: str,
    against: str,
    taken: Mapping[str, Sequence[float]],
    measure: Measure = "speed",
    *,
    bar: float | None = None,
    limit: Limit | str | None = None,
    unit: str = "s",
) -> Row:
    """The row of `way`. taken: each way's costs, turn by turn. limit: the name of one that is the machine's limit."""
    ratio, quartiles = spread(ratios(taken[way], taken[against], measure))
    if isinstance(limit, str):
        limit = Limit(what=limit, ratio=spread(ratios(taken[limit], taken[against], measure))[0])
    return Row(
        case=case,
        way=way,
        against=against,
        measure=measure,
        ratio=ratio,
        quartiles=quartiles,
        turns=len(taken[way]),
        bar=bar,
        limit=limit,
        unit=unit,
        costs={name: rounded(statistics.median(taken[name])) for name in (way, against)},
    )


def growth(
    case: str, way: str, sizes: Sequence[int], taken: Sequence[Sequence[float]], bar: float | None = None
) -> Row:
    """The exponent with which costs grow. taken: by turn, a cost for each size. By least squares."""
    import numpy as np

    slopes = [float(np.polyfit(np.log(sizes), np.log(costs), 1)[0]) for costs in taken]
    ratio, quartiles = spread(slopes)
    columns = zip(sizes, zip(*taken, strict=True), strict=True)
    costs = {f"{size:,}": rounded(statistics.median(column)) for size, column in columns}
    return Row(
        case=case,
        way=way,
        against="linear growth",
        measure="exponent",
        ratio=ratio,
        quartiles=quartiles,
        turns=len(taken),
        bar=bar,
        limit=Limit(what="linear growth", ratio=1.0),
        unit="s",
        costs=costs,
    )


def machine() -> dict[str, Any]:
    """Where this runs: call it before the measurement, which loads the machine itself."""
    return {**environment(1), "cores": cores(), "load_before": rounded(os.getloadavg()[0])}


def commit(revision: str = "HEAD") -> str:
    """Its short name; empty outside of a clone."""
    command = ["git", "rev-parse", "--short", revision]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout.strip()
