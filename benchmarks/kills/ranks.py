"""One of four ranks, or mpirun itself, is killed at a random moment: the training goes on without a person.

A moment is the next computation, exchange, evaluation or checkpoint after a random round, or it lies in the start of
the ranks, or anywhere.
"""

from __future__ import annotations

import os
import random
import signal
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from paceline.records.directory import STRUCK
from paceline.runtime.ranks import MpiKind

from .form import Found, Trial
from .job import Hangs, Job, begin, summary, whole
from .scenarios import REPORTS, ROUNDS, SAVES, WORKERS, scenario

COUNT = 50
MOMENTS = ("computing", "exchange", "evaluation", "checkpoint", "start", "any")
FROM_OUTSIDE = ("start", "any")  # the others are in the scenario's faults
SEEDS = (1, 2, 3)  # of the runs without faults, which say how far final accuracies are apart
START = 1.5  # seconds from the ranks' first processes until they train


@dataclass(frozen=True)
class Mode:
    """How a training is started, and what is killed of it."""

    recovery: dict[str, Any]
    kind: MpiKind = "openmpi"
    mpirun: bool = False  # mpirun is killed instead of a rank

    @property
    def shrinks(self) -> bool:
        """Whether the remaining ranks may go on."""
        return "shrink" in self.recovery


RESTART = {"max_restarts": 3}
MODES = {
    "shrink": Mode({"shrink": True, "min_workers": 2, **RESTART}),
    "restart, Open MPI": Mode(RESTART),
    "restart, MPICH": Mode(RESTART, "mpich"),
    "mpirun, Open MPI": Mode(RESTART, mpirun=True),
    "mpirun, MPICH": Mode(RESTART, "mpich", mpirun=True),
}
# In fifty runs, 20 may shrink, 10 restart with each MPI, and 5 lose the mpirun of each.
ORDER = (
    *("shrink", "restart, Open MPI", "restart, MPICH", "shrink", "mpirun, Open MPI"),
    *("shrink", "restart, Open MPI", "restart, MPICH", "shrink", "mpirun, MPICH"),
)


def measure(trial: Trial) -> Found:
    random_ = random.Random(trial.seed)
    plain = [whole(trial.folder / f"seed {seed}", scenario(seed)) for seed in SEEDS]
    reached = [each["accuracy"] for each in plain]
    found = Found()
    for number in range(trial.count):
        name = ORDER[number % len(ORDER)]
        mode = MODES[name]
        moment = ("any", "start")[random_.randrange(4) // 3] if mode.mpirun else MOMENTS[number % len(MOMENTS)]
        rank, round = random_.randrange(WORKERS), random_.randrange(1, ROUNDS - SAVES)
        row = {"mode": name, "moment": moment, "rank": None if mode.mpirun else rank, "round": round}
        try:
            row |= _one(trial.folder / str(number), mode, moment, rank, round, random_)
        except Hangs as hangs:
            trial.tell(f"{number}, {row}: {hangs}")
            row |= {"status": None, "hangs": True}
        row["same bits"] = row.get("sha256") == plain[0]["params_sha256"]
        found.rows.append({key: value for key, value in row.items() if key != "sha256"})
    _claim(found, reached)
    return found


def _one(folder: Path, mode: Mode, moment: str, rank: int, round: int, random_: random.Random) -> dict[str, Any]:
    """What came of one kill."""
    planned = moment not in FROM_OUTSIDE
    faults = [{"name": "loss", "worker": rank, "at": f"{round} rounds", "during": moment}] if planned else []
    with begin(folder, scenario(recovery=mode.recovery, faults=faults), kind=mode.kind) as job:
        when = None if planned else _kill(job, mode, moment, rank, round, random_)
        status = job.end()
        if when is None:
            when = (folder / "run" / STRUCK).stat().st_mtime
        noticed = job.heard(since=when)
    told = summary(folder)
    recoveries = told.get("recoveries", [])
    return {
        "status": status,
        "noticed after s": None if noticed is None else noticed - when,
        "how": ", ".join(each["how"] for each in recoveries) or None,
        "from round": recoveries[-1]["from_round"] if recoveries else None,
        "rounds lost": sum(each["redone"] for each in recoveries),
        "recovery s": sum(each["seconds"] for each in recoveries),
        "accuracy": told.get("accuracy"),
        "agree": told.get("replicas_agree"),
        "sha256": told.get("params_sha256"),
    }


def _kill(job: Job, mode: Mode, moment: str, rank: int, round: int, random_: random.Random) -> float:
    """Kill a rank or mpirun from outside; when that was."""
    if moment == "start":
        job.until(lambda: rank in job.ranks())
        time.sleep(random_.uniform(0.0, START))
    else:
        job.until_reports(max(1, round // REPORTS))
        time.sleep(random_.uniform(0.0, 0.05))
    victim, when = job.mpirun() if mode.mpirun else job.ranks()[rank], time.time()
    os.kill(victim, signal.SIGKILL)
    return when


def _claim(found: Found, reached: list[float]) -> None:
    rows = found.rows
    found.all_of("it goes on without a person, to the end", (row["status"] == 0 for row in rows))
    found.all_of("nothing hangs", ("hangs" not in row for row in rows))
    found.all_of("the replicas agree at the end", (bool(row.get("agree")) for row in rows))
    ended = [row for row in rows if row["status"] == 0]
    shrunk = [row for row in ended if row["how"] == "shrink"]
    restarted = [row for row in ended if row["how"] and row["how"] != "shrink"]
    found.most("rounds lost where the others go on", [row["rounds lost"] for row in shrunk], 1)
    found.most(
        f"rounds lost with a restart ({SAVES} from checkpoint to checkpoint)",
        [row["rounds lost"] for row in restarted],
        SAVES,
    )
    for what, some, bar in (("ULFM", shrunk, 1.0), ("a restart", restarted, 5.0)):
        seconds = [row["noticed after s"] for row in some if row["noticed after s"] is not None]
        found.median(f"seconds from the kill until it is said, {what}", seconds, bar, " s")
    found.all_of("a restarted run ends with the bits of one without faults", (row["same bits"] for row in restarted))
    low, high = min(reached), max(reached)
    within = [low <= row["accuracy"] <= high for row in ended]
    found.all_of(f"final accuracy within those of three seeds without faults, {low:.4f} to {high:.4f}", within)
    lost = [row["accuracy"] - statistics.mean(reached) for row in shrunk]
    if lost:
        found.most("final accuracy below the mean of those seeds, after a shrink", [-each for each in lost], 0.02)
