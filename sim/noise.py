"""Noise on computing times, drawn for each class of workers, so that all engines read the same numbers.

Rule: a worker's k-th Compute that takes any time is multiplied by the k-th number of the worker's column. Workers that
share a Device object are a class. A class's numbers come in blocks of shape (ROWS, its workers), each from a stream of
its own (seed, "noise", class, block).

Why blocks: the cohort engine needs the k-th factors of all workers at once (a row), and SimPy needs the factors of one
worker one after another (a column). A stream for each worker would give the cohort engine no vectors; one stream for
all would make a worker's numbers depend on the order of events. A block serves both, and the factor that a worker
draws once (worker_sigma) is multiplied into its whole column.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from ..config.timing import Device, Noise
from ..program.streams import stream

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
    """The noise of one class of `columns` workers. residuals: factors to draw from, instead of a lognormal."""

    def __init__(self, noise: Noise, number: int, columns: int, residuals: Sequence[float] = ()) -> None:
        self._noise, self._number, self.columns = noise, number, columns
        self._residuals = np.array(residuals, np.float64)
        normal = stream(noise.seed, "worker noise", number).standard_normal(columns if noise.worker_sigma else 0)
        self._workers = lognormal(normal, noise.worker_sigma)  # (columns,), none without
        self._kept: dict[int, NDArray[np.float64]] = {}

    def block(self, index: int) -> NDArray[np.float64]:
        """Factors of the ROWS draws from index * ROWS on: (ROWS, columns). Each includes its worker's own factor."""
        block = self._kept.get(index)
        if block is None:
            random, shape = stream(self._noise.seed, "noise", self._number, index), (ROWS, self.columns)
            if self._residuals.size:
                block = self._residuals[random.integers(self._residuals.size, size=shape)]
            else:
                block = lognormal(random.standard_normal(shape), self._noise.sigma)
            if self._workers.size:
                block *= self._workers
            self._kept[index] = block
            if len(self._kept) > KEPT:
                # If a slow worker asks for the oldest block, it is drawn again: same stream, same numbers.
                del self._kept[next(iter(self._kept))]
        return block

    def column(self, column: int) -> Iterator[float]:
        """One worker's factors, in the order of its Computes."""
        index = 0
        while True:
            yield from self.block(index)[:, column].tolist()
            index += 1


class RunNoise:
    """The noise of a run: one ClassNoise per class. It does not exist in a run without noise: see `run_noise`."""

    def __init__(self, noise: Noise, devices: Sequence[Device]) -> None:
        self._places = classes(devices)
        sizes = Counter(number for number, _ in self._places)
        kinds = {number: device.residuals for (number, _), device in zip(self._places, devices, strict=True)}
        self._blocks = [ClassNoise(noise, number, sizes[number], kinds[number]) for number in range(len(sizes))]

    def of(self, worker: int) -> Iterator[float]:
        """One worker's factors, in the order of its Computes."""
        number, column = self._places[worker]
        return self._blocks[number].column(column)

    def together(self, workers: Sequence[int]) -> Iterator[NDArray[np.float64]]:
        """The workers' factors as vectors of shape (workers,): the k-th vector holds each worker's k-th factor.

        The vectors must not be written to.
        """
        parts = []
        for number, group in groupby((self._places[worker] for worker in workers), key=lambda place: place[0]):
            columns = [column for _, column in group]
            blocks = self._blocks[number]
            parts.append((blocks, None if columns == list(range(blocks.columns)) else columns))
        index = 0
        while True:
            cut = [b.block(index) if columns is None else b.block(index)[:, columns] for b, columns in parts]
            yield from cut[0] if len(cut) == 1 else np.concatenate(cut, axis=1)
            index += 1


def run_noise(noise: Noise, devices: Sequence[Device]) -> RunNoise | None:
    """The noise of workers on these devices; None without noise."""
    return RunNoise(noise, devices) if varies(noise, devices) else None


def lognormal(normal: NDArray[np.float64], sigma: float) -> NDArray[np.float64]:
    """Factors exp(N(-sigma^2/2, sigma)), of mean 1, made of standard normal numbers in place."""
    normal *= sigma
    normal -= sigma * sigma / 2
    return np.exp(normal, out=normal)


def varies(noise: Noise, devices: Sequence[Device]) -> bool:
    """Whether any computing time differs from its price."""
    return noise.sigma > 0 or noise.worker_sigma > 0 or any(device.residuals for device in devices)
