"""How good are the predictions of a validation? The definitions, applied to what its record holds.

A case's numbers are medians over its rounds; each round has one prediction and two real runs, A and B.

    error     predicted / measured - 1, of the medians; measured: of all real runs
    ab        |A - B| / measured, of the medians of A and of B: what two equal runs differ by
    excess    |error| less ab, of which at most AB_MOST counts; at least 0
    inside    the part of the real runs that lie in the 80 % interval of their round's prediction

A round's interval is that of its simulations, whose noise its profile has measured within half a minute. How far a
machine moves from one profile to another is seen when there are several rounds: their predictions differ by it. So
that widens the interval, and twice, since the machine is another one in the profile's minute and in the run's. Both
parts are taken as lognormal; the deviation comes from few rounds, so its quantile is Student's.

A case whose ab is above AB_MOST is not judged: nothing can be said about it to within that.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from statistics import fmean, median, stdev
from typing import Any

from ..config.metrics import Target

AB_MOST = 0.1  # of the difference between A and B, what counts
REALLY = 0.05  # two cases really differ if their times do by more than this and what equal runs differ by
CLEARLY = 0.2  # two cases that differ by more must be in the right order, whatever else


@dataclass(frozen=True)
class Clock:
    """A case's predicted clock against its real one. Times are in seconds; the definitions are above."""

    predicted: float
    low: float  # the 80 % interval; the medians of its ends
    high: float
    measured: float
    error: float
    ab: float
    excess: float
    inside: float
    per_sample: tuple[float, float]  # seconds, predicted and measured


@dataclass(frozen=True)
class Verdict:
    """What came out for one case."""

    case: str
    family: str  # the preset
    group: str  # cases of one group can be compared
    rounds: int
    failure: str = ""  # why it could not be run to the end
    clock: Clock | None = None  # None where no round is complete

    @property
    def judged(self) -> Clock | None:
        """The clock of a case that is judged; else None."""
        return self.clock if self.clock and self.clock.ab <= AB_MOST and not self.failure else None


def verdict(case: str, kept: Mapping[str, Any]) -> Verdict:
    """The verdict on a case. kept: its part of the record."""
    rounds = complete(kept)
    return Verdict(case, kept["family"], kept["group"], len(rounds), kept["error"], clock(rounds) if rounds else None)


def clock(rounds: Sequence[Mapping[str, Any]]) -> Clock:
    """What came out for the clock in some complete rounds."""
    intervals = widened(rounds)
    predicted = median(r["predicted"]["seconds"] for r in rounds)
    low, high = (median(ends) for ends in zip(*intervals, strict=True))
    a, b = ([r[which]["seconds"] for r in rounds] for which in "ab")
    measured = median([*a, *b])
    error, ab = predicted / measured - 1, abs(median(a) - median(b)) / measured
    inside = [low <= r[x]["seconds"] <= high for r, (low, high) in zip(rounds, intervals, strict=True) for x in "ab"]
    return Clock(
        predicted=predicted,
        low=low,
        high=high,
        measured=measured,
        error=error,
        ab=ab,
        excess=max(0.0, abs(error) - min(ab, AB_MOST)),
        inside=fmean(inside),
        per_sample=(predicted / rounds[0]["predicted"]["samples"], measured / rounds[0]["a"]["samples"]),
    )


def widened(rounds: Sequence[Mapping[str, Any]]) -> list[tuple[float, float]]:
    """Each round's 80 % interval, in seconds; see above."""
    from scipy.special import stdtrit

    said, apart = [r["predicted"] for r in rounds], 0.0
    if len(said) > 1:
        apart = math.sqrt(2) * stdev(math.log(r["seconds"]) for r in said) * stdtrit(len(said) - 1, 0.9)
    found = []
    for each in said:
        middle = each["seconds"]
        down, up = (math.hypot(math.log(each[end] / middle), apart) for end in ("low", "high"))
        found.append((middle * math.exp(-down), middle * math.exp(up)))
    return found


