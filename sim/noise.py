"""Lognormal noise on computing times, drawn per class of workers, so that every engine reads the same numbers.

Rule: a worker's k-th Compute takes the k-th number of its column. Workers that share a Device object are a class; the
class's numbers come in blocks of ROWS draws whose columns are its workers, each block from a stream of its own
(seed, "noise", class, block). An engine that handles a class as one NumPy vector takes the rows, SimPy the columns.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from ..algorithms.streams import stream
from ..config.timing import Device, Noise

ROWS = 64
KEPT = 4  # blocks of a class held at a time; its workers keep about the same pace, so they read the same few


def classes(devices: Sequence[Device]) -> list[tuple[int, int]]:
    """(class, column) of each worker: classes numbered by first appearance, columns by the workers' order."""
    numbers: dict[int, int] = {}
    taken: Counter[int] = Counter()
    places = []
    for device in devices:
        number = numbers.setdefault(id(device), len(numbers))
        places.append((number, taken[number]))
        taken[number] += 1
    return places


class Blocks:
    """The noise of one class of `columns` workers."""

    def __init__(self, noise: Noise, number: int, columns: int) -> None:
        self._noise, self._number, self._columns = noise, number, columns
        self._kept: dict[int, NDArray[np.float64]] = {}

    def block(self, index: int) -> NDArray[np.float64]:
        """Factors of draws index * ROWS and on: (ROWS, columns), lognormal of mean 1."""
        block = self._kept.get(index)
        if block is None:
            sigma = self._noise.sigma
            normal = stream(self._noise.seed, "noise", self._number, index).standard_normal((ROWS, self._columns))
            block = self._kept[index] = np.exp(sigma * normal - sigma * sigma / 2)
            if len(self._kept) > KEPT:
                del self._kept[next(iter(self._kept))]  # made again should a straggler ask: same stream, same numbers
        return block

    def column(self, column: int) -> Iterator[float]:
        """One worker's factors, in the order of its Computes."""
        index = 0
        while True:
            yield from self.block(index)[:, column].tolist()
            index += 1


def factors(noise: Noise, devices: Sequence[Device]) -> list[Iterator[float]] | None:
    """Each worker's factors in the order of its Computes; None without noise."""
    if noise.sigma == 0:
        return None
    places = classes(devices)
    sizes = Counter(number for number, _ in places)
    blocks = [Blocks(noise, number, sizes[number]) for number in range(len(sizes))]
    return [blocks[number].column(column) for number, column in places]
