"""struck.jsonl: the faults of the scenario that have struck a training, a line each, from all ranks.

Rule: a fault's line is on disk before the fault strikes. So it does not strike again when the run is started again.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from .directory import STRUCK, to_json
from .schemas import StruckFault


def append(directory: Path, entry: dict[str, Any]) -> None:
    """Add a line, and return when it is on disk. Ranks of several hosts may do so at the same time."""
    descriptor = os.open(directory / STRUCK, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX)  # over NFS, two hosts would else write to the same place
        os.write(descriptor, f"{to_json(entry)}\n".encode())
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read(directory: Path) -> list[dict[str, Any]]:
    """The lines so far. An incomplete one, of a process that was killed as it wrote, is left out."""
    path = directory / STRUCK
    found = []
    for line in path.read_bytes().splitlines() if path.exists() else ():
        with suppress(ValueError):  # pydantic's error is one
            found.append(StruckFault.model_validate_json(line).model_dump(exclude_unset=True))
    return found


def told(entries: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The entries as summary.json has them. What holds over a restart is told once, a slow link without workers."""
    first = dict[tuple[Any, ...], dict[str, Any]]()
    for entry in entries:
        kept = {key: value for key, value in entry.items() if key != "worker" or "link" not in entry}
        first.setdefault((kept["fault"], kept.get("worker"), kept["name"]), kept)
    return list(first.values())
