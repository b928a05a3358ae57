"""Arguments of the strategy that had another name in earlier versions.

Rule: a user who writes the old name is told the new one. The record of an earlier run is read as if it had the new one.
"""

from __future__ import annotations

from typing import Any

RENAMED = {"precision": "wire"}  # old name -> new name


def update_record(document: dict[str, Any]) -> None:
    """Rename what a run of an earlier version recorded; a scenario that a user wrote stays as it is."""
    if document.get("recorded") and "strategy" in document:
        document["strategy"] = _renamed(document["strategy"])


def _renamed(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    return {RENAMED.get(key, key): _renamed(item) for key, item in value.items()}
