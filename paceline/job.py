"""The job: a scenario with everything that an interpreter needs, its plan, timing, workers and programs.

Rule: torch is not loaded before real workers are made.
"""

from __future__ import annotations

import copy
import dataclasses
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .algorithms.costs import Works
from .algorithms.loop import train
from .algorithms.phantom import Phantoms, PhantomWorker
from .algorithms.plan import Plan
from .algorithms.replay import replayed
from .algorithms.rounds import State
from .algorithms.shared_program import shared
from .algorithms.worker import Worker
from .config.faults import check_faults
from .config.profile import Profile, workload_key
from .config.recorded import compact
from .config.scenario import Scenario
from .config.sections import described
from .config.timing import Timing
from .effort import check_workers
from .folders import look_for_modules
from .learning_problem import LearningProblem
from .memory_check import check_memory
from .memory_check import parts as memory_parts
from .memory_check import record as predicted_memory
from .program.effects import Program
from .program.outcome import Outcome
from .records import history
from .records.checkpoints import Retention
from .records.environment import environment
from .scenario_plan import build_plan
from .speeds import profile_of, timing_of
from .terminal import warn

if TYPE_CHECKING:
    from .sim.cohort import Cohort


@dataclass(eq=False)
class Job:
    """A scenario with everything resolved."""

    scenario: Scenario
    plan: Plan
    timing: Timing
    problem: LearningProblem  # model, data and optimizer, not loaded yet
    profile: Profile | None
    remarks: list[str]  # warnings that the method degenerates, for example to a sync after every step
    tight: list[str]  # warnings that memory may not suffice
    again: bool  # whether the plan is that of an earlier job
    _said: set[str] = field(default_factory=set, init=False)  # warnings that the user has seen
    reached: State = field(default_factory=State, init=False)  # which the newest program that was made moves on

    @property
    def workers(self) -> int:
        """The number of workers."""
        return self.plan.workers

    @property
    def warnings(self) -> list[str]:
        """What a reader of the results must know, a line each."""
        beforehand = self.timing.extrapolated(self.plan.shares.batches) + self.remarks + self.tight
        return beforehand + self.problem.notes + self.timing.guesses()

    def warn(self) -> None:
        """Print the warnings on standard error, each line once."""
        for line in self.warnings:
            if line not in self._said:
                self._said.add(line)
                warn(line)

    def programs(self, workers: Sequence[Worker], state: State) -> list[Program[State]]:
        """One program per worker. Each has a copy of `state`."""
        states = [copy.copy(state) for _ in workers]
        self.reached = states[-1]
        return [train(w, self.plan, own) for w, own in zip(workers, states, strict=True)]

    def shared_programs(self, workers: Phantoms, state: State | None = None) -> list[Program[State]]:
        """One program per phantom, from `state` on; None: from the beginning. Those of a cohort share one that runs."""
        programs: dict[int, Program[State]] = {}
        for group in self.alike(workers):
            program = self._cohort_program(workers[group[0]], state)
            programs |= zip(group, shared(program, len(group)), strict=True)
        return [programs[worker] for worker in range(len(programs))]

    def cohorts(self, workers: Phantoms) -> list[Cohort]:
        """One program for each group of workers that do the same work at the same pace, from the beginning."""
        from .sim.cohort import Cohort

        return [Cohort(self._cohort_program(workers[group[0]]), group) for group in self.alike(workers)]

    def alike(self, workers: Phantoms) -> list[tuple[int, ...]]:
        """The groups of workers that do the same work at the same pace."""
        groups: dict[tuple[Works, float], list[int]] = {}
        for worker, kind in enumerate(zip(workers.works, self.plan.shares.paces, strict=True)):
            groups.setdefault(kind, []).append(worker)
        return list(map(tuple, groups.values()))

    def _cohort_program(self, w: PhantomWorker, state: State | None = None) -> Program[State]:
        """A phantom's program. From the beginning, and for a plan that is used again, it is recorded or replayed."""
        if state is not None and state.round:
            self.reached = copy.copy(state)
            return train(w, self.plan, self.reached)
        self.reached = State()
        program = train(w, self.plan, self.reached)
        return replayed(self.plan.recordings, (w.index, w.kind), program) if self.again else program

    def by_class(self, outcomes: Sequence[Outcome]) -> dict[str, Any]:
        """For summary.json: of each class of equal workers the mean idle share, by the device's name.

        Workers whose devices have one name, but another slowdown or batch, are told apart: "cpu x2, batch 32".
        """
        idle = dict[tuple[str, float, int], list[float]]()
        for outcome, device, batch in zip(outcomes, self.timing.devices, self.plan.shares.batches, strict=True):
            idle.setdefault((device.name, device.slowdown, batch), []).append(outcome.idle)
        return {"idle_by_class": {name: sum(idle[key]) / len(idle[key]) for key, name in _class_names(idle).items()}}

    def rounding_idle(self) -> list[float]:
        """For each worker, the share of a round that it waits since steps are whole. Without network and noise."""
        r = self.plan.first_round()
        kinds = list(zip(r.steps, r.batches, self.timing.devices, strict=True))
        busy = {kind: kind[0] * kind[2].step_seconds(kind[1]) for kind in dict.fromkeys(kinds)}
        longest = max(busy.values())
        return [1 - busy[kind] / longest for kind in kinds]

    def record(self, directory: Path | None = None, parts: Sequence[Mapping[str, Any]] = ()) -> dict[str, Any]:
        """The resolved scenario for a run's directory. It repeats the run, from any working folder.

        parts: of the run's history; see records/history.py.
        """
        recorded: dict[str, Any] = {
            "environment": environment(self.scenario.workload.threads),
            "batches": compact(self.plan.shares.batches),
            "paces": compact(self.plan.shares.paces),
            "speeds": compact([f"{speed!r} samples/s" for speed in self.timing.speeds(self.scenario.batch)]),
            "rounding_idle": compact(self.rounding_idle()),
            "strategy": repr(self.plan.strategy),
            "prices": list(dict.fromkeys(f"{each.name}: {each.source}" for each in dict.fromkeys(self.timing.devices))),
        }
        if self.warnings:
            recorded["warnings"] = self.warnings
        if directory is not None:
            recorded["folders"] = [
                {"path": str(path), "from_run": os.path.relpath(path, directory)}
                for path in self.problem.folders
                if path.is_dir() and str(path).isprintable()  # other names cannot be written to a file
            ]
            recorded["history"] = list(parts)
        if (began_with := self.problem.began_with) is not None:
            recorded["init"] = began_with.model_dump()
        if self.profile is not None:
            recorded |= {
                "profile": self.profile.model_dump(mode="json", exclude_none=True),
                "profile_path": str(self.scenario.cluster.profile),
            }
        return described(self.scenario) | {"recorded": recorded}

    def memory(self, works: Sequence[Works]) -> dict[str, Any]:
        """The bytes that each worker is predicted to need at the peak, for summary.json.

        process: what its process takes beyond its arrays, which the profile has measured; left out without a profile.
        memory_parts: what its device and host hold for good, by what it is.
        """
        made = predicted_memory(works, self.problem, self.plan)
        if self.profile is not None and self.profile.memory:
            key = workload_key(self.scenario.workload)
            devices = self.timing.devices
            taken = {device: float(self.profile.process(device.name, key)) for device in dict.fromkeys(devices)}
            made["process"] = [taken[device] for device in devices]
        return {"memory_predicted": made, "memory_parts": memory_parts(works, self.problem, self.plan)}

    def retention(self) -> Retention | None:
        """Which checkpoints stay; None: all."""
        keep, every = self.scenario.checkpoint.keep, self.scenario.checkpoint.keep_every
        if keep is None or every is None:
            return None if keep is None else Retention(keep)
        return Retention(keep, lambda state: self.plan.passed(every, State(**state)))

    def part(self, from_round: int = 0) -> dict[str, Any]:
        """The entry in the run's history for the part that begins now; see records/history.py."""
        now = environment(self.scenario.workload.threads)
        folder = next(path for path in (*self.problem.folders, Path()) if path.is_dir())
        return history.part(from_round, now, folder, self.scenario.record.host, compact(self.problem.hosts))


