"""Many workers: what is done for each of them outside the engine is done once for each kind, and the numbers stay."""

from __future__ import annotations

import json
from typing import Any

import pytest

from paceline import simulate
from paceline.algorithms import plan as planning
from paceline.algorithms.phantom import PhantomWorker
from paceline.algorithms.splits import StepsByPace
from paceline.config.machines import Cluster
from paceline.config.scenario import Report, Scenario
from paceline.config.timing import Network
from paceline.program.effects import AllGather, AllReduce, Broadcast, ReduceScatter
from paceline.sim import said
from paceline.sim.collectives import ALGORITHMS
from paceline.sim.network import Fabric


def described(count: int, **strategy: Any) -> Scenario:
    return Scenario.model_validate(
        {
            "workload": {"model": "mlp", "data": "digits", "batch": 8, "optimizer": {"name": "sgd", "lr": 0.1}},
            "cluster": {
                "workers": [
                    {"device": "fast", "step_time": "2 ms", "count": count},
                    {"device": "slow", "step_time": "5 ms", "count": count},
                ],
                "network": {"bandwidth": "1 Gbit/s", "latency": "50 us"},
                "noise": {"sigma": 0.1},
            },
            "strategy": {"preset": "local_sgd", "H": 4, **strategy},
            "budget": {"rounds": 3},
        }
    )


def test_few_objects_and_a_short_record(monkeypatch, tmp_path):
    made: list[int] = []
    make = PhantomWorker.__init__
    monkeypatch.setattr(
        PhantomWorker, "__init__", lambda self, index, *a, **k: (made.append(index), make(self, index, *a, **k))[1]
    )
    n = 5000
    run = simulate(described(n // 2), timing_only=True, out=tmp_path / "run")
    assert run.summary["engine"] == "cohort"
    assert len(made) < 20
    assert (tmp_path / "run" / "scenario.yaml").stat().st_size < 10_000
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    for name in ("bytes_per_worker", "moved_per_worker", "computing_seconds", "idle_share"):
        assert summary[name] == run.summary[name]
        assert len(summary[name]) == n
    assert all(len(each) == n for each in summary["memory_predicted"].values())
    assert len(set(summary["computing_seconds"])) > n / 2  # each worker has noise of its own
    again = simulate(tmp_path / "run" / "scenario.yaml", timing_only=True)
    assert again.summary["seconds"] == run.summary["seconds"]
    assert run.scenario["recorded"]["batches"] == [{"times": n, "values": [8]}]
    assert [each["times"] for each in run.scenario["recorded"]["paces"]] == [n // 2, n // 2]


@pytest.mark.parametrize("weights", ["equal", "samples", "steps"])
def test_steps_said_once_for_each_pace(weights, monkeypatch):
    """Above FEW workers a round has no tuple of steps. Both engines and all weights read either."""
    scenario = described(3, aggregation={"parameters": {"weights": weights}})
    usual = simulate(scenario, timing_only=True)
    monkeypatch.setattr(planning, "FEW", 1)
    for engine in ("cohort", "simpy"):
        run = simulate(scenario, timing_only=True, engine=engine)
        assert repr({**run.summary, "engine": "cohort"}) == repr(usual.summary)  # NaN is not equal to itself
    paces = (1.0, 0.5, 1.0)
    assert [*StepsByPace(paces, {1.0: 4, 0.5: 2})] == [4, 2, 4]


def test_blocks_are_the_places():
    """Named nodes, nodes of one kind of device and of several."""
    two = {"count": 2, "devices": [{"device": "a", "count": 2}, {"device": "b"}]}
    found = {
        "workers": (
            [
                {"device": "a", "count": 2},
                {"device": "b", "node": "x"},
                {"device": "c", "node": "x", "count": 2},
                {"device": "d"},
            ],
            [0, 1, 2, 2, 2, 3],
        ),
        "nodes": ([two, {"count": 2, "devices": [{"device": "c", "count": 2}]}], [0, 0, 0, 1, 1, 1, 2, 2, 3, 3]),
    }
    for key, (groups, nodes) in found.items():
        cluster = Cluster.model_validate({key: groups})
        assert [place.node for place in cluster.places] == nodes
        assert len(cluster.places) == cluster.size
    assert [place.group.device for place in cluster.places] == [*"aabaabcccc"]


@pytest.mark.parametrize("collective", ALGORITHMS)
def test_equal_ports_are_priced_without_looking_at_each(collective):
    """A star says at once what its links carry. One whose ports are listed, all equal, is looked at link by link."""
    for n in (2, 3, 6, 8):
        alike, listed = (
            Fabric(Network("star", 1e9, 1e-5, collective=collective, ports=ports), nodes)
            for nodes in [tuple(worker // 2 for worker in range(n))]
            for ports in (None, (1e9,) * n)
        )
        for kind in (AllReduce, AllGather, ReduceScatter, Broadcast):
            first, second = (fabric.group(range(n)).price(kind, 8 * n, n - 1) for fabric in (alike, listed))
            assert (first.seconds, first.traffic) == (second.seconds, second.traffic)
            assert (first.steps, first.links) == (second.steps, second.links)


def test_reports_wait_in_a_file_until_the_run_has_ended(monkeypatch):
    """However little of them may stay in memory, they come in their order."""
    scenario = described(2).model_copy(update={"report": Report.model_validate({"log": "1 round"})})
    usual = simulate(scenario, timing_only=True)
    monkeypatch.setattr(said, "IN_MEMORY", 1)
    again = simulate(scenario, timing_only=True)
    assert [line["round"] for line in again.lines] == [1, 2, 3]
    assert repr([*again.lines]) == repr([*usual.lines])
