"""The arguments of the axes' members and of the presets, read from their signatures.

An argument's type says what a user may write: `fits` checks a value, `words` says in an error what to write instead.
"""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from ..algorithms.aggregations import Aggregation
from ..algorithms.rounds import Interval
from ..algorithms.schedules import Schedule
from ..algorithms.strategy import AXES

MOST_WHOLE, MOST = 10**15, 1e30  # the largest whole number, and the largest number, that an argument may be
_AXES: dict[Any, str] = {Schedule: "schedule", Aggregation: "aggregation"}


@cache
def hints_of(kind: Callable[..., Any]) -> dict[str, Any]:
    """argument -> type, in the order of `kind`'s signature."""
    hints = get_type_hints(kind)  # of a class with those that it inherits from other modules
    return {name: hints[name] for name in inspect.signature(kind).parameters}


def kinds_of(hint: Any) -> tuple[Any, ...]:
    """The members of a union, or the one type."""
    return get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)


def axis_of(kind: Any) -> str | None:
    """The axis that this type belongs to, as one of its members or as the base of them all."""
    return _AXES.get(kind) or next((axis for axis, members in AXES.items() if kind in members.values()), None)


def fits(hint: Any, value: Any) -> bool:
    """Whether an argument of that type can have the value. Numbers are finite and lists are not empty."""
    kinds, origin = kinds_of(hint), get_origin(hint)
    if len(kinds) > 1:
        return any(fits(kind, value) for kind in kinds)
    if origin is Literal:
        return isinstance(value, str) and value in get_args(hint)
    if origin is tuple:
        return isinstance(value, tuple) and bool(value) and all(fits(get_args(hint)[0], each) for each in value)
    if origin is Mapping:
        key, item = get_args(hint)
        return isinstance(value, Mapping) and all(fits(key, k) and fits(item, v) for k, v in value.items())
    if hint in _AXES:
        return True  # the value has been read as a member of that axis
    if hint in (int, float) and isinstance(value, bool):
        return False
    if hint is int:
        return isinstance(value, int) and abs(value) <= MOST_WHOLE
    if hint is float:
        return isinstance(value, int | float) and abs(value) <= MOST
    return isinstance(value, hint)


def words(hint: Any) -> str:
    """What to write for an argument of that type, as an error says it. That null is possible is not mentioned."""
    told = [_words(kind) for kind in kinds_of(hint) if kind is not types.NoneType]
    choices = [word for kind in told for word in kind]
    return choices[0] if len(choices) == 1 else f"{', '.join(choices[:-1])} or {choices[-1]}"


_WORDS = {int: "a whole number", float: "a number", bool: "true or false", Interval: "an interval"}


def _words(kind: Any) -> list[str]:
    origin, inside = get_origin(kind), get_args(kind)
    if origin is Literal:
        return list(inside)
    if origin is tuple:
        return [f"a list of {words(inside[0]).removeprefix('a ')}s"]
    if origin is Mapping:
        return [f"{words(inside[1])} for each name"]
    if axis := axis_of(kind):
        return [next((name for name, member in AXES[axis].items() if member is kind), f"a member of {axis}")]
    return [_WORDS[kind]]
