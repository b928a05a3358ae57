"""Strategies in a few words, for tables and legends: a preset's name and what differs from it, like `local_sgd H=8`.

Rule: the words follow from what the strategy does. One that is composed of axes gets the name of the nearest preset, so
it is called like the preset that does the same.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice, product
from typing import Any, NamedTuple

from pydantic import ValidationError

from ..algorithms.presets import PRESETS
from ..algorithms.rounds import Interval
from ..algorithms.strategy import AXES, Strategy
from ..program.errors import ScenarioError
from .arguments import parameters_of
from .scenario import StrategySpec
from .strategy import build_strategy

_TOLD = 8  # values of a list
_TRIES = 64  # combinations of arguments that are tried for a preset


class _Near(NamedTuple):
    """A preset with arguments."""

    name: str
    arguments: dict[str, Any]
    strategy: Strategy

    def others(self, strategy: Strategy) -> list[str]:
        """The axes in which a strategy differs from it."""
        return [axis for axis in AXES if vars(self.strategy)[axis] != vars(strategy)[axis]]


def strategy_name(section: Mapping[str, Any]) -> str:
    """A scenario's `strategy:` section in a few words: `biased_local_sgd H=16, by_class 2/16`.

    Where nothing can be made of it, as where a user's own module is not here, its own words.
    """
    preset = section.get("preset")
    try:
        built = build_strategy(StrategySpec.model_validate(dict(section)))
    except (ScenarioError, ValidationError):
        return _as_written(section)
    names = [preset] if preset in PRESETS else []
    if preset is None:
        names = [name for name, kind in PRESETS.items() if name == kind.__name__]  # without second names, like ddp
    found = [near for name in names if (near := _nearest(name, built))]
    if not found:
        return _as_written(section)
    near = min(found, key=lambda each: (len(each.others(built)), len(_given(each))))
    axes = [_member(axis, vars(built)[axis]) for axis in near.others(built)]
    return ", ".join([" ".join([near.name, *_given(near)]), *axes])


def _nearest(name: str, built: Strategy) -> _Near | None:
    """The preset with the arguments that the strategy's members have; None where it needs one that they lack."""
    kind, known = PRESETS[name], [*_fields(built)]
    values = {
        each: list(dict.fromkeys(value for field, value in known if field == each)) for each in parameters_of(kind)
    }
    values = {each: found for each, found in values.items() if found}
    best: _Near | None = None
    for chosen in islice(product(*values.values()), _TRIES):
        arguments = dict(zip(values, chosen, strict=True))
        try:
            near = _Near(name, arguments, kind(**arguments))
        except (TypeError, ValueError):  # a required argument is missing, or one has another meaning here
            continue
        if best is None or len(near.others(built)) < len(best.others(built)):
            best = near
    return best


def _fields(member: Any) -> Iterator[tuple[str, Any]]:
    """The fields of the members of a strategy, and of members in them."""
    for field in (each for each in dataclasses.fields(member) if each.init):
        value = vars(member)[field.name]
        if dataclasses.is_dataclass(value) and not isinstance(value, Interval):
            yield from _fields(value)
        elif not isinstance(value, Mapping):  # which cannot be compared by its hash, and is no preset's argument
            yield field.name, value


def _given(near: _Near) -> list[str]:
    """A preset's arguments that are not its defaults."""
    defaults = {name: parameter.default for name, parameter in parameters_of(PRESETS[near.name]).items()}
    return [f"{name}={_word(value)}" for name, value in near.arguments.items() if value != defaults[name]]


def _member(axis: str, member: Any) -> str:
    """An axis's member in words: its name and what is not at its default."""
    kinds: dict[Callable[..., Any], str] = {kind: name for name, kind in AXES[axis].items()}
    words = [kinds.get(type(member), type(member).__name__)]
    fields = [field for field in dataclasses.fields(member) if field.init] if dataclasses.is_dataclass(member) else []
    given = [(each.name, vars(member)[each.name]) for each in fields if vars(member)[each.name] != each.default]
    for place, (name, value) in enumerate(given):
        inner = next((other for other in AXES if dataclasses.is_dataclass(value) and type(value) in _kinds(other)), "")
        word = _member(inner, value) if inner else _word(value)
        words.append(word if place == 0 and fields[0].name == name else f"{name}={word}")
    return " ".join(words)


def _kinds(axis: str) -> list[Callable[..., Any]]:
    return list(AXES[axis].values())


def _as_written(section: Mapping[str, Any]) -> str:
    """The section's own words."""
    first = [str(section["preset"]).rpartition(":")[2]] if section.get("preset") else []
    return " ".join(first + [f"{key}={_word(value)}" for key, value in section.items() if key != "preset" and value])


def _word(value: Any) -> str:
    """A value: of a mapping and of a list the values alone."""
    if isinstance(value, Interval):
        return f"{value.amount:g} {value.unit}"
    if isinstance(value, Mapping):
        return _word([*value.values()]) if len(value) != 1 else " ".join(f"{k} {_word(v)}" for k, v in value.items())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "/".join(map(_word, value[:_TOLD])) + ("/..." if len(value) > _TOLD else "")
    return f"{value:g}" if isinstance(value, float) else str(value)
