"""What the faults of a scenario do to each worker in virtual time.

Rule: faults act exactly when they hold. If a computation runs into a slow-down, only its part within the slow-down is
slow, and no fault needs an event of its own in SimPy's queue.

The rate of a worker is 0 in a pause, and 0 for ever after a loss. Then the worker computes nothing and moves nothing,
and no collective begins without it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..config.fault_plan import FaultPlan, PiecewiseRate, failure
from ..config.faults import (
    Fault,
    Numbered,
    Once,
    Pause,
    SlowLink,
    WorkerException,
    WorkerLoss,
    remaining,
    workers_hit,
)
from ..program.effects import Effect
from ..program.errors import FaultStruck, ScenarioError
from .topology import Topology


class Gone(Exception):
    """A worker is lost as it begins an effect, and never gets its answer."""

    def __init__(self, effect: Effect[object]) -> None:
        super().__init__()
        self.effect = effect


class WorkerFaults(FaultPlan):
    """The faults of one worker: how fast it is now, and whether it is there. faults: with their numbers."""

    def __init__(self, faults: Sequence[Numbered], seed: int) -> None:
        super().__init__(faults, seed)
        self.go_on(0, 0, 0.0)

    def go_on(self, rounds: int, steps: int, now: float) -> None:
        """See FaultPlan. A lost worker is back."""
        super().go_on(rounds, steps, now)
        self._held = 0.0  # the end of a pause, or of a loss, that came as an effect began
        self.failure: FaultStruck | None = None  # the exception by which it was lost
        # What holds by the clock alone, up to the next loss.
        coming = [
            (start, end, fault) for start, end, _, fault in self.by_clock if isinstance(fault, Pause | WorkerLoss)
        ]
        # When it was lost, or will be next.
        self.lost = min((start for start, _, fault in coming if isinstance(fault, WorkerLoss)), default=math.inf)
        asleep = [(start, end, math.inf) for start, end, _ in coming]
        self._awake, self._rate = PiecewiseRate(asleep), PiecewiseRate([*asleep, *self._slow])

    def strike(self, number: int, fault: Once, effect: Effect[object], now: float) -> Effect[object]:
        self.note(number, fault, now, now + fault.lasts)
        if isinstance(fault, Pause):
            self._held = max(self._held, now + fault.duration)
            return effect
        self.lost, self._held = now, math.inf
        self.failure = failure(number, fault) if isinstance(fault, WorkerException) else None
        raise Gone(effect)

    def passed(self, rounds: int, steps: int, now: float) -> None:
        self.due(now)
        super().passed(rounds, steps, now)

    def computing(self, start: float, seconds: float, phase: str) -> float:
        held = max(0.0, self._held - start)
        return held + super().computing(start + held, seconds, phase)

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


def faults_of_workers(faults: Sequence[Fault], nodes: Sequence[int], seed: int) -> list[WorkerFaults | None]:
    """By worker: its faults, None where it has none. nodes: of the workers."""
    own: dict[int, list[Numbered]] = {}
    for number, fault in remaining(faults, ()):
        for worker in workers_hit(fault, nodes):
            own.setdefault(worker, []).append((number, fault))
    return [WorkerFaults(own[worker], seed) if worker in own else None for worker in range(len(nodes))]


def link_rates(
    faults: Sequence[Fault], topology: Topology, workers: int, begin: float = 0.0
) -> dict[str, PiecewiseRate]:
    """The rates of the links that faults slow down or stop, by link. A pause stops the worker's port.

    begin: since when all workers are there: a pause or a loss before stops no port.
    ScenarioError where a link does not exist, or is infinitely fast, so that no factor makes it slower.
    """
    windows: dict[str, list[tuple[float, float, float]]] = {}
    for number, fault in enumerate(faults):
        times = fault.times()
        if times is None or not isinstance(fault, SlowLink | Pause | WorkerLoss):
            continue
        if isinstance(fault, Pause | WorkerLoss) and times[0] <= begin > 0:
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
