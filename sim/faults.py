"""What the faults of a scenario do to each worker in virtual time.

Rule: exactly. Computing goes at a rate that is constant between moments, and what it takes is its integral, so of a
computation that lasts into a slow-down only the part within is slow. A paused worker has rate 0, a lost one for ever:
then it computes nothing, moves nothing, and no collective begins without it.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from ..config.faults import Fault, Instant, Pause, Slowdown, SlowLink, Straggler, WorkerLoss
from ..config.timing import lasting
from ..program.errors import ScenarioError
from ..program.streams import stream
from .topology import Topology

DRAWS = 64  # of a straggler's chances, made at a time
# Phases that begin a step; so does a forward pass by its first unit, but not that of a step's further micro-batches.
AFRESH = ("step", "gradient", "evaluate")


class PiecewiseRate:
    """A speed that is constant between moments. windows: (start, end, factor), the speed is divided by the factors of
    all windows that hold; an infinite one stands still.
    """

    def __init__(self, windows: Iterable[tuple[float, float, float]]) -> None:
        kept = list(windows)
        self._times: list[float] = sorted({0.0, *(t for start, end, _ in kept for t in (start, end))} - {math.inf})
        self._rates = [1 / math.prod(f for start, end, f in kept if start <= t < end) for t in self._times]

    def __iter__(self) -> Iterator[tuple[float, float]]:
        """(moment, the speed from then on): 1 is full speed."""
        return zip(self._times, self._rates, strict=True)

    def taken(self, start: float, seconds: float) -> float:
        """Seconds from `start` until what takes `seconds` at full speed is over; infinite: never."""
        i, left, taken = bisect_right(self._times, start) - 1, seconds, 0.0
        while True:
            rate = self._rates[i]
            last = i + 1 == len(self._times)
            room = math.inf if last else self._times[i + 1] - (start + taken)
            if rate and left / rate <= room:
                return lasting(taken + left / rate, "faults: a worker", "one computation")
            if last:
                return math.inf
            left -= rate * room
            taken += room
            i += 1


class WorkerFaults:
    """One worker's: how fast it is now. lost: when it went for good, infinite before."""

    def __init__(self, faults: Sequence[tuple[int, Fault]], seed: int) -> None:
        self.lost = math.inf
        asleep, slow = list[tuple[float, float, float]](), list[tuple[float, float, float]]()
        self._stragglers: list[tuple[float, Iterator[bool]]] = []
        self._windows: list[Slowdown] = []  # in rounds or steps
        self._coming: list[Pause | WorkerLoss] = []  # at a round or step
        for number, fault in faults:
            times = fault.times(Instant.seconds)
            if isinstance(fault, Pause):
                lasting(fault.duration, f"faults[{number}]: worker {fault.worker}", "a pause")
            if isinstance(fault, Straggler) and fault.probability < 1:
                self._stragglers.append((fault.factor, chances(fault.probability, seed, number)))
            elif isinstance(fault, Pause | WorkerLoss):
                if times is None:
                    self._coming.append(fault)
                    continue
                asleep.append((*times, math.inf))
                self.lost = min(self.lost, times[0] if isinstance(fault, WorkerLoss) else math.inf)
            elif times is not None:
                slow.append((*times, fault.factor))
            elif isinstance(fault, Slowdown):
                self._windows.append(fault)
        self._awake, self._computing = PiecewiseRate(asleep), PiecewiseRate(asleep + slow)
        self._held = 0.0  # until when a pause that came with a sync holds
        self._factor = self._unlucky = 1.0
        self._phase = ""
        self.passed(None, 0.0)

    def computing(self, start: float, seconds: float, phase: str) -> float:
        """Seconds that a computation takes which would take `seconds` on a sound worker, from `start` on."""
        if self._stragglers:
            if phase in AFRESH or (phase == "forward" and self._phase not in ("forward", "backward")):
                self._unlucky = math.prod(factor for factor, chance in self._stragglers if next(chance))
            self._phase = phase
        held = max(0.0, self._held - start)
        return held + self._computing.taken(start + held, seconds * self._factor * self._unlucky)

    def moving(self, start: float, seconds: float) -> float:
        """Seconds of what only a pause or a loss holds up: a copy, or (0 seconds of it) the start of a collective."""
        held = max(0.0, self._held - start)
        return held + self._awake.taken(start + held, seconds)

    def passed(self, state: Any, now: float) -> None:
        """The worker syncs; state: has `round` and `step`, None as the run begins."""
        done = {"rounds": getattr(state, "round", 0), "steps": getattr(state, "step", 0)}
        self._factor = math.prod(w.factor for w in self._windows if _holds(w, done))
        for fault in [fault for fault in self._coming if done[fault.at.unit] >= fault.at.amount]:
            self._coming.remove(fault)
            _, end = fault.times(lambda at: now) or (now, math.inf)
            self._held = max(self._held, end)
            self.lost = min(self.lost, now if isinstance(fault, WorkerLoss) else math.inf)


def faults_of_workers(faults: Sequence[Fault], workers: int, seed: int) -> list[WorkerFaults | None]:
    """One for each worker that a fault names, None for the others."""
    numbered = list(enumerate(faults))
    of_workers = [(number, fault) for number, fault in numbered if not isinstance(fault, SlowLink)]
    own = [[(number, fault) for number, fault in of_workers if fault.worker == worker] for worker in range(workers)]
    return [WorkerFaults(found, seed) if found else None for found in own]


def link_rates(faults: Sequence[Fault], topology: Topology, workers: int) -> dict[str, PiecewiseRate]:
    """The links that faults slow down or stop, and how fast each is when. A pause stops its worker's port.

    ScenarioError where there is no such link, or one has no bandwidth that could be less.
    """
    windows: dict[str, list[tuple[float, float, float]]] = {}
    for number, fault in enumerate(faults):
        times = fault.times(Instant.seconds)
        if times is None or isinstance(fault, Straggler | Slowdown):
            continue
        if isinstance(fault, SlowLink):
            factor = fault.factor
            try:
                links = topology.links(fault.link) if fault.link else topology.everything(workers)
            except ScenarioError as error:
                raise ScenarioError(f"faults[{number}].link: {error}") from None
            if any(topology.capacity[link] == math.inf for link in links):
                raise ScenarioError(f"faults[{number}]: the network is infinitely fast; give it a bandwidth")
        else:
            factor = math.inf
            links = tuple(link for link in topology.ports(fault.worker) if topology.capacity[link] < math.inf)
        for link in links:
            windows.setdefault(link, []).append((*times, factor))
    return {link: PiecewiseRate(found) for link, found in windows.items()}


def chances(probability: float, seed: int, number: int) -> Iterator[bool]:
    """Whether the straggler of fault `number` is slow, step by step."""
    block = 0
    while True:
        yield from (stream(seed, "straggler", number, block).random(DRAWS) < probability).tolist()
        block += 1


def _holds(window: Slowdown, done: dict[str, int]) -> bool:
    """Whether a window in rounds or steps holds after so many."""
    unit = window.end.unit if window.end is not None else window.start.unit
    return window.start.amount <= done[unit] and (window.end is None or done[unit] < window.end.amount)
