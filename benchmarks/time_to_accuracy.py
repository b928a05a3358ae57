"""How soon does local SGD with unequal steps reach 96 % on digits, for real, next to synchronous SGD?

Two ranks, the second emulated 16 times slower. Each method at its best learning rate of GRID, by the median over seeds;
seconds count from the first step, evaluation excluded. All runs share one mpirun; a seed is a turn. Bar: a fifth of the
time.
"""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path
from typing import Any

from paceline.analysis.run import Run
from paceline.config import yaml
from paceline.launching import launch
from paceline.training import TrainOptions

from .form import compare
from .harness import Found
from .harness import Run as How

SECONDS = 130
GRID = (0.025, 0.05, 0.1, 0.2)
METHODS: dict[str, dict[str, Any]] = {"sync_sgd": {"preset": "sync_sgd"}, "local_sgd": {"preset": "local_sgd", "H": 16}}
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


def measure(run: How) -> Found:
    """Train every combination, seed by seed, the methods in turns."""
    seeds, epochs = (1, 1) if run.small else (5, 15)
    with tempfile.TemporaryDirectory() as folder:
        paths = []
        for seed in range(seeds):
            for lr in GRID[:1] if run.small else GRID:
                for name in METHODS if seed % 2 else reversed(METHODS):
                    paths.append(Path(folder) / f"{name}_{lr}_{seed}.yaml")
                    paths[-1].write_text(yaml.dump(scenario(METHODS[name], lr, seed, epochs)))
        status = launch(paths, TrainOptions(("train.emulate=true",), Path(folder) / "runs"), None, quiet=True)
        if status:
            raise RuntimeError(f"paceline train ended with status {status}")
        taken: dict[str, dict[float, list[float | None]]] = {name: {} for name in METHODS}
        for path in paths:
            name, rate, _ = path.stem.rsplit("_", 2)
            taken[name].setdefault(float(rate), []).append(
                seconds_to_target(Run.load(Path(folder) / "runs" / path.stem))
            )
    return report(taken)


def report(taken: dict[str, dict[float, list[float | None]]]) -> Found:
    """Each method at its best learning rate; no row where one has not always reached the target."""
    inf = float("inf")
    medians = {
        name: {lr: statistics.median(s if s is not None else inf for s in runs) for lr, runs in rates.items()}
        for name, rates in taken.items()
    }
    best = {name: min(rates, key=lambda lr: rates[lr]) for name, rates in medians.items()}
    figures = {
        "target accuracy": TARGET,
        "slowdown": SLOWDOWN,
        "seconds": {name: {str(lr): runs for lr, runs in rates.items()} for name, rates in taken.items()},
        "best lr": best,
        "median seconds at best lr": {
            name: each if (each := medians[name][best[name]]) < inf else None for name in best
        },
    }
    reached = {name: [s for s in taken[name][best[name]] if s is not None] for name in METHODS}
    if any(len(reached[name]) < len(taken[name][best[name]]) for name in METHODS):
        return Found([], figures)
    case = f"digits to {TARGET:.0%}, 2 ranks, one {SLOWDOWN} times slower"
    return Found([compare(case, "local_sgd", "sync_sgd", reached, "time", bar=BAR, unit="s")], figures)
