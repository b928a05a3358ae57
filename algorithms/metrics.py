"""What an evaluation answers, and what a report makes of it: the test loss and metrics.

Each of them is a mean that is computed in two parts: sums and counts, which add up over batches and workers, and its
value, which is made of them in the end.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..program.effects import Array


@dataclass(frozen=True)
class Metric:
    """A mean in report lines."""

    name: str
    entries: int = 1  # sums, and as many counts: one of each, or one of each for every class
    counts: bool = True  # whether it counts for itself; otherwise what the test loss counts
    exponential: bool = False  # whether exp of the mean is reported

    def value(self, sums: Array, counts: Array) -> float:
        """The mean of sum / count over the entries that count something; NaN where none does."""
        known = counts > 0
        if not known.any():
            return math.nan
        mean = np.mean(sums[known] / counts[known])
        with np.errstate(over="ignore"):  # infinite, for a model that is far off
            return float(np.exp(mean) if self.exponential else mean)


TEST_LOSS = Metric("test_loss")


def numbers(metrics: Sequence[Metric]) -> int:
    """How many numbers an evaluation answers."""
    return sum((1 + metric.counts) * metric.entries for metric in metrics)


def values(metrics: Sequence[Metric], sums: Array | None) -> dict[str, float]:
    """name -> value. sums: float64, of TEST_LOSS and each metric the sums, then the counts; None: none are known."""
    if sums is None:
        return dict.fromkeys((metric.name for metric in metrics), math.nan)
    found, start = dict[str, float](), 0
    for metric in metrics:
        middle = start + metric.entries
        stop = middle + metric.counts * metric.entries
        found[metric.name] = metric.value(sums[start:middle], sums[middle:stop] if metric.counts else sums[1:2])
        start = stop
    return found
