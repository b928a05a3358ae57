"""What `paceline validate` keeps of a run, and of many simulations of one scenario: plain numbers for its record."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..config.metrics import metrics_in
from ..records.recorder import evaluated
from .run import Run

Measurement = dict[str, Any]

# The interval between these quantiles holds 80 % of the simulations.
LOW, HIGH = 0.1, 0.9


def measurement(run: Run) -> Measurement:
    """A finished run in numbers.

    seconds: of training, without evaluation.
    samples: that all workers have processed.
    computing, idle, sent, memory: per worker. Seconds; the share of the time without computing; bytes; bytes at the
        peak, as predicted, or for a real run what its process held above what it held after imports.
    reports: (seconds, {name: value}) of each evaluation, with the losses and metrics that are numbers.
    """
    s = run.summary
    return {
        "seconds": s["seconds"],
        "samples": s["samples"],
        "computing": s["computing_seconds"],
        "idle": s["idle_share"],
        "sent": s["bytes_per_worker"],
        "memory": _memory(s),
        "reports": [[line["seconds"], _tested(line)] for line in evaluated(run.lines)],
    }


def _tested(line: dict[str, Any]) -> dict[str, float]:
    """The losses and metrics of a report line."""
    found = {name: line.get(name) for name in ("train_loss", "test_loss", *metrics_in(line))}
    return {name: value for name, value in found.items() if value is not None and math.isfinite(value)}


def _memory(summary: dict[str, Any]) -> list[float]:
    """Bytes per worker; none where they were not measured."""
    if summary["engine"] != "mpi":
        return [sum(parts) for parts in zip(*summary["memory_predicted"].values(), strict=True)]
    found = summary.get("memory_measured", {})
    pairs = zip(found.get("resident_before", ()), found.get("resident_peak", ()), strict=True)
    return [peak - before for before, peak in pairs]


def prediction(runs: Sequence[Measurement], seeds: Sequence[int]) -> Measurement:
    """The prediction that simulations of one scenario make, each with noise of its own: the median of each number.

    seeds: of the noise of each.
    low, high: the interval that holds 80 % of their seconds.
    draws: all their seconds.
    typical: the seed of the simulation whose seconds are nearest to the median.
    """
    draws = np.array([run["seconds"] for run in runs])
    middle = float(np.median(draws))
    medians = {
        name: np.median([run[name] for run in runs], axis=0).tolist()
        for name in ("computing", "idle", "sent", "memory")
    }
    times = np.median([[seconds for seconds, _ in run["reports"]] for run in runs], axis=0).tolist()
    return {
        "seconds": middle,
        "low": float(np.quantile(draws, LOW)),
        "high": float(np.quantile(draws, HIGH)),
        "draws": draws.tolist(),
        "typical": seeds[int(np.argmin(abs(draws - middle)))],
        "samples": runs[0]["samples"],
        **medians,
        "reports": times,
    }
