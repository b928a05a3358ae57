"""Build a Strategy from a scenario's `strategy:` section: a preset and overrides, or the axes one by one."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from ..algorithms.presets import PRESETS
from ..algorithms.strategy import AXES, Strategy
from ..program.errors import ScenarioError, brief, nearest
from ..program.import_paths import named
from .arguments import parameters_of
from .members import call, known, member
from .scenario import StrategySpec


def build_strategy(spec: StrategySpec) -> Strategy:
    """The strategy that `spec` describes. A ScenarioError names the key that makes no sense."""
    arguments = dict(spec.model_extra or {})
    if spec.preset is not None:
        strategy = _from_preset(spec.preset, arguments)
    elif arguments:
        key, keys = next(iter(arguments)), [*AXES, "preset"]
        hint = nearest(key, keys) or f"; write one of {', '.join(keys)}"
        raise ScenarioError(f"strategy: {brief(key)} is unknown{hint}")
    else:
        strategy = Strategy()
    given = dict(spec)
    chosen = {axis: given[axis] for axis in AXES if given[axis] is not None}
    if not chosen and spec.preset is None:
        raise ScenarioError(f"strategy: give a preset ({', '.join(PRESETS)}) or the axes ({', '.join(AXES)})")
    members = {axis: member(axis, value, f"strategy.{axis}") for axis, value in chosen.items()}
    try:
        built = dataclasses.replace(strategy, **members)
    except ValueError as error:
        raise ScenarioError(f"strategy: {error}") from None
    if spec.preset is not None:
        _refuse_unheard(spec.preset, arguments, strategy, members, built)
    return built


def _preset(name: str) -> Callable[..., Any]:
    return known(name, PRESETS, "strategy.preset", "preset")


def _from_preset(name: str, arguments: Mapping[str, Any]) -> Strategy:
    """The strategy of a preset with its arguments. ScenarioError where they are wrong."""
    made = call(_preset(name), arguments, "strategy", own=named(name))
    if not isinstance(made, Strategy):
        raise ScenarioError(
            f"strategy.preset: {name} returns {brief(made)}; return a {Strategy.__module__}.{Strategy.__name__}"
        )
    return made


def _refuse_unheard(
    name: str, arguments: dict[str, Any], strategy: Strategy, members: dict[str, Any], built: Strategy
) -> None:
    """ScenarioError for an argument of the preset that has no effect, because the axis it sets is overridden."""
    parameters = parameters_of(_preset(name))
    for key in arguments:
        fewer = {other: value for other, value in arguments.items() if other != key}
        if parameters[key].default is inspect.Parameter.empty:
            continue
        try:
            without = _from_preset(name, fewer)
        except ScenarioError:  # the other arguments make no sense without it
            continue
        if without != strategy and dataclasses.replace(without, **members) == built:
            raise ScenarioError(f"strategy.{key}: has no effect together with {', '.join(members)}; keep one of them")
