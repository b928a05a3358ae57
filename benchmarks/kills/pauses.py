"""A rank that SIGSTOP stops is named within its deadline, and after SIGCONT the run goes on to the same bits.

The deadline is 2 s at least: a rank looks every quarter of a second, and names those from which it has no sign of life.
"""

from __future__ import annotations

import os
import random
import signal
import time
from typing import Any

from .form import Found, Trial
from .job import Hangs, Job, begin, summary, whole
from .scenarios import FLOOR, REPORTS, ROUNDS, WORKERS, scenario

COUNT = 10
LOOKS = 0.5  # seconds: the others begin to wait, and look


def measure(trial: Trial) -> Found:
    random_ = random.Random(trial.seed)
    expected = whole(trial.folder / "whole", scenario())["params_sha256"]
    found = Found()
    for number in range(trial.count):
        rank, reports = random_.randrange(WORKERS), random_.randrange(1, ROUNDS // REPORTS - 5)
        row: dict[str, Any] = {"rank": rank, "after round": reports * REPORTS, "named after s": None, "went on": False}
        folder = trial.folder / str(number)
        with begin(folder, scenario()) as job:
            try:
                row["named after s"] = _stopped(job, rank, reports)
                row["went on"] = job.end() == 0 and "the run goes on" in job.text
            except Hangs as hangs:
                trial.tell(f"{number}: {hangs}")
        row["same bits"] = summary(folder).get("params_sha256") == expected
        found.rows.append(row)
    named = [row["named after s"] for row in found.rows]
    found.all_of("a stopped rank is named, with its host", (seconds is not None for seconds in named))
    found.most("within the deadline of 2 s, in s", [each for each in named if each is not None], FLOOR + LOOKS, " s")
    found.all_of("after SIGCONT it goes on by itself", (row["went on"] for row in found.rows))
    found.all_of("to the same bits as without a stop", (row["same bits"] for row in found.rows))
    return found


def _stopped(job: Job, rank: int, reports: int) -> float:
    """Seconds from SIGSTOP of a rank until a line names it."""
    job.until_reports(reports)
    process, begin = job.ranks()[rank], time.time()
    os.kill(process, signal.SIGSTOP)
    try:
        words = f"rank {rank} (worker {rank}, host "
        heard: float = job.until(lambda: job.heard(words, begin), 10 * FLOOR)
    finally:
        os.kill(process, signal.SIGCONT)
    return heard - begin
