"""Exceptions, kills and pauses at each moment, on rank 0 and others, with each MPI: what is documented happens.

Each pair of values of two of these occurs at least once.
"""

from __future__ import annotations

import itertools
import random
from pathlib import Path
from typing import Any

from .form import Found, Trial
from .job import Hangs, begin, summary, whole
from .ranks import MODES, Mode
from .scenarios import ROUNDS, SAVES, WORKERS, scenario

COUNT = 30
PAUSE = 3.0  # seconds, longer than the deadline
FACTORS: dict[str, tuple[str, ...]] = {
    "fault": ("exception", "loss", "pause"),
    "during": ("computing", "exchange", "evaluation", "checkpoint", "start"),
    "rank": ("0", "other"),
    "MPI": ("ULFM", "Open MPI", "MPICH"),
}
STARTED: dict[str, Mode] = dict(zip(FACTORS["MPI"], MODES.values(), strict=False))
Case = dict[str, str]


def cases(random_: random.Random, count: int) -> list[Case]:
    """So many cases, in which each pair of values of two factors occurs as early as possible."""
    every = [dict(zip(FACTORS, values, strict=True)) for values in itertools.product(*FACTORS.values())]
    random_.shuffle(every)
    missing = set().union(*map(_pairs, every))
    chosen = list[Case]()
    while every and len(chosen) < count:
        best = max(every, key=lambda case: len(_pairs(case) & missing))
        every.remove(best)
        missing -= _pairs(best)
        chosen.append(best)
    return chosen


def _pairs(case: Case) -> set[frozenset[tuple[str, str]]]:
    return {frozenset(pair) for pair in itertools.combinations(case.items(), 2)}


def documented(case: Case) -> str:
    """What the documentation says (docs/faults.md): shrink, restart, or goes on."""
    if case["fault"] == "pause":
        return "goes on"
    return "shrink" if case["MPI"] == "ULFM" and case["rank"] == "other" else "restart"


def measure(trial: Trial) -> Found:
    random_ = random.Random(trial.seed)
    expected = whole(trial.folder / "whole", scenario())["params_sha256"]
    found = Found()
    for number, case in enumerate(cases(random_, trial.count)):
        row: dict[str, Any] = {**case, "documented": documented(case)}
        try:
            row |= _one(trial.folder / str(number), case, random_, expected)
        except Hangs as hangs:
            trial.tell(f"{number}, {case}: {hangs}")
            row |= {"found": "hangs"}
        found.rows.append(row)
    found.all_of(
        "each pair of values comes to the documented end", (row["found"] == row["documented"] for row in found.rows)
    )
    paused = [row for row in found.rows if row["fault"] == "pause"]
    found.all_of("a paused rank is named", (row.get("named", False) for row in paused))
    same = (row.get("same bits", False) for row in found.rows if row["documented"] != "shrink")
    found.all_of("paused and restarted runs end with the bits of one without faults", same)
    return found


def _one(folder: Path, case: Case, random_: random.Random, expected: str) -> dict[str, Any]:
    rank = 0 if case["rank"] == "0" else random_.randrange(1, WORKERS)
    round = 0 if case["during"] == "start" else random_.randrange(SAVES, ROUNDS - SAVES)
    fault: dict[str, Any] = {"name": case["fault"], "worker": rank, "at": f"{round} rounds", "during": case["during"]}
    if case["fault"] == "pause":
        fault["duration"] = f"{PAUSE} s"
    mode = STARTED[case["MPI"]]
    with begin(folder, scenario(recovery=mode.recovery, faults=[fault]), kind=mode.kind) as job:
        status = job.end()
        named = job.heard(f"rank {rank} (worker {rank}, host ") is not None
    told = summary(folder)
    how = ", ".join(each["how"] for each in told.get("recoveries", []))
    ended = (how or "goes on") if status == 0 else f"status {status}: {job.last}"
    return {"found": ended, "named": named, "same bits": told.get("params_sha256") == expected}
