"""From a scenario to what an interpreter needs: plan, timing, workers, programs. The only place that knows all folders.

Nothing here loads torch until real workers are asked for.
"""

from __future__ import annotations

import copy
import dataclasses
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from .algorithms.costs import ModelCost, Works
from .algorithms.loop import train
from .algorithms.phantom import PhantomWorker
from .algorithms.plan import Plan
from .algorithms.replay import replayed
from .algorithms.rounds import Interval, State
from .algorithms.strategy import Strategy
from .algorithms.worker import Worker
from .bounds import check_rehearsal, check_workers
from .config.cluster import build_timing
from .config.faults import check_faults
from .config.lr_schedule import build_rate
from .config.profile import Profile, load_profile, workload_key
from .config.scenario import Budget, Scenario
from .config.sections import described
from .config.strategy import build_strategy
from .config.timing import Timing
from .config.workload import SGDSpec, Workload
from .memory_check import check as check_memory
from .memory_check import holds
from .problem import Problem, find, folders_of
from .program.effects import Program, Work
from .program.errors import ScenarioError
from .records import history
from .records.environment import environment
from .terminal import warn

if TYPE_CHECKING:
    from .sim.cohort import Cohort


@dataclass(eq=False)
class Job:
    """A scenario with everything resolved. problem: model, data and optimizer, not loaded yet."""

    scenario: Scenario
    plan: Plan
    timing: Timing
    problem: Problem
    profile: Profile | None
    remarks: list[str]  # where a method is hardly itself
    tight: list[str] = field(default_factory=list)  # where memory may not suffice
    again: bool = False  # whether the plan served an earlier job
    _said: set[str] = field(default_factory=set, init=False)  # warnings

    @property
    def workers(self) -> int:
        """Number of workers."""
        return self.plan.workers

    @property
    def warnings(self) -> list[str]:
        """What a reader of the results must know: a line each."""
        beforehand = self.timing.extrapolated(self.plan.shares.batches) + self.remarks + self.tight
        return beforehand + self.problem.notes

    def warn(self) -> None:
        """Say so on standard error, each line once."""
        for line in self.warnings:
            if line not in self._said:
                self._said.add(line)
                warn(line)

    def programs(self, workers: Sequence[Worker], state: State) -> list[Program[State]]:
        """One program per worker, each with a state of its own that starts like `state`."""
        return [train(w, self.plan, copy.copy(state)) for w in workers]

    def cohorts(self, workers: Sequence[PhantomWorker]) -> list[Cohort]:
        """One program for all workers that do the same work at the same pace, from the beginning."""
        from .sim.cohort import Cohort

        alike: dict[Any, list[int]] = {}
        for w, pace in zip(workers, self.plan.shares.paces, strict=True):
            alike.setdefault((id(w.works), pace), []).append(w.index)
        return [Cohort(self._cohort_program(workers[group[0]]), tuple(group)) for group in alike.values()]

    def _cohort_program(self, w: PhantomWorker) -> Program[State]:
        """A phantom's program from the beginning; of a plan that serves again, recorded or played back."""
        program = train(w, self.plan, State())
        return replayed(self.plan.recordings, (w.index, w.kind), program) if self.again else program

    def rounding_idle(self) -> list[float]:
        """Share of a round that each worker waits because steps are whole: predicted, network and noise left out."""
        r = self.plan.first_round()
        busy = [
            steps * device.step_seconds(batch)
            for steps, batch, device in zip(r.steps, r.batches, self.timing.devices, strict=True)
        ]
        longest = max(busy)
        return [1 - seconds / longest for seconds in busy]

    def record(self, directory: Path | None = None, parts: Sequence[Mapping[str, Any]] = ()) -> dict[str, Any]:
        """The resolved scenario as it lies in a run's directory: what gives the run again, from any working folder.

        parts: of its history; see records/history.py.
        """
        recorded: dict[str, Any] = {
            "environment": environment(self.scenario.workload.threads),
            "batches": list(self.plan.shares.batches),
            "paces": list(self.plan.shares.paces),
            "speeds": [f"{speed!r} samples/s" for speed in self.timing.speeds(self.scenario.workload.batch)],
            "rounding_idle": self.rounding_idle(),
            "strategy": repr(self.plan.strategy),
            "prices": list(dict.fromkeys(f"{device.name}: {device.source}" for device in self.timing.devices)),
        }
        if self.warnings:
            recorded["warnings"] = self.warnings
        if directory is not None:
            recorded["folders"] = [
                {"path": str(path), "from_run": os.path.relpath(path, directory)}
                for path in self.problem.folders
                if path.is_dir() and str(path).isprintable()  # no file holds the others' names
            ]
            recorded["history"] = list(parts)
        if self.profile is not None:
            recorded |= {
                "profile": self.profile.model_dump(mode="json", exclude_none=True),
                "profile_path": str(self.scenario.cluster.profile),
            }
        return described(self.scenario) | {"recorded": recorded}

    def part(self, from_round: int = 0) -> dict[str, Any]:
        """The entry in a run's history for what begins now; see records/history.py."""
        now = environment(self.scenario.workload.threads)
        folder = next(path for path in (*self.problem.folders, Path()) if path.is_dir())
        return history.part(from_round, now, folder, self.scenario.record.host)


