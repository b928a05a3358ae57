"""Checkpoints: folders like `checkpoints/round_000012/`, with meta.json and one safetensors file per worker.

Rule: a checkpoint is whole or absent. Workers write into a folder with a temporary name, which is renamed when all have
written. meta.json holds the SHA-256 of every file, and a file with another SHA-256 is not read. Nothing is unpickled.

Rule: the run goes on from its newest whole checkpoint. A checkpoint is only removed once a newer one is finished.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
import shlex
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from ..program.effects import Array
from ..program.errors import ScenarioError, brief
from .directory import CHECKPOINTS, fsync_folder, to_json, whole_or_absent, write_atomically
from .schemas import CheckpointMeta, read_document

Kept = Literal["local", "shared", "none"]  # whose optimizer state is kept; see config.scenario.CheckpointSpec
OPTIMIZER = "optimizer."  # the names of the optimizer's arrays in a worker's snapshot begin with it
META = "meta.json"


def _folder(directory: Path, round: int) -> tuple[Path, Path]:
    """(final name, temporary name) of the checkpoint after `round` rounds."""
    name = f"round_{round:06d}"
    return directory / CHECKPOINTS / name, directory / CHECKPOINTS / f".{name}.partial"


def write_worker(directory: Path, worker: int, round: int, arrays: dict[str, Array], optimizer: Kept = "local") -> str:
    """Write one worker's arrays into the unfinished checkpoint of `round`; returns the file's SHA-256.

    optimizer: see CheckpointSpec.
    """
    if optimizer == "none" or (optimizer == "shared" and worker > 0):
        arrays = _without(arrays)
    _, partial = _folder(directory, round)
    partial.mkdir(parents=True, exist_ok=True)
    path = partial / _name(worker)
    with whole_or_absent(path) as temporary:
        try:
            save_file(arrays, temporary)  # from where they are: no second copy in memory
        except SafetensorError as error:
            raise OSError(f"{path}: cannot be written: {error}") from error
        temporary.chmod(partial.stat().st_mode & 0o666)  # as other files: save_file lets only the owner read it
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def commit(directory: Path, sha256: Sequence[str], state: Any, seconds: float, subject: Mapping[str, Any] = {}) -> Path:
    """Finish the checkpoint that all workers have written into; returns its folder.

    Checkpoints of later rounds are removed: the run went on from an earlier one, so it is no longer what led to them.

    sha256: of each worker's file. subject: what the run trains; see `paceline/resuming.py`.
    """
    final, partial = _folder(directory, state.round)
    files = {_name(worker): digest for worker, digest in enumerate(sha256)}
    meta: dict[str, Any] = {"workers": len(sha256), "seconds": seconds, "state": dataclasses.asdict(state)}
    meta |= {"subject": dict(subject), "sha256": files}
    files[META] = _digest(meta)
    write_atomically(partial / META, to_json(meta, indent=1).encode())
    if final.exists():  # written before by a run that was resumed from an earlier round
        shutil.rmtree(final)
    partial.replace(final)
    fsync_folder(final.parent)
    fsync_folder(directory)
    for other in _folders(directory):
        if round_of(other) > state.round:
            shutil.rmtree(other)
    return final


@dataclass(frozen=True)
class Retention:
    """Which checkpoints of a run stay.

    keep: so many of the newest.
    passed: how many of the intervals of `keep_every` a state has passed; the first checkpoint of each stays as well.
    """

    keep: int
    passed: Callable[[Mapping[str, Any]], int] = lambda state: 0

    def prune(self, directory: Path) -> None:
        """Remove all others. Called when a checkpoint was finished, which is the newest one."""
        older, seen = finished(directory)[: -self.keep], 0
        for checkpoint in older:
            try:
                passed = self.passed(read_meta(checkpoint)["state"])
            except ScenarioError:  # it is damaged, and a user may want to look at it; the run does not need it
                continue
            if passed <= seen:
                shutil.rmtree(checkpoint)
            seen = max(seen, passed)


def discard_partial(directory: Path) -> None:
    """Remove the unfinished checkpoints that a run has left which was broken off."""
    for path in (directory / CHECKPOINTS).glob(".round_*.partial"):
        shutil.rmtree(path)


def _folders(directory: Path) -> list[Path]:
    """The checkpoints of a run, whole or damaged, the newest last. Other folders, such as a backup, are ignored."""
    found = (directory / CHECKPOINTS).glob("round_*")
    return sorted((path for path in found if re.fullmatch(r"round_\d{6,}", path.name, re.ASCII)), key=round_of)


def round_of(checkpoint: Path) -> int:
    """The number of rounds after which a checkpoint was written."""
    return int(checkpoint.name.removeprefix("round_"))


def finished(directory: Path) -> list[Path]:
    """The finished checkpoints of a run, the newest last. Their files may be damaged."""
    return [path for path in _folders(directory) if (path / META).exists()]


def newest(directory: Path, round: int | None = None) -> Path | None:
    """The newest finished checkpoint of a run; or that of a round."""
    found = [path for path in finished(directory) if round in (None, round_of(path))]
    return found[-1] if found else None


def resume_command(directory: Path, *options: str) -> str:
    """What a user types to go on with a run."""
    return shlex.join(["paceline", "train", "--resume", str(directory), *options])


def go_on(directory: Path, *options: str, round: int | None = None) -> str:
    """What was saved of a run, and how to go on with it. round: from this round's checkpoint."""
    saved = newest(directory, round)
    if saved is None:
        return "no checkpoint was saved"
    options = options if round is None else (f"--round={round}", *options)
    return f"{saved.name} was saved; go on from it with: {resume_command(directory, *options)}"


