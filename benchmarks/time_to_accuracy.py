"""Seconds to 96 % test accuracy on digits, for real: local SGD with unequal steps against synchronous SGD.

Two ranks, the second emulated 16 times slower. Each method at its best learning rate of GRID, several seeds; seconds
count from the first step, evaluation excluded. All runs share one mpirun.

    python benchmarks/time_to_accuracy.py [--small]
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from paceline.analysis.run import Run
from paceline.config import yaml
from paceline.records.environment import environment
from paceline.training import TrainOptions, launch

RESULTS = Path(__file__).parent / "results" / "time_to_accuracy.json"
GRID = (0.025, 0.05, 0.1, 0.2)
METHODS = {"sync_sgd": {"preset": "sync_sgd"}, "local_sgd": {"preset": "local_sgd", "H": 16}}
TARGET, BAR, SLOWDOWN = 0.96, 1 / 5, 16


def scenario(strategy: dict[str, Any], lr: float, seed: int, epochs: int) -> dict[str, Any]:
    """Digits on an MLP; the second worker is SLOWDOWN times slower."""
    return {
        "seed": seed,
        "workload": {
            "model": {"name": "mlp", "hidden": [256, 128]},
            "data": "digits",
            "batch": 32,
            "optimizer": {"name": "sgd", "lr": lr, "momentum": 0.9},
        },
        "cluster": {"workers": [{"speed": "16000 samples/s"}, {"speed": f"{16000 / SLOWDOWN} samples/s"}]},
        "strategy": strategy,
        "budget": {"epochs": epochs},
        "report": {"every": "0.5 epochs"},
    }


def seconds_to_target(run: Run) -> float | None:
    """Seconds at the first report at or above the target; None where it is never reached."""
    return next((line["seconds"] for line in run.lines if line["accuracy"] >= TARGET), None)


def main() -> None:
    """Train every combination, print and write what was measured."""
    small = "--small" in sys.argv
    seeds, epochs = (1, 1) if small else (3, 15)
    with tempfile.TemporaryDirectory() as folder:
        paths = []
        for name, strategy in METHODS.items():
            for lr in GRID[:1] if small else GRID:
                for seed in range(seeds):
                    paths.append(Path(folder) / f"{name}_{lr}_{seed}.yaml")
                    paths[-1].write_text(yaml.dump(scenario(strategy, lr, seed, epochs)))
        status = launch(paths, TrainOptions(("train.emulate=true",), Path(folder) / "runs"), None, quiet=True)
        if status:
            raise SystemExit(status)
        found: dict[str, dict[float, list[float | None]]] = {name: {} for name in METHODS}
        for path in paths:
            name, lr, _ = path.stem.rsplit("_", 2)
            found[name].setdefault(float(lr), []).append(seconds_to_target(Run.load(Path(folder) / "runs" / path.stem)))
    report(found, small)


def report(found: dict[str, dict[float, list[float | None]]], small: bool) -> None:
    """Each method's best learning rate by median over seeds, and the ratio."""
    inf = float("inf")
    medians = {
        name: {lr: statistics.median(s if s is not None else inf for s in runs) for lr, runs in rates.items()}
        for name, rates in found.items()
    }
    best = {name: min(rates, key=lambda lr: rates[lr]) for name, rates in medians.items()}
    times = {name: medians[name][best[name]] for name in METHODS}
    results: dict[str, Any] = {
        "target_accuracy": TARGET,
        "slowdown": SLOWDOWN,
        "grid": GRID,
        "seconds": {name: {str(lr): runs for lr, runs in rates.items()} for name, rates in found.items()},
        "best_lr": best,
        "median_seconds_at_best": times,
        "ratio": times["local_sgd"] / times["sync_sgd"] if times["sync_sgd"] < inf else None,
        "bar": BAR,
        "environment": environment(1),
    }
    print(json.dumps({key: results[key] for key in ("best_lr", "median_seconds_at_best", "ratio", "bar")}, indent=1))
    if not small:
        RESULTS.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
