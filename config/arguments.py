"""The arguments of the axes' members and of the presets, read from their signatures.

An argument's type says what a user may write: `fits` checks a value, `words` says in an error what to write instead.
"""

from __future__ import annotations

import dataclasses
import inspect
import types
from collections.abc import Callable, Mapping
from functools import cache
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from ..algorithms.rounds import Interval
from ..algorithms.strategy import AXES, Strategy

MOST_WHOLE, MOST = 10**15, 1e30  # the largest whole number, and the largest number, that an argument may be
# Arguments of the strategy that had another name in earlier versions: old name -> new name. A user who writes the old
# one is told the new one (members.py); the record of an earlier run is read as if it had the new one.
RENAMED = {"precision": "wire"}


@cache
def parameters_of(kind: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    """The parameters of a callable, by name; a sweep asks at every point."""
    return inspect.signature(kind).parameters


@cache
def hints_of(kind: Callable[..., Any]) -> dict[str, Any]:
    """argument -> type, in the order of `kind`'s signature. TypeError for one without a type that can be read."""
    try:
        hints = get_type_hints(_typed(kind))
    except (NameError, AttributeError, SyntaxError) as error:
        raise TypeError(f"the type of an argument cannot be read: {error}") from error
    parameters = parameters_of(kind)
    for name in parameters:
        if name not in hints or not _readable(hints[name]):
            raise TypeError(f"argument {name} has no type that a scenario can write; give it one, like {name}: int = 4")
    return {name: hints[name] for name in parameters}


def _typed(kind: Callable[..., Any]) -> Any:
    """What has the types of `kind`'s arguments: of a dataclass the class itself, with the fields that it inherits."""
    plain = inspect.isclass(kind) and not dataclasses.is_dataclass(kind)
    return vars(kind).get("__init__", kind) if plain else kind


@cache
def marks_of(kind: Callable[..., Any]) -> dict[str, Any]:
    """argument -> what its list says of single workers, in the words of `algorithms/per_worker.py`, where it does."""
    hints = get_type_hints(_typed(kind), include_extras=True)
    marked = {name: [h for h in kinds_of(hint) if get_origin(h) is Annotated] for name, hint in hints.items()}
    return {name: get_args(found[0])[1] for name, found in marked.items() if found}


BASES: dict[str, type] = get_type_hints(Strategy)  # axis -> the base class of its members


def kinds_of(hint: Any) -> tuple[Any, ...]:
    """The members of a union, or the one type."""
    return get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)


def axis_of(kind: Any) -> str | None:
    """The axis that this type belongs to, as one of its members or as the base of them all."""
    return next((axis for axis, base in BASES.items() if inspect.isclass(kind) and issubclass(kind, base)), None)


def _readable(hint: Any) -> bool:
    """Whether a scenario can write a value of that type."""
    kinds, origin, inside = kinds_of(hint), get_origin(hint), get_args(hint)
    if len(kinds) > 1:
        return all(_readable(kind) for kind in kinds if kind is not types.NoneType)
    if origin is tuple:
        return len(inside) == 2 and inside[1] is ... and _readable(inside[0])
    if origin is Mapping:
        return inside[0] is str and _readable(inside[1])
    return origin is Literal or hint in _WORDS or axis_of(hint) is not None


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


_WORDS: dict[Any, str] = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "a text",
    Interval: "an interval",
}


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
