"""What trackers show of a run: the same names and numbers in each of them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from ..program.callbacks import RoundRecord
from ..program.errors import ScenarioError

_AXES = ("round", "step", "seconds")  # fields of a line along which the others are shown


def line_scalars(line: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a report line, by the names that trackers show: its fields, except for those along which."""
    found = {
        f"report/{key}": value for key, value in line.items() if key not in _AXES and isinstance(value, int | float)
    }
    return {key: float(value) for key, value in found.items() if math.isfinite(value)}


def round_scalars(record: RoundRecord) -> dict[str, float]:
    """The numbers of a round. Workers' H are shown as the least and the largest where they differ."""
    least, most = min(record.H), max(record.H)
    found = {
        "round/H": float(most),
        **({"round/H_min": float(least)} if least < most else {}),
        "round/lr": record.lr,
        "round/loss": record.loss,
        "round/seconds": record.duration,
        "round/samples_per_second": record.samples / record.duration if record.duration > 0 else math.nan,
        "round/bytes": float(record.bytes),
    }
    return {key: value for key, value in found.items() if math.isfinite(value)}


def parameters(scenario: Mapping[str, Any]) -> dict[str, bool | int | float | str]:
    """key.of.the.scenario -> its value. Lists are texts."""
    return dict(_flat(scenario, ""))


def _flat(value: Mapping[str, Any], above: str) -> Iterator[tuple[str, bool | int | float | str]]:
    for key, each in value.items():
        if isinstance(each, Mapping):
            yield from _flat(each, f"{above}{key}.")
        elif each is not None:
            yield f"{above}{key}", each if isinstance(each, bool | int | float | str) else str(plain(each))


def plain(value: Any) -> Any:
    """A value that callbacks got, in dicts and lists that others may write to."""
    if isinstance(value, Mapping):
        return {key: plain(each) for key, each in value.items()}
    return list(map(plain, value)) if isinstance(value, tuple) else value


def need(package: str, path: str, install: str) -> None:
    """ScenarioError where a package is not installed. path: the scenario's key. install: what pip is told."""
    try:
        found = find_spec(package) is not None
    except (ImportError, ValueError):
        found = False
    if not found:
        raise ScenarioError(f"{path}: needs the package {package}, which is not installed: pip install {install}")


def imported(package: str, path: str, install: str) -> Any:
    """The package. ScenarioError where it is not installed, or cannot be imported."""
    need(package, path, install)
    try:
        return import_module(package)
    except Exception as error:
        raise ScenarioError(f"{path}: importing {package} failed: {error}") from error
