"""The folders in which a scenario's relative paths and modules are found."""

from __future__ import annotations

import os
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

from .config.recorded import RecordedFolder
from .config.scenario import Scenario


def folders_of(scenario: Scenario, folder: Path) -> tuple[Path, ...]:
    """The folders in which a scenario in `folder` finds its relative paths: its own folder, then the working folder.

    For a run's own scenario, the folders in which the run looked come first.
    """
    try:
        working = os.getcwd()
    except FileNotFoundError:  # it has been removed
        working = ""
    return _folders(scenario.recorded.folders if scenario.recorded else (), folder, working)


@lru_cache(maxsize=64)  # a sweep asks at every point
def _folders(recorded: tuple[RecordedFolder, ...], folder: Path, working: str) -> tuple[Path, ...]:
    earlier = [path for place in recorded for path in (Path(place.path), folder / place.from_run)]
    every = (*earlier, folder, *([Path(working)] if working else []))
    return tuple(dict.fromkeys(Path(os.path.abspath(path)) for path in every))


def find(path: Path, folders: Iterable[Path]) -> Path:
    """A path of a scenario in the first of its folders that has it; unchanged where no folder has it."""
    return next((found for folder in folders if (found := folder / path).exists()), path)
