"""One program for many phantoms: the SimPy engine sees what a program for each of them would yield."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path
from typing import Any

import pytest

from paceline.algorithms.rounds import State
from paceline.algorithms.shared_program import shared
from paceline.config.scenario import Scenario
from paceline.job import Job, resolve
from paceline.program.effects import Compute, Phantom, Program, Work
from paceline.program.outcome import Hooks, Outcome
from paceline.sim.engine import simulate

STRATEGIES: dict[str, dict[str, Any]] = {
    "sync": {"preset": "sync_sgd"},
    "local": {"preset": "local_sgd", "H": 3},
    "weights": {"preset": "local_sgd", "H": 2, "aggregation": {"parameters": {"weights": [0, 0, 1, 0, 0, 2]}}},
    "biased": {"preset": "biased_local_sgd", "H": 4},
    "slowmo": {"preset": "slowmo", "H": 2},
    "fednova": {"preset": "fednova", "H": 2},
    "fsdp": {"preset": "fsdp"},
    "lsdp": {"preset": "lsdp"},
    "lshdp": {"preset": "lshdp"},
}


def described(strategy: dict[str, Any]) -> Job:
    """Six workers of two devices on the ViT, whose units are exchanged while others are computed."""
    document = {
        "workload": {"model": "vit", "data": "digits", "batch": 8, "optimizer": {"name": "sgd", "lr": 0.1}},
        "cluster": {
            "workers": [
                {"device": "fast", "speed": "2000 samples/s", "host_link": "1 GB/s", "count": 4},
                {"device": "slow", "speed": "500 samples/s", "host_link": "1 GB/s", "count": 2},
            ],
            "network": {"bandwidth": "1 Gbit/s", "latency": "50 us"},
            "noise": {"sigma": 0.1},
        },
        "faults": [{"name": "pause", "worker": 1, "at": "3 ms", "duration": "7 ms"}],
        "strategy": strategy,
        "budget": {"rounds": 5},
        "report": {"every": "2 rounds"},
    }
    return resolve(Scenario.model_validate(document), Path())


def told(job: Job, programs: list[Program[State]]) -> tuple[list[Outcome], str]:
    """(outcomes, outcomes and report lines in words, since NaN is unequal to itself) of a traced simulation."""
    lines: list[Any] = []
    found = simulate(programs, job.timing, Hooks(lambda *line: lines.append(line)), trace=True, debug=True)
    return found, repr((found, lines))


@pytest.mark.parametrize("name", STRATEGIES)
def test_it_yields_what_a_program_for_each_worker_yields(name):
    job = described(STRATEGIES[name])
    _, own = told(job, job.programs(job.problem.phantoms(job.plan), State()))
    found, words = told(job, job.shared_programs(job.problem.phantoms(job.plan)))
    assert words == own
    assert len({id(outcome.result) for outcome in found}) == 6


def test_effects_that_all_have_passed_are_dropped():
    """However long a run is, it holds what the slowest worker has yet to do."""
    kept: list[weakref.ref[Any]] = []

    class Noted(Phantom):
        __slots__ = ("__weakref__",)

    def program() -> Program[None]:
        for step in range(100):
            made = Work("step", step)
            value = Noted(8)
            kept.append(weakref.ref(value))
            yield from Compute(made, lambda value=value: None)

    first, second = shared(program(), 2)
    for _ in range(60):
        next(first)
    for _ in range(50):
        next(second)
    gc.collect()
    assert len(kept) == 60
    assert sum(ref() is not None for ref in kept) <= 12
    assert len(list(first)) == 40
    assert len(list(second)) == 50
