"""The folders in which a scenario's relative paths and modules are found."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

from .config.recorded import RecordedFolder
from .config.scenario import Scenario
from .program.errors import ScenarioError
from .program.import_paths import named
from .runtime.hosts import own_names

DEFAULT = "default"  # the entry of hosts that have none of their own


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


def look_for_modules(scenario: Scenario, folder: Path) -> None:
    """Let Python find the modules that the scenario names (package.module:Name) in the folders of its files."""
    described = (*(part.model_dump() for part in (scenario.workload, scenario.strategy, *scenario.callbacks)),)
    if _names_code(described):
        sys.path.extend(
            str(path) for path in folders_of(scenario, folder) if path.is_dir() and str(path) not in sys.path
        )


def _names_code(document: Any) -> bool:
    """Whether a text in the document, or a key, may be an import path."""
    if isinstance(document, str):
        return named(document)
    if isinstance(document, dict):
        return any(map(_names_code, document)) or any(map(_names_code, document.values()))
    return isinstance(document, list | tuple) and any(map(_names_code, document))


def find(path: Path, folders: Iterable[Path]) -> Path:
    """A path of a scenario in the first of its folders that has it; unchanged where no folder has it."""
    return next((found for folder in folders if (found := folder / path).exists()), path)


def of_this_host(path: Any, key: str, own: bool = False) -> Any:
    """A path of a scenario that may be given by host: {HOST: path, default: path}. Anything else is unchanged.

    key: the scenario's. own: the path goes to a user's function, which may take a mapping for something else: it is by
        host if it has a default. Elsewhere, {train: FILE, test: FILE} alone is not by host.

    Raises ScenarioError if the mapping names neither this host nor a default.
    """
    if not isinstance(path, dict) or set(path) == {"train", "test"} or (own and DEFAULT not in path):
        return path
    for name in (*own_names(), DEFAULT):
        if name in path:
            return path[name]
    raise ScenarioError(
        f"{key}: has no path for host {own_names()[0]}, only for {', '.join(map(str, path))}; add one, or default: PATH"
    )
