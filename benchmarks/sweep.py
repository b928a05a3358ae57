"""How long do sweeps take: 10,000 noise-free scenarios and 1,000 noisy ones, of 64 workers and 1,000 rounds each?

The sweeps run as a user's do: `paceline.sweep` to a CSV file, on as many processes as there are cores. Each asserts
how many rows it made, how many worker-steps they stand for, and that some rows, picked at random, are what a single
`simulate` gives. The cost is processor time per scenario of all processes, start included; next to it that of the same
rounds by hand in NumPy (peers/by_hand.py), on one core. Bar: 60 s each on 2 cores.
"""

from __future__ import annotations

import random
import resource
import tempfile
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from paceline import simulate, sweep
from paceline.config import yaml

from .form import Row, compare, cores, rounded
from .harness import Found, Run, alternate, process_seconds
from .peers import by_hand

SECONDS = 200
BAR = 60.0  # seconds of a sweep, on 2 cores
WORKERS, ROUNDS = 64, 1000
SCENARIO = f"""
workload:
  model: {{name: mlp, hidden: [512, 256]}}
  data: {{name: synthetic, train: 50000, test: 640}}
  batch: 64
  optimizer: {{name: sgd, lr: 0.1, momentum: 0.9}}
cluster:
  workers:
    - {{device: fast, count: {WORKERS // 2}, speed: 1000 samples/s}}
    - {{device: slow, count: {WORKERS // 2}, speed: 800 samples/s}}
  network: {{bandwidth: 10 Gbit/s, latency: 10 us}}
"""
STRATEGIES: dict[str, tuple[dict[str, Any], int]] = {
    "noise-free, H = 1": ({"preset": "sync_sgd"}, 1),
    "noisy, H = 8": ({"preset": "local_sgd", "H": 8, "split": "even"}, 8),
}


def grids(values: int) -> dict[str, dict[str, list[Any]]]:
    """By sweep, the grid: `values` values of each of its keys."""
    network = {
        "cluster.network.bandwidth": [f"{2 + i} Gbit/s" for i in range(values)],
        "cluster.network.latency": [f"{5 * (i + 1)} us" for i in range(values)],
    }
    speeds = {"cluster.workers.1.speed": [f"{500 + 50 * i} samples/s" for i in range(values)]}
    return {
        "noise-free, H = 1": {"workload.batch": [16 + 8 * i for i in range(values)], **speeds, **network},
        "noisy, H = 8": {
            "seed": list(range(values)),
            "cluster.noise.sigma": [0.05 * (i + 1) for i in range(values)],
            **speeds,
        },
    }


def processor_seconds() -> float:
    """Processor time of this process and of those that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def swept(name: str, grid: dict[str, list[Any]], rounds: int, folder: Path) -> tuple[float, float, int]:
    """One sweep: (seconds, processor seconds, scenarios)."""
    strategy, H = STRATEGIES[name]
    path = folder / "scenario.yaml"
    path.write_text(yaml.dump(yaml.parse(SCENARIO, "") | {"strategy": strategy, "budget": {"rounds": rounds}}))
    begin, used = perf_counter(), processor_seconds()
    table = sweep(path, grid, out=folder / f"{H}.csv")
    seconds, used = perf_counter() - begin, processor_seconds() - used
    assert (table["error"] == "").all(), table["error"].unique()
    assert set(table["steps"]) == {H * rounds}
    assert set(table["workers"]) == {WORKERS}
    assert set(table["engine"]) == {"cohort"}
    for place in random.Random(0).sample(range(len(table)), 3):
        row = table.iloc[place]
        alone = simulate(path, settings=[f"{key}={row[key]}" for key in grid], timing_only=True)
        assert row["seconds"] == alone.summary["seconds"]
    return seconds, used, len(table)


def rows(name: str, grid: dict[str, list[Any]], rounds: int, run: Run) -> tuple[list[Row], dict[str, Any]]:
    """One sweep in turns with NumPy by hand, which runs some scenarios of it."""
    _, H = STRATEGIES[name]
    step, sigma, some = np.repeat([0.064, 0.08], WORKERS // 2), 0.2 if "noisy" in name else 0.0, 50
    walls: list[float] = []
    counts: set[int] = set()

    def ours() -> float:
        with tempfile.TemporaryDirectory() as folder:
            seconds, used, count = swept(name, grid, rounds, Path(folder))
        walls.append(seconds)
        counts.add(count)
        return used / count * 1e3

    def hand() -> float:
        taken = [process_seconds(lambda: by_hand.rounds(step, H, rounds, sigma, 1e-4)) for _ in range(some)]
        return sum(taken) / some * 1e3

    turns = run.turns(3, least=1)
    next(turns)  # a sweep has no warmth that a turn could give to the next
    taken = alternate({"paceline sweep": ours, "NumPy by hand": hand}, turns)
    case = f"{name}: {min(counts):,} scenarios of {WORKERS} workers and {rounds:,} rounds, a scenario"
    compared = compare(case, "paceline sweep", "NumPy by hand", taken, limit="NumPy by hand", unit="ms of processor")
    whole = f"{name}: {min(counts):,} scenarios, all"
    times = {"paceline sweep": walls, f"{BAR:g} s": [BAR] * len(walls)}
    bounded = compare(whole, "paceline sweep", f"{BAR:g} s", times, "time", bar=1.0)
    steps = min(counts) * WORKERS * H * rounds
    return [compared, bounded], {
        "worker-steps per second": rounded(steps / bounded.costs["paceline sweep"]),
        "cores": cores(),
    }


def measure(run: Run) -> Found:
    found, rounds = Found(), 20 if run.small else ROUNDS
    for name, grid in grids(2 if run.small else 10).items():
        made, found.figures[name] = rows(name, grid, rounds, run.share(2))
        found.rows += made
    return found
