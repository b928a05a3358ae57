"""How the cost of a simulation grows with workers and rounds, and how much memory a large one takes.

Usage: python benchmarks/sim_scale.py [--small]. Prints, and writes benchmarks/results/sim_scale.json (--small: prints
only). Local SGD with H = 1, timing-only, in both engines; seconds are processor time of the engine alone, the median
over the repeats. An exponent is the slope of log seconds over log size, by least squares: 1 is linear. Peak memory is a
child process's, everything included. Setting up is included, too: a cohort run of few rounds is mostly that.

Bar: a run of 4,096 workers that follows every event (SimPy) completes in under 1 GB.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import simpy
from cohort import job_of, run

RESULTS = Path(__file__).parent / "results" / "sim_scale.json"


def exponent(sizes: list[int], seconds: list[float]) -> float:
    """Slope of log seconds over log size."""
    return round(float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0]), 3)


def timed(engine: str, workers: int, rounds: int, sigma: float, repeats: int) -> float:
    """Seconds of one run."""
    job = job_of(workers, 2, 1, rounds, sigma)
    return statistics.median(run(job, engine)[0] for _ in range(repeats))


def growth(engine: str, workers: list[int], rounds: list[int], sigma: float, repeats: int) -> dict[str, Any]:
    """Seconds at several numbers of workers (with the middle number of rounds), then of rounds; their exponents."""
    middle = len(workers) // 2, len(rounds) // 2
    by_workers = [timed(engine, n, rounds[middle[1]], sigma, repeats) for n in workers]
    by_rounds = [timed(engine, workers[middle[0]], r, sigma, repeats) for r in rounds]
    steps = [n * rounds[middle[1]] for n in workers]
    return {
        "engine": engine,
        "sigma": sigma,
        "workers": workers,
        "seconds_by_workers": [round(s, 4) for s in by_workers],
        "microseconds_per_worker_step": [round(s / n * 1e6, 3) for s, n in zip(by_workers, steps, strict=True)],
        "exponent_workers": exponent(workers, by_workers),
        "rounds": rounds,
        "seconds_by_rounds": [round(s, 4) for s in by_rounds],
        "exponent_rounds": exponent(rounds, by_rounds),
    }


def large(workers: int, rounds: int) -> dict[str, Any]:
    """A SimPy run in a child process: its seconds and its peak memory in megabytes."""
    command = [sys.executable, __file__, "--child", str(workers), str(rounds)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return {"workers": workers, "rounds": rounds, **json.loads(done.stdout)}


def child(workers: int, rounds: int) -> None:
    seconds, outcomes = run(job_of(workers, 2, 1, rounds, 0.2), "simpy")
    assert all(outcome.syncs["parameters"] == rounds for outcome in outcomes)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"seconds": round(seconds, 2), "peak_megabytes": round(peak)}))


def main() -> None:
    parser = argparse.ArgumentParser(description="How simulations grow.")
    parser.add_argument("--small", action="store_true", help="a short run that writes nothing")
    parser.add_argument("--child", nargs=2, type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(*options.child)
        return
    small = options.small
    factor, repeats = (8, 1) if small else (1, 3)
    sizes = {
        "simpy": ([64, 256, 1024, 4096, 16384], [6, 12, 24, 48, 96]),
        "cohort": ([1024, 2048, 4096, 8192, 16384], [200, 400, 800, 1600, 3200]),
    }
    # First: a child's peak begins at what its parent holds.
    peak = large(256, 3) if small else large(4096, 100)
    print(
        f"simpy  {peak['workers']} workers, {peak['rounds']} rounds: {peak['seconds']} s, {peak['peak_megabytes']} MB"
    )
    rows = []
    for engine, (workers, rounds) in sizes.items():
        row = growth(engine, [n // factor for n in workers], [max(1, r // factor) for r in rounds], 0.2, repeats)
        rows.append(row)
        print(
            f"{engine:6s} workers {row['workers']}: {row['microseconds_per_worker_step']} us per worker-step, "
            f"seconds grow as workers^{row['exponent_workers']}, rounds^{row['exponent_rounds']}"
        )
    assert peak["peak_megabytes"] < 1000
    if not small:
        versions = {"python": platform.python_version(), "simpy": simpy.__version__, "numpy": np.__version__}
        about = {**versions, "repeats": repeats, "large": peak}
        RESULTS.write_text(json.dumps({**about, "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
