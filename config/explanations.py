"""What `paceline explain` says of a preset, a member of an axis, a named choice, or a key of a scenario.

Rule: all of it is read from docstrings, signatures and the JSON schema (schema.py). There is no table of texts.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, get_args, get_origin, get_type_hints

from ..algorithms.presets import PRESETS
from ..algorithms.rounds import NEVER, Interval
from ..algorithms.splits import Split
from ..algorithms.strategy import AXES, Strategy
from ..program.callbacks import Callback
from ..program.errors import ScenarioError, brief, nearest
from ..program.import_paths import named
from . import schema_words, yaml
from .arguments import axis_of, hints_of, kinds_of, words
from .comments import comments_of
from .members import call, known
from .schema import Schema

MUST = "must be given"
# A paper in a docstring: authors, perhaps a title, perhaps a venue with its year, and a number.
_SOURCE = re.compile(
    r'[A-Z]\w+(?: et al\.| and [A-Z]\w+)?, (?:"[^"]+", )?(?:[A-Z]\w+(?: \w+)* \d{4}, )?(?:arXiv \d{4}\.\d{5}|\d{6})'
)


class Row(NamedTuple):
    """An argument, or a key of a section."""

    name: str
    takes: str
    otherwise: str  # its default
    what: str  # its comment


@dataclass(frozen=True)
class Explanation:
    """What is said of one thing."""

    title: str
    text: str  # of its docstring or comment, with the formula
    heading: str  # of the rows' names
    rows: list[Row] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)  # papers
    axes: Mapping[str, Any] = field(
        default_factory=dict
    )  # of a preset: its member of each axis, as a scenario spells it
    splits: list[str] = field(default_factory=list)  # of a preset: the members of split that suit its other axes
    line: str = ""  # of a scenario


def explain(name: str) -> list[Explanation]:
    """All that has this name. ScenarioError for one that nothing has, or that too many keys have."""
    if named(name):
        return [_own(name)]
    found = [_preset(name, PRESETS[name])] if name in PRESETS else []
    found += [_member(axis, name, members[name]) for axis, members in AXES.items() if name in members]
    choices, keys = schema_words.choices(), schema_words.keys()
    found += [_choice(name, path, section) for path, section in choices.get(name, ())]
    path = re.sub(r"\[\d+\]|\.\d+(?=\.|$)", "", name)
    paths = [path] if path in keys else [each for each in keys if each.rpartition(".")[2] == name]
    if not found and len(paths) > 3:
        raise ScenarioError(f"{name} is a key of several sections; write one of {', '.join(paths)}")
    found += [_key(each, keys[each]) for each in paths[:3]]
    if not found:
        every = explained()
        short = {each.rpartition(".")[2]: each for each in every}
        hint = nearest(name, every) or nearest(name, short)
        raise ScenarioError(f"{brief(name)} is not a preset, a member of an axis or a key of a scenario{hint}")
    return found


def explained() -> list[str]:
    """All names that are explained: presets, members of axes, named choices, and keys."""
    members = (name for members in AXES.values() for name in members)
    return list(dict.fromkeys([*PRESETS, *members, *schema_words.choices(), *schema_words.keys()]))


def _own(name: str) -> Explanation:
    kind = known(name, {}, "explain", "method")
    made = kind if inspect.isclass(kind) else get_type_hints(kind).get("return")
    if made is Strategy:
        return _preset(name, kind)
    if axis := axis_of(made):
        return _member(axis, name, kind)
    if "lr" in hints_of(kind):
        rows = [row for row in _rows(kind) if row.name not in ("lr", "total", "final_lr", "start")]
        line = {"workload": {"lr_schedule": {"name": name} | _required(kind, but=("lr", "total", "final_lr", "start"))}}
        return _of(f"{name}, a learning-rate schedule", kind, rows, line)
    if inspect.isclass(kind) and issubclass(kind, Callback):
        return _of(f"{name}, a callback", kind, _rows(kind), {"callbacks": [{"name": name} | _required(kind)]})
    raise ScenarioError(
        f"{name} is not a preset, a member of an axis, a learning-rate schedule or a callback; say what it returns"
    )


def _preset(name: str, preset: Callable[..., Any]) -> Explanation:
    required = _required(preset)
    made = call(preset, required, "strategy")
    explained = _of(f"{name}, a preset", preset, _rows(preset), {"strategy": {"preset": name} | required})
    splits = [name for name, kind in AXES["split"].items() if _suits(made, call(kind, _required(kind), "strategy"))]
    return dataclasses.replace(explained, axes={axis: spelled(getattr(made, axis)) for axis in AXES}, splits=splits)


def _suits(strategy: Strategy, split: Split) -> bool:
    """Whether the strategy could have this split."""
    try:
        dataclasses.replace(strategy, split=split)
    except ValueError:
        return False
    return True


def _member(axis: str, name: str, kind: Callable[..., Any]) -> Explanation:
    required = _required(kind)
    line = {"strategy": {axis: {name: required} if required else name}}
    return _of(f"{name}, a member of {axis}", kind, _rows(kind), line)


def _of(title: str, kind: Callable[..., Any], rows: list[Row], line: Mapping[str, Any]) -> Explanation:
    text = inspect.getdoc(kind) or ""
    return Explanation(title, text, "argument", rows, _sources(text), line=_flow(line))


def _sources(text: str) -> list[str]:
    return _SOURCE.findall(" ".join(text.split()))


def _rows(kind: Callable[..., Any]) -> list[Row]:
    """The arguments in the signature's order."""
    said = comments_of(kind)
    parameters = inspect.signature(kind).parameters
    return [
        Row(name, words(hint), _default(parameters[name].default), said.get(name, ""))
        for name, hint in hints_of(kind).items()
    ]


