"""What one command has written into a run's directory, next to what earlier ones have left there."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from .records import checkpoints
from .records.directory import SCENARIO, SUMMARY
from .resuming import history_of
from .training import Training

_Stamp = tuple[int, int] | None  # of a file


class Written(NamedTuple):
    """What this command has written into a run's directory."""

    begun: bool  # the run's scenario
    saved: bool  # a checkpoint
    finished: bool  # the results


class Files:
    """The files of a directory before this command has begun; an earlier run may have left some."""

    def __init__(self, training: Training) -> None:
        self._directory = training.directory
        self._before = self._stamps()
        self.parts = len(history_of(training.directory)) if training.resumes else 0  # of the run that goes on

    def written(self) -> Written:
        """What is there now and was not there before, or was another file."""
        now = self._stamps()
        begun, saved, finished = (new is not None and new != old for new, old in zip(now, self._before, strict=True))
        return Written(begun, saved, finished)

    def _stamps(self) -> tuple[_Stamp, _Stamp, _Stamp]:
        saved = checkpoints.newest(self._directory)
        meta = None if saved is None else _stamp(saved / checkpoints.META)
        return _stamp(self._directory / SCENARIO), meta, _stamp(self._directory / SUMMARY)


def _stamp(path: Path) -> _Stamp:
    """What tells a file from another one of this name; None where there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns
