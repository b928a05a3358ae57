"""Replacing a run: what may be removed, and where the earlier run stays until the new one has finished.

Rules: only the files of a run are removed, and a run is known by a scenario.yaml with `recorded:`. Nothing else in the
folder is touched, and no symbolic link is followed. The earlier run moves into `.replaced-N` in the same folder, so
nothing is copied, and nothing is removed before the new run has finished.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ..config import yaml
from ..program.errors import PacelineError, ScenarioError, one_line
from .directory import CHECKPOINTS, EVENTS, FILES, FOLDERS, LOCK, REPORT, SCENARIO, SUMMARY, is_report

_CHECKPOINT = re.compile(r"round_\d{6,}|\.round_\d{6,}\.partial")
_CHECKPOINT_FILE = re.compile(r"meta\.json|worker_\d+\.safetensors|\.(meta\.json|worker_\d+\.safetensors)\.partial")
_ASIDE = re.compile(r"\.replaced-(\d+)")


def refuse(directory: Path, force: bool, inputs: Iterable[Path] = ()) -> None:
    """ScenarioError where a run must not or cannot be written to `directory`. Nothing is touched.

    inputs: files that the run needs, such as its scenario. It must not replace them.
    """
    if directory.exists() and not directory.is_dir():
        raise ScenarioError(f"{directory}: is a file; name a folder with --out")
    outer = _run_around(directory)
    if outer is not None:
        raise ScenarioError(f"{directory}: is part of the run in {outer}; name another folder with --out")
    if directory.is_dir() and any(path.name != LOCK for path in directory.iterdir()):
        if not force:
            raise ScenarioError(
                f"{directory}: is not empty; write --force to replace the run in it, or name another folder with --out"
            )
        _check(directory)
        parts = [part.resolve() for part in (*_parts(directory), *set_aside(directory))]
        for path in inputs:
            if not {path.resolve(), *path.resolve().parents}.isdisjoint(parts):
                raise ScenarioError(
                    f"{path}: --force would replace it, but the run needs it; name another folder with --out"
                )
    there = next(parent for parent in (directory, *directory.absolute().parents) if parent.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise ScenarioError(f"{directory}: cannot be made in {there}; name another folder with --out")


def prepare(directory: Path, force: bool, inputs: Iterable[Path] = ()) -> Path:
    """Make `directory` ready for a new run, unless `refuse` refuses: an earlier run is set aside in it."""
    refuse(directory, force, inputs)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        if parts := _parts(directory):
            _move(parts, directory, _free_place(directory))
    except OSError as error:
        raise ScenarioError(f"{directory}: cannot be made: {error.strerror}") from None
    return directory


def discard(directory: Path) -> None:
    """Remove the earlier runs, now that the new one has finished."""
    for aside in set_aside(directory):
        _remove(aside)
        with suppress(OSError):  # other files in it stay
            aside.rmdir()


def put_back(directory: Path) -> str:
    """Put the earlier run back after a run that did not finish, unless that one can be resumed.

    Returns a line that says where the earlier run is in that case, else an empty text.
    """
    earlier = set_aside(directory)
    if not earlier:
        return ""
    if (directory / SUMMARY).exists() or any((directory / CHECKPOINTS).glob("round_*/meta.json")):
        return f"the run that was in {directory} stays in {earlier[-1]} until the new one has finished"
    _remove(directory)
    _move(_parts(earlier[-1])[::-1], earlier[-1], directory)
    with suppress(OSError):
        earlier[-1].rmdir()
    return ""


@contextmanager
def putting_back(directory: Path | None) -> Iterator[None]:
    """Around a new run, once the earlier one is set aside: calls `put_back` where the new run does not finish."""
    try:
        yield
    except BaseException as error:
        line = "" if directory is None else put_back(directory)
        if line and isinstance(error, PacelineError):
            error.args = (one_line(f"{error}; {line}"),)
        elif line:
            error.add_note(f"paceline: {line}")
        raise


def set_aside(directory: Path) -> list[Path]:
    """The folders of the earlier runs of this directory, the oldest first."""
    real = [path for path in directory.glob(".replaced-*") if path.is_dir() and not path.is_symlink()]
    found = [(int(match[1]), path) for path in real if (match := _ASIDE.fullmatch(path.name))]
    return [path for _, path in sorted(found)]


def _free_place(directory: Path) -> Path:
    taken = [int(path.name.rpartition("-")[2]) for path in set_aside(directory)]
    place = directory / f".replaced-{max(taken, default=0) + 1}"
    place.mkdir()
    return place


def is_run(directory: Path) -> bool:
    """Whether a directory holds a run, finished or not."""
    path = directory / SCENARIO
    if path.is_symlink() or not path.is_file():
        return False
    try:
        return isinstance(yaml.read_mapping(path).get("recorded"), dict)
    except ScenarioError:
        return False


def _run_around(directory: Path) -> Path | None:
    """The run that a directory belongs to, for example as its folder of checkpoints."""
    path = Path(os.path.abspath(directory))
    inner = (part.parent for part in (path, *path.parents) if part.name in FOLDERS or _ASIDE.fullmatch(part.name))
    return next((run for run in inner if is_run(run)), None)


def _parts(directory: Path) -> list[Path]:
    """Everything that runs wrote into a directory. scenario.yaml, which makes it known as a run, comes last."""
    files = [path for name in reversed(FILES) for path in (directory / f".{name}.partial", directory / name)]
    folders = [directory / name for name in FOLDERS if not (directory / name).is_symlink()]
    inner = [path for folder in folders if folder.is_dir() for path in folder.iterdir() if _written(path)]
    found = [path for path in files if path.is_file() and not path.is_symlink()]
    # Only a report has a name that a user's own file may have as well.
    return inner + [path for path in found if path.name != REPORT or is_report(path)]


def _written(path: Path) -> bool:
    """Whether a run wrote this file or folder into one of its folders."""
    if path.is_symlink():
        return False
    if path.parent.name == EVENTS:
        return path.name.startswith("events.out.tfevents.")
    if path.parent.name != CHECKPOINTS:
        return path.name.isdigit()  # of one worker
    return (
        bool(_CHECKPOINT.fullmatch(path.name))
        and path.is_dir()
        and all(_CHECKPOINT_FILE.fullmatch(child.name) for child in path.iterdir())
    )


def _check(directory: Path) -> None:
    """ScenarioError where --force would remove what no run wrote."""
    places = {directory / name: name in FOLDERS for name in (*FILES, *FOLDERS)}
    places |= {path: True for path in directory.glob(".replaced-*") if _ASIDE.fullmatch(path.name)}
    checkpoints = directory / CHECKPOINTS
    if checkpoints.is_dir() and not checkpoints.is_symlink():
        places |= {path: True for path in checkpoints.iterdir() if _CHECKPOINT.fullmatch(path.name)}
    for path, folder in places.items():
        if path.is_symlink():
            raise ScenarioError(
                f"{path}: --force does not follow symbolic links; remove it, or name another folder with --out"
            )
        if path.exists() and (path.is_dir() != folder or (path.parent == checkpoints and not _written(path))):
            raise ScenarioError(f"{path}: no run wrote all of this; move it away, or name another folder with --out")
    named = [path for path in _parts(directory) if not path.name.startswith(".")]
    if named and not is_run(directory):
        raise ScenarioError(
            f"{named[-1]}: may be yours: --force only replaces a run, which has a {SCENARIO} with `recorded`; "
            "move it away, or name another folder with --out"
        )


def _move(paths: Iterable[Path], source: Path, target: Path) -> None:
    for path in paths:
        place = target / path.relative_to(source)
        place.parent.mkdir(exist_ok=True)
        path.replace(place)
    _remove_empty_folders(source)


def _remove(directory: Path) -> None:
    for path in _parts(directory):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    _remove_empty_folders(directory)


def _remove_empty_folders(directory: Path) -> None:
    for folder in (directory / name for name in FOLDERS):
        if folder.is_dir() and not folder.is_symlink() and not any(folder.iterdir()):
            folder.rmdir()
