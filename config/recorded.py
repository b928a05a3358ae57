"""What a run notes about itself under `recorded:` in its scenario.yaml, as far as Paceline reads it again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import ConfigDict

from .arguments import RENAMED
from .profile import Profile
from .sections import Section
from .units import Count

WORTH = 16  # values that repeat: from so many on, a list says them once
LONGEST = 32  # values of what repeats: more than the devices of a node


class RecordedFolder(Section):
    """A folder in which a run looked for files and modules."""

    path: str  # absolute
    from_run: str = "."  # relative to the run's directory: finds the folder in a project that was moved as a whole


class RecordedFile(Section):
    """A file that the run needed."""

    path: str  # as the scenario named it
    sha256: str


class Repeated(Section):
    """Values of a list that follow one another again and again."""

    times: Count
    values: tuple[int, ...]


class Recorded(Section):
    """The fields that are read again. All others are for people."""

    model_config = ConfigDict(extra="allow")

    profile: Profile | None = None  # the profile that priced the run
    profile_path: str | None = None  # the profile's name in the scenario
    init: RecordedFile | None = None  # the weights with which the run began
    folders: tuple[RecordedFolder, ...] = ()  # where relative paths were looked for, in this order
    batches: tuple[int | Repeated, ...] = ()  # samples per step of each worker, as `compact` writes them
    environment: dict[str, Any] = {}  # of the run's first part; see records/environment.py
    history: tuple[dict[str, Any], ...] = ()  # an entry for each part of the run; see records/history.py


def compact(values: Sequence[Any]) -> list[Any]:
    """The list in which values that repeat are said once: 20 times 8 is [{times: 20, values: [8]}].

    A scenario's workers are alike group by group, or node by node, so a million of them are a few lines.
    """
    found: list[Any] = []
    at = 0
    while at < len(values):
        period, times = _repeats(values, at)
        block = list(values[at : at + period])
        found += [{"times": times, "values": block}] if times > 1 else block
        at += period * times
    return found


def _repeats(values: Sequence[Any], at: int) -> tuple[int, int]:
    """(values, times) of the shortest block at a place that repeats; (1, 1) where none is worth saying once."""
    for period in range(1, LONGEST + 1):
        block, end = values[at : at + period], at + period
        while values[end : end + period] == block:
            end += period
        if end - at >= max(WORTH, 2 * period):
            return period, (end - at) // period
    return 1, 1


def expanded(values: Sequence[int | Repeated]) -> list[int]:
    """The list that `compact` was given."""
    found: list[int] = []
    for value in values:
        found += value.values * value.times if isinstance(value, Repeated) else (value,)
    return found


def update_record(document: dict[str, Any]) -> None:
    """Give the keys of an earlier run's own scenario their new names. A scenario that a user wrote is not changed."""
    if document.get("recorded") and "strategy" in document:
        document["strategy"] = _renamed(document["strategy"])


def _renamed(value: Any) -> Any:
    return {RENAMED.get(k, k): _renamed(v) for k, v in value.items()} if isinstance(value, dict) else value
