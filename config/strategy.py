"""From the scenario's `strategy:` to a Strategy: a preset with its arguments and overrides, or the axes one by one.

An axis member is written `name`, `{name: value}` (its first argument) or `{name: {argument: value}}`. Arguments
that are axis members themselves are written in the same way, intervals as `150 epochs`, bytes as `4 MiB`.
Rule: the arguments of a member are those of its signature, read in one place (arguments.py). A test compares the pages
of the documentation with it.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from typing import Any, get_origin

from ..algorithms.presets import PRESETS
from ..algorithms.rounds import Interval
from ..algorithms.strategy import AXES, Strategy
from ..program.errors import ScenarioError, brief, nearest
from .arguments import axis_of, fits, hints_of, kinds_of, words
from .recorded import RENAMED
from .scenario import StrategySpec
from .units import read_bytes, read_interval


def build_strategy(spec: StrategySpec) -> Strategy:
    """The strategy that `spec` describes. A ScenarioError names the key that makes no sense."""
    arguments = dict(spec.model_extra or {})
    if spec.preset is not None:
        preset = PRESETS[_known(spec.preset, list(PRESETS), "strategy.preset")]
        strategy: Strategy = _call(preset, arguments, "strategy")
    elif arguments:
        _known(next(iter(arguments)), [*AXES, "preset"], "strategy")
    else:
        strategy = Strategy()
    given = dict(spec)
    chosen = {axis: given[axis] for axis in AXES if given[axis] is not None}
    if not chosen and spec.preset is None:
        raise ScenarioError(f"strategy: give a preset ({', '.join(PRESETS)}) or the axes ({', '.join(AXES)})")
    members = {axis: _member(axis, value, f"strategy.{axis}") for axis, value in chosen.items()}
    try:
        built = dataclasses.replace(strategy, **members)
    except ValueError as error:
        raise ScenarioError(f"strategy: {error}") from None
    if spec.preset is not None:
        _refuse_unheard(spec.preset, arguments, strategy, members, built)
    return built


def _refuse_unheard(
    name: str, arguments: dict[str, Any], strategy: Strategy, members: dict[str, Any], built: Strategy
) -> None:
    """ScenarioError for an argument of the preset that has no effect, because the axis it sets is overridden."""
    for key in arguments:
        fewer = {other: value for other, value in arguments.items() if other != key}
        if inspect.signature(PRESETS[name]).parameters[key].default is inspect.Parameter.empty:
            continue
        try:
            without = _call(PRESETS[name], fewer, "strategy")
        except ScenarioError:  # the other arguments make no sense without it
            continue
        if without != strategy and dataclasses.replace(without, **members) == built:
            raise ScenarioError(f"strategy.{key}: has no effect together with {', '.join(members)}; keep one of them")


def _known(name: Any, known: list[str], path: str) -> str:
    if name in known:
        return str(name)
    hint = nearest(name, known) or f"; write one of {', '.join(known)}"
    raise ScenarioError(f"{path}: {brief(name)} is unknown{hint}")


def _member(axis: str, value: Any, path: str) -> Any:
    """An axis member as the file spells it."""
    if isinstance(value, dict) and len(value) == 1:
        ((name, args),) = value.items()
    elif isinstance(value, str):
        name, args = value, {}
    else:
        raise ScenarioError(f"{path}: {brief(value)} is not a member; write its name, or {{name: {{argument: value}}}}")
    kind = AXES[axis][_known(name, list(AXES[axis]), path)]
    hints = hints_of(kind)
    first = next(iter(hints), None)
    if not isinstance(args, dict) or (first and get_origin(hints[first]) is Mapping and not _named(first, args)):
        if first is None:
            raise ScenarioError(f"{path}.{name}: takes no arguments, found {brief(args)}")
        args = {first: args}  # {fixed: 32} gives the first argument, and {by_class: {cpu: 1, gpu: 8}} does
    return _call(kind, args, f"{path}.{name}")


def _named(argument: str, args: dict[Any, Any]) -> bool:
    """Whether a mapping names that argument, rather than being its value."""
    return set(args) == {argument} and isinstance(args[argument], dict)


def _call(kind: Callable[..., Any], args: Mapping[str, Any], path: str) -> Any:
    """`kind` called with the arguments of the file."""
    parameters = inspect.signature(kind).parameters
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
    for kind in kinds:
        if axis := axis_of(kind):
            return _member(axis, value, path)
    if float in kinds and isinstance(value, bool | str) and not any(get_origin(kind) for kind in kinds):
        raise ScenarioError(f"{path}: {brief(value)} is not a number")
    return tuple(value) if isinstance(value, list) else value
