"""Four ranks train for half an hour through random slow-downs and five kills: memory stays flat, and replicas agree.

The count is the number of minutes. After each kill the ranks restart. Resident memory is read every two seconds from
outside. Its slope is that of a straight line through the second half of a process's life, for those that lived for two
minutes or more.
"""

from __future__ import annotations

import random
import statistics
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

from .form import Found, Trial
from .job import Hangs, Job, begin, summary
from .scenarios import ROUNDS, WORKERS, scenario

COUNT = 30
KILLS, SLOWDOWNS = 5, 20
LOOK = 2.0  # seconds
SHORT = 120.0  # seconds that a process must have lived
STEEP = 10.0  # MiB an hour
MIB = 1 << 20
MOMENTS = ("computing", "exchange", "evaluation", "checkpoint")
RECOVERY = {"max_restarts": KILLS}
Sizes = dict[int, list[tuple[float, float]]]  # process -> (seconds, MiB)


def measure(trial: Trial) -> Found:
    random_, found = random.Random(trial.seed), Found()
    rounds = round(60 * trial.count / _pace(trial.folder / "pace"))
    folder = trial.folder / "soak"
    sizes: Sizes = defaultdict(list)
    with begin(folder, _scenario(rounds, random_)) as job:
        try:
            _watch(job, sizes, 3 * 60 * trial.count)
            status: int | None = job.end()
        except Hangs as hangs:
            trial.tell(str(hangs))
            status = None
        trial.tell(job.text)
    told = summary(folder)
    for process, size in sizes.items():
        slope = _slope(size)
        found.rows.append(
            {"process": process, "seconds": size[-1][0] - size[0][0], "MiB": size[-1][1], "MiB an hour": slope}
        )
    recoveries = told.get("recoveries", [])
    found.all_of("the training comes to its end", [status == 0])
    found.all_of(
        f"{KILLS} kills, each followed by a recovery", [sum(each["how"] != "join" for each in recoveries) == KILLS]
    )
    found.all_of("the replicas agree at the end", [bool(told.get("replicas_agree"))])
    slopes = [row["MiB an hour"] for row in found.rows if row["MiB an hour"] is not None]
    found.median("growth of a process's memory, MiB an hour", slopes, STEEP)
    return found


def _scenario(rounds: int, random_: random.Random) -> dict[str, Any]:
    faults: list[dict[str, Any]] = []
    for at in sorted(random_.sample(range(rounds // 20, rounds - rounds // 20), KILLS)):
        worker, during = random_.randrange(WORKERS), random_.choice(MOMENTS)
        faults.append({"name": "loss", "worker": worker, "at": f"{at} rounds", "during": during})
    for _ in range(SLOWDOWNS):
        start, worker = random_.randrange(rounds - rounds // 50), random_.randrange(WORKERS)
        window = {"start": f"{start} rounds", "end": f"{start + rounds // 100 + 1} rounds"}
        faults.append({"name": "slowdown", "worker": worker, "factor": random_.uniform(1.5, 6.0), **window})
    return scenario(
        rounds=rounds,
        recovery=RECOVERY,
        faults=faults,
        report={"every": "50 rounds"},
        checkpoint={"every": "200 rounds", "keep": 3},
    )


def _pace(folder: Path) -> float:
    """Seconds of a round."""
    with begin(folder, scenario(report={"every": "50 rounds"}, checkpoint={"every": "200 rounds"})) as job:
        job.end()
    return float(summary(folder)["seconds"]) / ROUNDS


def _watch(job: Job, sizes: Sizes, seconds: float) -> None:
    """Read the ranks' memory until the job has ended. Hangs where that takes too long."""
    begun = time.monotonic()
    while job.process.poll() is None:
        now = time.monotonic() - begun
        if now > seconds:
            raise Hangs(f"no end after {seconds:.0f} s; the job said: {job.last}")
        for process in job.processes_of_ranks():
            if (size := _resident(process)) is not None:
                sizes[process].append((now, size))
        time.sleep(LOOK)


def _resident(process: int) -> float | None:
    """MiB in memory; None where the process has ended."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 / MIB for line in lines if line.startswith("VmRSS:")), None)


def _slope(size: list[tuple[float, float]]) -> float | None:
    """MiB an hour; None where the process lived too short a time to say."""
    first, last = size[0][0], size[-1][0]
    if last - first < SHORT:
        return None
    kept = [each for each in size if each[0] >= (first + last) / 2]
    seconds, sizes = zip(*kept, strict=True)
    return 3600 * statistics.linear_regression(seconds, sizes).slope
