"""What is more than the machine can do is refused before it begins, with the number; what takes minutes is said."""

from __future__ import annotations

import resource
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kit.cli import MLP, scenario
from paceline import simulate
from paceline.algorithms.rounds import State
from paceline.config.scenario import Scenario
from paceline.effort import available_memory, check_sweep, duration
from paceline.job import resolve
from paceline.job_effort import EFFECT, check_training, seconds_of
from paceline.program.errors import ScenarioError
from paceline.rehearsal import rehearse
from paceline.studies.points import parse_grid

UNITS = {"unit_bytes": 0}
PLACED = {
    "sync_sgd": {"replicated": UNITS},
    "local_sgd": "replicated",
    "fsdp": {"sharded": UNITS},
    "lsdp": {"offloaded": UNITS},
}
LOCAL = {"preset": "local_sgd", "H": 4}
VIT = {"name": "vit", "patch": 2, "dim": 8, "heads": 2}


def described(strategy: dict[str, Any] = LOCAL, workers: int = 2, **sections: Any) -> Scenario:
    """A scenario of a few steps, with these keys of its sections replaced."""
    document = scenario(2, MLP, strategy, 3)
    document["cluster"] = {"workers": [{"device": "cpu", "speed": "1000 samples/s", "count": workers}]}
    for section, value in sections.items():
        document[section] = document.get(section, {}) | value if section != "budget" else value
    return Scenario.model_validate(document)


FLOW = {"from": 0, "to": 1, "bytes": "1 B", "every": "1e-12 s"}
TOO_MUCH = {
    "workers": (described(workers=10**9), "1e+09 workers takes about 954 GiB of memory"),
    "steps": (described(budget={"steps": 10**14}), "for 1e+14 steps in 2.5e+13 rounds takes about"),
    "rounds": (described(budget={"rounds": 10**13}), "1e+13 rounds takes about 6.98e+06 GiB of memory"),
    "epochs": (
        described(budget={"epochs": 1e9, "epoch": "100000000 steps"}),
        "write a smaller budget or fewer workers",
    ),
    "H": (described({"preset": "local_sgd", "H": 10**13}, budget={"rounds": 2}), "for 2e+13 steps in 2 rounds"),
    "micro-batches": (described(workload={"batch": 10**9, "micro_batch": 1}), "raise micro_batch"),
    "depth": (described(workload={"model": VIT | {"depth": 2**63}}), "up to 10000"),
    "hidden": (described(workload={"model": {"name": "mlp", "hidden": [2**62]}}), "from 1 to 2147483647"),
    "width": (described(workload={"model": {"name": "resnet20", "width": 1e300}}), "up to 1048576"),
    "examples": (described(workload={"data": {"name": "synthetic", "train": 10**18}}), "10 or more, up to 1e+12"),
    "sendings": (described(cluster={"background": [FLOW], "network": {"bandwidth": "1e20 bit/s"}}), "background every"),
}


@pytest.mark.parametrize("kind", TOO_MUCH)
def test_a_count_that_no_machine_can_simulate(kind):
    """Numbers of workers, steps, units, parts or background sendings whose simulation would not end, or not fit."""
    document, message = TOO_MUCH[kind]
    with pytest.raises(ScenarioError) as refused:
        simulate(document, timing_only=True)
    assert message in str(refused.value)
    assert len(str(refused.value)) < 400


def test_parameters_that_memory_does_not_hold(tmp_path):
    """Learning for real, by simulation or by ranks, of models that are larger than memory: here of a single label."""
    for key in ("train", "test"):
        x, y = np.zeros((4, 8), np.float32), np.array([0, 1, 2, 2**31 - 2])
        np.savez(tmp_path / f"{key}.npz", **{f"x_{key}": x, f"y_{key}": y})
    arrays = {k: v for key in ("train", "test") for k, v in np.load(tmp_path / f"{key}.npz").items()}
    np.savez(tmp_path / "data.npz", **arrays)
    document = described(workload={"data": str(tmp_path / "data.npz")})
    simulate(document, timing_only=True)  # the clock alone needs no parameters
    for begin in (lambda: simulate(document), lambda: check_training(resolve(document, Path()))):
        with pytest.raises(ScenarioError, match=r"takes about .* GiB of memory, and .* GiB are free here"):
            begin()


