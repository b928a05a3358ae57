"""The run directory: the same files whichever engine wrote them, and never one run's over another's."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

from ..algorithms.errors import ScenarioError

SCENARIO, SUMMARY, METRICS, TRACE = "scenario.yaml", "summary.json", "metrics.jsonl", "trace.json.gz"
CHECKPOINTS = "checkpoints"
SPANS = ".spans"  # a folder for what the trace is made of, while the run goes
_OURS = (SCENARIO, SUMMARY, METRICS, TRACE, SPANS, "loss.txt", "acc.txt", CHECKPOINTS)


def refuse(directory: Path, force: bool) -> None:
    """ScenarioError where a run must not or cannot be written to `directory`; nothing is touched."""
    if directory.exists() and not directory.is_dir():
        raise ScenarioError(f"{directory}: is a file; name a folder with --out")
    if directory.is_dir() and any(directory.iterdir()) and not force:
        raise ScenarioError(f"{directory}: is not empty; write --force to replace the run in it, or --out elsewhere")
    there = next(parent for parent in (directory, *directory.absolute().parents) if parent.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise ScenarioError(f"{directory}: cannot be made in {there}; name another folder with --out")


def prepare(directory: Path, force: bool) -> Path:
    """Make `directory` ready for a new run, as far as `refuse` lets it. force removes an earlier run's files only."""
    refuse(directory, force)
    for name in _OURS:
        path = directory / name
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ScenarioError(f"{directory}: cannot be made: {error.strerror}") from None
    return directory


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file that is either whole or absent: temporary name, fsync, rename."""
    temporary = path.with_name(f".{path.name}.partial")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def to_json(document: Any, indent: int | None = None) -> str:
    """JSON with not-a-number as null, so that any reader takes it; floats keep all their bits."""
    return json.dumps(_plain(document), indent=indent, allow_nan=False)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and value != value:
        return None
    return value
