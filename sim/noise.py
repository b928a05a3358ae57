"""Noise on computing times, and on a run's network.

Computing times are drawn for each class of workers, so that all engines read the same numbers.

Rule: each computation of a worker takes the next number of the worker's column; what takes no time takes none.
(Residuals last for a step's worth of computing instead: see ColumnDraws.) Workers that share a Device object are a
class. Its numbers come in blocks of shape (rows, its workers), each from a stream of its own: (seed, "noise", class,
block).

Why blocks: the cohort engine needs the k-th factors of all workers at once (a row), and SimPy needs the factors of one
worker one after another (a column). A stream for each worker would give the cohort engine no vectors; one stream for
all would make a worker's numbers depend on the order of events. A block serves both, and the factor that a worker
draws once (worker_sigma) is multiplied into its whole column.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from functools import cache
from itertools import chain, count, groupby
from statistics import NormalDist
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..config.timing import Device, Network, Noise
from ..program.streams import stream

T = TypeVar("T")
Normals = Callable[
    [int, int, int, tuple[int, int]], NDArray[np.float64]
]  # as normals_of; the array is the caller's own
BLOCK = 2**16  # about so many numbers of a class are drawn together: that many stay in a core's cache
LEAST_ROWS, MOST_ROWS = 8, 1024  # of a block
DEPENDENT = 64  # rows of a block in which a row depends on the one before
SHORT, AHEAD = 8, 2  # blocks of a class after which a run is long, and blocks that are then made ahead
KEPT = 4  # blocks of a class in memory; its workers have about the same speed, so they read the same few blocks


def normals_of(seed: int, number: int, index: int, shape: tuple[int, int]) -> NDArray[np.float64]:
    """The standard normal numbers of a block of a class."""
    return stream(seed, "noise", number, index).standard_normal(shape)


def block_size(columns: int) -> int:
    """How many numbers of a class of so many workers are drawn together."""
    return columns * max(LEAST_ROWS, min(BLOCK // columns, MOST_ROWS))


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


class Part(NamedTuple):
    """The factors of some workers of a class, which follow one another among a cohort's workers."""

    place: int  # of the first one
    columns: int  # how many they are
    lasting: float  # as of ColumnDraws
    blocks: Iterator[NDArray[np.float64]]  # (rows, columns)


class ClassNoise:
    """The noise of one class of `columns` workers, whose device is `device`: its residuals, else a lognormal.

    run: the factor that all workers of the run share.
    normals: makes the standard normal numbers of a block.
    """

    def __init__(
        self, noise: Noise, number: int, columns: int, device: Device, run: float = 1.0, normals: Normals | None = None
    ) -> None:
        self._noise, self._number, self.columns, self._device = noise, number, columns, device
        self._normals = normals or normals_of
        self.rows = DEPENDENT if device.correlation else block_size(columns) // columns  # of a block
        self._residuals = np.array(device.residuals, np.float64)
        if noise.worker_sigma:
            normal = stream(noise.seed, "worker noise", number).standard_normal(columns)
            self._factors = lognormal(normal, noise.worker_sigma) * run  # (columns,), none without
        else:
            self._factors = np.full(columns if run != 1.0 else 0, run)
        self._kept: dict[int, NDArray[np.float64]] = {}

    def block(self, index: int) -> NDArray[np.float64]:
        """Factors of a block's draws: (rows, columns). Each includes its worker's own factor."""
        block = self._kept.get(index)
        if block is None:
            block = self._kept[index] = self._made(index)
            if len(self._kept) > KEPT:
                # If a slow worker asks for the oldest block, it is drawn again: same stream, same numbers.
                del self._kept[next(iter(self._kept))]
        return block

    def _made(self, index: int) -> NDArray[np.float64]:
        seed, shape = self._noise.seed, (self.rows, self.columns)
        if self._residuals.size:
            block = self._drawn(stream(seed, "noise", self._number, index), shape)
        else:
            block = lognormal(self._normals(seed, self._number, index, shape), self._noise.sigma)
        if self._factors.size:
            block *= self._factors
        return block

    def _drawn(self, random: np.random.Generator, shape: tuple[int, int]) -> NDArray[np.float64]:
        """Residuals. Where a draw depends on the one before, both are the same function of normal numbers that do.

        Dependence ends with a block, which is longer than a machine stays slow.
        """
        size, depends = self._residuals.size, self._device.correlation
        if not depends:
            return self._residuals[random.integers(size, size=shape)]
        normal, fresh = random.standard_normal(shape), math.sqrt(1 - depends * depends)
        for row in range(1, len(normal)):
            normal[row] = depends * normal[row - 1] + fresh * normal[row]
        return self._residuals[np.searchsorted(_bounds(size), normal)]

    def drawn(self, columns: Sequence[int], place: int, pool: Executor | None) -> Part:
        """The factors of these columns, in the order of their computations. place: as of Part. pool: draws ahead."""
        every = list(columns) == list(range(self.columns))
        # `take` gives rows that lie one after the other, as running_sums needs them; [:, columns] would not.
        blocks = ahead(self._made, pool) if every else (self.block(index).take(columns, axis=1) for index in count())
        return Part(place, len(columns), self._device.lasting, blocks)

    def column(self, column: int) -> ColumnDraws:
        """One worker's factors, in the order of its computations."""
        return ColumnDraws((block[:, column].tolist() for block in map(self.block, count())), self._device.lasting)


