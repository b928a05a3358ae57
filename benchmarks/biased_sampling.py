"""Is biased sampling better than uniform sampling? Simulated, over seeds, on the harder synthetic data.

Local SGD on two slow and two fast workers (H = 8 and 1), the same in all but the slow workers' examples: shuffled, or
those of highest loss. Reported: test accuracy after each budget, mean and standard deviation over seeds, and the
differences of the pairs.

    python benchmarks/biased_sampling.py [--small]
"""

from __future__ import annotations

import json
import statistics
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import paceline
from paceline.config.scenario import validate
from paceline.records.environment import environment

RESULTS = Path(__file__).parent / "results" / "biased_sampling.json"
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


def main() -> None:
    """Run every pair, print and write mean and spread."""
    small = "--small" in sys.argv
    seeds, train, epochs = (1, 600, 1) if small else (8, 2000, 8)
    jobs = [
        (slow, noise, sampling, seed, train, epochs)
        for slow, noise in SETTINGS
        for sampling in SAMPLINGS
        for seed in range(seeds)
    ]
    with ProcessPoolExecutor(2) as pool:
        found = dict(zip(jobs, pool.map(accuracies, jobs), strict=True))
    rows = []
    for slow, noise in SETTINGS:
        for epoch in (0, epochs // 2 - 1, epochs - 1) if epochs > 1 else (0,):
            pair = {
                sampling: [found[slow, noise, sampling, seed, train, epochs][epoch] for seed in range(seeds)]
                for sampling in SAMPLINGS
            }
            gains = [b - u for b, u in zip(pair["biased"], pair["uniform"], strict=True)]
            won = sum(gain > 0 for gain in gains)
            rows.append(
                {"slow_workers": slow, "noise": noise, "epoch": epoch + 1}
                | {name: {"mean": statistics.mean(v), "sd": spread(v)} for name, v in pair.items()}
                | {
                    "gain": {
                        "mean": statistics.mean(gains),
                        "sd": spread(gains),
                        "pairs_won": won,
                    }
                }
            )
    results = {"seeds": seeds, "train": train, "rows": rows, "environment": environment(1)}
    for row in rows:
        print(json.dumps(row))
    if not small:
        RESULTS.write_text(json.dumps(results, indent=1) + "\n")


def spread(values: list[float]) -> float:
    """Sample standard deviation; 0 for one value."""
    return statistics.stdev(values) if len(values) > 1 else 0.0


if __name__ == "__main__":
    main()
