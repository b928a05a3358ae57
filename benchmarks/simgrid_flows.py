"""Fair sharing and the speed of barriers against SimGrid's.

Sharing: 20 random sets of flows on random links, each set run here and in SimGrid set to pure max-min; bar: every
flow's duration within 1 %. Speed: n workers compute, then wait for one another, round after round, with equal clocks
asserted, in CPU seconds. SimGrid runs from Python, and where g++ and its headers are found from C++, its own language.

SimGrid is not a dependency: Debian's python3-simgrid (and libsimgrid-dev) or the PyPI build. The Python that has it is
this one, /usr/bin/python3, or the one that PACELINE_SIMGRID_PYTHON names. Without one nothing is measured.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from paceline.config.timing import Device, Link, Network, Timing
from paceline.program.effects import Compute, Program, Work, barrier, nothing
from paceline.program.outcome import Hooks, Outcome
from paceline.sim.cohort import Cohort
from paceline.sim.cohort import simulate as simulate_cohorts
from paceline.sim.engine import simulate
from paceline.sim.flows import Course, Demand, Flows
from paceline.sim.topology import build_topology

from .form import Row, compare
from .harness import Found, Run, Skipped, alternate, process_seconds

HERE = Path(__file__).parent
SECONDS = 90
HOOKS = Hooks()
SETS = 20
BAR = 0.01
ENGINES = ("events", "cohorts")


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
    links, routes = {}, list[Sequence[str]]()
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
    command = [python, str(HERE / "peers" / "simgrid_run.py")]
    done = subprocess.run(command, input=json.dumps(ask), capture_output=True, text=True, timeout=600)
    if done.returncode:
        raise RuntimeError(f"SimGrid failed: {done.stderr}")
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
    outcomes: list[Outcome] = []
    seconds = process_seconds(lambda: outcomes.extend(run()))
    return outcomes[0].seconds, seconds


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
    source, program = HERE / "peers" / "simgrid_barriers.cpp", Path(folder) / "simgrid_barriers"
    build = ["g++", "-O2", "-std=c++17", str(source), "-lsimgrid", "-o", str(program)]
    if shutil.which("g++") is None or subprocess.run(build, capture_output=True).returncode:
        return None

    def run(workers: int, rounds: int) -> tuple[float, float]:
        command = [str(program), str(rounds), *map(repr, paces(workers))]
        clock, taken = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
        return float(clock), float(taken)

    return run


def barriers(python: str, run: Run, steps: int) -> list[Row]:
    """Both engines against SimGrid, at each number of workers."""
    rows, share = [], run.share(3)
    with tempfile.TemporaryDirectory() as folder:
        ways: dict[str, Any] = {"events": events, "cohorts": cohorts, "SimGrid in Python": in_python(python)}
        if compiled := in_cpp(folder):
            ways["SimGrid in C++"] = compiled
        for workers in (8, 64, 512):
            rounds = max(2, steps // workers)

            def cost(way: Any, workers: int = workers, rounds: int = rounds) -> float:
                clock, seconds = way(workers, rounds)
                assert abs(clock - rounds * max(paces(workers))) < 1e-9 * clock, clock
                return float(seconds / (workers * rounds) * 1e6)

            taken = alternate({name: partial(cost, way) for name, way in ways.items()}, share.turns(7))
            case = f"{workers} workers, {rounds:,} rounds of a barrier, a worker-step"
            rows += [
                compare(case, engine, other, taken, unit="us")
                for engine in ENGINES
                for other in list(ways)[len(ENGINES) :]
            ]
    return rows


def find_python() -> str | None:
    """A Python that has SimGrid."""
    given = os.environ.get("PACELINE_SIMGRID_PYTHON")
    for python in [given] if given else [sys.executable, "/usr/bin/python3"]:
        has = (
            shutil.which(python)
            and not subprocess.run([python, "-c", "import simgrid"], capture_output=True).returncode
        )
        if has:
            return python
    return None


def measure(run: Run) -> Found:
    python = find_python()
    if python is None:
        raise Skipped("no Python with SimGrid was found (apt install python3-simgrid, or set PACELINE_SIMGRID_PYTHON)")
    shared = sharing(python, 4 if run.small else SETS)
    assert shared["largest_difference"] <= BAR, shared
    version = "import simgrid; print(simgrid.simgrid_version)"
    found = subprocess.run([python, "-c", version], capture_output=True, text=True).stdout.strip()
    rows = barriers(python, run, 1024 if run.small else 16_384)
    return Found(rows, {"simgrid": found, "sharing": shared})
