"""The parts of a run that goes on after a lost worker: each has programs of its own, and the cluster's time goes on.

Rule: what a worker has of the cluster, its noise and its faults, goes on through all parts. A fault that has struck
does not strike again, and a draw of noise does not come twice. A worker's number is the one that it has at the start
of the run; a part's programs are numbered by themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import inf

from ..config.timing import Timing
from ..program.effects import Checkpoint
from ..program.errors import WorkerLost
from ..program.outcome import Outcome
from .faults import WorkerFaults, faults_of_workers
from .noise import ColumnDraws, run_noise

# (program's number, virtual seconds, its clock, the effect, whether a checkpoint is written): called at each sync.
Keep = Callable[[int, float, float, Checkpoint, bool], None]


@dataclass(frozen=True)
class Loss:
    """What is known of a part in which workers were lost, by the programs' numbers, in virtual seconds."""

    lost: Mapping[int, float]  # when each worker was lost, or would be; infinite for most
    stands: Mapping[int, float]  # since when each one waits for others; infinite for one that was lost as it computed

    @property
    def first(self) -> float:
        """When the first worker was lost."""
        return min(self.lost.values())

    def by(self, moment: float) -> tuple[int, ...]:
        """Those that are lost by then."""
        return tuple(number for number, lost in self.lost.items() if lost <= moment)

    def noticed(self, number: int, detection: float) -> float:
        """When one of those that are left knows of it: as it next waits, after `detection` at the earliest."""
        return max(self.stands[number], self.first + detection)

    def met(self, detection: float) -> float:
        """When all that are left know of it.

        One that is lost before it comes is waited for until that is detected, too.
        """
        moment = self.first + detection
        while True:
            gone = self.by(moment)
            come = (min(self.stands[number], self.lost[number] + detection) for number in self.lost.keys() - {*gone})
            later = max((moment, *come))
            if later == moment:
                return moment
            moment = later


class Lost(WorkerLost):
    """WorkerLost, with what the simulation knows of it.

    over: when the part was over, in virtual seconds. outcomes: of its programs, so far.
    """

    def __init__(self, message: str, loss: Loss, over: float, outcomes: Sequence[Outcome]) -> None:
        super().__init__(message, loss.by(loss.met(0.0)))
        self.loss, self.over, self.outcomes = loss, over, outcomes


class Ongoing:
    """What goes on through all parts of a run: each worker's noise and faults. timing: of the run's whole cluster."""

    def __init__(self, timing: Timing) -> None:
        workers = range(len(timing.devices))
        noise = run_noise(timing.noise, timing.devices)
        self.factors: list[ColumnDraws | None] = [noise.of(worker) if noise else None for worker in workers]
        self.faults: list[WorkerFaults | None] = faults_of_workers(timing.faults, timing.nodes, timing.noise.seed)


@dataclass(frozen=True)
class Part:
    """A part of a run."""

    ongoing: Ongoing
    workers: Sequence[int]  # the number of each program's worker
    begin: float = 0.0  # virtual seconds since the start of the run
    outcomes: Sequence[Outcome] = ()  # by program, where what is counted goes on; empty: it begins now
    counted: float = 0.0  # since which virtual second it is counted, and the programs' clocks run
    rounds: int = 0  # done before
    steps: int = 0  # nominal ones, done before
    stop: float = inf  # from this virtual second on, the programs are asked to stop
    keep: Keep | None = None
    over: Callable[[Loss], float] = lambda loss: inf  # when the part is over after a loss, in virtual seconds


def whole(timing: Timing) -> Part:
    """A run in one part."""
    return Part(Ongoing(timing), range(len(timing.devices)))
