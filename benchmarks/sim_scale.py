"""How does the cost of a simulation grow with workers and rounds, and what do large ones take?

Local SGD, timing-only. Growth: H = 1, in both engines; seconds are processor time of the engine alone. In each turn
every size runs once, and an exponent is the slope of log seconds over log size, by least squares: 1 is linear. Setting
up is included: a cohort run of few rounds is mostly that.

Large: child processes, everything included. A SimPy run of 4,096 workers and 100 rounds, whose bar is 1 GB. A
`paceline simulate --timing-only` of 1,000,000 workers in 2 classes and 100 rounds (H = 4, noise), whose bars are 90 s
and 4 GB, next to the same rounds written by hand in NumPy (peers/by_hand.py). Bar of the cohort engine's growth from
1,000 to 1,000,000 workers: an exponent of 1.05.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from paceline.config import yaml
from paceline.job import Job

from .cohort import job_of, run
from .form import Measure, Row, compare, growth, rounded, spread
from .harness import Found, Run, alternate, timed
from .peers import by_hand

SECONDS = 200
SIGMA = 0.2
# engine -> numbers of workers, with a middle number of rounds; numbers of rounds, with a middle number of workers
SIZES = {
    "simpy": ((64, 256, 1024, 4096, 16384), (6, 12, 24, 48, 96)),
    "cohort": ((1024, 2048, 4096, 8192, 16384), (200, 400, 800, 1600, 3200)),
}
FAR = (1_000, 10_000, 100_000, 1_000_000)  # workers of the cohort engine, 20 rounds of H = 4
EXPONENT = 1.05
LARGE = {"workers": 1_000_000, "rounds": 100, "H": 4}
LEAST = {"workers": 2_000, "rounds": 5, "H": 4}  # --small
LARGE_SECONDS, LARGE_MB, EVENTS_MB = 90.0, 4000.0, 1000.0


def growths(engine: str, run_: Run) -> list[Row]:
    """The exponents of one engine, over workers and over rounds."""
    workers: tuple[int, ...]
    rounds: tuple[int, ...]
    workers, rounds = SIZES[engine]
    if run_.small:
        workers, rounds = tuple(n // 8 for n in workers), tuple(max(2 + i, r // 8) for i, r in enumerate(rounds))
    middle = workers[len(workers) // 2], rounds[len(rounds) // 2]
    share, rows = run_.share(2), []
    for what, numbers, sizes, given in (
        ("workers", workers, [(n, middle[1]) for n in workers], f"{middle[1]} rounds"),
        ("rounds", rounds, [(middle[0], n) for n in rounds], f"{middle[0]} workers"),
    ):
        taken = by_size({size: (*size, 1) for size in sizes}, engine, share)
        rows.append(growth(f"{engine}, H = 1, noise: more {what} ({given})", f"{engine} engine", numbers, taken))
    return rows


def seconds(job: Job, engine: str) -> float:
    """Of the engine alone."""
    return run(job, engine)[0]


def by_size(sizes: dict[Any, tuple[int, int, int]], engine: str, share: Run) -> list[list[float]]:
    """By turn, the seconds at each size, a (workers, rounds, H)."""
    jobs = {str(size): job_of(workers, 2, H, rounds, SIGMA) for size, (workers, rounds, H) in sizes.items()}
    taken = alternate({name: partial(seconds, job, engine) for name, job in jobs.items()}, share.turns(5))
    return [list(turn) for turn in zip(*taken.values(), strict=True)]


def child(*command: str) -> tuple[float, int, str]:
    """(seconds, peak megabytes, standard output) of a Python process. Its peak begins at what this process holds."""
    begin, (read, write) = perf_counter(), os.pipe()
    with os.fdopen(read) as output, subprocess.Popen([sys.executable, *command], stdout=write) as process:
        os.close(write)
        text = output.read()
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, command
    return perf_counter() - begin, used.ru_maxrss // 1024, text


def large(sizes: dict[str, int], turns: int) -> Found:
    """The command on a large cluster, against NumPy by hand."""
    job = job_of(sizes["workers"], 2, sizes["H"], sizes["rounds"], SIGMA)
    found, peaks = Found(), list[float]()
    step = np.repeat([0.008, 8 / 970], sizes["workers"] // 2)

    def command() -> float:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "scenario.yaml")
            path.write_text(yaml.dump(job.scenario.model_dump(mode="json", exclude_defaults=True)))
            seconds, peak, _ = child(
                "-m", "paceline", "simulate", str(path), "--timing-only", "--out", str(Path(folder, "run"))
            )
            with Path(folder, "run", "summary.json").open() as summary:  # one line of it holds a million numbers
                assert f'"steps": {sizes["rounds"] * sizes["H"]},' in summary.read(200)
        peaks.append(peak)
        return seconds

    ways = {
        "paceline simulate": command,
        "NumPy by hand": lambda: timed(lambda: by_hand.rounds(step, sizes["H"], sizes["rounds"], SIGMA, 1e-4)),
    }
    taken = alternate(ways, iter(range(turns)))
    case = f"{sizes['workers']:,} workers, classes 2, {sizes['rounds']} rounds, H = {sizes['H']}, noise: whole command"
    found.rows.append(compare(case, "paceline simulate", "NumPy by hand", taken, limit="NumPy by hand"))
    bounds: tuple[tuple[str, float, Measure, list[float], str], ...] = (
        ("90 s", LARGE_SECONDS, "time", taken["paceline simulate"], "s"),
        ("4 GB", LARGE_MB, "memory", peaks, "MB"),
    )
    for against, cost, measure, costs, unit in bounds:
        both = {"paceline simulate": costs, against: [cost] * turns}
        found.rows.append(compare(case, "paceline simulate", against, both, measure, bar=1.0, unit=unit))
    return found


def events(workers: int, rounds: int) -> tuple[Row, float]:
    """A SimPy run in a child process: (its peak memory, seconds of the engine alone)."""
    _, peak, text = child("-m", "benchmarks.sim_scale", str(workers), str(rounds))
    taken = {"simpy engine": [float(peak)], "1 GB": [EVENTS_MB]}
    case = f"simpy, {workers:,} workers, {rounds} rounds, H = 1, noise: a process"
    return compare(case, "simpy engine", "1 GB", taken, "memory", bar=1.0, unit="MB"), rounded(float(text))


def measure(run_: Run) -> Found:
    """The memory first, as a child's peak begins at what its parent holds."""
    row, spent = events(*((256, 3) if run_.small else (4096, 100)))
    found = large(LEAST if run_.small else LARGE, 1 if run_.small else 3)
    found.rows.insert(0, row)
    found.figures[f"seconds of the engine: {row.case}"] = spent
    share = run_.share(6)  # about half of the seconds are for the large ones
    for engine in SIZES:
        found.rows += growths(engine, share)
    far = [n // 100 for n in FAR] if run_.small else FAR
    taken = by_size({n: (n, 20, 4) for n in far}, "cohort", share)
    row = growth("cohort, H = 4, noise: 1,000 to 1,000,000 workers, 20 rounds", "cohort engine", far, taken, EXPONENT)
    found.rows.append(row)
    worker_step = [spread(column)[0] / (n * 80) * 1e6 for n, column in zip(far, zip(*taken, strict=True), strict=True)]
    found.figures["us a worker-step, by workers"] = {
        f"{n:,}": rounded(us) for n, us in zip(far, worker_step, strict=True)
    }
    return found


def main() -> None:
    """The child of `events`."""
    workers, rounds = map(int, sys.argv[1:])
    seconds, outcomes = run(job_of(workers, 2, 1, rounds, SIGMA), "simpy")
    assert all(outcome.syncs["parameters"] == rounds for outcome in outcomes)
    print(seconds)


if __name__ == "__main__":
    main()
