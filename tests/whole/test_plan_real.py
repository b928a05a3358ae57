"""benchmarks/plan_real.py: what its figures mean, and that the page has those of the results file."""

from __future__ import annotations

from datetime import date

import pytest

from benchmarks import plan_real
from benchmarks.plan_real import CLUSTERS, FILE, FOLDER, PAGE, TARGET, Cluster, Way
from paceline.config.scenario import load
from paceline.emulated_network import described_star
from paceline.marked_page import END


def cluster(*measured):
    ways = [Way(name=f"way {n}", roles="", predicted=1.0, measured=m, epochs=2.0) for n, m in enumerate(measured)]
    return Cluster(target="t", date=date(2026, 1, 1), commit="", machine={}, ways=tuple(ways), never=1)


def test_a_winner_is_near_by_the_medians_of_the_turns():
    found = cluster((1.04, 9.0, 1.0), (1.0, 1.0), (4.0,))
    assert found.behind == pytest.approx(0.04)
    assert found.ways[0].error == pytest.approx(1 / 1.04 - 1)
    assert found.ways[0].apart == pytest.approx(8 / 1.04)
    assert found.ways[2].apart is None
    far = cluster((1.2,), (1.0,))
    near, close, _ = plan_real.judged({"a": found, "b": far})
    assert "on 1 of 2 clusters" in near
    assert "Of 5 predictions 3 are within 15%" in close
    assert "and 1 of 2 for the recommended ways" in close


def test_the_table_names_ways_and_roles():
    row = {
        "method": "local_sgd",
        "H": {"fast": 4, "slow": 1},
        "steps_between_syncs": 4.0,
        "batches": {"fast": 8, "slow": 8},
        "placement": "replicated",
        "wire": "bf16",
        "left_out": {"old": 2},
    }
    assert plan_real.name_of(row) == "local_sgd, steps 4/1, batches 8, bf16, without 2 old"
    lines = list(plan_real.table(cluster((1.04, 1.0), (2.0,))))
    assert lines[2] == "| 1. way 0 | 1.000 | 1.020 | -2.0% | 3.9% | 2 | 2 |"
    assert lines[3].endswith("| 2.000 | -50.0% | - | 1 | 2 |")


def test_a_cluster_takes_the_place_of_its_earlier_one(tmp_path):
    path, (first, second, *_) = tmp_path / "found.json", CLUSTERS
    plan_real.keep(second, cluster((1.0,)), path)
    plan_real.keep(first, cluster((2.0,)), path)
    plan_real.keep(second, cluster((3.0,)), path)
    kept = plan_real.load(path)
    assert {name: each.ways[0].seconds for name, each in kept.items()} == {first: 2.0, second: 3.0}
    assert list(kept) == [first, second]


def test_the_clusters_are_six_that_fit_two_cores():
    assert set(CLUSTERS) == {path.stem for path in FOLDER.glob("*.yaml")}
    assert len(CLUSTERS) == 6
    for name in CLUSTERS:
        scenario = load(FOLDER / f"{name}.yaml")
        slowdowns = [place.group.slowdown for place in scenario.cluster.places]
        assert name.startswith(f"{len(slowdowns)}-{'equal' if len(set(slowdowns)) == 1 else 'unequal'}-")
        assert sum(1 / slowdown for slowdown in slowdowns) < 2
        assert scenario.train.emulate
        assert scenario.train.emulate_network == name.endswith("-star")
        if scenario.train.emulate_network:
            assert set(described_star(scenario.cluster).rates) == {125e6}


def test_the_page_is_what_the_results_say():
    found = plan_real.load(FILE)
    assert all(each.target == str(TARGET) for each in found.values())
    text = PAGE.read_text().partition(plan_real.BEGIN)[2].partition(END)[0]
    assert text.strip("\n") == plan_real.content(found)
