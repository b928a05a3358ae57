"""The scenario file: what a user may write, and nothing else.

Rule: every mistake is one line that names the key, what was found and what to write instead (ScenarioError).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import ConfigDict, Field, ValidationError, field_validator, model_validator

from ..program.errors import ScenarioError, brief, nearest, one_line
from . import yaml
from .faults import Faults
from .machines import Cluster
from .recorded import Recorded, update_record
from .sections import OpenSection, Section
from .units import Count, Interval, Seed, Steps, read_interval
from .workload import Workload


class StrategySpec(OpenSection, Section):
    """A preset with its arguments and overrides, or the axes one by one; see `algorithms/strategy.py` for the names."""

    model_config = ConfigDict(extra="allow")

    preset: str | None = None
    split: Any = None
    schedule: Any = None
    sampling: Any = None
    aggregation: Any = None
    placement: Any = None


class Budget(Section):
    """How long to train: exactly one of epochs, steps (of a worker of pace 1) and rounds.

    epoch: what counts as one. "samples": as many samples processed as there are training examples. "reference": the
    N // (B n H) rounds of Biased Local SGD's released code. Or so many nominal steps, like "312 steps".
    """

    epochs: float | None = Field(default=None, gt=0, le=1e9)
    steps: Steps | None = None
    rounds: Steps | None = None
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
                "give exactly one of epochs, steps and rounds, like {epochs: 10}; --set 'budget={steps: 9}' does"
            )
        return self


class ReEstimated(Section):
    """BatchNorm's statistics re-estimated over so many batches, of all workers together (QSR's recipes: 128)."""

    re_estimated: Count


class Report(Section):
    """every: when to evaluate and log, besides the end; start: before the first round, too. log: when to log without
    evaluating. norms: log those of gradient, parameters and the optimizer's vectors. trace: record every span.

    batch_norm: the statistics to evaluate with, the running ones averaged over the workers, or so many batches' afresh.
    """

    every: Interval | None = None
    start: bool = False
    log: Interval | None = None
    norms: bool = False
    trace: bool = False
    batch_norm: Literal["averaged"] | ReEstimated = "averaged"


class CheckpointSpec(Section):
    """every: when `train` writes a checkpoint, besides the end. at: places of further ones, at the sync that reaches
    them.

    optimizer: whose momentum and Adam moments are kept, and resumed with: "local", each worker's own; "shared", worker
    0's for all; "none", and all resume with zeros.
    """

    every: Interval | None = None
    at: tuple[Interval, ...] = ()
    optimizer: Literal["local", "shared", "none"] = "local"


class RecordSpec(Section):
    """What a run's record tells besides what its result depends on. host: the name of the machine."""

    host: bool = False


class Scenario(Section):
    """One scenario; `simulate` and `train` read the same. recorded: what a run noted of itself.

    health: "stop" ends the run where a loss, a gradient's norm or a parameter is not finite; "off" trains on.
    """

    seed: Seed = 0
    workload: Workload
    cluster: Cluster
    strategy: StrategySpec
    budget: Budget
    report: Report = Report()
    checkpoint: CheckpointSpec = CheckpointSpec()
    reduction: Literal["ordered", "fast"] = "ordered"
    faults: Faults = ()
    health: Literal["stop", "off"] = "stop"
    record: RecordSpec = RecordSpec()
    recorded: Recorded | None = None

    @field_validator("health", mode="before")
    @classmethod
    def _off(cls, value: Any) -> Any:
        """YAML reads `off` as false."""
        return "off" if value is False else value


def load(path: Path | str, settings: Iterable[str] = ()) -> Scenario:
    """The scenario in the file at `path` with `a.b=c` settings applied. ScenarioError where anything is wrong."""
    return validate(read(path, settings), str(path))


def read(path: Path | str, settings: Iterable[str] = ()) -> dict[str, Any]:
    """The document in the file at `path` with the settings applied, not validated yet. ScenarioError as load."""
    document = yaml.read_mapping(Path(path))
    update_record(document)
    for setting in settings:
        _set(document, setting)
    return document


