"""How far a run has come: a file of one line, which is there from the first step on, and tells of the last sync.

Rule: a rank may be killed at any moment, so what counts is what the file holds then. Writing it takes about a
microsecond, and nothing waits for the disk.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from .directory import PROGRESS

_WIDTH = 60  # bytes of the line: a number of rounds and a clock fit in


class Reached(NamedTuple):
    """Where a run was at its last sync."""

    round: int  # rounds done
    seconds: float  # the run's clock
    when: float  # by the clock of the directory's file system
    joins: bool = False  # whether lost workers are to join there


class Progress:
    """Writes the file. A directory that cannot be written, or that was removed, does not keep a run from going on."""

    def __init__(self, directory: Path, round: int, seconds: float) -> None:
        self._file = -1
        with suppress(OSError):
            self._file = os.open(directory / PROGRESS, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
        self.note(round, seconds)

    def note(self, round: int, seconds: float, joins: bool = False) -> None:
        """A sync: so many rounds are done. joins: see Reached."""
        with suppress(OSError):
            os.pwrite(self._file, f"{round} {seconds!r}{' joins' if joins else ''}".ljust(_WIDTH).encode(), 0)

    def close(self) -> None:
        """Close the file."""
        with suppress(OSError):
            os.close(self._file)


def reached(directory: Path) -> Reached | None:
    """Where the run in a directory was at its last sync; None where it has not come to its first step."""
    path = directory / PROGRESS
    try:
        round, seconds, *joins = path.read_text().split()
        return Reached(int(round), float(seconds), path.stat().st_mtime, bool(joins))
    except (OSError, ValueError):
        return None


def forget(directory: Path) -> None:
    """Remove the file."""
    with suppress(OSError):
        (directory / PROGRESS).unlink(missing_ok=True)


def now(directory: Path) -> float:
    """The time by the clock of the directory's file system, which several hosts may share.

    Where the directory does not exist yet, a folder above it is asked; where nothing can be written, this host's clock.
    """
    folder = next((place for place in (directory, *directory.absolute().parents) if place.is_dir()), directory)
    path = folder / f".{PROGRESS}.partial"
    try:
        path.write_bytes(b"")
        return path.stat().st_mtime
    except OSError:
        return time.time()
    finally:
        with suppress(OSError):
            path.unlink(missing_ok=True)