def whole(directory: Path, round: int | None = None) -> tuple[Path, list[str]]:
    """(the newest whole checkpoint of a run, a line for each newer one, which says what is damaged).

    round: take the one of this round instead. ScenarioError where there is none, or where none is whole.
    """
    found = _folders(directory)
    if not found:
        raise ScenarioError(f"{directory}: the run has no checkpoint; let it train to its end")
    if round is not None:
        chosen = [path for path in found if round_of(path) == round]
        if not chosen:
            raise ScenarioError(
                f"{directory}: has no checkpoint of round {round}; it has {brief([*map(round_of, found)])}"
            )
        found = chosen
    damaged = list[str]()
    for checkpoint in reversed(found):
        try:
            _check(checkpoint)
        except ScenarioError as error:
            damaged.append(str(error))
        else:
            return checkpoint, damaged
    if len(found) > 1:
        damaged[0] += f"; nor is any of the {len(found) - 1} checkpoints before it whole"
    raise ScenarioError(damaged[0])


def _check(checkpoint: Path) -> None:
    """ScenarioError unless all files of a checkpoint are as they were written."""
    meta = read_meta(checkpoint)
    for worker in range(meta["workers"]):
        _verify(checkpoint / _name(worker), meta["sha256"])


def read_meta(checkpoint: Path) -> dict[str, Any]:
    """What a finished checkpoint's meta.json says. ScenarioError where it is not as it was written."""
    path = checkpoint / META
    written = read_document(path, CheckpointMeta)
    meta = CheckpointMeta(**written).model_dump()
    if meta["sha256"] and meta["sha256"].get(META) != _digest(written):
        raise _damaged(path)
    return meta


def read_worker(checkpoint: Path, worker: int, sha256: Mapping[str, str] = {}) -> dict[str, Array]:
    """One worker's arrays. sha256: file name -> the SHA-256 that the file must have, else ScenarioError."""
    path = checkpoint / _name(worker)
    _verify(path, sha256)
    try:
        return load_file(path)
    except (OSError, SafetensorError, ValueError, TypeError, LookupError) as error:
        raise ScenarioError(f"{path}: cannot be read: {error}") from None


def _verify(path: Path, sha256: Mapping[str, str]) -> None:
    """ScenarioError where a file cannot be read, or has another SHA-256 than this says. sha256: by file name."""
    try:
        with path.open("rb") as file:
            if path.name in sha256 and hashlib.file_digest(file, "sha256").hexdigest() != sha256[path.name]:
                raise _damaged(path)
    except OSError as error:
        raise ScenarioError(f"{path}: cannot be read: {error.strerror}") from None


def resumed(
    checkpoint: Path, worker: int, optimizer: Kept, fresh: dict[str, Array], sha256: Mapping[str, str] = {}
) -> dict[str, Array]:
    """The arrays that a worker resumes with. fresh: the snapshot of a new worker, whose optimizer state is zeros.

    ScenarioError where the checkpoint was written without the optimizer state that is wanted.
    """
    arrays = as_kept(lambda source: read_worker(checkpoint, source, sha256), worker, optimizer, fresh)
    if any(name.startswith(OPTIMIZER) for name in fresh) and not any(name.startswith(OPTIMIZER) for name in arrays):
        other = "shared for worker 0's, or " if optimizer == "local" else ""
        raise ScenarioError(
            f"{checkpoint}: holds no optimizer state for worker {worker}; "
            f"write checkpoint.optimizer: {other}none for zeros"
        )
    return arrays


def as_kept(
    read: Callable[[int], dict[str, Array]], worker: int, optimizer: Kept, fresh: dict[str, Array]
) -> dict[str, Array]:
    """The arrays that a worker goes on with, where checkpoints keep the optimizer state of `optimizer`.

    read: what was kept of a worker. fresh: see resumed.
    """
    arrays = read(worker)
    if optimizer == "local":
        return arrays
    source = fresh if optimizer == "none" else read(0)
    return _without(arrays) | {name: array for name, array in source.items() if name.startswith(OPTIMIZER)}


def _without(arrays: dict[str, Array]) -> dict[str, Array]:
    """The arrays without the optimizer's."""
    return {name: array for name, array in arrays.items() if not name.startswith(OPTIMIZER)}


def _name(worker: int) -> str:
    return f"worker_{worker}.safetensors"


def _digest(meta: Mapping[str, Any]) -> str:
    """The SHA-256 of a meta.json's contents, without this SHA-256 itself."""
    others = {name: digest for name, digest in meta["sha256"].items() if name != META}
    return hashlib.sha256(to_json({**meta, "sha256": others}).encode()).hexdigest()


def _damaged(path: Path) -> ScenarioError:
    """The error for a file that is not as it was written."""
    return ScenarioError(f"{path}: is damaged, its SHA-256 is not the one in {META}")
