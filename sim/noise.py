"""Noise on computing times, and on a run's network.

Computing times are drawn for each class of workers, so that all engines read the same numbers.

Rule: a worker's k-th Compute that takes any time is multiplied by the k-th number of the worker's column. (Residuals
last for a step's worth of computing instead: see `lasting`.) Workers that share a Device object are a class. A class's
numbers come in blocks of shape (ROWS, its workers), each from a stream of its own (seed, "noise", class, block).

Why blocks: the cohort engine needs the k-th factors of all workers at once (a row), and SimPy needs the factors of one
worker one after another (a column). A stream for each worker would give the cohort engine no vectors; one stream for
all would make a worker's numbers depend on the order of events. A block serves both, and the factor that a worker
draws once (worker_sigma) is multiplied into its whole column.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from functools import cache
from itertools import chain, count, groupby
from statistics import NormalDist
from typing import Any, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..config.timing import Device, Network, Noise
from ..program.streams import stream

T = TypeVar("T")
Draws: TypeAlias = Generator[T, float, None]  # a Compute's price is sent, its factor comes
ROWS = 64
KEPT = 4  # blocks of a class in memory; its workers have about the same speed, so they read the same few blocks


def classes(devices: Sequence[Device]) -> list[tuple[int, int]]:
    """(class, column) of each worker. Classes are numbered as they first appear, columns in the workers' order."""
    numbers: dict[int, int] = {}
    taken: Counter[int] = Counter()
    places = []
    for device in devices:
        number = numbers.setdefault(id(device), len(numbers))
        places.append((number, taken[number]))
        taken[number] += 1
    return places


class ClassNoise:
    """The noise of one class of `columns` workers, whose device is `device`: its residuals, else a lognormal.

    run: the factor that all workers of the run share.
    """

    def __init__(self, noise: Noise, number: int, columns: int, device: Device, run: float = 1.0) -> None:
        self._noise, self._number, self.columns, self._device = noise, number, columns, device
        self._residuals = np.array(device.residuals, np.float64)
        normal = stream(noise.seed, "worker noise", number).standard_normal(columns if noise.worker_sigma else 0)
        workers = lognormal(normal, noise.worker_sigma)  # (columns,), none without
        self._factors = workers * run if workers.size else np.full(columns if run != 1.0 else 0, run)
        self._kept: dict[int, NDArray[np.float64]] = {}

    def block(self, index: int) -> NDArray[np.float64]:
        """Factors of the ROWS draws from index * ROWS on: (ROWS, columns). Each includes its worker's own factor."""
        block = self._kept.get(index)
        if block is None:
            random, shape = stream(self._noise.seed, "noise", self._number, index), (ROWS, self.columns)
            if self._residuals.size:
                block = self._drawn(random, shape)
            else:
                block = lognormal(random.standard_normal(shape), self._noise.sigma)
            if self._factors.size:
                block *= self._factors
            self._kept[index] = block
            if len(self._kept) > KEPT:
                # If a slow worker asks for the oldest block, it is drawn again: same stream, same numbers.
                del self._kept[next(iter(self._kept))]
        return block

    def _drawn(self, random: np.random.Generator, shape: tuple[int, int]) -> NDArray[np.float64]:
        """Residuals. Where a draw depends on the one before, both are the same function of normal numbers that do.

        Dependence ends with a block: 64 draws are longer than a machine stays slow between two steps.
        """
        size, depends = self._residuals.size, self._device.correlation
        if not depends:
            return self._residuals[random.integers(size, size=shape)]
        normal, fresh = random.standard_normal(shape), math.sqrt(1 - depends * depends)
        for row in range(1, len(normal)):
            normal[row] = depends * normal[row - 1] + fresh * normal[row]
        return self._residuals[np.searchsorted(_bounds(size), normal)]

    def column(self, column: int) -> Draws[float]:
        """One worker's factors, in the order of its Computes."""
        drawn = chain.from_iterable(block[:, column].tolist() for block in map(self.block, count()))
        return lasting(drawn, self.lasting)

    def blocks(self, columns: list[int]) -> Iterator[NDArray[np.float64]]:
        """The factors of these columns, block by block."""
        blocks = map(self.block, count())
        return blocks if columns == list(range(self.columns)) else (block[:, columns] for block in blocks)

    @property
    def lasting(self) -> float:
        """Seconds of computing for which a factor holds; 0: for one Compute."""
        return self._device.lasting


def lasting(factors: Iterator[T], seconds: float) -> Draws[T]:
    """Each factor, until so many seconds have been computed with it; with 0 s, for one Compute.

    Why: residuals are those of whole steps. A step in many pieces would otherwise draw many of them, and vary less than
    it does. The factors are sent by `send(price)`, where price is the seconds of the Compute, without noise.
    """
    drawn = _each(factors) if not seconds else _until(factors, seconds)
    next(drawn)
    return drawn


