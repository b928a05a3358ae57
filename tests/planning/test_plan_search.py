"""A plan's search finds what trying every way would find, and its bounds hold."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from paceline.config.scenario import validate
from paceline.planning.bounds import Bounds, Root
from paceline.planning.judge import recommended
from paceline.planning.lab import Lab
from paceline.planning.space import Space
from paceline.planning.values import Values
from paceline.studies.front import ADDING, Node, exhaustive, leaves, search

SMALL = Space(steps=(8,), placements=("replicated", "offloaded"), wires=("fp32",), prefetch=(2,), unit_bytes=(1 << 18,))
LARGE = Space(steps=(2, 8), prefetch=(1, 2), unit_bytes=(1 << 18, 1 << 20))


def cluster(seed: int, noise: float = 0.0) -> dict[str, Any]:
    """A scenario on a few machines that are drawn: speeds or datasheets, limits, links, micro-batches."""
    draw = random.Random(seed)
    workers = []
    for kind in range(draw.choice((1, 2, 2, 3))):
        worker: dict[str, Any] = {"device": f"d{kind}", "count": draw.randint(1, 2)}
        if draw.random() < 0.6:
            worker["speed"] = f"{draw.choice((100, 300, 900, 3000)) * draw.uniform(0.7, 1.3)} samples/s"
        else:
            worker |= {"flops": f"{draw.choice((1, 5, 20))} Gflop/s", "memory_bandwidth": "10 GB/s"}
        if draw.random() < 0.4:
            worker["max_batch"] = draw.choice((8, 24, 64))
        elif draw.random() < 0.4:
            worker["memory"] = f"{draw.choice((4, 6, 20))} MB"
        if draw.random() < 0.3:
            worker["host_link"] = f"{draw.choice((0.5, 4))} GB/s"
        workers.append(worker)
    workload = {
        "model": {"name": "mlp", "hidden": [256, 128]},
        "data": "digits",
        "batch": draw.choice((8, 16, 33)),
        "optimizer": {"name": "sgd", "lr": 0.1, "momentum": 0.9},
        **({"micro_batch": 4} if draw.random() < 0.2 else {}),
    }
    network = {"bandwidth": f"{draw.choice((0.1, 1, 10))} Gbit/s", "latency": f"{draw.choice((0, 50, 500))} us"}
    return {
        "seed": seed,
        "workload": workload,
        "cluster": {"workers": workers, "network": network, "noise": {"sigma": noise}},
        "strategy": {"preset": "sync_sgd"},
        "budget": {"epochs": 3},
        "reduction": draw.choice(("ordered",) * 9 + ("fast",)),
    }


def prepared(document: dict[str, Any], space: Space = SMALL) -> tuple[list[Root], Bounds, Values]:
    lab = Lab(validate(document, "cluster"), Path())
    bounds = Bounds(lab)
    return bounds.roots(space, lab.teams(whole=False)), bounds, Values(lab)


@pytest.mark.parametrize("seed", range(30))
def test_the_choice_is_that_of_trying_every_way(seed: int) -> None:
    agrees(cluster(seed), SMALL)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(30, 45))
def test_the_choice_is_that_of_trying_every_way_in_a_large_space(seed: int) -> None:
    agrees(cluster(seed), LARGE)


def agrees(document: dict[str, Any], space: Space) -> None:
    """The search and trying every way have the same front, and choose the same way from it."""
    roots, _, values = prepared(document, space)
    nodes = [root.node for root in roots]
    found = search(nodes, values.seconds)
    tried, every = len(values), exhaustive(nodes, values.seconds)
    assert (found.front.gaps, found.front.seconds) == (every.gaps, every.seconds)
    assert [way.key for way in found.front.candidates] == [way.key for way in every.candidates]
    assert recommended(found.front).key == recommended(every).key
    assert len(values) < 100 or tried < 0.6 * len(values)  # most are left out


@pytest.mark.parametrize("seed", range(100, 106))
def test_no_way_takes_less_than_its_bound(seed: int) -> None:
    document = cluster(seed)
    document["workload"]["lr_schedule"] = "linear"  # so that QSR and post-local SGD are there
    roots, bounds, values = prepared(document, LARGE)
    ways = [way for root in roots for way in leaves(root.node)]
    for way in random.Random(seed).sample(ways, min(30, len(ways))):
        seconds = values.seconds(way)
        least = bounds.of(way.team, way.division, way.method, way.H, way.options, way.collective)
        assert seconds is None or least <= seconds * (1 + ADDING), way.strategy
        for _, part in way.parts():  # the scenario's own division is the one that the bound was made of
            assert values.job(part, 2).plan.first_round().samples == part.gap, part.strategy


@pytest.mark.parametrize("seed", [1, *(pytest.param(seed, marks=pytest.mark.long) for seed in range(200, 220))])
def test_with_noise_the_choice_is_within_a_percent(seed: int) -> None:
    roots, _, values = prepared(cluster(seed, noise=0.1))
    nodes = [root.node for root in roots]
    found = search(values.refined(nodes), values.seconds).front
    every = exhaustive(nodes, values.seconds)
    taken, best = (values.seconds(recommended(front)) for front in (found, every))
    assert taken == pytest.approx(best, rel=0.01)
    assert found.seconds[-1] <= every.seconds[-1] * 1.01


class Point:
    """A candidate with costs of its own."""

    def __init__(self, place: int, gap: float, seconds: float) -> None:
        self.place, self.gap, self.seconds = (place,), gap, seconds


def test_equal_candidates_are_told_apart_by_their_place_and_interrupts_give_what_was_found() -> None:
    points = [
        Point(n, gap, seconds) for n, (gap, seconds) in enumerate(((1, 3.0), (2, 2.0), (2, 2.0), (3, 2.0), (4, 1.0)))
    ]
    nodes = [Node(0.5, point.gap, point.place, point) for point in reversed(points)]
    found = search(nodes, lambda point: point.seconds)
    assert [point.place for point in found.front.candidates] == [(0,), (1,), (4,)]
    assert found.whole
    seen = list[Point]()

    def interrupted(point: Point) -> float:
        if len(seen) == 2:
            raise KeyboardInterrupt
        seen.append(point)
        return point.seconds

    stopped = search(nodes, interrupted)
    assert not stopped.whole
    assert [point.place for point in stopped.front.candidates] == [(3,), (4,)]


def test_what_is_bounded_by_more_than_a_known_time_is_not_simulated() -> None:
    quick, slow = Point(0, 1, 1.0), Point(1, 1, 2.0)
    asked = list[Point]()

    def value(point: Point) -> float:
        asked.append(point)
        return point.seconds

    search([Node(1.5, 1, (1,), slow), Node(0.5, 1, (0,), quick)], value)
    assert asked == [quick]


def test_batches_that_do_not_fit_are_computed_in_parts() -> None:
    """On a slow network a step has all of its samples, a few at a time, where the devices hold no more at once."""
    document = cluster(0)
    worker = {"device": "small", "count": 2, "speed": "5000 samples/s", "memory": "2 MB"}
    document["cluster"] |= {"workers": [worker], "network": {"bandwidth": "10 Mbit/s", "latency": "1 ms"}}
    document["workload"] = {**document["workload"], "batch": 512}
    document["workload"].pop("micro_batch", None)
    space = Space(steps=(2,), wires=("fp32",), prefetch=(1,), unit_bytes=(1 << 18,))
    roots, bounds, values = prepared(document, space)
    agrees(document, space)
    ways = [way for root in roots for way in leaves(root.node) if way.division.micro is not None]
    assert {way.placement for way in ways} >= {"replicated", "offloaded", "sharded"}
    for way in ways:
        least = bounds.of(way.team, way.division, way.method, way.H, way.options, way.collective)
        seconds = values.seconds(way)
        assert seconds is not None
        assert least <= seconds * (1 + ADDING)
        job = values.job(way, 2)
        assert not job.tight  # it is predicted to fit
        assert max(job.problem.recipe.micro_batch or 0, 1) == way.division.micro < max(way.division.shares.batches)
    assert max(sum(way.division.shares.batches) for way in ways) == 1024