def resolve(scenario: Scenario, folder: Path, like: Job | None = None) -> Job:
    """Fill in a scenario. folder: where it lies, for paths and modules in it. ScenarioError where it makes no sense.

    like: an earlier job, whose data, model's cost, and plan with its rounds serve again where they are the same.
    """
    check_workers(scenario.cluster)
    problem = Problem(scenario, folder)
    if like is not None:
        problem.take_over(like.problem)
    problem.look_for_modules()
    problem.check()
    profile = profile_of(scenario, folder)
    timing = timing_of(scenario, profile, problem)
    check_faults(scenario.faults, scenario.cluster.size)
    timing = dataclasses.replace(timing, faults=scenario.faults)
    problem.timing = timing
    strategy = build_strategy(scenario.strategy)
    _check_placement(scenario, strategy, timing)
    speeds, budget = timing.speeds(scenario.workload.batch), _budget(scenario.budget)
    rate = build_rate(scenario.workload.optimizer.lr, scenario.workload.lr_schedule, budget.amount)
    warm_up = Interval(rising, budget.unit) if (rising := scenario.workload.lr_schedule.warm_up) else None
    try:
        held = holds(problem, strategy.placement, timing)
        shares = strategy.split.shares(scenario.workload.batch, timing.devices, held)
    except ValueError as error:
        raise ScenarioError(f"strategy.split: {error}") from None
    try:
        plan = Plan(
            strategy=strategy.resolve(shares, speeds, warm_up, scenario.workload.optimizer.model_dump()),
            shares=shares,
            rate=rate,
            examples=problem.shape.train,
            budget=budget,
            report=scenario.report.every,
            report_start=scenario.report.start,
            log=scenario.report.log,
            norms=scenario.report.norms,
            checkpoint=scenario.checkpoint.every,
            checkpoint_at=_places(scenario.checkpoint.at, budget),
            accounting=_accounting(scenario.budget),
            estimate=0 if scenario.report.batch_norm == "averaged" else scenario.report.batch_norm.re_estimated,
        )
        remarks = list(_unlike_local_steps(strategy, plan, speeds))
    except ValueError as error:
        raise ScenarioError(f"strategy: {error}") from None
    if like is not None and plan.agrees(like.plan):
        plan = like.plan
    else:
        plan.strategy.sampling.check(plan)
    job = Job(scenario, plan, timing, problem, profile, remarks, again=like is not None and plan is like.plan)
    job.tight = list(check_memory(job))
    return job


def timing_of(scenario: Scenario, profile: Profile | None, problem: Problem) -> Timing:
    """The scenario's cluster; ScenarioError where nothing says how fast it is."""
    return build_timing(
        scenario.cluster,
        profile,
        workload_of(scenario.workload),
        scenario.seed,
        scenario.workload.precision,
        cache(partial(_step, problem.cost)),
    )


def _step(cost: ModelCost, batch: int) -> Work:
    """One training step, for the devices that are priced by its flops and bytes."""
    return Works(cost, batch, 0).step


def _check_placement(scenario: Scenario, strategy: Strategy, timing: Timing) -> None:
    """ScenarioError for what a placement cannot do."""
    place = strategy.placement
    if (place.sharded or place.offloaded) and scenario.report.batch_norm != "averaged":
        raise ScenarioError(
            "report.batch_norm: statistics are re-estimated by the whole model, of which this placement's device holds "
            "a few units; write batch_norm: averaged, or placement: replicated"
        )
    if place.sharded and scenario.checkpoint.optimizer == "shared":
        raise ScenarioError(
            "checkpoint.optimizer: sharded workers have a part each of the optimizer's state, which cannot be shared; "
            "write optimizer: local"
        )
    if place.precision != "fp32" and scenario.workload.precision == "fp64":
        raise ScenarioError(
            f"strategy.placement: only fp32 values are rounded to {place.precision}, and workload.precision is fp64; "
            "write precision: fp32, which sends values as they are"
        )
    apart = any(device.torch_device != "cpu" for device in timing.devices)
    if apart and not place.offloaded and strategy.aggregation.averages_state:
        raise ScenarioError(
            "strategy.aggregation: a GPU's optimizer state is not exchanged; write optimizer_state: local, or "
            "placement: offloaded"
        )


