"""Short trainings that are measured piece by piece, for profiles: what is priced is what runs.

Rule: times are taken as they occur in training, on all ranks at once and in the order of a step. A gradient that
follows an exchange finds its data no longer in the caches, and an exchange between two steps finds its vectors written
to by the computation: both take up to twice as long as alone in a loop.

Most trials do not overlap exchanges and moves, so that each piece has a time of its own. What overlapping costs is the
difference between two trials. As in the engine, the time from one answer to the next belongs to the effect that is
answered, and with it the program's own time: so the pieces sum to the clock.
"""

from __future__ import annotations

import uuid
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from .algorithms.aggregations import Parameters
from .algorithms.learning_rates import Constant
from .algorithms.loop import train
from .algorithms.placements import Offloaded, Replicated, Sharded
from .algorithms.plan import Plan
from .algorithms.rounds import Interval, State
from .algorithms.schedules import Fixed
from .algorithms.splits import Shares
from .algorithms.strategy import Strategy
from .job import Job
from .program.effects import AllReduce, Collective, Compute, Effect, Move, Program, Start, Work
from .program.outcome import Hooks, Span
from .program.traffic import carried

WHOLE = 2**62  # unit_bytes for a model in one unit
MOST_STEPS = 400  # of a trial
LOCAL_STEPS = 8  # in a round of the local trial; trials take whole rounds


@dataclass(frozen=True)
class Kept(Replicated):
    """A model on the device, computed unit by unit although nothing overlaps."""

    overlap: bool = False

    def by_units(self, synchronous: bool, units: int) -> bool:
        return synchronous


OVERLAPPED = " overlapped"  # ends the name of a trial that overlaps what the trial of the name before it does not


FLAT = Strategy(placement=Replicated(overlap=False))  # a synchronous step of the whole model


def trials(units: int, ranks: int, every: int = LOCAL_STEPS) -> dict[str, Strategy]:
    """The strategies to measure, by name.

    units: of the model, in the finest cut.
    every: steps in a round of the local trial.
    """
    found = {
        "local": Strategy(schedule=Fixed(every), aggregation=Parameters()),
        "flat": FLAT,
        "fetched whole": Strategy(placement=Offloaded(overlap=False, unit_bytes=WHOLE)),
    }
    if units > 1:
        for overlap, ending in ((False, ""), (True, OVERLAPPED)):
            found[f"kept{ending}"] = Strategy(placement=Kept(overlap=overlap, unit_bytes=0))
            found[f"fetched{ending}"] = Strategy(placement=Offloaded(overlap=overlap, unit_bytes=0))
            if ranks > 1:
                found[f"sharded{ending}"] = Strategy(placement=Sharded(overlap=overlap, unit_bytes=0))
    elif ranks > 1:
        found["sharded"] = Strategy(placement=Sharded(overlap=False))
    return found


@dataclass(frozen=True)
class Piece:
    """A kind of effect in a trial."""

    lane: str  # in which the engine traces it
    name: str  # a Compute's phase, a collective's kind
    unit: int | None = None
    samples: int = 0
    first: bool = False  # a local step that follows an exchange
    part: float = 1.0  # of its whole, for updates
    nbytes: int = 0  # of a Move; of a collective as it travels
    phase: str = ""  # a collective's


def pieces_of(effect: Effect[Any], ranks: int) -> list[Piece]:
    """The pieces that an effect is, one for each of its spans."""
    if isinstance(effect, Start):  # a lane serves what is started in this order, and each has one span
        return pieces_of(effect.effect, ranks)[:1]
    if isinstance(effect, Compute):
        lane = "compute" if effect.on == "device" else "host"
        return [Piece(lane, w.phase, w.unit, w.samples, w.first, w.fraction) for w in effect.works()]
    if isinstance(effect, Move):
        return [Piece(f"to {effect.to}", "move", nbytes=effect.value.nbytes, phase=effect.phase)]
    if isinstance(effect, Collective):
        return [Piece("network", type(effect).__name__, nbytes=carried(effect, ranks), phase=effect.phase)]
    return []


