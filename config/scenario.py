"""The scenario file: its sections, how it is read, and how its mistakes are told.

Rule: every mistake is a ScenarioError of one line that names the key, what was found and what to write instead.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import ConfigDict, Field, ValidationError, WithJsonSchema, field_validator, model_validator

from ..program.errors import ScenarioError, brief, nearest, one_line
from . import yaml
from .callbacks import AnyCallback
from .faults import Faults
from .machines import Cluster
from .members import PATH
from .recorded import Recorded, update_record
from .sections import OpenSection, Section
from .units import Count, Duration, Factor, Interval, Seconds, Seed, StepCount, read_interval
from .workload import Workload


class StrategySpec(OpenSection, Section):
    """A preset with its arguments and overrides, or the axes one by one (see `algorithms/strategy.py`)."""

    model_config = ConfigDict(extra="allow")

    preset: str | None = None
    split: Any = None
    schedule: Any = None
    sampling: Any = None
    aggregation: Any = None
    placement: Any = None


class Budget(Section):
    """How long to train: exactly one of epochs, steps and rounds.

    epoch says what counts as one epoch. "samples": as many processed samples as there are training examples.
    "reference": the N // (B n H) rounds of Biased Local SGD's released code. "312 steps": so many nominal steps.
    """

    epochs: float | None = Field(default=None, gt=0, le=1e9)
    steps: StepCount | None = None  # of a worker with pace 1
    rounds: StepCount | None = None
    epoch: Literal["samples", "reference"] | Interval = "samples"

    @field_validator("epoch", mode="before")
    @classmethod
    def _epoch(cls, value: Any) -> Any:
        if value in ("samples", "reference"):
            return value
        try:
            found = read_interval(value)
        except ValueError:
            found = None
        if found is None or found.unit != "steps":
            raise ValueError(f"{brief(value)}: write samples, reference or a number of steps, like '312 steps'")
        return found

    @model_validator(mode="after")
    def _one(self) -> Budget:
        if sum(v is not None for v in (self.epochs, self.steps, self.rounds)) != 1:
            raise ValueError(
                "give exactly one of epochs, steps and rounds, like {epochs: 10}; --set 'budget={steps: 9}' replaces it"
            )
        return self


class ReEstimated(Section):
    """BatchNorm's statistics are re-estimated before each evaluation (QSR's recipes: over 128 batches)."""

    re_estimated: Count  # batches, of all workers together


class Report(Section):
    """What is evaluated, logged and recorded."""

    every: Interval | None = None  # how often to evaluate and log; the end is always evaluated
    start: bool = False  # whether to evaluate before the first round as well
    log: Interval | None = None  # how often to log without evaluating
    norms: bool = False  # whether to log the norms of gradient, parameters and the optimizer's vectors
    step_losses: bool = False  # whether lines tell worker 0's training loss in each step of the round before
    trace: bool = False  # whether to record every span
    # BatchNorm's statistics for evaluation: the workers' running ones, averaged, or re-estimated ones.
    batch_norm: Literal["averaged"] | ReEstimated = "averaged"


class CheckpointSpec(Section):
    """When checkpoints are written, and what they hold."""

    every: Interval | None = None  # how often; the end of a training always has one
    at: tuple[Interval, ...] = ()  # further places: a checkpoint is written at the sync that reaches one
    keep: Count | None = None  # how many of the newest stay; None: all
    keep_every: Interval | None = None  # with `keep`: the first checkpoint after each such interval stays as well
    # The momentum and Adam moments that are kept and resumed with. "local": each worker's own. "shared": worker 0's for
    # all workers. "none": none, and all workers resume with zeros.
    optimizer: Literal["local", "shared", "none"] = "local"

    @model_validator(mode="after")
    def _keeps_some(self) -> CheckpointSpec:
        if self.keep_every is not None and self.keep is None:
            raise ValueError("keep_every needs keep, the number of the newest that stay: without it all stay")
        return self


class TrainSpec(Section):
    """How a real run stands for the described cluster. `paceline train` has a flag for each key."""

    emulate: bool = False  # a worker that is k times slower sleeps k-1 times its step
    phantom: bool = False  # real messages, but workers sleep for as long as the described devices compute
    emulate_network: bool = False  # the ranks are joined by the described network, laid on this machine

    @model_validator(mode="after")
    def _computes_or_sleeps(self) -> TrainSpec:
        if self.emulate and self.phantom:
            raise ValueError("emulate and phantom exclude one another: one computes, the other only sleeps")
        return self


def train_settings(**flags: bool | None) -> list[str]:
    """The settings that the flags of a command stand for; None is a flag that was not given.

    ScenarioError for --emulate together with --phantom. One of them alone replaces the other in the scenario.
    """
    if flags.get("emulate") and flags.get("phantom"):
        raise ScenarioError("--emulate and --phantom exclude one another: one computes, the other only sleeps")
    for wanted, other in (("emulate", "phantom"), ("phantom", "emulate")):
        if flags.get(wanted):
            flags[other] = False
    return [f"train.{key}={str(value).lower()}" for key, value in flags.items() if value is not None]


def recovery_settings(**flags: int | bool | None) -> list[str]:
    """The settings that the flags of a command stand for, like --max-restarts; None is a flag that was not given."""
    return [f"recovery.{key}={str(value).lower()}" for key, value in flags.items() if value is not None]


class DeadlineSpec(Section):
    """When a rank of a real run that waits for others counts as stalled, and what follows."""

    factor: Factor = 20.0  # times the longest that a collective has taken lately
    floor: Duration = 30.0  # seconds that any collective may take
    then: Literal["wait", "end"] = "wait"  # after the line that says which ranks are missing


class RecoverySpec(Section):
    """How a run goes on after a lost worker. By default it does not, and ends."""

    max_restarts: Annotated[int, Field(ge=0, le=10**9)] = 0  # how often the ranks are started again, from a checkpoint
    min_workers: Literal["all"] | Count = "all"  # fewer workers go on as long as so many remain
    shrink: bool = False  # whether the remaining workers go on without a lost one, from the last sync
    respawn: bool = False  # with shrink: whether, at the next sync, all workers are started again from there
    detection: Seconds = 0.05  # in a simulation: from the loss of a worker until the others know of it
    start: Seconds = 5.0  # in a simulation: from the end of the ranks until those that were started again compute

    @field_validator("min_workers", mode="before", json_schema_input_type=Literal["all"] | Count)
    @classmethod
    def _all_or_some(cls, value: Any) -> Any:
        whole = isinstance(value, int) and not isinstance(value, bool)
        if value != "all" and not (whole and 1 <= value <= 10**9):
            raise ValueError(f"{brief(value)}: write all, or how many workers must remain, from 1 on")
        return value

    @model_validator(mode="after")
    def _does_something(self) -> RecoverySpec:
        if self.shrink and self.min_workers == "all":
            raise ValueError("shrink goes on with fewer workers; say how many must remain, like min_workers: 2")
        if self.respawn and not self.shrink:
            raise ValueError("respawn needs shrink: true, since a new worker joins those that have gone on")
        if self.min_workers != "all" and not (self.shrink or self.max_restarts):
            raise ValueError("min_workers needs max_restarts or shrink: without one of them a run ends with a worker")
        return self

    def least(self, workers: int) -> int:
        """How many of so many workers must remain. ScenarioError where there are not so many in the first place."""
        if self.min_workers == "all":
            return workers
        if self.min_workers > workers:
            raise ScenarioError(
                f"recovery.min_workers: {self.min_workers}, but the number of workers is {workers}; "
                f"write {'1' if workers == 1 else f'1 to {workers}'}, or all"
            )
        return self.min_workers


class RecordSpec(Section):
    """What a run's record tells in addition to what its result depends on."""

    host: bool = False  # whether to record the name of the machine


