"""Clocks and prices of a cohort run: a number where it is the same everywhere, else an array.

Rule: nothing here is written to in place. What is done with numbers and with arrays rounds in the same way, so that
the bits of a run do not depend on which of the two its clocks are, or on the clusters that it shares an array with.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ..program.effects import Array
from .base_driver import added, running

# Seconds: the same everywhere, or of shape (clusters, columns), or (clusters, 1) where all columns of a cluster have
# the same. A column is a worker, or a kind of device.
Clocks = float | Array
FREE = 0.0  # the price of what takes no time on any device; compared by identity, there is nothing to add then
FEW = 16  # up to so many columns, Python adds them up sooner than NumPy


class NotAlike(ValueError):
    """Clusters cannot run together, since something differs that is not a time. Each can run alone."""


def later(a: Clocks, b: Clocks) -> Clocks:
    """The later of two clocks, each with each."""
    return np.maximum(a, b) if isinstance(a, np.ndarray) or isinstance(b, np.ndarray) else max(a, b)


def last_of(clock: Clocks) -> Clocks:
    """The latest clock of each cluster: a number where there is one cluster."""
    if not isinstance(clock, np.ndarray):
        return clock
    if len(clock) > 1:
        return clock if clock.shape[1] == 1 else np.maximum.reduce(clock, axis=1, keepdims=True)
    return float(clock.item(clock.argmax()))  # NumPy's maximum itself takes three times as long


def at(clock: Clocks, cluster: int, column: int) -> float:
    """One worker's clock or price."""
    if not isinstance(clock, np.ndarray):
        return clock
    return float(clock[cluster, column if clock.shape[1] > 1 else 0])


def of_clusters(values: Sequence[float]) -> Clocks:
    """What each cluster says, as clocks."""
    return values[0] if all(value == values[0] for value in values) else np.array(values)[:, None]


def of_columns(columns: Sequence[Sequence[Any]], price: Callable[[int, Any], float]) -> Clocks:
    """A price for each column of each cluster. price: of (cluster, device). columns: by cluster, their devices."""
    known: list[Mapping[Any, float]] = [
        {device: price(cluster, device) for device in dict.fromkeys(devices)} for cluster, devices in enumerate(columns)
    ]
    if all(len(set(each.values())) == 1 for each in known):
        made = of_clusters([next(iter(each.values())) for each in known])
        return made if isinstance(made, np.ndarray) else made or FREE
    return np.array([[each[device] for device in devices] for each, devices in zip(known, columns, strict=True)])


def running_clocks(first: Clocks, price: Clocks, times: int) -> Clocks:
    """`running` of each column."""
    if not isinstance(first, np.ndarray) and not isinstance(price, np.ndarray):
        return running(first, price, times)
    begin, each = np.broadcast_arrays(first, price)
    if each.size > FEW:
        return added(begin, each, times)
    pairs = zip(begin.ravel().tolist(), each.ravel().tolist(), strict=True)
    return np.array([running(*pair, times) for pair in pairs]).reshape(each.shape)