def followed(program: Program[Any], after: Callable[[Effect[Any]], Iterable[Effect[Any]]]) -> Program[Any]:
    """The same program, with the effects after(effect) in addition after each of its own."""
    answer: Any = None
    while True:
        try:
            effect = program.send(answer)
        except StopIteration as end:
            return end.value
        answer = yield effect
        for added in after(effect):  # noqa: UP028 - it takes no answers
            yield added


class Seen:
    """The pieces of a program in the order in which it yields them, by lane."""

    def __init__(self, ranks: int) -> None:
        self.pieces: dict[str, list[Piece]] = defaultdict(list)
        self.works: list[Work] = []  # those of the compute lane
        self._ranks = ranks

    def watch(self, program: Program[Any]) -> Program[Any]:
        """The same program, watched."""
        return followed(program, self._note)

    def _note(self, effect: Effect[Any]) -> tuple[()]:
        for found in pieces_of(effect, self._ranks):
            self.pieces[found.lane].append(found)
        inner = effect.effect if isinstance(effect, Start) else effect
        if isinstance(inner, Compute) and inner.on == "device":
            self.works += inner.works()
        return ()


Change = Callable[[Program[Any]], Program[Any]]


def with_exchanges(sizes: Sequence[int]) -> Change:
    """After each update, an all-reduce of one of these numbers of bytes in turn, for the network's fit."""
    vectors = [np.zeros(nbytes // 4, np.float32) for nbytes in sizes]

    def changed(program: Program[Any]) -> Program[Any]:
        turns = cycle(vectors)

        def after(effect: Effect[Any]) -> Iterator[Effect[Any]]:
            if isinstance(effect, Compute) and effect.work.phase == "update":
                vector = next(turns)
                yield AllReduce(vector, out=vector, phase="extra")

        return followed(program, after)

    return changed


def unchanged(program: Program[Any]) -> Program[Any]:
    """The program as it is."""
    return program


@dataclass
class Measurements:
    """What one rank has measured in a trial: for each piece the seconds of each time."""

    times: dict[Piece, list[float]]
    counts: dict[Piece, float]  # of a step
    met: dict[Piece, float]  # of an exchange or a move: in which part of its time this rank computed
    seconds: float  # of a step of the whole trial, the longest of all ranks
    computing: float  # of that, what this rank computed


@dataclass(frozen=True)
class Bench:
    """Where one rank measures."""

    job: Job
    comm: Any
    slowness: float = 1.0  # which it emulates by sleeping; times are divided by it
    phantom: bool = False  # whether it sleeps instead of computing: then only its messages are real


def trial_plan(job: Job, strategy: Strategy, shares: Shares, steps: int) -> Plan:
    """The plan of a trial, which reports at its end."""
    budget = Interval(steps, "steps")
    return Plan(strategy, shares, Constant(1e-6), job.plan.examples, budget, budget)


def run_trial(bench: Bench, strategy: Strategy, shares: Shares, steps: int, change: Change = unchanged) -> Measurements:
    """Train for `steps` steps and take the times of the pieces on this rank. All ranks call it together.

    shares: each rank's batch and pace.
    The times of collectives leave out the wait for the last rank; see `together`.
    """
    from mpi4py import MPI

    from .runtime.engine import run

    job, comm, slowness = bench.job, bench.comm, bench.slowness
    plan = trial_plan(job, strategy, shares, steps)
    worker: Any
    if bench.phantom:
        worker, price = job.problem.phantoms(plan)[comm.Get_rank()], job.timing.devices[comm.Get_rank()].seconds
    else:
        (worker,), price = job.problem.workers(plan, [comm.Get_rank()], shared_process=False), None
        worker.snapshot = dict  # there is nothing to save
    seen = Seen(comm.Get_size())
    program = seen.watch(change(train(worker, plan, State())))
    outcome = run(program, Hooks(), comm=comm, trace=True, slowness=slowness, price=price)
    found, counts, met = dict[Piece, list[float]](), dict[Piece, float](), dict[Piece, float]()
    for lane, pieces in seen.pieces.items():
        spans = np.array([stop - start for _, start, stop in outcome.lanes[lane]])
        if lane not in ("compute", "host"):
            met |= parts_met(pieces, outcome.lanes[lane], outcome.lanes["compute"])
        if lane == "network":
            edges = np.array([span[1:] for span in outcome.lanes[lane]])
            if price is not None:
                edges[:, 0] -= late(edges[:, 0], outcome.lanes["compute"], [price(work) for work in seen.works])
            spans = together(comm, edges + outcome.began)
        elif lane in ("compute", "host"):
            spans /= slowness
        for one, taken in by_piece(pieces, spans).items():
            found[one] = taken[-(-len(taken) // 10) :] if len(taken) > 1 else taken  # the first ones warm up
            counts[one] = len(taken) / steps
    longest = np.array([outcome.seconds / steps])
    comm.Allreduce(MPI.IN_PLACE, longest, MPI.MAX)
    return Measurements(found, counts, met, float(longest[0]), outcome.computing / steps)


def together(comm: Any, spans: np.ndarray) -> np.ndarray:
    """Seconds of each collective without the wait for the last rank. spans: this rank's (start, stop) of each.

    From the last rank's start to the last rank's stop: ranks that come together may end apart, and the next collective
    waits for all of them. On several machines, whose clocks differ, it is the shortest span among the ranks: that of
    the rank that came last.
    """
    from mpi4py import MPI

    boot = Path("/proc/sys/kernel/random/boot_id")
    here = boot.read_bytes() if boot.exists() else uuid.uuid4().bytes
    same = np.array([zlib.crc32(here), -zlib.crc32(here)], np.int64)
    comm.Allreduce(MPI.IN_PLACE, same, MPI.MAX)
    if same[0] != -same[1]:
        shortest: np.ndarray = spans[:, 1] - spans[:, 0]
        comm.Allreduce(MPI.IN_PLACE, shortest, MPI.MIN)
        return shortest
    latest = np.ascontiguousarray(spans.T)
    comm.Allreduce(MPI.IN_PLACE, latest, MPI.MAX)
    longest: np.ndarray = latest[1] - latest[0]
    return longest


def late(moments: np.ndarray, computed: Sequence[Span], prices: Sequence[float]) -> np.ndarray:
    """By how many seconds a phantom was late at these moments: for so much longer than it was told has it slept.

    Its exchanges begin later by this. It wakes late where more ranks than cores look for messages, and the next sleep
    is shorter by this, which does not help those that have waited for it. So it is a part of what an exchange takes.
    """
    stops, slept = np.array([span[2] for span in computed]), np.array([stop - start for _, start, stop in computed])
    behind = np.concatenate([[0.0], np.maximum(0.0, np.cumsum(slept) - np.cumsum(prices))])
    found: np.ndarray = behind[np.searchsorted(stops, moments, side="right")]
    return found


def parts_met(pieces: Sequence[Piece], spans: Sequence[Span], computed: Sequence[Span]) -> dict[Piece, float]:
    """In which part of their spans, on the mean, each kind of piece ran next to a computation.

    pieces, spans: in the same order. computed: the spans of computations, which follow one another.
    """
    starts, stops = (np.array([span[k] for span in computed]) for k in (1, 2))
    before = np.concatenate([[0.0], np.cumsum(stops - starts)])  # computed before each computation

    def until(moments: np.ndarray) -> np.ndarray:
        """Seconds computed until these moments."""
        k = np.searchsorted(starts, moments, side="right") - 1
        return np.where(k < 0, 0.0, before[k] + np.minimum(moments, stops[k]) - starts[k])

    edges = np.array([(start, stop) for _, start, stop in spans]).reshape(-1, 2)
    shared = (until(edges[:, 1]) - until(edges[:, 0])) / np.maximum(edges[:, 1] - edges[:, 0], 1e-12)
    return {one: fmean(parts) for one, parts in by_piece(pieces, shared).items()}


def by_piece(pieces: Sequence[Piece], values: np.ndarray) -> dict[Piece, list[float]]:
    """The values of each kind of piece. values: one for each of the pieces."""
    found: dict[Piece, list[float]] = defaultdict(list)
    for one, value in zip(pieces, values.tolist(), strict=True):
        found[one].append(value)
    return found


def steps_for(seconds: float, step_seconds: float, every: int) -> int:
    """How many steps fit into so many seconds, in whole rounds of the local trial, which have `every` steps."""
    steps = min(MOST_STEPS, int(seconds / max(step_seconds, 1e-9)))
    return every * max(1, steps // every)