class ValidationSpec(Section):
    """How `paceline validate` predicts the scenario."""

    profile_of: Path | None = None  # the scenario that is profiled in place of this one; relative to this one's folder


class Scenario(Section):
    """A scenario, for `simulate` and `train` alike."""

    seed: Seed = 0
    workload: Workload
    cluster: Cluster
    strategy: StrategySpec
    budget: Budget
    report: Report = Report()
    checkpoint: CheckpointSpec = CheckpointSpec()
    callbacks: tuple[AnyCallback, ...] = ()  # what is told of the run while it goes on: trackers, and your own code
    reduction: Literal["ordered", "fast"] = "ordered"  # "fast" is MPI's own all-reduce, which promises no equal bits
    faults: Faults = ()
    # "stop" ends the run where a loss, a gradient's norm or a parameter is not finite; "off" goes on training.
    health: Literal["stop", "off"] = "stop"
    train: TrainSpec = TrainSpec()
    deadline: DeadlineSpec | Literal["none"] = DeadlineSpec()
    recovery: RecoverySpec = RecoverySpec()
    record: RecordSpec = RecordSpec()
    validation: ValidationSpec = ValidationSpec()
    recorded: Annotated[Recorded | None, WithJsonSchema({"type": "object"})] = (
        None  # what a run noted about itself; only a run's own scenario has it
    )

    @property
    def batch(self) -> int:
        """Samples per worker and step, before the split: of a total batch the equal share, rounded down.

        ScenarioError where the total is less than a sample for each. What is left of it: see Shares.completed.
        """
        batch, total, workers = self.workload.batch, self.workload.total_batch, self.cluster.size
        if batch is not None:
            return batch
        assert total is not None, "one of them is always there"
        if total < workers:
            raise ScenarioError(
                f"workload.total_batch: {total} samples cannot be shared by {workers} workers; write {workers} or more"
            )
        return total // workers

    @field_validator("health", mode="before", json_schema_input_type=Literal["stop", "off", False])
    @classmethod
    def _off(cls, value: Any) -> Any:
        """YAML reads `off` as false."""
        return "off" if value is False else value


