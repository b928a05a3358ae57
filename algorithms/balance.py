"""HDP's batch sizes: each worker gets so many samples that all finish a step together.

Rule: a step's time rises with its batch. A measured time that falls is replaced by that of a neighbouring size that
was priced before. Mirzaei et al., Parallel Computing 2025, 103164. These searches are exact; the optimisers released
with the paper miss the total or the optimum.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable, Sequence
from math import nextafter

StepSeconds = Callable[[int], float]  # batch -> seconds of a step

START = 64  # the first size that `largest_fitting` tries
SAME = 1 + 1e-9  # times that differ by less are equal: 16 samples at 25/s may differ in the last bit from 64 at 100/s


class _Curve:
    """Step time of one class of workers for 1 to `most` samples; each size is priced once."""

    def __init__(self, seconds: StepSeconds, most: int) -> None:
        self.most, self._seconds = most, seconds
        self._sizes, self._times = [1], [seconds(1)]
        if most > 1:
            self._sizes.append(most)
            self._times.append(max(seconds(most), self._times[0]))

    @property
    def last(self) -> float:
        """The time of `most` samples."""
        return self._times[-1]

    def at(self, batch: int) -> float:
        """The time of `batch` samples."""
        place = bisect_left(self._sizes, batch)
        return self._times[place] if self._sizes[place] == batch else self._ask(place, batch)

    def largest(self, limit: float) -> int:
        """The largest batch that takes `limit` seconds at most; 1 where there is none.

        The search interpolates, since most curves are nearly straight and two prices then suffice. Every third guess
        halves the interval instead, so that no curve makes the search long.
        """
        sizes, times, turn = self._sizes, self._times, 0
        while True:
            place = bisect_right(times, limit)
            if place == len(times):
                return self.most
            if place == 0 or sizes[place] - sizes[place - 1] == 1:
                return sizes[max(0, place - 1)]
            low, high = sizes[place - 1], sizes[place]
            part = (limit - times[place - 1]) / (times[place] - times[place - 1]) if turn % 3 < 2 else 0.5
            self._ask(place, min(max(low + 1, low + int(part * (high - low))), high - 1))
            turn += 1

    def _ask(self, place: int, batch: int) -> float:
        seconds = min(max(self._seconds(batch), self._times[place - 1]), self._times[place])
        self._sizes.insert(place, batch)
        self._times.insert(place, seconds)
        return seconds


def _curves(seconds: Sequence[StepSeconds], most: Sequence[int]) -> list[_Curve]:
    """One per worker; workers of equal times and bounds share theirs."""
    keys = list(zip(seconds, most, strict=True))
    made = {key: _Curve(*key) for key in dict.fromkeys(keys)}
    return [made[key] for key in keys]


def fixed_total(seconds: Sequence[StepSeconds], most: Sequence[int], total: int) -> tuple[int, ...]:
    """Batches b_i, 1 <= b_i <= most[i], that sum to `total`, with the least possible max_i seconds[i](b_i).

    ValueError where no such batches exist.

    How: for a limit in seconds, each worker's largest batch within it is known (_Curve.largest), and their sum grows
    with the limit. `low` and `high` enclose the limit at which the sum passes `total`. They are brought closer until at
    most n samples lie between them, one per worker. The samples still missing at `low` are then given out one by one,
    each to the worker that it takes least (of equal times, to the smaller batch). This is exact, and it prices only a
    few of the possible batches.

    One case needs care: where many batches of a worker take the same time, low and high meet while more than n samples
    still lie between them. Then batches are first raised to a common level (_level).
    """
    n, room = len(seconds), sum(most)
    if not n <= total <= room:
        raise ValueError(f"total is {total}; {n} workers take at least {n} and, at their largest batches, {room}")
    curves = _curves(seconds, most)
    counts = Counter(curves)
    low, high = nextafter(0.0, -1.0), max(curve.last for curve in counts)  # a step takes 0 s or more
    below, above, turn = n, room, 0  # samples that fit in `low` seconds, in `high`
    while below < total and above - below > n:
        part = (total - below) / (above - below) if turn % 3 < 2 else 0.5
        limit = low + part * (high - low)
        if not low < limit < high:
            limit = (low + high) / 2
            if not low < limit < high:
                break
        samples = sum(count * curve.largest(limit) for curve, count in counts.items())
        low, below, high, above = (limit, samples, high, above) if samples <= total else (low, below, limit, samples)
        turn += 1
    batches = [curve.largest(low) for curve in curves]
    if above - below > n:
        tops = [curve.largest(high) for curve in curves]
        batches = _level(batches, tops, total)
    return _one_by_one(curves, batches, total)


def _level(floors: list[int], tops: list[int], total: int) -> list[int]:
    """Floors raised to the highest common level within the tops that needs no more than `total`."""

    def raised(level: int) -> list[int]:
        return [min(top, max(floor, level)) for floor, top in zip(floors, tops, strict=True)]

    return raised(bisect_right(range(1, max(tops) + 1), total, key=lambda level: sum(raised(level))))


def _one_by_one(curves: list[_Curve], batches: list[int], total: int) -> tuple[int, ...]:
    """`batches` raised to `total` in all, each sample to the worker that it takes least."""
    batches = list(batches)
    following = [(c.at(b + 1), b + 1, w) for w, (c, b) in enumerate(zip(curves, batches, strict=True)) if b < c.most]
    heapq.heapify(following)
    for _ in range(total - sum(batches)):
        _, batch, worker = following[0]
        batches[worker] = batch
        if batch < curves[worker].most:
            heapq.heapreplace(following, (curves[worker].at(batch + 1), batch + 1, worker))
        else:
            heapq.heappop(following)
    return tuple(batches)


def no_restriction(seconds: Sequence[StepSeconds], most: Sequence[int]) -> tuple[int, ...]:
    """The largest balanced step that memory allows: T = min_i seconds[i](most[i]), b_i the largest batch within T.

    A worker that cannot do one sample in T gets one.
    """
    curves = _curves(seconds, most)
    limit = min(curve.last for curve in curves) * SAME
    return tuple(curve.largest(limit) for curve in curves)


def largest_fitting(fits: Callable[[int], bool], most: int) -> int:
    """The largest size in 1 to `most` that fits, 0 where none does.

    Doubled or halved from 64 until a fitting and a failing size are known, then bisected.
    """
    low, high, size = 0, most + 1, min(START, most)  # `low` fits, `high` does not
    while high - low > 1:
        if fits(size):
            low = size
        else:
            high = size
        size = high // 2 if low == 0 else min(2 * low, most) if high > most else (low + high) // 2
    return low
