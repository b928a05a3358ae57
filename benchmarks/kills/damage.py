"""Where the newest checkpoint is damaged, a resumed run says so and goes on from the one before, to the same bits."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

from paceline.records.checkpoints import META, finished
from paceline.records.directory import SUMMARY

from .everything import told_by
from .form import Found, Trial
from .job import Hangs, resume, whole
from .scenarios import scenario

COUNT = 10  # of the ways below
Damage = Callable[[Path, Path, random.Random], None]  # (the newest checkpoint, the one before it, where)
WORKER = "worker_1.safetensors"


def _cut(newest: Path, before: Path, random_: random.Random) -> None:
    os.truncate(newest / WORKER, random_.randrange((newest / WORKER).stat().st_size))


def _empty(newest: Path, before: Path, random_: random.Random) -> None:
    (newest / WORKER).write_bytes(b"")


def _flip(newest: Path, before: Path, random_: random.Random) -> None:
    """One bit of one byte."""
    content = bytearray((newest / WORKER).read_bytes())
    content[random_.randrange(len(content))] ^= 1 << random_.randrange(8)
    (newest / WORKER).write_bytes(content)


def _longer(newest: Path, before: Path, random_: random.Random) -> None:
    with (newest / WORKER).open("ab") as file:
        file.write(b"\0")


def _gone(newest: Path, before: Path, random_: random.Random) -> None:
    (newest / WORKER).unlink()


def _other(newest: Path, before: Path, random_: random.Random) -> None:
    """The same worker's file of an earlier checkpoint."""
    shutil.copy(before / WORKER, newest / WORKER)


def _swapped(newest: Path, before: Path, random_: random.Random) -> None:
    """Another worker's file of the same checkpoint."""
    shutil.copy(newest / "worker_2.safetensors", newest / WORKER)


def _meta_cut(newest: Path, before: Path, random_: random.Random) -> None:
    os.truncate(newest / META, random_.randrange(1, (newest / META).stat().st_size))


def _meta_changed(newest: Path, before: Path, random_: random.Random) -> None:
    """A number of the state, in a file that is valid otherwise."""
    document = json.loads((newest / META).read_text())
    document["state"]["step"] += 1
    (newest / META).write_text(json.dumps(document))


def _a_folder(newest: Path, before: Path, random_: random.Random) -> None:
    """A folder in the place of the file."""
    (newest / WORKER).unlink()
    (newest / WORKER).mkdir()


WAYS: dict[str, Damage] = {
    "a worker's file cut": _cut,
    "a worker's file empty": _empty,
    "a bit flipped": _flip,
    "a byte added": _longer,
    "a worker's file gone": _gone,
    "a worker's file of the checkpoint before": _other,
    "another worker's file": _swapped,
    "meta.json cut": _meta_cut,
    "meta.json changed": _meta_changed,
    "a folder instead of a file": _a_folder,
}


def measure(trial: Trial) -> Found:
    random_ = random.Random(trial.seed)
    base = trial.folder / "whole"
    whole(base, scenario())
    expected = told_by(base)
    *_, before, newest, last = finished(base / "run")
    shutil.rmtree(last)  # of the run's end: without it there is something left to train
    (base / "run" / SUMMARY).unlink()
    found = Found()
    for number, (what, damage) in enumerate([*WAYS.items()][: trial.count]):
        folder = trial.folder / str(number)
        shutil.copytree(base, folder)
        damage(
            folder / "run" / newest.relative_to(base / "run"),
            folder / "run" / before.relative_to(base / "run"),
            random_,
        )
        said, same = False, False
        with resume(folder) as job:
            try:
                job.end()
                said = newest.name in job.text and f"the run goes on from {before.name}" in job.text
                same = told_by(folder) == expected
            except Hangs as hangs:
                trial.tell(f"{what}: {hangs}")
        found.rows.append({"damage": what, "said": said, "same bits": same})
    found.all_of("the damage is said, and where the run goes on", (row["said"] for row in found.rows))
    found.all_of(
        "it ends with the bits of a run that goes on from the older one", (row["same bits"] for row in found.rows)
    )
    return found
