"""How a run resumes: from which checkpoint, and what differs from before.

Rule: a run goes on only from a whole checkpoint of the same run. What differs is told to the user and recorded.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from itertools import takewhile
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from .algorithms.plan import Plan
from .algorithms.rounds import State
from .config.fewer_workers import remaining
from .config.recorded import Recorded, expanded
from .config.scenario import Scenario, load
from .config.sections import described, first_mistake
from .config.units import Count
from .handover import Division, Handover
from .job import Job
from .program.errors import NotFinite, PacelineError, ScenarioError, brief, one_line
from .records import checkpoints
from .records.directory import SCENARIO, to_json
from .records.environment import differences
from .records.history import changes
from .records.recoveries import numbers, recoveries_in
from .records.schemas import parsed


@dataclass(frozen=True, eq=False)
class Resumption:
    """What a run resumes with."""

    state: State
    seconds: float  # that the run has taken so far
    parts: list[dict[str, Any]]  # the run's history, with the part that begins now
    said: list[str]  # what differs from the part before, a line each
    handover: Handover
    sha256: dict[str, str]  # of the checkpoint's files, by name


def subject(scenario: Scenario, division: Division) -> dict[str, Any]:
    """What a run trains: the scenario's keys that must stay the same when it resumes, with their values.

    division: follows from the split and from the speeds of the devices. Its batches alone must stay the same, and only
    among as many workers.
    """
    w = described(scenario)["workload"]
    keys = ("model", "init", "model_seed", "data", "data_seed", "loss", "batch", "total_batch")
    of = {"seed": scenario.seed} | {f"workload.{key}": w.get(key) for key in keys} | division._asdict()
    plain: dict[str, Any] = parsed(to_json(of), "the run's subject")
    return plain


def resumption(saved: Path, job: Job, change: bool, gone: Collection[int] = ()) -> Resumption:
    """What a run resumes with from a checkpoint, as this job. ScenarioError for a damaged checkpoint or another run.

    change: whether another seed, model, data or batch is allowed.
    gone: the numbers of workers that the job is without, if they are known; else those that the run has lost since the
        checkpoint, or the last ones.
    """
    directory = saved.parents[1]
    meta = checkpoints.read_meta(saved)
    state = state_of(meta["state"], saved)
    before = load(directory / SCENARIO)
    kept = before.recorded or Recorded()
    gone = gone or _gone_since(kept.history, state.round, meta["workers"])
    handover, was = _handover(saved, meta, before, job, gone)
    now = subject(job.scenario, Division.of(job.plan))
    free = {*Division._fields} - ({"batches"} if meta["workers"] == job.workers else set())
    other = {key: [was[key], value] for key, value in now.items() if was.get(key, value) != value and key not in free}
    if other and not change:
        key, (old, new) = next(iter(other.items()))
        raise ScenarioError(
            f"--resume {directory}: {key} is {brief(new)}, and was {brief(old)}, so this would be another run; "
            "write --change to resume all the same"
        )
    changed = changes(*({**described(each), "recorded": None} for each in (before, job.scenario))) | other
    part = job.part(state.round)
    said = [f"{key} is {brief(new)}, and was {brief(old)}" for key, (old, new) in changed.items()]
    said += [*differences(kept.environment, part["environment"]), *handover.lines()]
    # Earlier versions recorded no history.
    earlier = kept.history or ({"from_round": 0, "environment": kept.environment},)
    part |= {"changed": changed} if changed else {}
    part |= {"handed_over": [*handover.lines()]} if not handover.same else {}
    try:
        begun = handover.state(state)
    except ValueError as error:  # the sampling of now does not fit the batches of then
        raise ScenarioError(f"{saved}: {error}") from None
    return Resumption(begun, meta["seconds"], [*earlier, part], said, handover, meta["sha256"])


def _handover(
    saved: Path, meta: dict[str, Any], before: Scenario, job: Job, gone: Collection[int]
) -> tuple[Handover, dict[str, Any]]:
    """What the workers get from those that wrote the checkpoint, and the subject of then.

    before: the run's scenario, for checkpoints of earlier versions, which do not tell their subject.
    """
    workers, plan = meta["workers"], job.plan
    if workers != plan.workers and plan.strategy.placement.sharded:
        raise ScenarioError(
            f"{saved}: was written by {workers} workers, each of which has a part of the parameters, and the scenario "
            f"has {plan.workers}; resume with {workers}, or begin a run with its exported model (paceline export)"
        )
    was = meta["subject"]
    if not was:
        batches = expanded(before.recorded.batches) if before.recorded else []
        was = subject(before, Division.of(plan)) | {"batches": batches or [*plan.shares.batches]}
    division = _division(was, plan, saved)
    if len(division.batches) != workers:
        raise ScenarioError(f"{saved}: tells the batches of {len(division.batches)} workers, and has {workers}")
    if gone and workers == plan.workers + len(set(gone)):  # else not all of these took part in it
        return Handover(division, plan, remaining(workers, gone)), was
    writers = _writers(before, meta["state"]["round"])
    if len(writers) == workers < plan.workers == before.cluster.size:  # lost workers join again
        return Handover.by_name(division, plan, writers, range(plan.workers)), was
    return Handover.by_number(division, plan), was


def _gone_since(history: Sequence[dict[str, Any]], round: int, workers: int) -> tuple[int, ...]:
    """The workers that the newest part of a run is without, of those that wrote the checkpoint after `round`.

    workers: how many wrote it. The numbers are those of then.
    """
    newest = [*takewhile(lambda part: "recovery" in part, reversed(history))][::-1]  # by one command
    recoveries = recoveries_in(newest)
    before = [each for each in recoveries if each.from_round < round]
    began_with = workers + sum({"shrink": 1, "join": -1}.get(each.how, 0) * len(each.lost) for each in before)
    then, now = numbers(began_with, before), numbers(began_with, recoveries)
    return tuple(place for place, worker in enumerate(then) if worker not in now)


def _writers(before: Scenario, round: int) -> list[int]:
    """The workers that wrote the checkpoint of a round, by their numbers when their command began."""
    parts = list(before.recorded.history if before.recorded else ())
    while parts and parts[-1]["from_round"] >= round:
        del parts[-1]
    begun = max((place for place, part in enumerate(parts) if "recovery" not in part), default=0)
    return numbers(before.cluster.size, recoveries_in(parts[begun:]))


class _Division(BaseModel):
    """A Division in a file."""

    model_config = ConfigDict(strict=True)

    batches: tuple[Count, ...]
    paces: tuple[Annotated[float, Field(gt=0, le=1)], ...]
    rounds_per_epoch: Count | None


def _division(subject: dict[str, Any], plan: Plan, saved: Path) -> Division:
    """The division of the work in a checkpoint's subject. ScenarioError where it is wrong."""
    earlier = Division.of(plan)._asdict() | {"rounds_per_epoch": None}  # versions that said less never changed these
    found = {key: subject.get(key, value) for key, value in earlier.items()}
    try:
        return Division(**dict(_Division.model_validate_json(to_json(found))))
    except ValidationError as error:
        place, message = first_mistake(error)
        raise ScenarioError(f"{saved / checkpoints.META}: subject: {place}: {message}; no run wrote this") from None


