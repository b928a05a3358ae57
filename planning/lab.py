"""The machines of a plan: which workers may be used together, what their memory holds, and what a step costs them.

Rule: all of it is without noise. It is what a candidate's bound is made of, and the bound must be no more than the
candidate's simulated time.
"""

from __future__ import annotations

import copy
import dataclasses
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain, combinations
from pathlib import Path
from typing import Any, NamedTuple

from ..algorithms.aggregations import Parameters
from ..algorithms.balance import SAME, largest_fitting
from ..algorithms.costs import Works
from ..algorithms.learning_rates import Constant
from ..algorithms.placements import Placement
from ..algorithms.plan import Plan
from ..algorithms.rounds import Interval
from ..algorithms.splits import Capacity, Shares
from ..algorithms.strategy import Strategy
from ..config.fewer_workers import without
from ..config.scenario import Scenario
from ..config.timing import Device, Noise, Timing
from ..folders import look_for_modules
from ..job import resolve
from ..learning.works import make_works
from ..learning_problem import LearningProblem
from ..memory_check import holds
from ..program.errors import ScenarioError
from ..speeds import profile_of, timing_of

EXCHANGING, LOCAL = Strategy(), Strategy(aggregation=Parameters())  # gradients in every step; after local steps
LARGEST = 100_000  # workers; with so many a plan takes minutes
MOST_CLASSES = 4  # of which every subset may be left out; of more, only the slowest ones together
MOST = 1 << 16  # samples in a batch of one worker
PARTS = 16  # in which a step is computed at the most, where its samples do not fit at once
UNKNOWN = 4  # times the scenario's batch: the most that is tried where nothing says what a device holds


class WorkerClass(NamedTuple):
    """Workers that are described alike."""

    name: str  # of the device
    workers: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Team:
    """Workers that train together. The others are left out."""

    place: int  # in the list of teams
    scenario: Scenario  # with these workers alone
    timing: Timing
    classes: tuple[int, ...]  # the numbers of the classes that it has workers of
    by_class: tuple[int, ...]  # each worker's class
    gone: tuple[int, ...]  # the workers that are left out

    @property
    def size(self) -> int:
        """The number of workers."""
        return len(self.by_class)

    @cached_property
    def devices(self) -> dict[int, Device]:
        """One device of each class."""
        return dict(zip(self.by_class, self.timing.devices, strict=True))


class StepCost(NamedTuple):
    """Seconds of one worker's computing in a step."""

    passes: float  # forward and backward
    early: float  # of these, until the first gradient is there that can be exchanged
    update: float
    first: float  # the whole of a round's first step, where it is a local one
    whole: float  # and of each step after it


def quiet(timing: Timing) -> Timing:
    """The cluster without noise and faults."""
    made = {device: dataclasses.replace(device, residuals=()) for device in dict.fromkeys(timing.devices)}
    return dataclasses.replace(
        timing, devices=tuple(map(made.__getitem__, timing.devices)), noise=Noise(seed=timing.noise.seed), faults=()
    )


