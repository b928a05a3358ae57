"""What a run notes about itself under `recorded:` in its scenario.yaml, as far as Paceline reads it again."""

from __future__ import annotations

from typing import Any

from pydantic import ConfigDict

from .profile import Profile
from .sections import Section

# Arguments of the strategy that had another name in earlier versions: old name -> new name. A user who writes the old
# one is told the new one (strategy.py); the record of an earlier run is read as if it had the new one.
RENAMED = {"precision": "wire"}


class RecordedFolder(Section):
    """A folder in which a run looked for files and modules."""

    path: str  # absolute
    from_run: str = "."  # relative to the run's directory: finds the folder in a project that was moved as a whole


class Recorded(Section):
    """The fields that are read again. All others are for people."""

    model_config = ConfigDict(extra="allow")

    profile: Profile | None = None  # the profile that priced the run
    profile_path: str | None = None  # the profile's name in the scenario
    folders: tuple[RecordedFolder, ...] = ()  # where relative paths were looked for, in this order
    batches: tuple[int, ...] = ()  # samples per step of each worker
    environment: dict[str, Any] = {}  # of the run's first part; see records/environment.py
    history: tuple[dict[str, Any], ...] = ()  # an entry for each part of the run; see records/history.py


def update_record(document: dict[str, Any]) -> None:
    """Give the keys of an earlier run's own scenario their new names. A scenario that a user wrote is not changed."""
    if document.get("recorded") and "strategy" in document:
        document["strategy"] = _renamed(document["strategy"])


def _renamed(value: Any) -> Any:
    return {RENAMED.get(k, k): _renamed(v) for k, v in value.items()} if isinstance(value, dict) else value
