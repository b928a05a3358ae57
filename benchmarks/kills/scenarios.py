"""The trainings that are killed: an MLP on the digits, four workers, a few seconds."""

from __future__ import annotations

from typing import Any

WORKERS = 4
ROUNDS = 200
REPORTS, SAVES = 5, 20  # rounds from report to report, and from checkpoint to checkpoint
FLOOR = 2.0  # seconds: no rank counts as stalled before


def scenario(seed: int = 1, rounds: int = ROUNDS, **more: Any) -> dict[str, Any]:
    """Local SGD with momentum. `more` replaces sections."""
    optimizer = {"name": "sgd", "lr": 0.05, "momentum": 0.9}
    return {
        "seed": seed,
        "workload": {"model": {"name": "mlp", "hidden": [32]}, "data": "digits", "batch": 16, "optimizer": optimizer},
        "cluster": {"workers": [{"count": WORKERS, "speed": "20000 samples/s"}]},
        "strategy": {"preset": "local_sgd", "H": 8},
        "budget": {"rounds": rounds},
        "report": {"every": f"{REPORTS} rounds"},
        "checkpoint": {"every": f"{SAVES} rounds"},
        "deadline": {"factor": 5, "floor": f"{FLOOR} s"},
        **more,
    }
