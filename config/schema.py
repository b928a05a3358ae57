"""The JSON schema of a scenario file, for editors and other programs: `paceline schema`.

Rule: all of it follows from the sections, the signatures of members and presets, their docstrings and the comments on
their fields. What a scenario spells differently (quantities, a name alone) is said where it is read.
"""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from typing import Any, Literal, get_args, get_origin

from pydantic.json_schema import GenerateJsonSchema

from ..algorithms.presets import PRESETS
from ..algorithms.rounds import Interval
from ..algorithms.strategy import AXES
from .arguments import BASES, MOST, MOST_WHOLE, axis_of, hints_of, kinds_of
from .comments import comments_of
from .members import OWN
from .scenario import Scenario
from .units import BYTES_SCHEMA, INTERVAL_SCHEMA

Schema = dict[str, Any]
DEFINITIONS = "#/$defs/"
_PLAIN: dict[Any, Schema] = {
    int: {"type": "integer", "minimum": -MOST_WHOLE, "maximum": MOST_WHOLE},
    float: {"type": "number", "minimum": -MOST, "maximum": MOST},
    bool: {"type": "boolean"},
    str: {"type": "string"},
    types.NoneType: {"type": "null"},
    Interval: INTERVAL_SCHEMA,
}


class _Generate(GenerateJsonSchema):
    """pydantic's, without the titles that only repeat the keys."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


@cache
def scenario_schema() -> Schema:
    """The schema, a JSON document that is valid under JSON Schema 2020-12."""
    made = Scenario.model_json_schema(schema_generator=_Generate)
    axes = {axis: _any_member(axis, members, own=True) for axis, members in AXES.items()}
    presets = {_preset_key(name): _preset(preset) for name, preset in PRESETS.items()}
    made["$defs"] |= axes | presets | {"StrategySpec": _strategy(made["$defs"]["StrategySpec"]["description"])}
    return {"$schema": _Generate.schema_dialect, "title": "A Paceline scenario"} | made


def _strategy(description: str) -> Schema:
    """Of the `strategy:` section: which arguments it takes depends on the preset."""
    own: Schema = {"if": {"properties": {"preset": OWN}, "required": ["preset"]}, "then": True}
    alone: Schema = {"propertyNames": {"enum": [*AXES]}, "minProperties": 1}
    rules = [{"if": {"not": {"required": ["preset"]}}, "then": alone}, own]
    for name in PRESETS:
        chosen = {"properties": {"preset": {"const": name}}, "required": ["preset"]}
        rules.append({"if": chosen, "then": {"$ref": DEFINITIONS + _preset_key(name)}})
    preset = {"anyOf": [{"enum": [*PRESETS]}, OWN], "description": "a preset; its arguments stand next to it"}
    return {
        "type": "object",
        "description": description,
        "properties": {"preset": preset} | {axis: _axis(axis) for axis in AXES},
        "allOf": rules,
    }


def _preset_key(name: str) -> str:
    return f"preset {name}".replace(" ", "-")


def _preset(preset: Callable[..., Any]) -> Schema:
    taken = arguments_schema(preset)
    taken["properties"] = {"preset": True} | dict.fromkeys(AXES, True) | taken["properties"]
    return taken


def _axis(axis: str) -> Schema:
    return {"$ref": DEFINITIONS + axis, "description": inspect.getdoc(BASES[axis]) or ""}


def _any_member(axis: str, members: Mapping[str, Callable[..., Any]], own: bool = False) -> Schema:
    """A member of an axis as a scenario spells it. own: whether it may be a user's own, with any arguments."""
    kinds = members.items()
    alone = [name for name, kind in kinds if not arguments_schema(kind)["required"]]
    mapping: Schema = {
        "type": "object",
        "minProperties": 1,
        "maxProperties": 1,
        "properties": {name: _given(kind) for name, kind in kinds},
        "additionalProperties": False,
    }
    if own:
        mapping["patternProperties"] = {OWN["pattern"]: True}
    return {"anyOf": [{"enum": alone}, *([OWN] if own else []), mapping]}


def _given(kind: Callable[..., Any]) -> Schema:
    """A member's arguments: by name, or the first one alone."""
    whole = arguments_schema(kind)
    first = next(iter(whole["properties"].values()), None)
    return whole if first is None or len(whole["required"]) > 1 else {"anyOf": [whole, first]}


def arguments_schema(kind: Callable[..., Any]) -> Schema:
    """The arguments of a member or preset, by name."""
    parameters = inspect.signature(kind).parameters
    said = comments_of(kind)
    properties: dict[str, Schema] = {}
    for name, hint in hints_of(kind).items():
        properties[name] = _one_of([*_schemas(hint), *([BYTES_SCHEMA] if name.endswith("_bytes") else [])])
        if name in said:
            properties[name] = properties[name] | {"description": said[name]}
        if isinstance(default := parameters[name].default, bool | int | float | str):
            properties[name] = properties[name] | {"default": default}
    return {
        "type": "object",
        "description": inspect.getdoc(kind) or "",
        "properties": properties,
        "required": [name for name in properties if parameters[name].default is inspect.Parameter.empty],
        "additionalProperties": False,
    }


def _one_of(found: Iterable[Schema]) -> Schema:
    each = list(found)
    return each[0] if len(each) == 1 else {"anyOf": each}


def _schemas(hint: Any) -> list[Schema]:
    """What an argument of that type may be; more than one for a union."""
    return [_schema(kind) for kind in kinds_of(hint)]


def _schema(kind: Any) -> Schema:
    origin, inside = get_origin(kind), get_args(kind)
    if origin is Literal:
        return {"enum": [*inside]}
    if origin is tuple:
        return {"type": "array", "items": _one_of(_schemas(inside[0])), "minItems": 1}
    if origin is Mapping:
        return {"type": "object", "additionalProperties": _one_of(_schemas(inside[1]))}
    if axis := axis_of(kind):
        exactly = {name: member for name, member in AXES[axis].items() if member is kind}
        return _any_member(axis, exactly) if exactly else {"$ref": DEFINITIONS + axis}
    return _PLAIN[kind]
