"""After kill -9 of everything, or of the launcher alone, a resumed run ends with the bits of one that was not killed.

Half of the moments are while a checkpoint is written. A run that has no checkpoint yet is begun again. The next start
leaves nothing of the killed one in the temporary folder and in /dev/shm.
"""

from __future__ import annotations

import json
import os
import random
import signal
import time
from pathlib import Path
from typing import Any

from paceline.records.checkpoints import newest
from paceline.records.directory import CHECKPOINTS, METRICS

from .form import Found, Trial
from .job import Hangs, Job, begin, resume, summary, whole
from .scenarios import REPORTS, ROUNDS, SAVES, scenario

COUNT = 20
MOMENTS = ("training", "checkpoint", "checkpoint", "training", "checkpoint", "start")
START = 2.0  # seconds within which a training begins


def measure(trial: Trial) -> Found:
    random_ = random.Random(trial.seed)
    whole(trial.folder / "whole", scenario())
    expected = told_by(trial.folder / "whole")
    found = Found()
    for number in range(trial.count):
        row = {"moment": MOMENTS[number % len(MOMENTS)], "killed": "launcher" if number % 5 == 4 else "everything"}
        folder = trial.folder / str(number)
        try:
            found.rows.append(row | _one(folder, random_, row["moment"], row["killed"], expected))
        except Hangs as hangs:
            trial.tell(f"{number}: {hangs}")
            found.rows.append(row | {"same bits": False})
    found.all_of("nothing outlives the launcher", (row["all ended"] for row in found.rows if "all ended" in row))
    found.all_of("the resumed run ends bit-equal, with the same report lines", (row["same bits"] for row in found.rows))
    found.all_of("nothing is left in the temporary folder and /dev/shm", (row.get("left") == 0 for row in found.rows))
    return found


def _one(folder: Path, random_: random.Random, moment: str, killed: str, expected: Any) -> dict[str, Any]:
    with begin(folder, scenario()) as job:
        _wait(job, moment, random_)
        made = job.folders()
        if killed == "launcher":
            os.kill(job.process.pid, signal.SIGKILL)
            ended = _ends(job)
        else:
            ended = True
        job.kill_all()
    saved = newest(folder / "run")
    row: dict[str, Any] = {"all ended": ended, "saved": saved.name if saved else None}
    with (
        resume(folder) if saved else Job(folder, "train", "scenario.yaml", "--out", "run", "--quiet", "--force") as job
    ):
        status = job.end()
    left = [path for path in {*made, *(folder / "tmp").iterdir()} if path.exists()]
    return row | {"status": status, "same bits": told_by(folder) == expected, "left": len(left)}


def _wait(job: Job, moment: str, random_: random.Random) -> None:
    """Return at the moment: training, checkpoint or start."""
    if moment == "start":
        time.sleep(random_.uniform(0.0, START))
        return
    job.until_reports(random_.randrange(1, ROUNDS // REPORTS - SAVES // REPORTS))
    if moment == "checkpoint":
        folder = job.run / CHECKPOINTS
        job.until(lambda: [*folder.glob(".round_*.partial")])
        time.sleep(random_.uniform(0.0, 0.004))
    else:
        time.sleep(random_.uniform(0.0, 0.05))


def _ends(job: Job) -> bool:
    """Whether all processes of a job whose launcher was killed end by themselves, within a few seconds."""
    limit = time.time() + 15
    while job.living():
        if time.time() > limit:
            return False
        time.sleep(0.05)
    return True


def told_by(folder: Path) -> tuple[Any, list[str]]:
    """What equal runs have in common: the parameters, and the report lines without their clock."""
    path = folder / "run" / METRICS
    lines = [_without_clock(line) for line in path.read_text().splitlines()] if path.exists() else []
    return summary(folder).get("params_sha256"), lines


def _without_clock(line: str) -> str:
    return json.dumps({key: value for key, value in json.loads(line).items() if key != "seconds"})
