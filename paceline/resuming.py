"""How a run resumes: from which checkpoint, and what differs from before.

Rule: a run goes on only from a whole checkpoint of the same run. What differs is told to the user and recorded.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from .algorithms.rounds import State
from .config.recorded import Recorded, expanded
from .config.scenario import Scenario, load
from .config.sections import described, first_mistake
from .job import Job
from .program.errors import NotFinite, ScenarioError, brief
from .records import checkpoints
from .records.directory import SCENARIO, to_json
from .records.environment import differences
from .records.history import changes
from .records.schemas import parsed


@dataclass(frozen=True, eq=False)
class Resumption:
    """What a run resumes with."""

    state: State
    seconds: float  # that the run has taken so far
    parts: list[dict[str, Any]]  # the run's history, with the part that begins now
    said: list[str]  # what differs from the part before, a line each
    sha256: dict[str, str]  # of the checkpoint's files, by name


def subject(scenario: Scenario, batches: Sequence[int]) -> dict[str, Any]:
    """What a run trains: the scenario's keys that must stay the same when it resumes, with their values.

    batches: of each worker. They follow from the split and from the speeds of the devices.
    """
    w = described(scenario)["workload"]
    keys = ("model", "init", "model_seed", "data", "data_seed", "loss", "batch")
    of = {"seed": scenario.seed} | {f"workload.{key}": w.get(key) for key in keys} | {"batches": list(batches)}
    plain: dict[str, Any] = parsed(to_json(of), "the run's subject")
    return plain


def resumption(saved: Path, job: Job, change: bool) -> Resumption:
    """What a run resumes with from a checkpoint, as this job. ScenarioError for a damaged checkpoint or another run.

    change: whether another seed, model, data or batch is allowed.
    """
    directory = saved.parents[1]
    meta = checkpoints.read_meta(saved, job.workers)
    state = state_of(meta["state"], saved)
    before = load(directory / SCENARIO)
    kept = before.recorded or Recorded()
    now = subject(job.scenario, job.plan.shares.batches)
    was = meta["subject"] or subject(before, expanded(kept.batches) or job.plan.shares.batches)
    other = {key: [was[key], value] for key, value in now.items() if key in was and was[key] != value}
    if other and not change:
        key, (old, new) = next(iter(other.items()))
        raise ScenarioError(
            f"--resume {directory}: {key} is {brief(new)}, and was {brief(old)}, so this would be another run; "
            "write --change to resume all the same"
        )
    changed = changes(*({**described(each), "recorded": None} for each in (before, job.scenario))) | other
    part = job.part(state.round)
    said = [f"{key} is {brief(new)}, and was {brief(old)}" for key, (old, new) in changed.items()]
    said += differences(kept.environment, part["environment"])
    # Earlier versions recorded no history.
    earlier = kept.history or ({"from_round": 0, "environment": kept.environment},)
    parts = [*earlier, part | ({"changed": changed} if changed else {})]
    return Resumption(state, meta["seconds"], parts, said, meta["sha256"])


def state_of(document: dict[str, Any], saved: Path) -> State:
    """The state in a checkpoint. ScenarioError where it is wrong."""
    where = f"{saved / checkpoints.META}: state"
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
def going_on(scenario: Scenario, directory: Path | None) -> Iterator[None]:
    """Around a training: adds to a NotFinite how to go on. directory: of the run, with its checkpoints."""
    try:
        yield
    except NotFinite as error:
        lower = f"--set=workload.optimizer.lr={scenario.workload.optimizer.lr / 2:g}"
        how = f"no checkpoint was saved; train again from the start, for example with {lower}"
        if directory and checkpoints.newest(directory):
            how = checkpoints.go_on(directory, lower)
        raise NotFinite(f"{error}; {how} (health: off trains on)") from error
