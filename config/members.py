"""Axis members, presets and learning rates as a scenario names them, with their arguments.

A member is written as `name` (its defaults), `{name: value}` (its first argument) or `{name: {argument: value}}`, where
the name is a built-in one or the import path of a user's own, package.module:Name. Arguments that are axis members
themselves are written in the same way, intervals as `150 epochs`, bytes as `4 MiB`.
Rule: the arguments of a member are those of its signature, read in one place (arguments.py). A test compares the pages
of the documentation with it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from types import NoneType
from typing import Any, get_origin

from pydantic import BaseModel

from ..algorithms.rounds import Interval
from ..algorithms.strategy import AXES
from ..program.errors import ScenarioError, brief, nearest
from ..program.import_paths import FAILURES, in_words, load, named
from .arguments import BASES, RENAMED, axis_of, fits, hints_of, kinds_of, parameters_of, words
from .units import read_bytes, read_interval

PATH = "package.module:Name"  # how an import path is written
# As JSON schema.
OWN: dict[str, Any] = {
    "type": "string",
    "pattern": r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*$",
    "description": f"your own: {PATH}",
}


def tag(section: Any) -> str | None:
    """What a section is told apart by where its key takes several kinds: its name, and PATH for an import path."""
    name = dict(section).get("name") if isinstance(section, dict | BaseModel) else None
    if not isinstance(name, str):
        return None
    return PATH if named(name) else name


def known(name: Any, names: Mapping[str, Callable[..., Any]], path: str, what: str) -> Callable[..., Any]:
    """What a name stands for: one of `names`, or a user's own `what` by its import path. ScenarioError for another.

    path: the scenario's key, which begins the error.
    """
    if name in names:
        return names[name]
    if isinstance(name, str) and named(name):
        return _own(name, path, what)
    hint = nearest(name, names) or f"; write one of {', '.join(names)}, or {PATH} for one of your own"
    raise ScenarioError(f"{path}: {brief(name)} is unknown{hint}")


def _own(name: str, path: str, what: str) -> Callable[..., Any]:
    """The user's class or function at an import path, whose arguments a scenario can write."""
    try:
        kind = load(name, what)
        hints_of(kind)
    except ValueError as error:
        raise ScenarioError(f"{path}: {error}") from error
    except TypeError as error:
        raise ScenarioError(f"{path}: {what} {name!r}: {error}") from error
    return kind


def member(axis: str, value: Any, path: str) -> Any:
    """An axis member as the file spells it."""
    if isinstance(value, dict) and len(value) == 1:
        ((name, args),) = value.items()
    elif isinstance(value, str):
        name, args = value, {}
    else:
        raise ScenarioError(f"{path}: {brief(value)} is not a member; write its name, or {{name: {{argument: value}}}}")
    kind, base = known(name, AXES[axis], path, axis), BASES[axis]
    hints = hints_of(kind)
    if inspect.isclass(kind) and not issubclass(kind, base):
        raise ScenarioError(f"{path}: {name} is not a {axis}; derive it from {base.__module__}.{base.__name__}")
    first = next(iter(hints), None)
    if not isinstance(args, dict) or (first and get_origin(hints[first]) is Mapping and not _named(first, args)):
        if first is None:
            raise ScenarioError(f"{path}.{name}: takes no arguments, found {brief(args)}")
        args = {first: args}  # {fixed: 32} gives the first argument, and {by_class: {cpu: 1, gpu: 8}} does
    made = call(kind, args, f"{path}.{name}", own=named(name))
    if not isinstance(made, base):
        raise ScenarioError(
            f"{path}: {name} returns {brief(made)}, which is not a {axis}; return a {base.__module__}.{base.__name__}"
        )
    return made


def _named(argument: str, args: dict[Any, Any]) -> bool:
    """Whether a mapping names that argument, rather than being its value."""
    return set(args) == {argument} and isinstance(args[argument], dict)


def call(kind: Callable[..., Any], args: Mapping[str, Any], path: str, own: bool = False) -> Any:
    """`kind` called with the arguments of the file. ScenarioError where they are wrong, or where a user's own fails."""
    parameters = parameters_of(kind)
    for key in args:
        if key not in parameters:
            if (now := RENAMED.get(key)) in parameters:
                raise ScenarioError(f"{path}.{key}: is called {now} now; write {now}: {brief(args[key])}")
            hint = nearest(key, parameters) or f"; it takes {', '.join(parameters) or 'none'}"
            shown = key if str(key).isidentifier() else brief(key)
            raise ScenarioError(f"{path}.{shown}: unknown argument{hint}")
    for name, parameter in parameters.items():
        if name not in args and parameter.default is parameter.empty:
            raise ScenarioError(f"{path}.{name}: is missing")
    hints = hints_of(kind)
    given = {key: _argument(hints[key], value, f"{path}.{key}") for key, value in args.items()}
    wrong = next((key for key, value in given.items() if not fits(hints[key], value)), None)
    mistake = wrong and f"{path}.{wrong}: {brief(args[wrong])}: write {words(hints[wrong])}"
    try:
        made = kind(**given)
    except ValueError as error:  # the member's own words say more than `mistake`
        raise ScenarioError(f"{path}: {error}") from None
    except (TypeError, OverflowError) as error:
        raise ScenarioError(mistake or f"{path}: {error}") from None
    except FAILURES as error:
        if not own:
            raise
        raise ScenarioError(f"{path} failed: {in_words(error)}") from error
    if mistake:
        raise ScenarioError(mistake)
    return made


def _argument(hint: Any, value: Any, path: str) -> Any:
    """A value of the file, converted to its parameter's type."""
    kinds = kinds_of(hint)
    try:
        if Interval in kinds and value is not None:
            return read_interval(value)
        if path.endswith("_bytes") and isinstance(value, str):
            return round(read_bytes(value))
    except ValueError as error:
        raise ScenarioError(f"{path}: {error}") from None
    for kind in kinds if value is not None or NoneType not in kinds else ():
        if axis := axis_of(kind):
            return member(axis, value, path)
    if float in kinds and isinstance(value, bool | str) and not any(kind is str or get_origin(kind) for kind in kinds):
        raise ScenarioError(f"{path}: {brief(value)} is not a number")
    return tuple(value) if isinstance(value, list) else value
