"""Where a traced run's seconds went: each moment of a worker counted once, as computing, exchange, waiting and so on.

Rule: what runs next to a computation costs the clock nothing, so of things that go on at the same time only the first
of KINDS counts. A worker's seconds then add up to the run's, and the difference between a prediction and a real run
is the sum of the differences between their parts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ..program.outcome import Span
from ..records.trace import span_phase
from ..records.trace_notes import NETWORK
from .colours import LANES
from .run import Run

# What a moment counts as, in the order of precedence. "other" is what no span covers: Python between the effects.
KINDS = ("computing", "host", "host link", "exchange", "waiting", "other")
_EVALUATION = "evaluate"  # is not training
Interval = tuple[float, float]


def seconds_by_kind(run: Run) -> list[dict[str, float]]:
    """For each worker of a traced run, the seconds of each of KINDS. Evaluation is left out.

    ValueError where the run has no trace.
    """
    if not run.lanes:
        raise ValueError(f"{run.name} has no trace; run it with --set report.trace=true")
    return [_of_worker(lanes, run.summary["seconds"]) for lanes in run.lanes]


def _of_worker(lanes: dict[str, list[Span]], seconds: float) -> dict[str, float]:
    """seconds: of the whole run, without evaluation."""
    evaluation, kinds = list[Interval](), {kind: list[Interval]() for kind in KINDS}
    for lane, kind in LANES.items():
        for span in lanes.get(lane, ()) if lane != NETWORK else ():
            (evaluation if span_phase(span) == _EVALUATION else kinds[kind]).append(span[1:])
    network = lanes.get(NETWORK, [])
    for number, span in enumerate(network):
        waits = span[0] == "wait"
        # A wait belongs to the exchange that follows it.
        phase = network[number + 1][0] if waits and number + 1 < len(network) else span[0]
        (evaluation if phase == _EVALUATION else kinds["waiting" if waits else "exchange"]).append(span[1:])
    found, so_far = dict[str, float](), evaluation
    before = covered(so_far)
    for kind in KINDS[:-1]:
        so_far = so_far + kinds[kind]
        now = covered(so_far)
        found[kind], before = now - before, now
    return found | {"other": seconds - math.fsum(found.values())}


def covered(intervals: Sequence[Interval]) -> float:
    """The length of the intervals' union."""
    if not intervals:
        return 0.0
    starts, stops = np.array(sorted(intervals)).T
    reached = np.concatenate([starts[:1], np.maximum.accumulate(stops)[:-1]])  # by the intervals before each
    return float(np.maximum(0.0, stops - np.maximum(starts, reached)).sum())