@dataclass(eq=False)
class Lab:
    """A scenario's machines. ScenarioError where it is not clear how fast they are."""

    scenario: Scenario
    folder: Path
    most: int | None = None  # samples of all workers in a step, where there is a limit
    known: LearningProblem | None = None  # a problem whose data and model's cost are used where they fit
    _largest: int = field(default=MOST, init=False)  # samples of one worker in a step
    _cut: dict[int, Lab] = field(default_factory=dict, init=False)  # by micro-batch
    _caps: dict[tuple[object, ...], int] = field(default_factory=dict, init=False)
    _works: dict[tuple[object, ...], Works] = field(default_factory=dict, init=False)
    _steps: dict[tuple[object, ...], StepCost] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        if self.scenario.cluster.size > LARGEST:
            raise ScenarioError(
                f"cluster: it has {self.scenario.cluster.size} workers, and a plan is for {LARGEST} at most; plan "
                "for a part of them, with as many of each class in proportion"
            )
        look_for_modules(self.scenario, self.folder)
        self.profile = profile_of(self.scenario, self.folder)
        self.problem = LearningProblem(self.scenario, self.folder)
        if self.known is not None:
            self.problem.take_over(self.known)
        self.problem.counted = self.profile.costs if self.profile else {}
        self.problem.check()
        self.timing = quiet(timing_of(self.scenario, self.profile, self.problem))
        self.problem.timing = self.timing

    @property
    def batch(self) -> int:
        """Samples of one worker in a step, as the scenario says, rounded to a whole number."""
        workload = self.scenario.workload
        return workload.batch or max(1, round((workload.total_batch or 1) / self.size))

    @property
    def size(self) -> int:
        """The number of all workers."""
        return self.scenario.cluster.size

    @cached_property
    def plan(self) -> Plan | None:
        """The scenario's own plan; None where it does not fit into memory, or makes no sense."""
        try:
            return resolve(self.scenario, self.folder, known=self.problem).plan
        except ScenarioError:
            return None

    @cached_property
    def epochs(self) -> float:
        """The scenario's budget in epochs, by the samples that it processes. ScenarioError without a plan."""
        budget = self.scenario.budget
        if budget.epochs is not None and budget.epoch == "samples":
            return budget.epochs
        plan = self.plan or resolve(self.scenario, self.folder, known=self.problem).plan
        first = plan.first_round()
        return float(f"{plan.outlook.steps * first.samples / first.H / self.problem.shape.train:.6g}")

    @cached_property
    def classes(self) -> list[WorkerClass]:
        """The classes, the one with the fastest workers first."""
        found: dict[str, list[int]] = {}
        start = 0
        names: dict[str, str] = {}
        for block in self.scenario.cluster.blocks:
            alike = block.group.model_copy(update={"count": 1, "node": None}).model_dump_json()
            names[alike] = block.group.device
            found.setdefault(alike, []).extend(range(start, start + len(block.nodes)))
            start += len(block.nodes)
        made = [WorkerClass(names[alike], tuple(workers)) for alike, workers in found.items()]
        used = [each.name for each in made]
        made = [
            each._replace(name=f"{each.name} ({used[: n + 1].count(each.name)})") if used.count(each.name) > 1 else each
            for n, each in enumerate(made)
        ]
        seconds = [self.timing.devices[each.workers[0]].step_seconds(self.batch) for each in made]
        return [each for _, each in sorted(zip(seconds, made, strict=True), key=lambda pair: pair[0])]

    def teams(self, whole: bool) -> list[Team]:
        """The teams that are tried: all workers; every choice of classes; one worker alone of each class.

        whole: all workers alone.
        """
        numbers = range(len(self.classes))
        if whole:
            chosen = [tuple(numbers)]
        elif len(self.classes) <= MOST_CLASSES:
            chosen = [
                *chain.from_iterable(combinations(numbers, count) for count in reversed(range(1, len(numbers) + 1)))
            ]
        else:
            chosen = [tuple(numbers[:count]) for count in range(len(numbers), 0, -1)]
        groups = [tuple(sorted(chain.from_iterable(self.classes[c].workers for c in each))) for each in chosen]
        if not whole:
            groups += [each.workers[:1] for each in self.classes]
        return [self._team(place, members) for place, members in enumerate(dict.fromkeys(groups))]

    def _team(self, place: int, members: tuple[int, ...]) -> Team:
        kept = set(members)
        gone = tuple(worker for worker in range(self.size) if worker not in kept)
        scenario, timing = self.scenario, self.timing
        if gone:
            scenario = without(scenario, gone)
            made = timing_of(scenario, self.profile, self.problem)
            # The same devices as those of all workers, so that what is known of them is known here.
            timing = dataclasses.replace(quiet(made), devices=tuple(map(timing.devices.__getitem__, members)))
        number = {worker: c for c, each in enumerate(self.classes) for worker in each.workers}
        by_class = tuple(map(number.__getitem__, members))
        return Team(place, scenario, timing, tuple(sorted(set(by_class))), by_class, gone)

    def level(self, device: Device) -> bool:
        """Whether a step takes the device equally long whatever its batch, so that nothing is known of another one."""
        return device.step_seconds(2 * self.batch) <= device.step_seconds(self.batch)

    def cap(self, team: Team, number: int, strategy: Strategy) -> int:
        """The largest batch that a class's devices hold, 0 where not even the parameters fit.

        Of a device whose memory is not known, UNKNOWN times the scenario's batch, or `most`.
        """
        device, place = team.devices[number], strategy.placement
        key = (device, type(place), strategy.aggregation, team.size if place.sharded else 1)
        if key not in self._caps:
            if self.level(device):
                self._caps[key] = min(device.max_batch or self.batch, self.batch)
            elif device.max_batch is not None:
                self._caps[key] = device.max_batch
            elif device.memory is None:
                self._caps[key] = max(UNKNOWN * self.batch, self.most or 0)
            else:
                self._caps[key] = holds(self.problem, strategy, team.timing)(device, self._largest) or 0
        return self._caps[key]

    def cut(self, micro: int | None) -> Lab:
        """The same machines where steps are computed so many samples at a time; None: as the scenario says."""
        if micro is None:
            return self
        if micro not in self._cut:
            lab = self._cut[micro] = copy.copy(self)
            workload = self.scenario.workload.model_copy(update={"micro_batch": micro})
            lab.problem = LearningProblem(self.scenario.model_copy(update={"workload": workload}), self.folder)
            lab.problem.take_over(self.problem)
            lab.problem.counted, lab.problem.timing = self.problem.counted, self.problem.timing
            lab._caps, lab._works, lab._steps, lab._largest = {}, {}, {}, PARTS * micro
        return self._cut[micro]

    def capacity(self, team: Team, strategy: Strategy) -> Capacity:
        """What devices are predicted to hold, as a scenario's own split is told: None where it is not known."""
        numbers = {device: c for c, device in team.devices.items()}

        def largest(device: Any, most: int) -> int | None:
            return None if device.memory is None else min(self.cap(team, numbers[device], strategy), most)

        return largest

    def filled(self, team: Team, caps: dict[int, int]) -> int:
        """The samples of a step that is no longer than the slowest worker's at the scenario's batch."""
        longest = max(device.step_seconds(min(self.batch, caps[c])) for c, device in team.devices.items()) * SAME
        most = {
            c: max(1, largest_fitting(lambda b, d=device: bool(d.step_seconds(b) <= longest), caps[c]))  # type: ignore[misc]
            for c, device in team.devices.items()
        }
        return sum(map(most.__getitem__, team.by_class))

    def works(self, team: Team, number: int, batch: int, place: Placement, synchronous: bool) -> Works:
        """The work of a worker of a class."""
        device = team.devices[number]
        sizes = team.size if place.sharded else min(team.size, 2)
        name = (type(place), place.prefetch, place.unit_bytes)
        key = (device, batch, name, synchronous, sizes)
        if key not in self._works:
            shares = Shares((batch,) * sizes, (1.0,) * sizes)
            strategy = dataclasses.replace(EXCHANGING if synchronous else LOCAL, placement=place)
            plan = Plan(strategy, shares, Constant(1.0), self.problem.shape.train, Interval(1, "steps"))
            staged = [device.torch_device != "cpu"] * sizes
            if place.sharded:
                staged = [any(d.torch_device != "cpu" for d in team.devices.values())] * sizes
            self._works[key] = make_works(plan, self.problem.cost, 0, self.problem.recipe, staged)[0]
        return self._works[key]

    def step(self, team: Team, number: int, batch: int, place: Placement, synchronous: bool) -> StepCost:
        """What a step costs a worker of a class: the computations that its program yields."""
        works, device = self.works(team, number, batch, place, synchronous), team.devices[number]
        key = (device, works, place.by_units(synchronous, len(works.units)))
        if key not in self._steps:
            self._steps[key] = _by_units(works, device) if key[2] else _at_once(works, device, synchronous)
        return self._steps[key]


def _by_units(works: Works, device: Device) -> StepCost:
    forward = [device.seconds(works.unit("forward", u, n)) for n in works.chunks for u in range(len(works.units))]
    backward = [device.seconds(works.unit("backward", u, n)) for n in works.chunks for u in range(len(works.units))]
    update, passes = device.seconds(works.update), sum(forward) + sum(backward)
    late = sum(backward[-len(works.units) :][:-1])  # backward passes of the last micro-batch after its first one
    return StepCost(passes, passes - late, update, passes + update, passes + update)


def _at_once(works: Works, device: Device, synchronous: bool) -> StepCost:
    if not synchronous:
        first, step = device.seconds(works.first_step), device.seconds(works.step)
        return StepCost(step, step, 0.0, first, step)
    gradient, update = device.seconds(works.gradient), device.seconds(works.update)
    return StepCost(gradient, gradient, update, gradient + update, gradient + update)
