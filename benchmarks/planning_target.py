"""How much less is trained by successive halving than by training every way of a plan to the target, and is it right?

Clusters that are drawn, digits, to accuracies that are reached early and late. Every way of `paceline plan` is trained
once, to the end of its budget. What halving would have trained follows from these runs, since it looks at their reports
alone. It is counted in epochs of training, over all ways of a plan, so a busy machine changes nothing. A cluster is a
turn.

- halving: until a way has reached the target. It may have cut the one that is the first.
- halving and proof: then also those that were cut, up to that moment. This must find the first one.
- all ways: each to the target or to the end of its budget.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from pathlib import Path
from typing import Any

import numpy as np

from paceline.config.metrics import Target
from paceline.config.scenario import validate
from paceline.job import resolve
from paceline.planning.plan import plan
from paceline.planning.runs import Waiting
from paceline.studies.halving import Halving, Point

from .form import Row, compare, rounded
from .harness import Found, Run

SECONDS = 50  # it takes no turns; this is what it takes on two cores
TARGETS = (Target.read("accuracy 90%"), Target.read("accuracy 93%"))
EPOCHS, TRAIN, TURNS = 8, 1437, 12


def cluster(seed: int) -> dict[str, Any]:
    """A scenario's document."""
    random = np.random.default_rng(seed)
    fast = float(random.uniform(2000, 20000))
    workers = [
        {"device": "fast", "count": int(random.integers(1, 4)), "speed": f"{fast:.0f} samples/s"},
        {
            "device": "slow",
            "count": int(random.integers(1, 3)),
            "speed": f"{fast / random.uniform(1.5, 16):.0f} samples/s",
        },
    ]
    network = {"bandwidth": f"{10 ** random.uniform(1.5, 3):.0f} Mbit/s", "latency": f"{random.uniform(0.1, 2):.2f} ms"}
    return {
        "seed": seed,
        "workload": {"model": {"name": "mlp", "hidden": [64]}, "batch": 32, "optimizer": {"lr": 0.1}},
        "cluster": {"workers": workers, "network": network},
        "strategy": {"preset": "sync_sgd"},
        "budget": {"epochs": EPOCHS},
        "report": {"every": "0.1 epochs"},
    }


class Known:
    """A training whose reports are known."""

    def __init__(self, reports: Sequence[Point]) -> None:
        self._reports, self._taken = reports, 0

    @property
    def points(self) -> Sequence[Point]:
        return self._reports[: self._taken]

    @property
    def over(self) -> bool:
        return self._taken == len(self._reports)

    def go_on(self) -> None:
        self._taken += 1

    def close(self) -> None:
        """Nothing is held."""


Lab = tuple[list[list[Point]], float, frozenset[int]]


def trained(document: dict[str, Any]) -> Lab:
    """(the reports of every way, seconds of the fastest one's epoch, the ways that a user would have taken)."""
    answer = plan(document)
    like = resolve(validate(document, "lab"), Path())
    found = []
    for each in answer.documents:
        way = Waiting(each, TARGETS[0], like)
        while not way.over:
            way.go_on()
        found.append(way.points)
    usual = {n for n, row in enumerate(answer.rows) if not {*row.roles} <= {"recommended", "front"}}
    return found, min(row.epoch for row in answer.rows), frozenset(usual)


def to_target(reports: Sequence[Point], target: Target) -> float:
    """Seconds to the target; infinite where it is not reached."""
    return next((point.seconds for point in reports if target.reached(point.value)), inf)


def judged(target: Target, labs: Sequence[Lab]) -> tuple[list[Row], dict[str, Any]]:
    """What each procedure trains to a target: rows and figures."""
    taken: dict[str, list[float]] = {name: [] for name in ("halving", "halving and proof", "all ways")}
    late, counts = list[float](), list[int]()
    for reports, epoch, usual in labs:
        best = min(to_target(each, target) for each in reports)
        if best == inf:
            continue
        procedures = [Halving([*map(Known, reports)], target, epoch * EPOCHS, usual) for _ in taken]
        alone, proved, whole = procedures
        alone.halve()
        proved.halve()
        proved.prove()
        whole.finish(range(len(reports)))
        if proved.best != best:
            raise RuntimeError(f"{target} after {proved.best} s, and after {best} s by training all")
        late.append(alone.best / best)
        counts.append(len(reports))
        for epochs, procedure in zip(taken.values(), procedures, strict=True):
            epochs.append(sum(run.points[-1].samples / TRAIN for run in procedure.runs if run.points))
    case = f"digits to {target.value:.0%}, {len(counts)} clusters, {min(counts)} to {max(counts)} ways"
    ways = ("halving", "halving and proof")
    rows = [compare(case, name, "all ways", taken, "time", bar=1.0, unit="epochs of training") for name in ways]
    figures = {
        f"{case}: how often halving alone finds the first way": late.count(1.0),
        f"{case}: its way's time over the first one's, at most": rounded(max(late)),
    }
    return rows, figures


def measure(run: Run) -> Found:
    """Train every way on every cluster; what each procedure needs of it."""
    labs = [trained(cluster(seed)) for seed in range(1 if run.small else TURNS)]
    found = Found()
    for target in TARGETS[: 1 if run.small else None]:
        rows, figures = judged(target, labs)
        found.rows += rows
        found.figures |= figures
    return found
