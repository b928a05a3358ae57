"""How many worker-steps per second the cohort engine simulates, and what a run of a sweep costs.

Usage: python benchmarks/cohort.py [--small]. Prints, and writes benchmarks/results/cohort.json (--small: prints only).
A scenario is resolved, then the engine runs it, timing-only; the engine alone is timed, by the processor's clock, as it
uses one core. The figure is the median over the repeats. Each run asserts how many steps and syncs it made, and that
the clock of a shorter run is SimPy's.

Bars: 20 M worker-steps/s with noise at H = 1, 8 and 32 for 1,024 workers in 2 classes. Runs of 64 workers and 1,000
rounds are what a sweep repeats.
"""

from __future__ import annotations

import argparse
import gc
import json
import platform
import statistics
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np

from paceline.algorithms.rounds import State
from paceline.config.scenario import Scenario
from paceline.job import Job, resolve
from paceline.program.outcome import Hooks, Outcome
from paceline.sim.cohort import simulate as simulate_cohorts
from paceline.sim.engine import simulate as simulate_events

RESULTS = Path(__file__).parent / "results" / "cohort.json"
HOOKS = Hooks()


def job_of(workers: int, classes: int, H: int, rounds: int, sigma: float, preset: str = "local_sgd") -> Job:
    """A small model on digits; classes of workers whose speeds differ a little, and whose steps are as many."""
    strategy: dict[str, Any] = {"preset": preset}
    if preset == "local_sgd":
        strategy |= {"split": "even", "schedule": {"fixed": H}}
    speeds = [f"{1000 - 30 * number} samples/s" for number in range(classes)]
    document = {
        "seed": 7,
        "workload": {
            "model": {"name": "mlp", "hidden": [32]},
            "data": "digits",
            "batch": 8,
            "optimizer": {"name": "sgd", "lr": 0.1},
        },
        "cluster": {
            "workers": [{"speed": speed, "count": workers // classes} for speed in speeds],
            "network": {"bandwidth": "10 Gbit/s", "latency": "10 us"},
            "noise": {"sigma": sigma},
        },
        "strategy": strategy,
        "budget": {"rounds": rounds},
    }
    return resolve(Scenario.model_validate(document), Path())


def run(job: Job, engine: str = "cohort") -> tuple[float, list[Outcome]]:
    """(seconds of processor time, outcomes) of the engine alone."""
    workers = job.problem.phantoms(job.plan)
    programs: Any = job.cohorts(workers) if engine == "cohort" else job.programs(workers, State())
    simulate: Any = simulate_cohorts if engine == "cohort" else simulate_events
    gc.collect()
    begin = process_time()
    outcomes = simulate(programs, job.timing, HOOKS)
    seconds = process_time() - begin
    state = outcomes[-1].result
    assert state.round == job.plan.budget.amount
    assert sum(outcomes[-1].syncs[phase] for phase in ("parameters", "gradients") if phase in outcomes[-1].syncs) > 0
    return seconds, outcomes


def check(*kind: Any, rounds: int = 10) -> None:
    """The clock of a short run of this kind, against SimPy's."""
    workers, classes, H, sigma, preset = kind
    job = job_of(workers, classes, H, rounds, sigma, preset)
    (_, found), (_, expected) = run(job), run(job, "simpy")
    assert [outcome.seconds for outcome in found] == [outcome.seconds for outcome in expected]


def measure(kind: tuple[int, int, int, float, str], rounds: int, repeats: int) -> dict[str, Any]:
    """Worker-steps per second, microseconds per round and milliseconds per run of one kind of scenario."""
    workers, classes, H, sigma, preset = kind
    check(*kind)
    job = job_of(workers, classes, H, rounds, sigma, preset)
    cohorts = len(job.cohorts(job.problem.phantoms(job.plan)))
    times = [run(job)[0] for _ in range(repeats)]
    seconds = statistics.median(times)
    return {
        "workers": workers,
        "classes": classes,
        "cohorts": cohorts,
        "preset": preset,
        "H": H,
        "sigma": sigma,
        "rounds": rounds,
        "million_worker_steps_per_second": round(workers * H * rounds / seconds / 1e6, 1),
        "microseconds_per_round": round(seconds / rounds * 1e6, 2),
        "milliseconds_per_run": round(seconds * 1e3, 2),
        "milliseconds_of_fastest_run": round(min(times) * 1e3, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Speed of the cohort engine.")
    parser.add_argument("--small", action="store_true", help="a short run that writes nothing")
    small = parser.parse_args().small
    rounds, repeats = (20, 2) if small else (1000, 11)
    kinds = [(1024, 2, H, 0.2, "local_sgd") for H in (1, 8, 32)] + [(1024, 2, 1, 0.2, "sync_sgd")]
    kinds += [(64, 1, 1, 0.0, "local_sgd"), (64, 1, 1, 0.0, "sync_sgd"), (64, 2, 1, 0.0, "sync_sgd")]
    kinds += [(64, 2, 8, 0.2, "local_sgd")]
    rows = []
    for kind in kinds:
        row = measure(kind, rounds if kind[2] < 32 else rounds // 4, repeats)
        rows.append(row)
        print(
            f"{row['workers']:5d} workers in {row['classes']} classes, {row['preset']:9s} H {row['H']:2d} "
            f"sigma {row['sigma']}: {row['million_worker_steps_per_second']:6.1f} M worker-steps/s, "
            f"{row['microseconds_per_round']:7.2f} us a round, {row['cohorts']} cohorts"
        )
    if not small:
        versions = {"python": platform.python_version(), "numpy": np.__version__, "repeats": repeats}
        RESULTS.write_text(json.dumps({**versions, "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