def history_of(directory: Path) -> list[dict[str, Any]]:
    """The parts of the run in a directory; an empty list where there is none."""
    path = directory / SCENARIO
    kept = load(path).recorded if path.exists() else None
    return list(kept.history) if kept is not None else []


def state_of(document: dict[str, Any], saved: Path) -> State:
    """The state in a checkpoint. ScenarioError where it is wrong."""
    where = f"{saved / checkpoints.META}: state"
    document = {"epoch_offset": 0.0} | document  # which earlier versions did not have
    unknown = document.keys() ^ {field.name for field in fields(State)}
    if unknown:
        raise ScenarioError(f"{where}: {brief(min(unknown))} is missing or unknown; another version wrote it")
    loss = math.nan if document["loss"] is None else document["loss"]
    try:
        state = TypeAdapter(State).validate_json(to_json({**document, "loss": 0.0}), strict=True)
        state.loss = TypeAdapter(float).validate_python(loss, strict=True)
    except ValidationError as error:
        place, message = first_mistake(error)
        raise ScenarioError(f"{where}: {place or 'loss'}: {message}") from None
    if saved.name != f"round_{state.round:06d}" or min(state.step, state.samples, state.H, state.weight) < 0:
        raise ScenarioError(f"{where}: its numbers are not those of {saved.name}; the file is damaged")
    return state


@contextmanager
def going_on(scenario: Scenario, directory: Path | None, alone: bool = False) -> Iterator[None]:
    """Around a training: adds to an error how the run goes on.

    directory: of the run, with its checkpoints.
    alone: whether nothing else will say it. Else only a NotFinite does, since what goes on must differ.
    """
    try:
        yield
    except NotFinite as error:
        lower = f"--set=workload.optimizer.lr={scenario.workload.optimizer.lr / 2:g}"
        how = f"no checkpoint was saved; train again from the start, for example with {lower}"
        if directory and checkpoints.newest(directory):
            how = checkpoints.go_on(directory, lower)
        raise NotFinite(f"{error}; {how} (health: off trains on)") from error
    except BaseException as error:
        how = checkpoints.go_on(directory) if alone and directory and checkpoints.newest(directory) else ""
        if how and isinstance(error, PacelineError):
            error.args = (one_line(f"{error}; {how}"), *error.args[1:])
        elif how:
            error.add_note(f"paceline: {how}")
        raise