def ahead(make: Callable[[int], T], pool: Executor | None) -> Iterator[T]:
    """make(0), make(1) and so on. In a long run the pool's threads make the next ones: NumPy releases Python's lock."""
    if pool is None:
        yield from map(make, count())
        return
    yield from map(make, range(SHORT))
    waiting = deque(pool.submit(make, index) for index in range(SHORT, SHORT + AHEAD))
    for index in count(SHORT + AHEAD):
        made = waiting.popleft().result()
        waiting.append(pool.submit(make, index))
        yield made


class ColumnDraws:
    """One worker's factors. blocks: those of each block. lasting: seconds of computing for which a factor holds.

    With lasting 0 a factor holds for one computation. Why not always so: residuals are those of whole steps. A step in
    many pieces would otherwise draw many of them, and vary less than it does.
    """

    def __init__(self, blocks: Iterator[list[float]], lasting: float = 0.0) -> None:
        self._factors, self._lasting = chain.from_iterable(blocks), lasting
        self._left, self._factor = -1.0, 0.0  # none yet

    def one(self, price: float) -> float:
        """Seconds of one computation, which takes `price` without noise."""
        return price * (self._held(price) if self._lasting else next(self._factors))

    def several(self, first: float, price: float, times: int) -> list[float]:
        """Seconds of each of `times` computations. first, price: of the first, and of each other, without noise."""
        prices = [first] + [price] * (times - 1)
        if self._lasting:
            return [each * self._held(each) for each in prices]
        return [each * factor for each, factor in zip(prices, self._factors, strict=False)]  # which have no end

    def _held(self, price: float) -> float:
        """The factor that holds for the next computation."""
        if self._left < price / 2:
            self._left, self._factor = self._lasting, next(self._factors)
        self._left -= price
        return self._factor


class RunNoise:
    """The noise of a run: one ClassNoise per class. It does not exist in a run without noise: see `run_noise`.

    pool: draws the factors of many workers ahead; None: nothing does.
    normals: as of ClassNoise.
    """

    def __init__(
        self, noise: Noise, devices: Sequence[Device], pool: Executor | None = None, normals: Normals | None = None
    ) -> None:
        self._pool = pool
        self._places = classes(devices)
        sizes = Counter(number for number, _ in self._places)
        kinds = {number: device for (number, _), device in zip(self._places, devices, strict=True)}
        run = 1.0
        if noise.run_sigma:
            run = float(lognormal(stream(noise.seed, "run noise").standard_normal(1), noise.run_sigma)[0])
        self._blocks = [
            ClassNoise(noise, number, sizes[number], kinds[number], run, normals) for number in range(len(sizes))
        ]

    def of(self, worker: int) -> ColumnDraws:
        """One worker's factors."""
        number, column = self._places[worker]
        return self._blocks[number].column(column)

    def together(self, workers: Sequence[int]) -> list[Part]:
        """The factors of the workers of each class, which follow one another."""
        parts, first = list[Part](), 0
        for number, group in groupby((self._places[worker] for worker in workers), key=lambda place: place[0]):
            columns = [column for _, column in group]
            parts.append(self._blocks[number].drawn(columns, first, self._pool))
            first += len(columns)
        return parts


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