def test_a_sweep_of_more_points_than_can_be_made():
    grid = parse_grid([f"cluster.network.latency={','.join(map(str, range(1000)))}", "seed=" + ",".join("1" * 1000)])
    assert check_sweep(grid, [], 1) == "simulating 1000000 points takes about 17 min here"
    with pytest.raises(ScenarioError, match=r"simulating 1e\+08 points takes about .* free here; write fewer values"):
        check_sweep(grid, [{}] * 100, 1)


def test_a_round_that_takes_too_long_to_rehearse():
    with pytest.raises(ScenarioError, match=r"rehearsing a round of 1e.13 steps of 2 workers takes about"):
        rehearse(resolve(described({"preset": "local_sgd", "H": 10**13}, budget={"rounds": 2}), Path()))


def test_units_that_are_fetched_ahead_are_no_more_than_there_are():
    """A prefetch beyond the model's units fetches them all at once, and costs no more."""
    model = {"model": VIT | {"depth": 4}}
    found = []
    for prefetch in (6, 10**8):
        placed = {"offloaded": {"prefetch": prefetch, "unit_bytes": 0}}
        found.append(simulate(described({"preset": "lsdp", "placement": placed}, workload=model), timing_only=True))
    assert found[0].summary["seconds"] == found[1].summary["seconds"]


SCHEDULES = [
    (LOCAL, {"steps": 1000}),
    (LOCAL, {"epochs": 7}),
    ({"preset": "local_sgd", "H": 300}, {"rounds": 50}),
    ({"preset": "qsr", "alpha": 0.1, "h_base": 2}, {"steps": 3000}),
    ({"preset": "post_local_sgd", "t": "500 steps", "H": 10}, {"steps": 2000}),
    ({"preset": "sync_sgd"}, {"rounds": 7}),
]


@pytest.mark.parametrize(("strategy", "budget"), SCHEDULES)
def test_the_outlook_is_about_what_comes(strategy, budget):
    rates = {"lr_schedule": {"name": "cosine", "final_lr": 0.01}}
    plan = resolve(described(strategy, budget=budget, workload=rates, report={"every": "25 steps"}), Path()).plan
    state, longest, lines = State(), 0, 2
    while not plan.finished(state):
        r = plan.next_round(state)
        state.after(r, 0.0)
        longest, lines = max(longest, r.H), lines + r.due.scheduled
    expected = np.array([state.step, state.round, longest, lines])
    assert np.abs(np.log2(np.array(plan.outlook) / expected)).max() < 0.6


@pytest.mark.parametrize("preset", ["sync_sgd", "local_sgd", "fsdp", "lsdp"])
def test_an_estimate_counts_about_the_effects(preset):
    """The seconds are effects times a constant, twice that with a trace; a span is one, started ones are two."""
    model = VIT | {"depth": 4, "dim": 64}
    document = described(
        {"preset": preset, "placement": PLACED[preset]}, budget={"steps": 40}, workload={"model": model}
    )
    job = resolve(document, Path())
    estimate = seconds_of(job, job.problem.phantoms(job.plan), *job.plan.outlook[:2], by_event=True) / (2 * EFFECT)
    spans = sum(len(spans) for lanes in simulate(document, timing_only=True).lanes for spans in lanes.values())
    assert 0.5 < estimate / spans < 4


def test_a_limit_of_the_process_counts(monkeypatch):
    before = available_memory()
    monkeypatch.setattr(resource, "getrlimit", lambda what: (1 << 20, resource.RLIM_INFINITY))
    assert available_memory() == 0 < before


@pytest.mark.parametrize(
    ("seconds", "text"), [(20, "20 s"), (200, "3.3 min"), (4e5, "4.6 days"), (1e12, "3.2e+04 years")]
)
def test_durations_are_for_people(seconds, text):
    assert duration(seconds) == text