def load(path: Path | str, settings: Iterable[str] = ()) -> Scenario:
    """The scenario in the file at `path`, with settings like `a.b=c` applied. ScenarioError where anything is wrong."""
    return validate(read(path, settings), str(path))


def read(path: Path | str, settings: Iterable[str] = ()) -> dict[str, Any]:
    """The document in the file at `path`, with the settings applied but not validated. ScenarioError as `load`."""
    document = yaml.read_mapping(Path(path))
    update_record(document)
    for setting in settings:
        apply(document, setting)
    return document


def validate(document: Any, where: str) -> Scenario:
    """The scenario that a mapping describes. `where` names the mapping in errors (ScenarioError)."""
    try:
        return Scenario.model_validate(document)
    except ValidationError as error:
        raise ScenarioError(f"{where}: {_explain(error, document)}") from None


def apply(document: dict[str, Any], setting: str) -> None:
    """Change a document by a setting like "a.b=c". ScenarioError where it cannot be read."""
    key, equals, text = setting.partition("=")
    where = f"--set {one_line(setting, 100)}"
    if not equals or not key:
        raise ScenarioError(f"{where}: write it like --set budget.epochs=5")
    assign(document, key, yaml.parse(text, where), where)


def assign(document: dict[str, Any], key: str, value: Any, where: str) -> None:
    """Set the key `a.b.0.c` of a document. `where` names the setting in errors (ScenarioError)."""
    *parents, last = key.split(".")
    if len(parents) > yaml.DEPTH:
        raise ScenarioError(f"{where}: names {len(parents)} nested keys; {yaml.DEPTH} at most")
    node: Any = document
    for part in parents:
        node = node[_index(node, part, where)] if isinstance(node, list) else node.setdefault(part, {})
        if not isinstance(node, dict | list):
            raise ScenarioError(f"{where}: {one_line(part, 60)} is {brief(node)}, which has no keys")
    node[_index(node, last, where) if isinstance(node, list) else last] = value