def _each(factors: Iterator[T]) -> Draws[T]:
    yield None  # type: ignore[misc]  # `lasting` takes it
    for factor in factors:  # noqa: UP028  # an iterator cannot be sent what `yield from` would hand on
        yield factor


def _until(factors: Iterator[T], seconds: float) -> Draws[T]:
    price = yield None  # type: ignore[misc]  # `lasting` takes it
    left, factor = 0.0, None
    while True:
        if left < price / 2:
            left, factor = seconds, next(factors)
        left -= price
        price = yield factor  # type: ignore[misc]


class RunNoise:
    """The noise of a run: one ClassNoise per class. It does not exist in a run without noise: see `run_noise`."""

    def __init__(self, noise: Noise, devices: Sequence[Device]) -> None:
        self._places = classes(devices)
        sizes = Counter(number for number, _ in self._places)
        kinds = {number: device for (number, _), device in zip(self._places, devices, strict=True)}
        normal = stream(noise.seed, "run noise").standard_normal(1)
        run = float(lognormal(normal, noise.run_sigma)[0]) if noise.run_sigma else 1.0
        self._blocks = [ClassNoise(noise, number, sizes[number], kinds[number], run) for number in range(len(sizes))]

    def of(self, worker: int) -> Draws[float]:
        """One worker's factors, in the order of its Computes."""
        number, column = self._places[worker]
        return self._blocks[number].column(column)

    def together(self, workers: Sequence[int]) -> Draws[NDArray[np.float64]]:
        """The workers' factors as vectors of shape (workers,): the k-th vector holds each worker's k-th factor.

        What is sent is the price of the Compute: a number, or one for each worker. The vectors must not be written to.
        """
        parts = list[tuple[ClassNoise, Iterator[NDArray[np.float64]]]]()
        ends = [0]  # where each part ends among the workers
        for number, group in groupby((self._places[worker] for worker in workers), key=lambda place: place[0]):
            columns = [column for _, column in group]
            ends.append(ends[-1] + len(columns))
            parts.append((self._blocks[number], self._blocks[number].blocks(columns)))
        lasts = {noise.lasting for noise, _ in parts}
        if len(parts) == 1 or lasts == {0.0}:  # all draw at the same time: whole blocks can be joined
            cuts = zip(*(blocks for _, blocks in parts), strict=True)
            joined = (cut[0] if len(cut) == 1 else np.concatenate(cut, axis=1) for cut in cuts)
            return lasting(chain.from_iterable(joined), max(lasts))
        apart = _joined([lasting(chain.from_iterable(blocks), noise.lasting) for noise, blocks in parts], ends[:-1])
        next(apart)
        return apart


def _joined(parts: Sequence[Draws[NDArray[np.float64]]], first: Sequence[int]) -> Draws[NDArray[np.float64]]:
    price: Any = yield None  # type: ignore[misc]  # `together` takes it
    while True:
        prices = price[first].tolist() if isinstance(price, np.ndarray) else [price] * len(parts)
        price = yield np.concatenate([part.send(own) for part, own in zip(parts, prices, strict=True)])


@cache
def _bounds(count: int) -> NDArray[np.float64]:
    """Where a standard normal number is cut into `count` equally likely ranges."""
    return np.array([NormalDist().inv_cdf(k / count) for k in range(1, count)])


def run_noise(noise: Noise, devices: Sequence[Device]) -> RunNoise | None:
    """The noise of workers on these devices; None without noise."""
    return RunNoise(noise, devices) if varies(noise, devices) else None


def varied(network: Network, noise: Noise) -> Network:
    """The network of a run: its exchanges take a factor longer that is drawn once.

    Why not a factor for each exchange: its members wait for it together, so that single ones only add up, and hundreds
    of them differ from their mean by little. What lasts is what makes two runs differ.
    """
    if not noise.network_sigma:
        return network
    factor = float(lognormal(stream(noise.seed, "network noise").standard_normal(1), noise.network_sigma)[0])
    return network.slower(factor)


def lognormal(normal: NDArray[np.float64], sigma: float) -> NDArray[np.float64]:
    """Factors exp(N(-sigma^2/2, sigma)), of mean 1, made of standard normal numbers in place."""
    normal *= sigma
    normal -= sigma * sigma / 2
    return np.exp(normal, out=normal)


def varies(noise: Noise, devices: Sequence[Device]) -> bool:
    """Whether any computing time differs from its price."""
    return max(noise.sigma, noise.worker_sigma, noise.run_sigma) > 0 or any(device.residuals for device in devices)
