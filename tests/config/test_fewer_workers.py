"""A scenario without some of its workers: what is said of single workers follows them, and the rest stays."""

from __future__ import annotations

from typing import Any

import pytest

from kit.cli import MLP, scenario
from paceline.algorithms.presets import PRESETS
from paceline.algorithms.strategy import AXES
from paceline.config.arguments import hints_of, marks_of
from paceline.config.fewer_workers import remaining, without
from paceline.config.scenario import Scenario, validate
from paceline.config.sections import described
from paceline.program.errors import ScenarioError

SGD = {"preset": "sync_sgd"}


def given(strategy: dict[str, Any] = SGD, workers: int = 4, **more: Any) -> Scenario:
    return validate(scenario(workers, MLP, strategy, 2, **more), "s")


def left(found: Scenario, key: str) -> Any:
    """What the scenario says at a key, and that it reads back as it is."""
    assert validate(described(found), "there") == found
    node: Any = described(found)
    for part in key.split("."):
        node = node[part]
    return node


@pytest.mark.parametrize(
    ("groups", "gone", "expected"),
    [
        ([("a", 3), ("b", 2)], [1], [("a", 2), ("b", 2)]),
        ([("a", 3), ("b", 2)], [3, 4], [("a", 3)]),
        ([("a", 1), ("b", 2), ("c", 1)], [0, 2], [("b", 1), ("c", 1)]),
        ([("a", 1_000_000)], [5], [("a", 999_999)]),
    ],
)
def test_groups_of_workers(groups, gone, expected):
    described_groups = [{"device": name, "speed": "9 samples/s", "count": count} for name, count in groups]
    found = without(given(cluster={"workers": described_groups}), gone)
    assert [(group["device"], group["count"]) for group in left(found, "cluster.workers")] == expected


def test_nodes_that_lose_some_of_their_workers():
    """12 workers in 4 nodes: one node loses a worker, one all of its workers, the others none."""
    devices = [{"device": "a", "speed": "9 samples/s", "count": 2}, {"device": "b", "speed": "3 samples/s"}]
    nodes = [{"devices": devices, "count": 4, "host_memory": "12 GB"}]
    before = given(cluster={"nodes": nodes, "network": {"shape": "two_level", "inside": "1 GB/s"}})
    found = without(before, [4, 6, 7, 8])
    assert found.cluster.size == 8
    names = [(place.group.device, place.node) for place in found.cluster.places]
    assert names == [("a", 0), ("a", 0), ("b", 0), ("a", 1), ("b", 1), ("a", 2), ("a", 2), ("b", 2)]
    assert [group["count"] for group in left(found, "cluster.nodes")] == [1, 1, 1]
    assert {place.group.host_memory for place in found.cluster.places} == {4e9, 6e9}, "a node's memory is shared again"
    typed = given(cluster={"nodes": [{"type": "dgx-h100", "count": 2}], "network": {"shape": "two_level"}})
    assert without(typed, range(8, 15)).cluster.size == 9


def test_the_network_follows_its_workers():
    rows = [[0 if a == b else f"{10 * (a + 1) + b} MB/s" for b in range(4)] for a in range(4)]
    flows = [{"from": 0, "to": 1, "bandwidth": "1 MB/s"}, {"from": 3, "to": 0, "bandwidth": "2 MB/s"}]
    cluster = {"workers": [{"speed": "9 samples/s", "count": 4}], "background": flows}
    found = without(given(cluster=cluster | {"network": {"shape": "matrix", "matrix": rows}}), [1])
    assert found.cluster.network.matrix == ((0, 12e6, 13e6), (30e6, 0, 33e6), (40e6, 42e6, 0))
    assert [(flow["from"], flow["to"]) for flow in left(found, "cluster.background")] == [(2, 0)]


