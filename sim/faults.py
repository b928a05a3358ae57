"""What the faults of a scenario do to each worker in virtual time.

Rule: faults act exactly when they hold. A worker computes at a rate that is 1 without faults and constant between the
starts and ends of faults. The work that it has done is the integral of this rate over time, and a computation of s
seconds is over when the integral since its start has reached s. So if a computation runs into a slow-down, only its
part within the slow-down is slow, and no fault needs an event of its own in SimPy's queue.

The rate is 0 in a pause, and 0 for ever after a loss. Then the worker computes nothing and moves nothing, and no
collective begins without it.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence

from ..config.faults import Fault, Instant, Pause, Slowdown, SlowLink, Straggler, WorkerLoss
from ..config.timing import lasting
from ..program.errors import ScenarioError
from ..program.streams import stream
from .topology import Topology

DRAWS = 64  # a straggler's chances are drawn so many at a time
# A phase that begins a step. A forward pass may begin one, too, but not that of a step's second micro-batch.
BEGINNINGS = ("step", "gradient", "evaluate")


class PiecewiseRate:
    """A rate that is constant between the starts and ends of windows.

    windows: (start, end, factor) in seconds. At any time, the rate is 1 divided by the factors of all windows that
    hold then; it is 0 where a factor is infinite.
    """

    def __init__(self, windows: Iterable[tuple[float, float, float]]) -> None:
        kept = list(windows)
        self._times: list[float] = sorted({0.0, *(t for start, end, _ in kept for t in (start, end))} - {math.inf})
        self._rates = [1 / math.prod(f for start, end, f in kept if start <= t < end) for t in self._times]

    def __iter__(self) -> Iterator[tuple[float, float]]:
        """(seconds since the start, the rate from then on)."""
        return zip(self._times, self._rates, strict=True)

    def from_then_on(self, begin: float) -> Iterator[tuple[float, float]]:
        """(seconds since `begin`, the rate from then on); the first is the rate at `begin`."""
        first = bisect_right(self._times, begin) - 1
        yield 0.0, self._rates[first]
        for moment, rate in zip(self._times[first + 1 :], self._rates[first + 1 :], strict=True):
            yield moment - begin, rate

    def taken(self, start: float, seconds: float) -> float:
        """Seconds from `start` until something is over that takes `seconds` at rate 1; infinite where it never is."""
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
    """The faults of one worker: how fast it is now, and whether it is there. faults: with their numbers."""

    def __init__(self, faults: Sequence[tuple[int, Fault]], seed: int) -> None:
        self.lost = math.inf  # when it was lost, or will be next by a loss in seconds
        self._losses: list[float] = []  # those in seconds
        self._asleep: list[tuple[float, float, float]] = []  # pauses in seconds
        self._slow: list[tuple[float, float, float]] = []
        self._stragglers: list[tuple[float, Iterator[bool]]] = []
        self._windows: list[Slowdown] = []  # those in rounds or steps
        self._coming: list[Pause | WorkerLoss] = []  # those at a round or a step that has not come
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
                if isinstance(fault, WorkerLoss):
                    self._losses.append(times[0])
                else:
                    self._asleep.append((*times, math.inf))
            elif times is not None:
                self._slow.append((*times, fault.factor))
            elif isinstance(fault, Slowdown):
                self._windows.append(fault)
        self._set_rates()
        self._held = 0.0  # the end of a pause, or of a loss, that came at a round or a step
        self._factor = 1.0  # of the slow-downs in rounds or steps that hold now
        self._unlucky = 1.0  # of the stragglers in the current step
        self._phase = ""  # of the last computation
        self.passed(0, 0, 0.0)

    def _set_rates(self) -> None:
        """What holds by the clock alone, up to the next loss."""
        self.lost = min(self._losses, default=math.inf)
        asleep = [*self._asleep, (self.lost, math.inf, math.inf)] if self.lost < math.inf else self._asleep
        self._awake, self._computing = PiecewiseRate(asleep), PiecewiseRate(asleep + self._slow)

    def go_on(self, rounds: int, steps: int, now: float) -> None:
        """The worker goes on at `now` from a state of so many rounds and nominal steps.

        A lost worker is back. What was to strike it while it was gone does not strike any more.
        """
        done = {"rounds": rounds, "steps": steps}
        if self.lost <= now:
            self._coming = [fault for fault in self._coming if done[fault.at.unit] < fault.at.amount]
            self._losses = [loss for loss in self._losses if loss > now]
            self._held = 0.0
            self._set_rates()
        self._factor = math.prod(w.factor for w in self._windows if _holds(w, done))

    def computing(self, start: float, seconds: float, phase: str) -> float:
        """How long a computation takes from `start` on, in seconds. seconds: without faults."""
        if self._stragglers:
            if phase in BEGINNINGS or (phase == "forward" and self._phase not in ("forward", "backward")):
                self._unlucky = math.prod(factor for factor, chance in self._stragglers if next(chance))
            self._phase = phase
        held = max(0.0, self._held - start)
        return held + self._computing.taken(start + held, seconds * self._factor * self._unlucky)

    def computing_each(self, start: float, each: Sequence[float], phase: str) -> list[float]:
        """How long each of several computations takes that follow one another from `start` on."""
        found, passed = list[float](), 0.0
        for seconds in each:
            found.append(self.computing(start + passed, seconds, phase))
            passed += found[-1]
        return found

    def moving(self, start: float, seconds: float) -> float:
        """The same for what only a pause or a loss delays: a copy, or the start of a collective (of 0 seconds)."""
        held = max(0.0, self._held - start)
        return held + self._awake.taken(start + held, seconds)

    def passed(self, rounds: int, steps: int, now: float) -> None:
        """The worker syncs at `now`, when it has done so many rounds and nominal steps."""
        done = {"rounds": rounds, "steps": steps}
        self._factor = math.prod(w.factor for w in self._windows if _holds(w, done))
        for fault in [fault for fault in self._coming if done[fault.at.unit] >= fault.at.amount]:
            self._coming.remove(fault)
            if times := fault.times(lambda at: now):
                self._held = max(self._held, times[1])
            self.lost = min(self.lost, now if isinstance(fault, WorkerLoss) else math.inf)


def faults_of_workers(faults: Sequence[Fault], workers: int, seed: int) -> list[WorkerFaults | None]:
    """By worker: its faults, None where it has none."""
    numbered = list(enumerate(faults))
    of_workers = [(number, fault) for number, fault in numbered if not isinstance(fault, SlowLink)]
    own = [[(number, fault) for number, fault in of_workers if fault.worker == worker] for worker in range(workers)]
    return [WorkerFaults(found, seed) if found else None for found in own]


def link_rates(
    faults: Sequence[Fault], topology: Topology, workers: int, begin: float = 0.0
) -> dict[str, PiecewiseRate]:
    """The rates of the links that faults slow down or stop, by link. A pause stops the worker's port.

    begin: since when all workers are there: a loss before stops no port.
    ScenarioError where a link does not exist, or is infinitely fast, so that no factor makes it slower.
    """
    windows: dict[str, list[tuple[float, float, float]]] = {}
    for number, fault in enumerate(faults):
        times = fault.times(Instant.seconds)
        if times is None or isinstance(fault, Straggler | Slowdown):
            continue
        if isinstance(fault, WorkerLoss) and times[0] <= begin > 0:
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
    """Whether the straggler of fault `number` is slow, for one step after the other."""
    block = 0
    while True:
        yield from (stream(seed, "straggler", number, block).random(DRAWS) < probability).tolist()
        block += 1


def _holds(window: Slowdown, done: dict[str, int]) -> bool:
    """Whether a window in rounds or steps holds. done: rounds and steps so far."""
    unit = window.end.unit if window.end is not None else window.start.unit
    return window.start.amount <= done[unit] and (window.end is None or done[unit] < window.end.amount)
