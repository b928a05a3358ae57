"""The keys of a scenario as its JSON schema (schema.py) has them, and what may be written there, in words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from ..algorithms.strategy import AXES
from .members import OWN, PATH
from .schema import DEFINITIONS, Schema, scenario_schema

_FAR = 1e9  # bounds beyond this keep out what is absurd, and need not be told


class Key(NamedTuple):
    """A key of a scenario."""

    schema: Schema
    required: bool  # whether its section must have it


def keys() -> dict[str, Key]:
    """path -> key, like workload.optimizer.lr; the first where sections of a union share one."""
    found: dict[str, Key] = {}
    for path, key in _walk("", scenario_schema()):
        found.setdefault(path, key)
    del found["recorded"]  # not the user's
    return found


def _walk(prefix: str, section: Schema) -> Iterator[tuple[str, Key]]:
    for name, schema in section["properties"].items():
        path = f"{prefix}{name}"
        yield path, Key(schema, name in section.get("required", ()))
        for inner in sections(schema):
            yield from _walk(f"{path}.", inner)


def sections(schema: Schema) -> list[Schema]:
    """The schemas of the sections that a key may hold, alone or in a list."""
    options = _options(schema)
    listed = [inner for each in options if "items" in each for inner in sections(each["items"])]
    return [each for each in options if "properties" in each] + listed


def choices() -> dict[str, list[tuple[str, Schema]]]:
    """name -> (the key that takes it, its section), for sections that are chosen by a name, like an optimizer."""
    found: dict[str, list[tuple[str, Schema]]] = {}
    for path, key in keys().items():
        for section in sections(key.schema):
            if (name := _name(section)) is not None:
                found.setdefault(name, []).append((path, section))
    return found


def _name(section: Schema) -> str | None:
    """The name by which a section is chosen."""
    name: str | None = section.get("properties", {}).get("name", {}).get("const")
    return name


def line(path: str, section: Schema | None = None) -> dict[str, Any]:
    """A scenario that has this key, and the keys that lead to it. section: the one that the key holds."""
    return _nested(scenario_schema(), path.split("."), section)


def _nested(section: Schema, steps: Sequence[str], last: Schema | None) -> dict[str, Any]:
    schema = section["properties"][steps[0]]
    if len(steps) == 1:
        value = example(last or schema)
    else:
        inner = next(each for each in sections(schema) if steps[1] in each["properties"])
        value = _nested(inner, steps[1:], last)
    if (len(steps) > 1 or last) and all("items" in each for each in _options(schema) if each.get("type") != "null"):
        value = [value]
    name = _name(section)
    return ({"name": name} if name and steps[0] != "name" else {}) | {steps[0]: value}


def takes(schema: Schema) -> str:
    """What may be written, in words. That null is possible is not mentioned."""
    told = list(dict.fromkeys(word for each in _options(schema) for word in _words(each)))
    return " or ".join((", ".join(told[:-1]), told[-1])) if len(told) > 1 else "".join(told)


def example(schema: Schema) -> Any:
    """A value that may be written."""
    if schema.get("default") is not None:
        return schema["default"]
    each = next(each for each in _options(schema) if each.get("type") != "null")
    if "properties" in each:
        keys = each.get("required") or [*each["properties"]][:1]
        return {key: example(each["properties"][key]) for key in keys}
    if "examples" in each:
        return each["examples"][0]
    if "enum" in each or "const" in each:
        return each.get("const", each.get("enum", [None])[0])
    kind = each.get("type")
    if kind == "array":
        return [example(each["items"])]
    if kind == "object":
        return {}
    if kind in ("integer", "number"):
        return max(1, each.get("minimum", 1)) if each.get("maximum", 1) >= 1 else each["maximum"]
    return {"boolean": True}.get(str(kind), "name")


def _options(schema: Schema) -> list[Schema]:
    """The alternatives of a schema. A member of an axis is one alternative."""
    if "$ref" in schema:
        name = schema["$ref"].removeprefix(DEFINITIONS)
        if name in AXES:
            return [{"enum": [f"a member of {name}"]}]
        return _options(scenario_schema()["$defs"][name])
    for key in ("anyOf", "oneOf"):
        if key in schema:
            return [found for each in schema[key] for found in _options(each)]
    return [schema]


def _words(schema: Schema) -> list[str]:
    """What one alternative is called."""
    if "enum" in schema or "const" in schema:
        values = schema.get("enum", [schema.get("const")])
        return [str(value) for value in values if value is not False]
    if schema.get("pattern") == OWN["pattern"]:
        return [PATH]
    kind = schema.get("type")
    if kind == "string":
        return [f"like {schema['examples'][0]}"] if "examples" in schema else ["a text"]
    if kind == "array":
        return [f"a list of: {takes(schema['items'])}" if "items" in schema else "a list"]
    if kind == "object":
        return [_name(schema) or ("a section" if "properties" in schema else "a mapping")]
    words = {"integer": "a whole number", "number": "a number", "boolean": "true or false"}
    return [f"{words[kind]}{_bounds(schema)}"] if kind in words else []


def _bounds(schema: Schema) -> str:
    """The bounds of a number that are worth telling."""
    said = []
    if abs(low := schema.get("minimum", -_FAR - 1)) <= _FAR and (low == 0 or abs(low) >= 1e-3):
        said.append(f"{low:g} or more")
    elif ("minimum" in schema and 0 < low < 1e-3) or schema.get("exclusiveMinimum") == 0:
        said.append("above 0")
    if schema.get("maximum", _FAR) < _FAR:
        said.append(f"{schema['maximum']:g} or less")
    if schema.get("exclusiveMaximum", _FAR) < _FAR:
        said.append(f"below {schema['exclusiveMaximum']:g}")
    return f", {' and '.join(said)}" if said else ""