def workload_of(workload: Workload) -> str:
    """The key under which profiles file this workload's times."""
    optimizer = workload.optimizer
    kind = optimizer.name + (" with momentum" if isinstance(optimizer, SGDSpec) and optimizer.momentum else "")
    kind += ", clipped" if optimizer.clip else ""
    kind += f", micro-batches of {workload.micro_batch}" if workload.micro_batch else ""
    kind += f", {workload.precision}" if workload.precision != "fp32" else ""
    kind += ", augmented" if workload.augment else ""
    kind += f", {workload.loaders} loaders" if workload.loaders else ""
    return workload_key(_text(workload.model.name, workload.model.args), workload.data.name, kind, workload.threads)


def _text(name: str, args: dict[str, Any]) -> str:
    inside = ", ".join(f"{key}={value}" for key, value in sorted(args.items()))
    return f"{name}({inside})" if inside else name


def _unlike_local_steps(strategy: Strategy, plan: Plan, speeds: Sequence[float]) -> Iterator[str]:
    """A line where local steps come to a sync after every step, or to a single one at the end."""
    if plan.workers == 1:
        return
    yield from (f"strategy: {line}" for line in strategy.schedule.remarks(speeds))
    if plan.budget.unit == "rounds":
        return
    H = plan.first_round().H
    if H > 1 and plan.finished(plan.ahead(State(), 1)):
        yield (
            f"strategy: the whole budget is one round of {H} steps, so the workers meet only at its end; "
            "give a larger budget, or a schedule of shorter rounds"
        )


def profile_of(scenario: Scenario, folder: Path) -> Profile | None:
    """The scenario's profile, if it names one; ScenarioError where that is missing or wrong."""
    path, kept = scenario.cluster.profile, scenario.recorded
    if kept and kept.profile and kept.profile_path in (None, str(path)):
        return kept.profile  # a run's own scenario carries what it was run with
    if path is None:
        return None
    found = find(path, folders_of(scenario, folder))
    if not found.exists():
        raise ScenarioError(f"cluster.profile: {path}: no such file; `paceline profile SCENARIO --out {path}` makes it")
    return load_profile(found)


def _budget(budget: Budget) -> Interval:
    if budget.epochs is not None:
        return Interval(budget.epochs, "epochs")
    return Interval(budget.steps, "steps") if budget.steps is not None else Interval(budget.rounds or 0, "rounds")


def _accounting(budget: Budget) -> Literal["samples", "reference"] | int:
    return int(budget.epoch.amount) if isinstance(budget.epoch, Interval) else budget.epoch


def _places(at: tuple[Interval, ...], budget: Interval) -> tuple[Interval, ...]:
    """Where to write checkpoints; ScenarioError for a place that the run does not reach."""
    late = [place for place in at if place.unit == budget.unit and place.amount > budget.amount]
    if late:
        raise ScenarioError(
            f"checkpoint.at: {late[0].amount:g} {late[0].unit} lie after the end of the budget, {budget.amount:g}; "
            "leave them out"
        )
    return at


def rehearse(job: Job, seconds: float = 2.0) -> None:
    """Run the plan's telling rounds timing-only: the first ones, each new H, the last. ProtocolError where the workers'
    programs do not fit together, ScenarioError where a round is too long. None begins after `seconds` of real time.
    """
    from .program.outcome import Hooks
    from .sim.engine import simulate

    if line := check_rehearsal(job):
        warn(line)
    timing = dataclasses.replace(job.timing, faults=())  # they are not the programs' fault
    # A run that is asked to stop at once performs exactly one round.
    hooks = Hooks(log=lambda *_: None, checkpoint=lambda *_: None, stop=lambda: True)
    deadline = time.monotonic() + seconds
    for state in _telling_states(job.plan, deadline):
        simulate(job.programs(job.problem.phantoms(job.plan), state), timing, hooks)
        if time.monotonic() > deadline:
            break


def _telling_states(plan: Plan, deadline: float) -> list[State]:
    """States before the first two rounds, before each H not seen before, and before the last round."""
    state, seen, states = State(), set[int](), list[State]()
    before = copy.copy(state)
    while not plan.finished(state) and time.monotonic() < deadline - 1.0:
        before = copy.copy(state)
        round = plan.next_round(state)
        if state.round < 2 or round.H not in seen:
            states.append(before)
        seen.add(round.H)
        state.after(round, 0.0)
    return states if before in states else [*states, before]
