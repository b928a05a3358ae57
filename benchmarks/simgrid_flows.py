"""Fair sharing against SimGrid's, and the speed of barriers against SimGrid's.

Usage: python benchmarks/simgrid_flows.py [--small] [--python /usr/bin/python3]. Prints, and writes
benchmarks/results/simgrid_flows.json (--small: prints only).

Sharing: 20 random sets of flows on random links, each set run here and in SimGrid set to pure max-min; bar: every
flow's duration within 1 %. Speed: n workers compute, then wait for one another, round after round, with equal clocks
asserted; a ratio is the median over alternating turns of SimGrid's CPU seconds over ours in the same turn, so above 1
is faster than SimGrid. (CPU seconds, as a shared machine stretches all others.) SimGrid runs from Python, and where g++
and its headers are found from C++, its own language.

SimGrid is not a dependency: Debian's python3-simgrid (and libsimgrid-dev) or the PyPI build, in a Python of its own.
Without one this says so and measures nothing.
"""

from __future__ import annotations

import argparse
import gc
import json
import platform
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import process_time
from typing import Any

from paceline.config.timing import Device, Link, Network, Timing
from paceline.program.effects import Compute, Program, Work, barrier, nothing
from paceline.program.outcome import Hooks, Outcome
from paceline.sim.cohort import Cohort
from paceline.sim.cohort import simulate as simulate_cohorts
from paceline.sim.engine import simulate
from paceline.sim.flows import Course, Demand, Flows
from paceline.sim.topology import build_topology

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "simgrid_flows.json"
HOOKS = Hooks()
SETS = 20
BAR = 0.01


# --- fair sharing -----------------------------------------------------------------------------------------------------


