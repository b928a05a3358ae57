"""The noise of a cohort: the factors of many workers on each of its clusters at the same time.

Rule: each worker draws on each cluster what it draws when it is simulated by itself, in any engine (noise.py), and its
seconds are added up in the same order.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..config.timing import Timing
from .clocks import Clocks, NotAlike
from .noise import Normals, RunNoise, classes, normals_of, varies

Floats = NDArray[np.float64]
SUMS = 2**18  # about so many sums are made together


def run_noises(timings: Sequence[Timing], pool: Executor | None = None) -> list[RunNoise]:
    """The noise of each cluster; none without noise. pool: see RunNoise.

    Clusters with the same factors share them. Those with the same seed at least share the normal numbers that theirs
    are made of, which take most of the time. NotAlike where only some clusters have noise.
    """
    noisy = [varies(timing.noise, timing.devices) for timing in timings]
    if not all(noisy):
        if any(noisy):
            raise NotAlike("whether there is noise")
        return []
    known: dict[Any, RunNoise] = {}
    keys = [_factors(timing) for timing in timings]
    seeds, drawn = {timing.noise.seed for timing in timings}, sum(len(set(timing.devices)) for timing in timings)
    normals = _shared_normals(drawn) if len(seeds) < len(set(keys)) else None
    for key, timing in zip(keys, timings, strict=True):
        if key not in known:
            known[key] = RunNoise(timing.noise, timing.devices, pool, normals)
    return [known[key] for key in keys]


def _factors(timing: Timing) -> Any:
    """What the factors of a cluster follow from."""
    drawn = [(device.residuals, device.lasting, device.correlation) for device in dict.fromkeys(timing.devices)]
    return timing.noise, tuple(classes(timing.devices)), tuple(drawn)


def _shared_normals(kept: int) -> Normals:
    """The function `normals_of`, which remembers its latest answers. kept: how many."""
    remembered = lru_cache(maxsize=kept)(normals_of)
    return lambda *block: remembered(*block).copy()


def draws_of(noises: Sequence[RunNoise], workers: Sequence[int]) -> list[Draws]:
    """The factors of these workers, of one class after the other. noises: of each cluster.

    NotAlike where the classes are not the same on all clusters, or where what is drawn depends on a cluster's prices.
    """
    found = {noise: noise.together(workers) for noise in dict.fromkeys(noises)}
    first, several = found[noises[0]], len(noises) > 1
    layouts = {tuple((part.place, part.columns) for part in parts) for parts in found.values()}
    if several and (len(layouts) > 1 or any(part.lasting for parts in found.values() for part in parts)):
        raise NotAlike("how the noise is drawn")
    order = [list(found).index(noise) for noise in noises]
    same = [[parts[place].blocks for parts in found.values()] for place in range(len(first))]  # by class
    return [Draws(_stacked(blocks, order), part.place, part.lasting) for blocks, part in zip(same, first, strict=True)]


def _stacked(blocks: Sequence[Iterator[Floats]], order: Sequence[int]) -> Iterator[Floats]:
    """Blocks of all clusters: (clusters, rows, columns). order: which of `blocks` are each cluster's."""
    if len(order) == 1:
        return (block[None] for block in blocks[0])
    return (np.stack([each[place] for place in order]) for each in zip(*blocks, strict=True))