def _class_names(classes: Iterable[tuple[str, float, int]]) -> dict[tuple[str, float, int], str]:
    """Names for classes, each (device, slowdown, batch): with what tells them apart where devices have one name."""
    found = dict[tuple[str, float, int], str]()
    by_name: dict[str, list[tuple[str, float, int]]] = {}
    for each in classes:
        by_name.setdefault(each[0], []).append(each)
    for name, alike in by_name.items():
        slow, sizes = ({each[place] for each in alike} for place in (1, 2))
        for each in alike:
            told = f"{name} x{each[1]:g}" if len(slow) > 1 else name
            found[each] = f"{told} (batch {each[2]})" if len(sizes) > 1 else told
    return found


def resolve(scenario: Scenario, folder: Path, like: Job | None = None, known: LearningProblem | None = None) -> Job:
    """Resolve a scenario. ScenarioError where it makes no sense.

    folder: where the scenario lies, for the paths and modules in it.
    like: an earlier job. Its data, model's cost and plan (with the rounds computed so far) are used where they fit.
    known: without an earlier job, a problem. Its data and model's cost are used where they fit.
    """
    check_workers(scenario.cluster)
    problem = LearningProblem(scenario, folder)
    if other := like.problem if like is not None else known:
        problem.take_over(other)
    look_for_modules(scenario, folder)
    profile = profile_of(scenario, folder)
    problem.counted = profile.costs if profile else {}
    problem.check()
    timing = timing_of(scenario, profile, problem)
    check_faults(scenario.faults, scenario.cluster.size)
    scenario.recovery.least(scenario.cluster.size)
    timing = dataclasses.replace(timing, faults=scenario.faults)
    problem.timing = timing
    plan, remarks = build_plan(problem, timing)
    again = like is not None and plan.agrees(like.plan)
    if like is not None and again:
        plan = like.plan
    else:
        plan.strategy.sampling.check(plan)
    tight = list(check_memory(problem, plan, timing))
    return Job(scenario, plan, timing, problem, profile, remarks, tight, again)