@pytest.mark.parametrize(
    ("strategy", "axis", "expected"),
    [
        ({"split": {"given": {"batches": [1, 2, 3, 4]}}}, "split", {"given": {"batches": [2, 4]}}),
        (
            {"split": {"given": {"paces": [1, 0.5, 0.5, 0.25]}}, "aggregation": "parameters"},
            "split",
            {"given": {"paces": [1.0, 0.5]}},
        ),
        ({"split": {"given": [1, 2, 3, 4]}}, "split", {"given": [2, 4]}),
        ({"split": {"by_batch": {"max": [9, 8, 7, 6]}}}, "split", {"by_batch": {"max": [8, 6]}}),
        ({"split": {"by_batch": {"max": 9}}}, "split", {"by_batch": {"max": 9}}),
        ({"split": {"by_class": {"cpu": 3}}}, "split", {"by_class": {"cpu": 3}}),
        ({"preset": "hdp", "max": [9, 8, 7, 6]}, "max", [8, 6]),
        ({"preset": "hdp", "mode": "equal"}, "mode", "equal"),
        ({"aggregation": {"gradients": [1, 0, 2, 5]}}, "aggregation", {"gradients": [0, 5]}),
        (
            {"aggregation": {"slowmo": {"inner": {"parameters": {"weights": [1, 0, 2, 5]}}}}, "schedule": {"fixed": 2}},
            "aggregation",
            {"slowmo": {"inner": {"parameters": {"weights": [0, 5]}}}},
        ),
        (
            {"aggregation": {"until": {"t": "3 rounds", "a": {"gradients": [1, 1, 2, 5]}}}},
            "aggregation",
            {"until": {"t": "3 rounds", "a": {"gradients": [1, 5]}}},
        ),
        ({"sampling": {"top_loss": {"workers": [0, 3]}}}, "sampling", {"top_loss": {"workers": [1]}}),
        ({"sampling": {"top_loss": {"ratio": 2}}}, "sampling", {"top_loss": {"ratio": 2}}),
    ],
)
def test_what_a_strategy_says_of_single_workers(strategy, axis, expected):
    assert left(without(given(strategy), [0, 2]), f"strategy.{axis}") == expected


def test_every_list_of_a_member_is_known():
    """A list of numbers that nothing is said of would keep its length, and be refused when a worker is gone."""
    for kind in [*PRESETS.values(), *(kind for members in AXES.values() for kind in members.values())]:
        for name, hint in hints_of(kind).items():
            if "tuple[int" in str(hint) or "tuple[float" in str(hint):
                assert name in marks_of(kind), (kind, name)


def test_faults_follow_their_workers():
    faults = [
        {"name": "straggler", "worker": 0, "factor": 2},
        {"name": "pause", "worker": 1, "at": "2 rounds", "duration": "1 s"},
        {"name": "loss", "worker": 3, "at": "1 s"},
        {"name": "slow_link", "link": "worker 1", "factor": 2},
        {"name": "slow_link", "link": "worker 2", "factor": 3},
        {"name": "slow_link", "link": "node 1", "factor": 4},
        {"name": "slow_link", "link": "node 3", "factor": 5},
        {"name": "slow_link", "link": "0 to 1", "factor": 6},
        {"name": "slow_link", "link": "2 to 0", "factor": 7},
        {"name": "slow_link", "factor": 8},
        {"name": "slow_link", "link": "bus", "factor": 9},
    ]
    found = left(without(given(faults=faults), [1]), "faults")
    kept = [(fault["name"], fault.get("worker", fault.get("link"))) for fault in found]
    assert kept == [
        ("straggler", 0),
        ("loss", 2),
        *[("slow_link", name) for name in ("worker 1", "node 2", "1 to 0", None, "bus")],
    ]
    assert [fault["number"] for fault in found] == [0, 2, 4, 6, 8, 9, 10]


def test_what_makes_no_sense_is_one_line():
    with pytest.raises(ScenarioError, match="no worker is left of 4"):
        without(given(), range(4))
    with pytest.raises(ScenarioError, match="worker 4 does not exist; there are workers 0 to 3"):
        without(given(), [4])
    with pytest.raises(ScenarioError, match="batches has 2 values for 4 workers"):
        without(given({"split": {"given": {"batches": [1, 2]}}}), [0])
    assert remaining(4, {1, 2}) == (0, 3)
