"""Checkpoints: `checkpoints/round_000012/` with one safetensors file per worker and meta.json, whole or absent.

Workers write into a folder with a temporary name; when all have, it is renamed. Nothing is unpickled.
"""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from ..algorithms.effects import Array
from ..algorithms.errors import ScenarioError
from .directory import CHECKPOINTS, to_json, write_atomically


def _folder(directory: Path, round: int) -> tuple[Path, Path]:
    """(final name, temporary name) of the checkpoint after `round` rounds."""
    name = f"round_{round:06d}"
    return directory / CHECKPOINTS / name, directory / CHECKPOINTS / f".{name}.partial"


def write_worker(directory: Path, worker: int, round: int, arrays: dict[str, Array]) -> None:
    """Write one worker's arrays into the unfinished checkpoint of `round`."""
    _, partial = _folder(directory, round)
    partial.mkdir(parents=True, exist_ok=True)
    write_atomically(partial / f"worker_{worker}.safetensors", save(arrays))


def commit(directory: Path, workers: int, state: Any, seconds: float) -> Path:
    """Finish the checkpoint that all workers have written into; returns its folder."""
    final, partial = _folder(directory, state.round)
    meta = {"workers": workers, "seconds": seconds, "state": dataclasses.asdict(state)}
    write_atomically(partial / "meta.json", to_json(meta, indent=1).encode())
    if final.exists():  # an earlier try at the same round, before a resume: equal by construction
        for file in partial.iterdir():
            file.replace(final / file.name)
        partial.rmdir()
    else:
        partial.replace(final)
    _fsync_folder(final.parent)
    return final


def newest(directory: Path) -> Path | None:
    """The newest finished checkpoint of a run."""
    found = sorted((directory / CHECKPOINTS).glob("round_*/meta.json"))
    return found[-1].parent if found else None


def read_meta(checkpoint: Path) -> dict[str, Any]:
    """workers, seconds and state of a finished checkpoint."""
    try:
        return dict(json.loads((checkpoint / "meta.json").read_text()))
    except (OSError, ValueError) as error:
        raise ScenarioError(f"{checkpoint / 'meta.json'}: cannot be read: {error}") from None


def read_worker(checkpoint: Path, worker: int) -> dict[str, Array]:
    """One worker's arrays."""
    path = checkpoint / f"worker_{worker}.safetensors"
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise ScenarioError(f"{path}: cannot be read: {error}") from None


def _fsync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
