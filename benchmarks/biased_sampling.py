"""Is biased sampling better than uniform sampling? Simulated, over seeds, on the harder synthetic data.

Local SGD on two fast workers and slow ones (H = 8 and 1), the same in all but the slow workers' examples: shuffled, or
those of highest loss. A seed is a turn: its data, model and order are those of both. The ratio is of test accuracies
after a budget; the figures hold mean and standard deviation over seeds, and the differences of the pairs.
"""

from __future__ import annotations

import statistics
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import paceline
from paceline.config.scenario import validate

from .form import compare, cores
from .harness import Found, Run

SECONDS = 120
# (slow workers, noise of the data): more slow workers, and harder tasks.
SETTINGS = ((2, 2.0), (2, 4.0), (6, 4.0))
SAMPLINGS: dict[str, Any] = {"uniform": "shuffled", "biased": {"top_loss": {"ratio": 4}}}


def scenario(slow: int, noise: float, sampling: Any, seed: int, train: int, epochs: int) -> dict[str, Any]:
    """A small CNN on synthetic images; each seed has its own data, model and order."""
    return {
        "seed": seed,
        "workload": {
            "model": {"name": "cnn", "channels": [16, 32]},
            "data": {"name": "synthetic", "train": train, "test": 1000, "noise": noise, "seed": seed},
            "batch": 16,
            "optimizer": {"name": "sgd", "lr": 0.02, "momentum": 0.9},
        },
        "cluster": {"workers": [{"count": 2, "speed": "8000 samples/s"}, {"count": slow, "speed": "1000 samples/s"}]},
        "strategy": {"preset": "local_sgd", "H": 8, "sampling": sampling},
        "budget": {"epochs": epochs},
        "report": {"every": "1 epoch"},
    }


def accuracies(job: tuple[int, float, str, int, int, int]) -> list[float]:
    """Test accuracy after each epoch."""
    slow, noise, sampling, seed, train, epochs = job
    document = scenario(slow, noise, SAMPLINGS[sampling], seed, train, epochs)
    run = paceline.simulate(validate(document, "benchmark"))
    return [line["accuracy"] for line in run.lines][:epochs]


def measure(run: Run) -> Found:
    """Every pair of runs."""
    seeds, train, epochs = (1, 600, 1) if run.small else (8, 2000, 8)
    jobs = [
        (slow, noise, sampling, seed, train, epochs)
        for slow, noise in SETTINGS
        for seed in range(seeds)
        for sampling in SAMPLINGS
    ]
    with ProcessPoolExecutor(cores()) as pool:
        taken = dict(zip(jobs, pool.map(accuracies, jobs), strict=True))
    found = Found(figures={"seeds": seeds, "train": train, "rows": []})
    for slow, noise in SETTINGS:
        for epoch in (0, epochs // 2 - 1, epochs - 1) if epochs > 1 else (0,):
            pair = {
                sampling: [taken[slow, noise, sampling, seed, train, epochs][epoch] for seed in range(seeds)]
                for sampling in SAMPLINGS
            }
            case = f"slow workers {slow}, noise {noise:g}, epoch {epoch + 1}"
            found.rows.append(compare(case, "biased", "uniform", pair, "accuracy", unit=""))
            found.figures["rows"].append({"slow_workers": slow, "noise": noise, "epoch": epoch + 1, **told(pair)})
    return found


def told(pair: dict[str, list[float]]) -> dict[str, Any]:
    """Mean and spread over the seeds, and of the pairs' differences."""
    gains = [b - u for b, u in zip(pair["biased"], pair["uniform"], strict=True)]
    found: dict[str, Any] = {name: {"mean": statistics.mean(v), "sd": deviation(v)} for name, v in pair.items()}
    won = sum(gain > 0 for gain in gains)
    return found | {"gain": {"mean": statistics.mean(gains), "sd": deviation(gains), "pairs_won": won}}


def deviation(values: list[float]) -> float:
    """Sample standard deviation; 0 for one value."""
    return statistics.stdev(values) if len(values) > 1 else 0.0
