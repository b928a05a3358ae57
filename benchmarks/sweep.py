"""How long does a sweep take? 10,000 noise-free scenarios and 1,000 noisy ones, of 64 workers and 1,000 rounds each.

Usage: python benchmarks/sweep.py [--small]. Prints, and writes benchmarks/results/sweep.json (--small: prints only).
The sweeps run as a user's do: `paceline.sweep` to a CSV file, on as many processes as there are cores. Each asserts
how many rows it made, how many worker-steps they stand for, and that some rows, picked at random, are what a single
`simulate` gives. Bar: 60 s each on 2 cores. cpu_ms: processor time per scenario of all processes, start included.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import resource
import tempfile
from pathlib import Path
from time import perf_counter
from typing import Any

from paceline import simulate, sweep
from paceline.config import yaml
from paceline.processes import cores

RESULTS = Path(__file__).parent / "results" / "sweep.json"
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
STRATEGIES = {
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


def measure(name: str, grid: dict[str, list[Any]], rounds: int, folder: Path) -> dict[str, Any]:
    """One sweep, timed."""
    strategy, H = STRATEGIES[name]
    path = folder / "scenario.yaml"
    path.write_text(yaml.dump(yaml.parse(SCENARIO, "") | {"strategy": strategy, "budget": {"rounds": rounds}}))
    begin, used = perf_counter(), processor_seconds()
    table = sweep(path, grid, out=folder / f"{H}.csv")
    seconds, used = perf_counter() - begin, processor_seconds() - used
    assert (table["error"] == "").all(), table["error"].unique()
    assert set(table["steps"]) == {H * rounds}
    assert set(table["workers"]) == {WORKERS}
    for place in random.Random(0).sample(range(len(table)), 3):
        row = table.iloc[place]
        alone = simulate(path, settings=[f"{key}={row[key]}" for key in grid], timing_only=True)
        assert row["seconds"] == alone.summary["seconds"]
    return {
        "scenarios": len(table),
        "seconds": round(seconds, 2),
        "cpu_ms": round(used / len(table) * 1e3, 2),
        "worker_steps_per_second": round(len(table) * WORKERS * H * rounds / seconds),
        "engine": sorted(set(table["engine"])),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Seconds per sweep.")
    parser.add_argument("--small", action="store_true", help="a short run that writes nothing")
    small = parser.parse_args().small
    rounds, load, rows = 20 if small else ROUNDS, os.getloadavg()[0], dict[str, Any]()
    for name, grid in grids(2 if small else 10).items():
        with tempfile.TemporaryDirectory() as folder:
            rows[name] = row = measure(name, grid, rounds, Path(folder))
        print(
            f"{name:20s} {row['scenarios']:6d} scenarios  {row['seconds']:7.2f} s, {row['cpu_ms']:.2f} ms of CPU each"
        )
    if not small:
        about = {"workers": WORKERS, "rounds": ROUNDS, "cores": cores(), "load_before": round(load, 2)}
        RESULTS.write_text(json.dumps({**about, "python": platform.python_version(), "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