def validate(document: Any, where: str) -> Scenario:
    """The scenario that a mapping describes; `where` names it in errors (ScenarioError)."""
    try:
        return Scenario.model_validate(document)
    except ValidationError as error:
        raise ScenarioError(f"{where}: {_explain(error, document)}") from None


def _set(document: dict[str, Any], setting: str) -> None:
    key, equals, text = setting.partition("=")
    where = f"--set {one_line(setting, 100)}"
    if not equals or not key:
        raise ScenarioError(f"{where}: write it like --set budget.epochs=5")
    assign(document, key, yaml.parse(text, where), where)


def assign(document: dict[str, Any], key: str, value: Any, where: str) -> None:
    """Set the key `a.b.0.c` of a document; `where` names the setting in errors (ScenarioError)."""
    *parents, last = key.split(".")
    if len(parents) > yaml.DEPTH:
        raise ScenarioError(f"{where}: names {len(parents)} keys in one another; {yaml.DEPTH} at most")
    node: Any = document
    for part in parents:
        node = node[_index(node, part, where)] if isinstance(node, list) else node.setdefault(part, {})
        if not isinstance(node, dict | list):
            raise ScenarioError(f"{where}: {one_line(part, 60)} is {brief(node)}, which has no keys")
    node[_index(node, last, where) if isinstance(node, list) else last] = value


def _index(node: list[Any], part: str, where: str) -> int:
    if not re.fullmatch("[0-9]{1,9}", part) or int(part) >= len(node):
        raise ScenarioError(f"{where}: {brief(part)} is not a place in a list of {len(node)}, which count from 0")
    return int(part)


_MAPPING = "write keys and their values, like {key: value}"
_SHAPES = dict.fromkeys(("model_type", "model_attributes_type", "dict_type"), _MAPPING)
_SHAPES["tuple_type"] = "write a list, like [1, 2]"


def _explain(error: ValidationError, document: Any) -> str:
    """The first mistake in one line, and how many more there are."""
    errors = error.errors(include_url=False, include_context=False)
    # An unknown key explains a missing one better than the other way round; of a union's, the deepest fits best.
    first = min(errors, key=lambda e: (e["type"] != "extra_forbidden", -len(e["loc"])))
    unknown = first["type"] == "extra_forbidden"
    steps, sections, choice = _follow(first["loc"][:-1] if unknown else first["loc"])
    if unknown:  # a key of the user's, whatever it looks like
        steps, sections = [*steps, first["loc"][-1]], choice
    path = "".join(f"[{s}]" if isinstance(s, int) else f".{repr(s)[1:-1]}" for s in steps).lstrip(".") or "scenario"
    message = first["msg"].removeprefix("Value error, ")
    if unknown:
        fields = [field for section in sections for field in section.model_fields.items()]
        keys = sorted({field.alias or name for name, field in fields} - {"recorded"})
        message = "unknown key" + (nearest(steps[-1], keys) or f"; known keys: {', '.join(keys)}")
    elif first["type"] == "missing":
        message = "is missing"
    elif first["type"] in ("union_tag_invalid", "union_tag_not_found"):
        names = ", ".join(name for section in choice for name in _tags(section))
        given = isinstance(first["input"], dict) and first["input"].get("name")
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
    """(the steps of pydantic's path that are keys of the file, the sections in which the last one was looked for, the
    sections that the value there may be).

    The path's other steps name a union's member: by its tag, or by its type.
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
    """The names by which a union's member is chosen."""
    field = section.model_fields.get("name")
    return get_args(field.annotation) if field else ()


def _sections(annotation: Any) -> list[type[Section]]:
    """The sections that an annotation such as `A | B` or `tuple[A, ...]` names."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return [annotation]
    return [found for arg in get_args(annotation) for found in _sections(arg)]
