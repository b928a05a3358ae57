"""From the scenario's `strategy:` to a Strategy: a preset with overrides, or the axes one by one.

An axis member is written `name`, `{name: value}`, `{name: [values]}` or `{name: {argument: value}}`.
"""

from __future__ import annotations

import dataclasses
import difflib
import inspect
from typing import Any

from ..algorithms.errors import ScenarioError
from ..algorithms.presets import PRESETS
from ..algorithms.strategy import AXES, Strategy
from .scenario import StrategySpec


def build_strategy(spec: StrategySpec) -> Strategy:
    """The strategy that `spec` describes; ScenarioError names the key where it describes none."""
    if spec.preset is None:
        strategy = Strategy()
    else:
        strategy = PRESETS[_known(spec.preset, list(PRESETS), "strategy.preset")]()
    chosen = {axis: getattr(spec, axis) for axis in AXES if getattr(spec, axis) is not None}
    if not chosen and spec.preset is None:
        raise ScenarioError(f"strategy: give a preset ({', '.join(PRESETS)}) or the axes ({', '.join(AXES)})")
    members = {axis: _member(axis, value) for axis, value in chosen.items()}
    try:
        return dataclasses.replace(strategy, **members)
    except ValueError as error:
        raise ScenarioError(f"strategy: {error}") from None


def _known(name: Any, known: list[str], path: str) -> str:
    if name in known:
        return str(name)
    near = difflib.get_close_matches(str(name), known, 1, 0.5)
    hint = f"did you mean {near[0]!r}?" if near else f"write one of {', '.join(known)}"
    raise ScenarioError(f"{path}: {name!r} is unknown; {hint}")


def _member(axis: str, value: Any) -> Any:
    """An axis member from its spelling in the file."""
    path = f"strategy.{axis}"
    if isinstance(value, dict) and len(value) == 1:
        ((name, args),) = value.items()
    elif isinstance(value, str):
        name, args = value, {}
    else:
        raise ScenarioError(f"{path}: {value!r} is no member; write its name, or {{name: {{argument: value}}}}")
    kind = AXES[axis][_known(name, list(AXES[axis]), path)]
    parameters = list(inspect.signature(kind).parameters)
    if not isinstance(args, dict):  # {fixed: 32} gives the first argument
        if not parameters:
            raise ScenarioError(f"{path}.{name}: takes no arguments, found {args!r}")
        args = {parameters[0]: args}
    for key in args:
        if key not in parameters:
            near = difflib.get_close_matches(str(key), parameters, 1, 0.4)
            hint = f"did you mean {near[0]!r}?" if near else f"it takes {', '.join(parameters) or 'none'}"
            raise ScenarioError(f"{path}.{name}.{key}: unknown argument; {hint}")
    try:
        return kind(**{key: tuple(v) if isinstance(v, list) else v for key, v in args.items()})
    except (ValueError, TypeError) as error:
        raise ScenarioError(f"{path}.{name}: {error}") from None