def _default(value: Any) -> str:
    if value is inspect.Parameter.empty:
        return MUST
    return "never" if value == NEVER else "" if value is None else yaml.in_line(spelled(value))


def spelled(value: Any) -> Any:
    """A member or another value as a scenario spells it, with the arguments that are not at their defaults."""
    if isinstance(value, tuple | list):
        return [spelled(each) for each in value]
    if isinstance(value, Interval):
        return f"{value.amount:g} {value.unit}"
    axis = axis_of(type(value))
    if axis is None or not dataclasses.is_dataclass(value):
        return value
    kind = type(value)
    name = next((n for n, m in AXES[axis].items() if m is kind), f"{kind.__module__}:{kind.__qualname__}")
    parameters = inspect.signature(kind).parameters
    given = {n: getattr(value, n) for n, p in parameters.items() if getattr(value, n) != p.default}
    return {name: {n: spelled(each) for n, each in given.items()}} if given else name


def _required(kind: Callable[..., Any], but: tuple[str, ...] = ()) -> dict[str, Any]:
    """A value for each argument that must be given."""
    parameters = inspect.signature(kind).parameters
    empty = inspect.Parameter.empty
    return {n: _example(h) for n, h in hints_of(kind).items() if parameters[n].default is empty and n not in but}


def _example(hint: Any) -> Any:
    kind = kinds_of(hint)[0]
    origin, inside = get_origin(kind), get_args(kind)
    if origin is Literal:
        return inside[0]
    if origin is tuple:
        return [_example(inside[0])]
    if origin is Mapping:
        return {"cpu": _example(inside[1])}
    if axis := axis_of(kind):
        return next(name for name, each in AXES[axis].items() if not _required(each))
    return {int: 4, float: 0.02, bool: True, str: "text", Interval: "3 epochs"}[kind]


def _choice(name: str, path: str, section: Schema) -> Explanation:
    rows = [row for row in _keys_of(section) if row.name != "name"]
    return _told(f"{name}, a choice of {path}", section, rows, schema_words.line(path, section))


def _key(path: str, key: schema_words.Key) -> Explanation:
    inside = schema_words.sections(key.schema)
    rows = _keys_of(inside[0]) if len(inside) == 1 else [_row("", key.schema, key.required)]
    text = key.schema if "description" in key.schema or not inside else inside[0]
    return _told(f"{path}, a key of a scenario", text, rows, schema_words.line(path))


def _told(title: str, schema: Schema, rows: list[Row], line: Mapping[str, Any]) -> Explanation:
    text = schema.get("description", "")
    return Explanation(title, text, "key", rows, _sources(text), line=_flow(line))


def _keys_of(section: Schema) -> list[Row]:
    required = section.get("required", ())
    return [_row(name, schema, name in required) for name, schema in section["properties"].items()]


def _row(name: str, schema: Schema, required: bool) -> Row:
    default = schema.get("default")
    otherwise = MUST if required else "" if default is None or isinstance(default, dict) else yaml.in_line(default)
    return Row(name, schema_words.takes(schema), otherwise, schema.get("description", "") if name else "")


def _flow(document: Mapping[str, Any]) -> str:
    """A scenario's line."""
    return ", ".join(f"{key}: {yaml.in_line(value)}" for key, value in document.items())
