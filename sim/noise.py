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
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from ..config.timing import Device, Network, Noise
from ..program.streams import stream

T = TypeVar("T")
BLOCK = 2**16  # about so many numbers of a class are drawn together: that many stay in a core's cache
LEAST_ROWS, MOST_ROWS = 8, 1024  # of a block
DEPENDENT = 64  # rows of a block in which a row depends on the one before
SHORT, AHEAD = 8, 2  # blocks of a class after which a run is long, and blocks that are then made ahead
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
        fitting = max(LEAST_ROWS, min(BLOCK // columns, MOST_ROWS))
        self.rows = DEPENDENT if device.correlation else fitting  # of a block
        self._residuals = np.array(device.residuals, np.float64)
        normal = stream(noise.seed, "worker noise", number).standard_normal(columns if noise.worker_sigma else 0)
        workers = lognormal(normal, noise.worker_sigma)  # (columns,), none without
        self._factors = workers * run if workers.size else np.full(columns if run != 1.0 else 0, run)
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
        random, shape = stream(self._noise.seed, "noise", self._number, index), (self.rows, self.columns)
        if self._residuals.size:
            block = self._drawn(random, shape)
        else:
            block = lognormal(random.standard_normal(shape), self._noise.sigma)
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

    def drawn(self, columns: Sequence[int], pool: Executor | None) -> Draws:
        """The factors of these columns, in the order of their computations. pool: draws blocks ahead."""
        every = list(columns) == list(range(self.columns))
        # `take` gives rows that lie one after the other, as running_sums needs them; [:, columns] would not.
        blocks = ahead(self._made, pool) if every else (self.block(index).take(columns, axis=1) for index in count())
        return Draws(blocks, self._device.lasting)

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


class Draws:
    """The factors of several workers of a class at the same time: what ColumnDraws is for one of them."""

    def __init__(self, blocks: Iterator[NDArray[np.float64]], lasting: float = 0.0) -> None:
        self._blocks, self._lasting = blocks, lasting
        self._block: NDArray[np.float64] = np.empty((0, 0))
        self._at, self._left = 0, -1.0
        self._asked, self._asking = (0.0, 0.0, 1), 0  # what was asked for last, and how often in a row
        self._sums: list[NDArray[np.float64]] = []  # the next answers to that, made together
        self._given = 0  # how many of them have been given

    def total(self, first: float, price: float, times: int) -> NDArray[np.float64]:
        """Seconds of `times` computations of each worker: (workers,). first, price: as of ColumnDraws.

        What was asked for some times in a row will mostly be asked for as often again: those sums are made together.
        """
        again = self._asked == (first, price, times)
        if again and self._given < len(self._sums):
            self._given += 1
            return self._sums[self._given - 1]
        self._at += self._given * self._asked[2]
        self._asking = self._asking + self._given + 1 if again else 0
        self._asked, self._given = (first, price, times), 0
        if self._lasting:
            each = np.array([each * self._held(each) for each in (first, *(price,) * (times - 1))])
            (total,) = running_sums(each[None])
            return total
        rounds = min(self._asking, (len(self._block) - self._at) // times)
        if rounds:
            factors = self._block[self._at : self._at + rounds * times].reshape(rounds, times, -1)
            self._sums, self._given = _totals(first, price, factors), 1
            return self._sums[0]
        self._sums = []
        (total,) = _totals(first, price, self._next(times)[None])
        return total

    def _next(self, times: int) -> NDArray[np.float64]:
        """The next rows of factors."""
        at, end = self._at, self._at + times
        if end <= len(self._block):
            self._at = end
            return self._block[at:end]
        parts = [self._block[at:]] if at < len(self._block) else []
        missing = times - sum(map(len, parts))
        while missing:
            self._block = next(self._blocks)
            self._at = min(missing, len(self._block))
            parts.append(self._block[: self._at])
            missing -= self._at
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _held(self, price: float) -> NDArray[np.float64]:
        if self._left < price / 2:
            if self._at >= len(self._block):
                self._block, self._at = next(self._blocks), 0
            self._left, self._at = self._lasting, self._at + 1
        self._left -= price
        held: NDArray[np.float64] = self._block[self._at - 1]
        return held


def _totals(first: float, price: float, factors: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    """Seconds of each round: (workers,). factors: (rounds, times, workers)."""
    if factors.shape[1] == 1:
        return list(first * factors[:, 0])
    seconds = price * factors
    if first != price:
        np.multiply(first, factors[:, 0], out=seconds[:, 0])
    return running_sums(seconds)


def running_sums(each: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    """Each round's sum, added one after the other as Python adds: (workers,).

    each: (rounds, times, workers), in C order.
    NumPy adds the rows of several workers so, but the numbers of a single one in another order.
    """
    return list(np.add.reduce(each, axis=1) if each.shape[2] > 1 else np.add.accumulate(each, axis=1)[:, -1])


class RunNoise:
    """The noise of a run: one ClassNoise per class. It does not exist in a run without noise: see `run_noise`.

    pool: draws the factors of many workers ahead; None: nothing does.
    """

    def __init__(self, noise: Noise, devices: Sequence[Device], pool: Executor | None = None) -> None:
        self._pool = pool
        self._places = classes(devices)
        sizes = Counter(number for number, _ in self._places)
        kinds = {number: device for (number, _), device in zip(self._places, devices, strict=True)}
        normal = stream(noise.seed, "run noise").standard_normal(1)
        run = float(lognormal(normal, noise.run_sigma)[0]) if noise.run_sigma else 1.0
        self._blocks = [ClassNoise(noise, number, sizes[number], kinds[number], run) for number in range(len(sizes))]

    def of(self, worker: int) -> ColumnDraws:
        """One worker's factors."""
        number, column = self._places[worker]
        return self._blocks[number].column(column)

    def together(self, workers: Sequence[int]) -> list[tuple[int, Draws]]:
        """(the first one's place, factors) of the workers of each class, which follow one another."""
        parts, first = list[tuple[int, Draws]](), 0
        for number, group in groupby((self._places[worker] for worker in workers), key=lambda place: place[0]):
            columns = [column for _, column in group]
            parts.append((first, self._blocks[number].drawn(columns, self._pool)))
            first += len(columns)
        return parts


@cache
def _bounds(count: int) -> NDArray[np.float64]:
    """Where a standard normal number is cut into `count` equally likely ranges."""
    return np.array([NormalDist().inv_cdf(k / count) for k in range(1, count)])


def run_noise(noise: Noise, devices: Sequence[Device], pool: Executor | None = None) -> RunNoise | None:
    """The noise of workers on these devices; None without noise. pool: see RunNoise."""
    return RunNoise(noise, devices, pool) if varies(noise, devices) else None


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
