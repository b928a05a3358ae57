"""A run directory while its run goes on, real or simulated: what its files tell of it.

Rule: nothing is written and no lock is taken, so that looking never gets into a run's way. How old a sign of life is,
is told by what changes while one looks: the hosts of a shared file system may have other clocks.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic, time
from typing import Any, Literal

from ..config import yaml
from ..program.errors import ScenarioError
from ..records import checkpoints
from ..records.directory import LOCK, METRICS, NOW, SCENARIO, SIGNS, SUMMARY
from ..records.live import Now, read_now
from ..records.recorder import is_evaluated
from ..records.recoveries import Recovery, recoveries_in
from ..records.signs import Sign, path_of, read

# "none": there is no directory yet, or nothing in it tells of a run that goes on. "lost": its process has ended without
# a word. "silent": no sign of life for SILENT seconds. "stalled": it waits for other workers for so long.
State = Literal["none", "running", "silent", "stalled", "restarting", "finished", "stopped", "failed", "lost"]
OVER = frozenset({"finished", "stopped", "failed", "lost"})
SILENT = 10.0  # seconds
TAIL = 1 << 16  # bytes at the end of metrics.jsonl in which the newest reports are looked for


@dataclass(frozen=True)
class Seen:
    """A run as it is now."""

    directory: Path
    state: State
    since: float = 0.0  # seconds: of a silent run since its last sign, of a stalled one since it waits
    why: str = ""  # it restarts, or has ended
    now: Now | None = None
    summary: Mapping[str, Any] | None = None  # of a run with results
    last: Mapping[str, Any] = field(default_factory=dict)  # the newest report line
    tested: Mapping[str, Any] = field(default_factory=dict)  # the newest one with an evaluation
    signs: Mapping[int, Sign] = field(default_factory=dict)  # rank -> its sign of life
    recoveries: Sequence[Recovery] = ()
    checkpoint: tuple[str, float] | None = None  # the newest one's name, and its age in seconds

    @property
    def over(self) -> bool:
        """Whether nothing more will come."""
        return self.state in OVER


class Follower:
    """Looks at one directory again and again."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._host = socket.gethostname()
        self._changed: dict[Path, tuple[Any, float]] = {}  # file -> (what tells it from another one, when it changed)
        self._recoveries: tuple[Any, list[Recovery]] = None, []

    def look(self) -> Seen:
        """What the files tell now."""
        directory = self.directory
        now, summary = read_now(directory), self._summary()
        state, since, why = self._state(now, summary)
        last, tested = newest_lines(directory / METRICS)
        return Seen(
            *(directory, state, since, why, now, summary if state in ("finished", "stopped") else None),
            *(last, tested, self._signs(), self._recovered(), self._checkpoint()),
        )

    def _state(self, now: Now | None, summary: Mapping[str, Any] | None) -> tuple[State, float, str]:
        directory = self.directory
        if now is None:
            if summary is not None:
                return ("finished" if summary.get("finished", True) else "stopped"), 0.0, ""
            begun = (directory / SCENARIO).exists() and self._age(directory / SCENARIO) > SILENT
            return ("lost", 0.0, "it has no results, and no process is running it") if begun else ("none", 0.0, "")
        if now.state != "running":
            return now.state, 0.0, now.why
        age = self._age(directory / NOW)
        if now.host == self._host and not _lives(now.process):
            # Whoever started it may start it again, and then says so.
            return ("lost" if age > SILENT else "silent"), age, f"its process {now.process} has ended"
        if age > SILENT:
            return "silent", age, ""
        if now.waiting is not None and now.waits > SILENT:
            return "stalled", now.waits, f"in {now.waiting}"
        return "running", 0.0, ""

    def _age(self, path: Path) -> float:
        """Seconds since a file has changed: since one has seen it change, or else by its own time."""
        try:
            found = path.stat()
        except OSError:
            return 0.0
        mark, here = (found.st_ino, found.st_mtime_ns), monotonic()
        before = self._changed.get(path)
        if before is None:  # the first look: only the file's time tells, by a clock that may be another one
            self._changed[path] = mark, here - max(0.0, time() - found.st_mtime)
        elif before[0] != mark:
            self._changed[path] = mark, here
        return here - self._changed[path][1]

    def _summary(self) -> Mapping[str, Any] | None:
        try:
            found = json.loads((self.directory / SUMMARY).read_bytes())
        except (OSError, ValueError):
            return None
        return found if isinstance(found, dict) else None

    def _signs(self) -> dict[int, Sign]:
        ranks = sorted(int(path.name) for path in (self.directory / SIGNS).glob("*") if path.name.isdecimal())
        paths = {rank: path_of(self.directory, rank) for rank in ranks}
        return {rank: sign._replace(age=self._age(path)) for rank, path in paths.items() if (sign := read(path))}

    def _recovered(self) -> list[Recovery]:
        """From the run's history, which is read again only when it has changed."""
        path = self.directory / SCENARIO
        with suppress(OSError, ScenarioError, ValueError, TypeError, AttributeError):
            found = path.stat()
            mark = found.st_ino, found.st_mtime_ns
            if self._recoveries[0] != mark:
                recorded = yaml.read_mapping(path).get("recorded") or {}
                self._recoveries = mark, recoveries_in(recorded.get("history") or ())
            return self._recoveries[1]
        return []

    def _checkpoint(self) -> tuple[str, float] | None:
        with suppress(OSError):
            saved = checkpoints.newest(self.directory)
            return None if saved is None else (saved.name, max(0.0, time() - saved.stat().st_mtime))
        return None


def newest_lines(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """(the newest report, the newest one with an evaluation) in metrics.jsonl; empty where there is none."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - TAIL))
            texts = file.read().splitlines()
    except OSError:
        return {}, {}
    lines = list[dict[str, Any]]()
    for text in texts:  # the first may be cut, and the last not whole yet
        with suppress(ValueError):
            if isinstance(line := json.loads(text), dict):
                lines.append(line)
    tested = [line for line in lines if is_evaluated(line)]
    return (lines[-1] if lines else {}), (tested[-1] if tested else {})


def runs_in(path: Path) -> list[Path]:
    """The run directories that a path stands for: itself, or the runs in a folder of runs."""
    if holds_run(path) or not path.is_dir():
        return [path]
    return sorted(each for each in path.iterdir() if each.is_dir() and holds_run(each)) or [path]


def is_place(path: Path) -> bool:
    """Whether what exists at a path is a run, a folder of runs or an empty folder, in which one may still begin."""
    if not path.is_dir():
        return False
    inside = [*path.iterdir()]
    return not inside or any(holds_run(each) or (each / LOCK).exists() for each in (path, *inside))


def holds_run(path: Path) -> bool:
    """Whether a directory has the files of a run."""
    return any((path / name).exists() for name in (NOW, SCENARIO, SUMMARY))


def _lives(process: int) -> bool:
    """Whether a process of this host has not ended."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # another user's
        return True
    return True
