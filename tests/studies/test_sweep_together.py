"""Which points of a sweep are simulated together, and what happens where that fails or takes long."""

from __future__ import annotations

import time
from typing import Any

from kit.cli import MLP, scenario
from paceline import simulate, sweep, sweeping
from paceline.config import yaml
from paceline.processes import process_pool
from paceline.studies.sweep import LONG, measure, run
from paceline.studies.table import SweepTable

LISTS = ("bytes_per_worker", "idle_share", "computing_seconds")


class Alike:
    """A simulator whose points are numbers: equal ones modulo 3 are of one kind, and one of them fails."""

    def __init__(self, slow: bool = False) -> None:
        self.slow, self.calls = slow, list[list[int]]()

    def prepare(self, point: Any) -> int:
        if point["n"] == 5:
            raise ValueError("five")
        return int(point["n"])

    def kind(self, number: int) -> int | None:
        return number % 3 or None

    def most(self, number: int) -> int:
        return 3

    def together(self, several: Any) -> Any:
        self.calls.append(list(several))
        if 4 in several:
            raise KeyError("together")
        return [self._summary(number) for number in several]

    def alone(self, number: int) -> Any:
        self.calls.append([number])
        if number == 4:
            raise KeyError("four")
        return self._summary(number)

    def _summary(self, number: int) -> dict[str, Any]:
        if self.slow:
            time.sleep(0.3)
        return {"seconds": number, "steps": 1, "syncs": {}, "metrics": {}} | {key: [0] for key in LISTS}


def test_points_of_one_kind_are_simulated_together():
    simulator, points = Alike(), [{"n": n} for n in range(13)]
    found, _ = measure(simulator, points)
    assert simulator.calls == [[0], [1, 4, 7], [1], [4], [7], [10], [2, 8, 11], [3], [6], [9], [12]]
    assert [row["seconds"] for row in found if "seconds" in row] == [0, 1, 2, 3, 6, 7, 8, 9, 10, 11, 12]
    assert [row["error"] for row in found if row.get("error")] == ["KeyError: 'four'", "ValueError: five"]
    found, seconds = measure(Alike(slow=True), points)
    assert seconds > LONG
    assert [row is None for row in found].count(True) > 5, "what takes long is given back"


def test_what_is_given_back_runs_later():
    points = [{"n": n} for n in (0, 1, 2, 7, 8)]
    table = SweepTable(None, points, ["n"], "base")
    with process_pool(1) as pool:
        run(points, Alike(slow=True), pool, table)
    assert list(table.frame()["seconds"]) == [0, 1, 2, 7, 8]


def test_points_that_differ_in_times_run_together(tmp_path, monkeypatch):
    tiny = tmp_path / "tiny.yaml"
    tiny.write_text(yaml.dump(scenario(2, MLP, {"preset": "local_sgd", "H": 2}, 3)))
    groups, together = [], sweeping.Simulator.together
    monkeypatch.setattr(sweeping.Simulator, "together", lambda self, s: (groups.append(len(s)), together(self, s))[1])
    grid = {"strategy.H": [1, 2], "cluster.noise.sigma": [0.1, 0.2], "seed": [1, 2]}
    found = sweep(tiny, grid, jobs=1, settings=["report.every=1 rounds"])
    assert groups == [4, 4]
    for _, row in found.iterrows():
        settings = ["report.every=1 rounds", *(f"{key}={row[key]}" for key in grid)]
        assert row["seconds"] == simulate(tiny, settings=settings, timing_only=True).summary["seconds"]
    groups.clear()
    failing = {"cluster.workers.0.speed": ["50 samples/s", "1e-300 samples/s", "60 samples/s"]}
    assert list(sweep(tiny, failing, jobs=1)["error"] != "") == [False, True, False]
