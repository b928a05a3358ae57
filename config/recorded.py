"""What a run notes of itself in its scenario.yaml under `recorded:`, as far as it is read again."""

from __future__ import annotations

from typing import Any

from pydantic import ConfigDict

from .profile import Profile
from .sections import Section

# Arguments of the strategy that had another name in earlier versions: old name -> new name. A user who writes the old
# one is told the new one (strategy.py); the record of an earlier run is read as if it had the new one.
RENAMED = {"precision": "wire"}


class RecordedFolder(Section):
    """A folder in which a run looked for files and modules. path: absolute. from_run: from the run's own directory,
    for a project that was moved as a whole."""

    path: str
    from_run: str = "."


class Recorded(Section):
    """profile: the one that the run was priced with. profile_path: its name in the scenario. folders: where relative
    paths were looked for, in this order. batches: of each worker. history: one entry per part of the run.

    What else is recorded is for people.
    """

    model_config = ConfigDict(extra="allow")

    profile: Profile | None = None
    profile_path: str | None = None
    folders: tuple[RecordedFolder, ...] = ()
    batches: tuple[int, ...] = ()
    environment: dict[str, Any] = {}
    history: tuple[dict[str, Any], ...] = ()


def update_record(document: dict[str, Any]) -> None:
    """Rename what a run of an earlier version recorded; a scenario that a user wrote stays as it is."""
    if document.get("recorded") and "strategy" in document:
        document["strategy"] = _renamed(document["strategy"])


def _renamed(value: Any) -> Any:
    return {RENAMED.get(k, k): _renamed(v) for k, v in value.items()} if isinstance(value, dict) else value
