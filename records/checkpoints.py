"""Checkpoints: `checkpoints/round_000012/` with one safetensors file per worker and meta.json, whole or absent.

Workers write into a folder with a temporary name; when all have, it is renamed. Nothing is unpickled.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from pathlib import Path
from typing import Any, Literal

from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from ..algorithms.effects import Array
from ..algorithms.errors import ScenarioError
from .directory import CHECKPOINTS, to_json, write_atomically

Kept = Literal["local", "shared", "none"]  # see config.scenario.CheckpointSpec
OPTIMIZER = "optimizer."  # begins the names of the optimizer's arrays in workers' snapshots


def _folder(directory: Path, round: int) -> tuple[Path, Path]:
    """(final name, temporary name) of the checkpoint after `round` rounds."""
    name = f"round_{round:06d}"
    return directory / CHECKPOINTS / name, directory / CHECKPOINTS / f".{name}.partial"


def write_worker(directory: Path, worker: int, round: int, arrays: dict[str, Array], optimizer: Kept = "local") -> None:
    """Write one worker's arrays into the unfinished checkpoint of `round`. optimizer: see CheckpointSpec."""
    if optimizer == "none" or (optimizer == "shared" and worker > 0):
        arrays = _without(arrays)
    _, partial = _folder(directory, round)
    partial.mkdir(parents=True, exist_ok=True)
    write_atomically(partial / f"worker_{worker}.safetensors", save(arrays))


def commit(directory: Path, workers: int, state: Any, seconds: float) -> Path:
    """Finish the checkpoint that all workers have written into; returns its folder."""
    final, partial = _folder(directory, state.round)
    meta = {"workers": workers, "seconds": seconds, "state": dataclasses.asdict(state)}
    write_atomically(partial / "meta.json", to_json(meta, indent=1).encode())
    if final.exists():  # the same round again, after a resume: equal by construction
        shutil.rmtree(final)
    partial.replace(final)
    _fsync_folder(final.parent)
    return final


def newest(directory: Path) -> Path | None:
    """The newest finished checkpoint of a run."""
    found = [meta.parent for meta in (directory / CHECKPOINTS).glob("round_*/meta.json")]
    return max(found, key=lambda folder: int(folder.name.removeprefix("round_")), default=None)


def read_meta(checkpoint: Path, workers: int) -> dict[str, Any]:
    """workers, seconds and state of a finished checkpoint. ScenarioError where it is broken or of other workers."""
    path = checkpoint / "meta.json"
    try:
        meta = json.loads(path.read_text())
        found, seconds, state = int(meta["workers"]), float(meta["seconds"]), dict(meta["state"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ScenarioError(f"{path}: is no checkpoint's: {error!r}") from None
    if found != workers:
        raise ScenarioError(f"{checkpoint}: was written by {found} workers; the scenario has {workers}")
    return {"workers": found, "seconds": seconds, "state": state}


def read_worker(checkpoint: Path, worker: int) -> dict[str, Array]:
    """One worker's arrays."""
    path = checkpoint / f"worker_{worker}.safetensors"
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise ScenarioError(f"{path}: cannot be read: {error}") from None


def resumed(checkpoint: Path, worker: int, optimizer: Kept, fresh: dict[str, Array]) -> dict[str, Array]:
    """What a worker resumes with. fresh: the snapshot of a new one, whose optimizer's vectors are zeros.

    ScenarioError where a worker's optimizer is wanted that the checkpoint was written without.
    """
    arrays = read_worker(checkpoint, worker)
    if optimizer == "local":
        source = arrays
    else:
        source = fresh if optimizer == "none" else read_worker(checkpoint, 0)
    found = {name: array for name, array in source.items() if name.startswith(OPTIMIZER)}
    if not found and any(name.startswith(OPTIMIZER) for name in fresh):
        other = "shared for worker 0's, or " if optimizer == "local" else ""
        raise ScenarioError(
            f"{checkpoint}: holds no optimizer's state for worker {worker}; "
            f"write checkpoint.optimizer: {other}none for zeros"
        )
    return _without(arrays) | found


def _without(arrays: dict[str, Array]) -> dict[str, Array]:
    """The arrays but for the optimizer's."""
    return {name: array for name, array in arrays.items() if not name.startswith(OPTIMIZER)}


def _fsync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
