"""Published runs against three predictions: a simulator's, perfect scaling's, and that of a fit of two constants.

Everything is in paces: the seconds of one worker for what the published unit counts (a sample, a token, a step). The
simulator is a function of a row, a speed and the shares of two kinds of links. The speed multiplies that of the group's
devices; a share is the part of their described rate that links reach. They are solved from the rows that a calibration
sees:

(b) The smallest size alone. Links reach their described rates (share 1), and the speed follows. Where the smallest size
    ran two methods, both rows are seen, and the share follows as well.
(a) The two sizes below the largest. Speed and share follow.

The fit is c + a f(n) with the ring's f(n) = 2 (n - 1) / n, the vectors that a worker sends in an all-reduce.
Rule: this module runs nothing. It is given a function that predicts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean, median

from scipy.optimize import brentq

LEAST_SHARE = 0.05  # of its described rate. A network that reaches less is not the one that was described
CLOSE = 1e-4  # the part of a speed to which it is solved
FASTEST = 1e3  # times the speed that a row has if all is computing: then computing takes hardly any time

# (a row's place, speed, share of the links between nodes, share of the links inside of them) -> its pace
Predict = Callable[[int, float, float, float], float]


@dataclass(frozen=True)
class Point:
    """What a calibration reads of a row."""

    workers: int
    method: str
    pace: float  # as published
    several: bool  # whether its workers are in several nodes


@dataclass(frozen=True)
class Calibration:
    """What was solved from the rows that it saw."""

    seen: tuple[int, ...]  # places of the rows
    speed: float
    across: float  # the share of the links between nodes
    inside: float  # the share of the links inside of them
    miss: float  # the largest |predicted / published - 1| of those rows: 0 where they can be explained


@dataclass(frozen=True)
class Guess:
    """The predictions of a row that a calibration does not see, as paces."""

    row: int  # its place
    ours: float | None  # None where the row cannot be simulated
    perfect: float
    fit: float | None = None  # None where only one size was seen


@dataclass(frozen=True)
class Way:
    """What came out of one way to calibrate."""

    calibration: Calibration | None  # None where the rows cannot be simulated
    guesses: tuple[Guess, ...]


def ring(workers: int) -> float:
    """Vectors that each of n workers sends in a ring all-reduce: 2 (n - 1) / n."""
    return 2 * (workers - 1) / workers


def fit(first: Point, second: Point, workers: int) -> float:
    """The pace of so many workers on c + a f(n) through two points."""
    slope = (second.pace - first.pace) / (ring(second.workers) - ring(first.workers))
    return first.pace + slope * (ring(workers) - ring(first.workers))


def smallest(points: Sequence[Point]) -> list[int]:
    """The places of the rows that (b) sees: the first row of each method at the smallest size, two at most."""
    least = min(point.workers for point in points)
    first: dict[str, int] = {}
    for place, point in enumerate(points):
        if point.workers == least:
            first.setdefault(point.method, place)
    return list(first.values())[:2]


def largest(points: Sequence[Point]) -> list[int] | None:
    """The places of the rows of (a): the two sizes below the largest, then the largest. None where there are fewer
    sizes, or where one of them ran more than once."""
    ordered = sorted(range(len(points)), key=lambda place: points[place].workers)[-3:]
    sizes = [points[place].workers for place in ordered]
    once = all(sum(point.workers == size for point in points) == 1 for size in sizes)
    return ordered if len(ordered) == 3 and once else None


def from_smallest(points: Sequence[Point], predict: Predict | None) -> Way:
    """Way (b): calibrate on the rows of the smallest size, and predict all other rows.

    predict: None where the group cannot be simulated; only perfect scaling is then given.
    """
    seen = smallest(points)
    found = calibrate(points, seen, predict) if predict else None
    paces = {points[place].method: points[place].pace for place in seen}
    others = [place for place in range(len(points)) if place not in seen]
    ours = [_pace(predict, place, found) for place in others]
    perfect = [paces.get(points[place].method, points[seen[0]].pace) for place in others]
    return Way(found, tuple(map(Guess, others, ours, perfect)))


def from_two(points: Sequence[Point], predict: Predict | None) -> Way | None:
    """Way (a): the largest size is predicted. None where there are not three sizes."""
    places = largest(points)
    if places is None:
        return None
    first, second, last = places
    found = calibrate(points, (first, second), predict) if predict else None
    fitted = fit(points[first], points[second], points[last].workers)
    return Way(found, (Guess(last, _pace(predict, last, found), points[first].pace, fitted),))


def _pace(predict: Predict | None, place: int, found: Calibration | None) -> float | None:
    return predict(place, found.speed, found.across, found.inside) if predict and found else None


def calibrate(points: Sequence[Point], seen: Sequence[int], predict: Predict) -> Calibration:
    """The speed, and of two rows the share, with which the seen rows take as long as published.

    The share is that of the links between nodes where one of the rows has several nodes, else of the links inside.
    Where no share between LEAST_SHARE and 1 explains both rows, it takes the nearer of the two, and the speed with
    which both rows miss by the same part: one is predicted too slow, the other too fast.
    """
    several = any(points[place].several for place in seen)

    def shares(share: float) -> tuple[float, float]:
        return (share, 1.0) if several else (1.0, share)

    def speed_of(place: int, share: float) -> float:
        pace = points[place].pace
        return _solved(lambda speed: predict(place, speed, *shares(share)) / pace - 1)

    if len(seen) == 1:
        return Calibration(tuple(seen), speed_of(seen[0], 1.0), 1.0, 1.0, 0.0)
    first, second = seen

    def late(share: float) -> float:
        """By what part the first row is predicted too slow, with the speed that the second row has."""
        try:
            speed = speed_of(second, share)
        except Unexplained:
            return -1.0  # with so slow a network the second row would be all exchange, and the first far shorter
        return predict(first, speed, *shares(share)) / points[first].pace - 1

    least, most = late(LEAST_SHARE), late(1.0)
    if least * most < 0:
        share = 1 / float(brentq(lambda times: late(1 / times), 1.0, 1 / LEAST_SHARE, rtol=10 * CLOSE))
        speed = speed_of(second, share)
    else:
        share = LEAST_SHARE if abs(least) < abs(most) else 1.0
        both = [points[place].pace for place in seen]
        speed = _solved(
            lambda speed: fmean(
                predict(place, speed, *shares(share)) / pace - 1 for place, pace in zip(seen, both, strict=True)
            )
        )
    miss = max(abs(predict(place, speed, *shares(share)) / points[place].pace - 1) for place in seen)
    return Calibration(tuple(seen), speed, *shares(share), miss)


class Unexplained(ValueError):
    """No speed explains a published time."""


def _solved(late: Callable[[float], float]) -> float:
    """The speed at which `late`, which falls with the speed, is 0. Unexplained where there is none.

    Times are nearly linear in 1 / speed, which brentq needs few steps to solve. A step can take a second.
    """
    low = high = 1 + late(1.0)  # the speed if all is computing; exchanges only add to the time
    while late(low) < 0:
        low *= 0.98
    while late(high) > 0:
        high *= 1.5
        if high > FASTEST * low:
            raise Unexplained("the exchanges alone would take longer than the published time")
    if low == high:
        return low
    return 1 / float(brentq(lambda slowness: late(1 / slowness), 1 / high, 1 / low, rtol=CLOSE))


@dataclass(frozen=True)
class Summary:
    """Absolute errors of many rows."""

    rows: int
    median: float
    mean: float
    worst: float


def summary(found: Sequence[float]) -> Summary | None:
    """Median, mean and largest of absolute errors; None of none."""
    sizes = [abs(error) for error in found]
    if not sizes:
        return None
    return Summary(len(sizes), median(sizes), fmean(sizes), max(sizes))
