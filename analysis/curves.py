"""What a run has learned by when: its reports against seconds, samples and bytes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

import numpy as np

from .run import Run

# What a curve may be drawn against.
AXES = {
    "seconds": "seconds (evaluation excluded)",
    "samples": "samples of all workers",
    "bytes": "bytes sent by the worker that sends most",
}
MOST = 2_000  # points of a curve
_SCHEDULE = ("lr", "H")  # are drawn only where they change
_NOT_TRAINING = ("begin", "evaluate")  # phases of syncs


@dataclass(frozen=True)
class Curve:
    """The values of one field of a run's reports."""

    run: Run
    x: dict[str, list[float]]  # for each of AXES
    y: list[float]
    reports: int  # that have a value, of which MOST are points


def curves(runs: Sequence[Run]) -> dict[str, list[Curve]]:
    """By field, the curves of the runs that have it: losses, metrics, and lr and H where they change."""
    metrics = dict.fromkeys(name for run in runs for name in run.metric_names)
    found = {}
    for name in ("train_loss", *metrics, "test_loss", *_SCHEDULE):
        drawn = [curve for run in runs if (curve := _curve(run, name)).y]
        # The last round may be cut short, which is not a change.
        if drawn and (name not in _SCHEDULE or any(len({*curve.y[:-1]}) > 1 for curve in drawn)):
            found[name] = drawn
    return found


def _curve(run: Run, name: str) -> Curve:
    lines = [line for line in run.lines if _finite(line.get(name)) and _finite(line["seconds"])]
    places = np.unique(np.linspace(0, len(lines) - 1, min(len(lines), MOST)).astype(int)) if lines else ()
    shown = [lines[place] for place in places]
    count, per = bytes_per(run)
    x = {
        "seconds": [line["seconds"] for line in shown],
        "samples": [float(line["samples"]) for line in shown],
        "bytes": [line[count.removesuffix("s")] * per for line in shown],
    }
    return Curve(run, x, [line[name] for line in shown], len(lines))


def bytes_per(run: Run) -> tuple[str, float]:
    """("steps" or "rounds", bytes of each), of the worker that sends most.

    Reports do not count bytes. But all steps that sync send alike, and so do all rounds, so the run's bytes are divided
    by what its syncs are a multiple of. In a resumed run, bytes are counted from resumed_at_round on.
    """
    s = run.summary
    before = s.get("resumed_at_round", 0)
    syncs = sum(count for phase, count in s.get("syncs", {}).items() if phase not in _NOT_TRAINING)
    nbytes = max(s["bytes_per_worker"])
    if not before and s["steps"] and syncs and syncs % s["steps"] == 0:
        return "steps", nbytes / s["steps"]
    return "rounds", nbytes / max(1, s["rounds"] - before)


def _finite(value: Any) -> bool:
    return value is not None and isfinite(value)