def complete(kept: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The rounds of a case that have a prediction and both real runs."""
    return [r for r in kept["rounds"] if {"predicted", "a", "b"} <= r.keys()]


@dataclass(frozen=True)
class Order:
    """Pairs of cases of one group, by the seconds for a sample: how many the prediction puts in the right order."""

    pairs: int
    right: int
    wrong: tuple[tuple[str, str], ...]  # the names of the pairs in the wrong order


def order(verdicts: Iterable[Verdict], clearly: bool) -> Order:
    """The order among judged cases that really differ. clearly: only among those that differ by more than CLEARLY."""
    pairs, wrong = 0, list[tuple[str, str]]()
    judged = [(v.case, v.group, v.judged) for v in verdicts if v.judged]
    for (one, group, clock), (other, its_group, its_clock) in combinations(judged, 2):
        (p, m), (q, n) = clock.per_sample, its_clock.per_sample
        least = CLEARLY if clearly else REALLY + max(clock.ab, its_clock.ab)
        if group == its_group and max(m, n) / min(m, n) - 1 > least:
            pairs += 1
            if (p < q) != (m < n):
                wrong.append((one, other))
    return Order(pairs, pairs - len(wrong), tuple(wrong))


@dataclass(frozen=True)
class Judgement:
    """What came out over all cases. A number over no case is None."""

    verdicts: tuple[Verdict, ...]
    mean: float | None  # excess over the judged cases
    worst: float | None
    families: dict[str, float]  # mean excess of the judged cases of each preset
    inside: float | None  # the part of all judged cases' real runs in their interval
    order: Order  # of the pairs that really differ
    order_clear: Order  # of those that differ by more than CLEARLY
    unjudged: tuple[str, ...]
    failed: tuple[str, ...]

    def holds(self, within: float) -> bool:
        """Whether some case was judged, and no judged case's excess is above `within`."""
        return self.worst is not None and self.worst <= within

    def document(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def judge(cases: Mapping[str, Mapping[str, Any]]) -> Judgement:
    """The judgement. cases: name -> its part of the record."""
    verdicts = tuple(verdict(name, kept) for name, kept in cases.items())
    judged = [(v.family, v.rounds, v.judged) for v in verdicts if v.judged]
    by_family: dict[str, list[float]] = {}
    for family, _, clock in judged:
        by_family.setdefault(family, []).append(clock.excess)
    excess, rounds = [clock.excess for _, _, clock in judged], sum(count for _, count, _ in judged)
    return Judgement(
        verdicts,
        mean=fmean(excess) if excess else None,
        worst=max(excess, default=None),
        families={family: fmean(found) for family, found in by_family.items()},
        inside=sum(clock.inside * count for _, count, clock in judged) / rounds if rounds else None,
        order=order(verdicts, clearly=False),
        order_clear=order(verdicts, clearly=True),
        unjudged=tuple(v.case for v in verdicts if v.clock and not v.judged and not v.failure),
        failed=tuple(v.case for v in verdicts if v.failure),
    )


def also(kept: Mapping[str, Any], target: Target) -> dict[str, tuple[float | None, float | None]]:
    """What else is compared: name -> (predicted, measured), medians over the rounds; None where it is not known.

    idle: the mean over the workers. sent, memory: bytes of the worker with most.
    to_target: seconds at the first report that reaches the target.
    """
    rounds = complete(kept)
    found: dict[str, tuple[float | None, float | None]] = {}
    for name, of_workers in (("idle", fmean), ("sent", max), ("memory", max)):
        predicted = [of_workers(r["predicted"][name]) for r in rounds if r["predicted"][name]]
        measured = [of_workers(r[which][name]) for r in rounds for which in "ab" if r[which][name]]
        found[name] = _median(predicted), _median(measured)
    times = [_to_target(r["predicted"]["reports"], r[which]["reports"], target) for r in rounds for which in "ab"]
    reached = [pair for pair in times if pair is not None]
    return found | {"to_target": (_median([p for p, _ in reached]), _median([m for _, m in reached]))}


def _to_target(
    predicted: Sequence[float], measured: Sequence[tuple[float, Mapping[str, float]]], target: Target
) -> tuple[float, float] | None:
    """(predicted, measured) seconds at the report that first reaches the target; None where none does.

    The learning is the same in both worlds, to the last bit, so it is the same report in both.
    """
    for seconds, (taken, tested) in zip(predicted, measured, strict=False):
        if target.reached(tested.get(target.field)):
            return seconds, taken
    return None


def _median(values: Sequence[float]) -> float | None:
    return median(values) if values else None
