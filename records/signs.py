"""Signs of life of a real run's ranks: a file each in the run's directory, written now and then while it goes on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

from .directory import SIGNS

LONGEST, SHORTEST = 5.0, 0.1  # seconds between two signs
MISSED = 3  # signs that a rank may miss before it counts as silent


class Sign(NamedTuple):
    """What a rank does."""

    host: str
    process: int  # its number there
    waiting: str | None  # in what it waits for the others; None while it computes
    seconds: float  # for how long it does either
    idle: float | None  # the share of the training time so far that it did not compute
    age: float = 0.0  # seconds since it was written, as far as the reader can tell

    def write(self, folder: Path, rank: int) -> None:
        """Replace a rank's sign. folder: the run's. OSError where it cannot be written."""
        path = path_of(folder, rank)
        partial = path.with_suffix(".partial")  # others never read half a sign
        partial.write_text(json.dumps(self[:-1]))
        partial.replace(path)


def path_of(folder: Path, rank: int) -> Path:
    """A rank's file. folder: the run's."""
    return folder / SIGNS / str(rank)


def read(path: Path) -> Sign | None:
    """A sign; None where there is none, or none that can be read."""
    try:
        return Sign(*json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        return None