class Draws:
    """The factors of several workers of a class: what noise.ColumnDraws is for one of them.

    blocks: (clusters, rows, workers).
    place: the column of the first worker in the cohort's clocks.
    lasting: as of ColumnDraws; 0 where there are several clusters.
    """

    def __init__(self, blocks: Iterator[Floats], place: int = 0, lasting: float = 0.0) -> None:
        self._blocks, self._place, self._lasting = blocks, place, lasting
        self._block: Floats = np.empty((1, 0, 0))
        self._at, self._left = 0, -1.0
        self._asked: tuple[Clocks, Clocks, int] = (0.0, 0.0, 1)  # what was asked for last
        self._asking = 0  # how often in a row
        self._own: tuple[Any, Any] = (0.0, 0.0)  # first and price of these workers
        self._sums: list[Floats] = []  # the next answers to that, made together
        self._given = 0  # how many of them have been given

    def total(self, first: Clocks, price: Clocks, times: int) -> Floats:
        """Seconds of `times` computations of each worker: (clusters, workers).

        first, price: of the first computation, and of each other, without noise; clocks of the cohort. What was asked
        for some times in a row will mostly be asked for as often again: those sums are made together.
        """
        asked = self._asked
        again = first is asked[0] and price is asked[1] and times == asked[2]
        if again and self._given < len(self._sums):
            self._given += 1
            return self._sums[self._given - 1]
        self._at += self._given * asked[2]
        self._asking = self._asking + self._given + 1 if again else 0
        self._given = 0
        if not again:
            self._asked, self._own = (first, price, times), self._prices(first, price)
        if self._lasting:
            alone, others = self._own
            each = np.array([each * self._held(each) for each in (alone, *(others,) * (times - 1))])
            return running_sums(each[None])
        clusters, rows, workers = self._block.shape
        rounds = min(self._asking, (rows - self._at) // times, SUMS // (clusters * workers or 1))
        if rounds > 0:
            factors = self._block[:, self._at : self._at + rounds * times]
            self._sums, self._given = _totals(*self._own, factors.reshape(clusters, rounds, times, workers)), 1
            return self._sums[0]
        self._sums = []
        return _total(*self._own, self._next(times))

    def _prices(self, first: Clocks, price: Clocks) -> tuple[Any, Any]:
        """Those of these workers, which have the same device: numbers, or of shape (clusters, 1)."""
        alone, others = (self._price(clock) for clock in (first, price))
        return (others if np.array_equal(alone, others) else alone), others

    def _price(self, clock: Clocks) -> Any:
        if not isinstance(clock, np.ndarray):
            return clock
        place = self._place if clock.shape[1] > 1 else 0
        return float(clock[0, place]) if len(clock) == 1 else clock[:, place, None]

    def _next(self, times: int) -> Floats:
        """The next rows of factors: (clusters, times, workers)."""
        at, end = self._at, self._at + times
        if end <= self._block.shape[1]:
            self._at = end
            return self._block[:, at:end]
        parts = [self._block[:, at:]] if at < self._block.shape[1] else []
        missing = times - sum(part.shape[1] for part in parts)
        while missing:
            self._block = next(self._blocks)
            self._at = min(missing, self._block.shape[1])
            parts.append(self._block[:, : self._at])
            missing -= self._at
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)

    def _held(self, price: float) -> Floats:
        if self._left < price / 2:
            if self._at >= self._block.shape[1]:
                self._block, self._at = next(self._blocks), 0
            self._left, self._at = self._lasting, self._at + 1
        self._left -= price
        held: Floats = self._block[0, self._at - 1]
        return held


def _totals(first: Any, price: Any, factors: Floats) -> list[Floats]:
    """Seconds of each round: (clusters, workers). factors: (clusters, rounds, times, workers).

    One cluster after the other, since the products of one stay in a core's cache.
    """
    clusters, rounds, _, workers = factors.shape
    if clusters == 1:
        return list(_total(first, price, factors[0])[:, None])
    made = np.empty((rounds, clusters, workers))
    alone, others = (np.broadcast_to(each, (clusters, 1)).ravel().tolist() for each in (first, price))
    for cluster in range(clusters):
        made[:, cluster] = _total(alone[cluster], others[cluster], factors[cluster])
    return list(made)


def _total(first: Any, price: Any, factors: Floats) -> Floats:
    """Seconds of the computations of each of `n` rounds, or clusters: (n, workers).

    first, price: numbers, or of shape (n, 1).
    factors: (n, times, workers).
    """
    if factors.shape[1] == 1:
        alone: Floats = first * factors[:, 0]
        return alone
    seconds = (price[:, None] if isinstance(price, np.ndarray) else price) * factors
    if first is not price:
        np.multiply(first, factors[:, 0], out=seconds[:, 0])
    return running_sums(seconds)


def running_sums(each: Floats) -> Floats:
    """Sums of each of `n` rows of times, added one after the other as Python adds: (n, workers).

    each: (n, times, workers), in C order.
    NumPy adds the times of several workers so, but those of a single one in another order.
    """
    sums: Floats = np.add.reduce(each, axis=1) if each.shape[2] > 1 else np.add.accumulate(each, axis=1)[:, -1]
    return sums