def flow_set(seed: int) -> dict[str, Any]:
    """Links and flows, drawn: a quarter of the sets each on a star of unequal ports, a bus, two levels, any routes."""
    draw = random.Random(seed)
    workers, flows = draw.randint(4, 10), draw.randint(8, 30)
    bandwidth = draw.uniform(1e8, 1e9)
    ports = tuple(draw.uniform(1e8, 1e9) for _ in range(workers))
    shapes = [
        Network("star", ports=ports),
        Network("bus", bandwidth),
        Network("two_level", bandwidth, inside=Link(draw.uniform(1, 4) * bandwidth)),
    ]
    links, routes = {}, []
    if seed % 4 < 3:
        topology = build_topology(shapes[seed % 4], [worker // 3 for worker in range(workers)])
        routes = [topology.route(*draw.sample(range(workers), 2)) for _ in range(flows)]
        links = {link: topology.capacity[link] for route in routes for link in route}
    else:
        links = {f"link {i}": draw.uniform(1e8, 1e9) for i in range(draw.randint(3, 12))}
        routes = [draw.sample(sorted(links), draw.randint(1, min(4, len(links)))) for _ in range(flows)]
    described = [{"start": draw.uniform(0, 5), "nbytes": draw.randint(10**6, 10**9), "route": r} for r in routes]
    return {"links": links, "flows": described}


def our_ends(ask: dict[str, Any]) -> list[float]:
    """When each flow of the set is over, here."""
    flows, ends = Flows(ask["links"].__getitem__), [0.0] * len(ask["flows"])

    def once(flow: dict[str, Any]) -> Course:
        yield flow["start"]
        yield Demand(dict.fromkeys(flow["route"], 1.0), 1.0, flow["nbytes"])

    def over(number: int) -> Callable[[], None]:
        return lambda: ends.__setitem__(number, due)

    for number, flow in enumerate(ask["flows"]):
        flows.add(once(flow), 0.0, over(number))
    while flows.active:
        due = flows.due()
        flows.advance(due)
    return ends


def ask_simgrid(python: str, ask: dict[str, Any]) -> dict[str, Any]:
    """SimGrid's answer."""
    command = [python, str(HERE / "outside" / "simgrid_run.py")]
    done = subprocess.run(command, input=json.dumps(ask), capture_output=True, text=True, timeout=600)
    if done.returncode:
        sys.exit(f"SimGrid failed: {done.stderr}")
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def sharing(python: str, sets: int) -> dict[str, Any]:
    """The largest difference of a flow's duration."""
    worst, flows = 0.0, 0
    for seed in range(sets):
        ask = flow_set(seed)
        theirs, ours = ask_simgrid(python, ask)["ends"], our_ends(ask)
        flows += len(ours)
        for flow, a, b in zip(ask["flows"], theirs, ours, strict=True):
            worst = max(worst, abs(b - a) / (a - flow["start"]))
    return {"sets": sets, "flows": flows, "largest_difference": worst, "bar": BAR}


# --- barriers ---------------------------------------------------------------------------------------------------------


def paces(workers: int) -> list[float]:
    """Each worker's seconds per step: two classes of unequal speed."""
    return [0.008 if worker % 2 else 0.0216 for worker in range(workers)]


def program(rounds: int) -> Program[None]:
    compute = Compute(Work("step", 1), nothing)
    for _ in range(rounds):
        yield from compute
        yield from barrier()


def timing(workers: int) -> Timing:
    known = {seconds: Device(f"{seconds} s", speed=1 / seconds) for seconds in paces(workers)}
    return Timing(tuple(known[seconds] for seconds in paces(workers)))


def timed(run: Callable[[], list[Outcome]]) -> tuple[float, float]:
    """(virtual clock, CPU seconds)."""
    gc.collect()
    begin = process_time()
    outcomes = run()
    return outcomes[0].seconds, process_time() - begin


def events(workers: int, rounds: int) -> tuple[float, float]:
    return timed(lambda: simulate([program(rounds) for _ in range(workers)], timing(workers), HOOKS))


def cohorts(workers: int, rounds: int) -> tuple[float, float]:
    classes = [tuple(range(first, workers, 2)) for first in (0, 1)]
    return timed(lambda: simulate_cohorts([Cohort(program(rounds), c) for c in classes], timing(workers), HOOKS))


def in_python(python: str) -> Callable[[int, int], tuple[float, float]]:
    def run(workers: int, rounds: int) -> tuple[float, float]:
        answer = ask_simgrid(python, {"seconds": paces(workers), "rounds": rounds})
        return answer["clock"], answer["taken"]

    return run


def in_cpp(folder: str) -> Callable[[int, int], tuple[float, float]] | None:
    """The C++ program, if it can be built."""
    source, program = HERE / "outside" / "simgrid_barriers.cpp", Path(folder) / "simgrid_barriers"
    build = ["g++", "-O2", "-std=c++17", str(source), "-lsimgrid", "-o", str(program)]
    if shutil.which("g++") is None or subprocess.run(build, capture_output=True).returncode:
        return None

    def run(workers: int, rounds: int) -> tuple[float, float]:
        command = [str(program), str(rounds), *map(repr, paces(workers))]
        clock, taken = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
        return float(clock), float(taken)

    return run


def barriers(python: str, turns: int, steps: int) -> list[dict[str, Any]]:
    """Microseconds per worker-step, and how many times faster than SimGrid, at each number of workers."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        runs: dict[str, Any] = {"events": events, "cohorts": cohorts, "simgrid in Python": in_python(python)}
        if compiled := in_cpp(folder):
            runs["simgrid in C++"] = compiled
        for workers in (8, 64, 512):
            taken: dict[str, list[float]] = {name: [] for name in runs}
            rounds = max(2, steps // workers)
            for _ in range(turns):
                for name, run in runs.items():
                    clock, seconds = run(workers, rounds)
                    assert abs(clock - rounds * max(paces(workers))) < 1e-9 * clock, (name, clock)
                    taken[name].append(seconds / (workers * rounds) * 1e6)
            row: dict[str, Any] = {"workers": workers, "rounds": rounds}
            row["microseconds"] = {name: round(statistics.median(seconds), 3) for name, seconds in taken.items()}
            for ours in ("events", "cohorts"):
                for theirs in [name for name in runs if name.startswith("simgrid")]:
                    ratios = [b / a for a, b in zip(taken[ours], taken[theirs], strict=True)]
                    row[f"{ours} against {theirs}"] = round(statistics.median(ratios), 2)
            rows.append(row)
    return rows


def find_python(given: str | None) -> str | None:
    """A Python that has SimGrid."""
    for python in [given] if given else [sys.executable, "/usr/bin/python3"]:
        if (
            shutil.which(python)
            and not subprocess.run([python, "-c", "import simgrid"], capture_output=True).returncode
        ):
            return python
    return None


def main() -> None:
    parser = argparse.ArgumentParser(description="Fair sharing and barriers against SimGrid.")
    parser.add_argument("--small", action="store_true", help="a short run that writes nothing")
    parser.add_argument("--python", help="a Python that can import simgrid")
    given = parser.parse_args()
    python = find_python(given.python)
    if python is None:
        print("skipped: no Python with SimGrid was found (apt install python3-simgrid; or --python PATH)")
        return
    shared = sharing(python, 4 if given.small else SETS)
    print(f"{shared['flows']} flows in {shared['sets']} sets: durations within {shared['largest_difference']:.2e}")
    assert shared["largest_difference"] <= BAR
    rows = barriers(python, *((1, 1024) if given.small else (7, 16_384)))
    for row in rows:
        print(", ".join(f"{key} {value}" for key, value in row.items()))
    if not given.small:
        version = "import simgrid; print(simgrid.simgrid_version)"
        found = subprocess.run([python, "-c", version], capture_output=True, text=True).stdout.strip()
        about = {"python": platform.python_version(), "simgrid": found, "sharing": shared, "barriers": rows}
        RESULTS.write_text(json.dumps(about, indent=2) + "\n")


if __name__ == "__main__":
    main()