def _index(node: list[Any], part: str, where: str) -> int:
    if not re.fullmatch("[0-9]{1,9}", part) or int(part) >= len(node):
        raise ScenarioError(f"{where}: {brief(part)} is not a place in a list of {len(node)}; places count from 0")
    return int(part)


_MAPPING = "write keys and their values, like {key: value}"
_SHAPES = dict.fromkeys(("model_type", "model_attributes_type", "dict_type"), _MAPPING)
_SHAPES["tuple_type"] = "write a list, like [1, 2]"


def _shown(step: int | str) -> str:
    """A step of a path as errors write it: at most 60 characters of a key, so that what is wrong with it is seen."""
    if isinstance(step, int):
        return f"[{step}]"
    key = repr(step)[1:-1]
    return f".{key}" if len(key) <= 60 else f".{key[:57]}..."


def _explain(error: ValidationError, document: Any) -> str:
    """The most telling mistake in one line, and how many more there are."""
    errors = error.errors(include_url=False, include_context=False)
    # A misspelt key is often both unknown and missing, and "unknown" says more. For a union, pydantic reports mistakes
    # of all its members; the deepest one belongs to the member that the user meant.
    first = min(errors, key=lambda e: (e["type"] != "extra_forbidden", -len(e["loc"])))
    unknown = first["type"] == "extra_forbidden"
    steps, sections, choice = _follow(first["loc"][:-1] if unknown else first["loc"])
    if unknown:  # the last step is the user's key, even where it looks like a union's member
        steps, sections = [*steps, first["loc"][-1]], choice
    path = "".join(map(_shown, steps)).lstrip(".") or "scenario"
    message = first["msg"].removeprefix("Value error, ")
    if unknown:
        fields = [field for section in sections for field in section.model_fields.items()]
        keys = sorted({field.alias or name for name, field in fields} - {"recorded"})
        message = "unknown key" + (nearest(steps[-1], keys) or f"; known keys: {', '.join(keys)}")
    elif first["type"] == "missing":
        message = "is missing"
    elif first["type"] in ("union_tag_invalid", "union_tag_not_found"):
        names = ", ".join(name for section in choice for name in _tags(section))
        found = first["input"]
        given = found.get("name") if isinstance(found, dict) else isinstance(found, str) and found
        message = (
            f"unknown name {brief(given)}; write one of {names}" if given else f"has no name; write one of {names}"
        )
    elif first["type"] in _SHAPES:
        message = f"{_SHAPES[first['type']]}, found {brief(first['input'])}"
    elif not first["type"].startswith("value_error"):
        message = f"{message[0].lower()}{message[1:]}, found {brief(first['input'])}"
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    return f"{path}: {message}{more}"


def _follow(loc: Iterable[int | str]) -> tuple[list[int | str], list[type[Section]], list[type[Section]]]:
    """Follow pydantic's path to a mistake, in which some steps are not keys but name a union's member.

    Returns the steps that are keys of the file, the sections that may hold the last of them, and the sections that its
    value may be. A step names a member by its tag (`name: sgd`) or by its type.
    """
    before, sections, steps = list[type[Section]](), list[type[Section]]([Scenario]), list[int | str]()
    for step in loc:
        chosen = [section for section in sections if step in (*_tags(section), section.__name__)]
        if chosen and (len(sections) > 1 or step == chosen[0].__name__):
            sections = chosen
        elif isinstance(step, int):
            steps.append(step)
        elif step != "float" and "[" not in step:
            steps.append(step)
            fields = [section.model_fields[step] for section in sections if step in section.model_fields]
            before, sections = sections, [found for field in fields for found in _sections(field.annotation)]
    return steps, before, sections


def _tags(section: type[Section]) -> tuple[str, ...]:
    """The names by which a union's member is chosen. A name that is not one of a few is an import path."""
    field = section.model_fields.get("name")
    return (get_args(field.annotation) or (PATH,)) if field else ()


def _sections(annotation: Any) -> list[type[Section]]:
    """The sections that an annotation such as `A | B` or `tuple[A, ...]` names."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return [annotation]
    return [found for arg in get_args(annotation) for found in _sections(arg)]
