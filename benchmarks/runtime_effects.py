"""What an effect costs in the MPI interpreter: a fresh Compute, at the real loop's depth, timed; traces go to a file.

Usage: python benchmarks/runtime_effects.py [--small]. Starts its own mpirun with one rank (a Compute sends nothing).
Prints, and writes benchmarks/results/runtime_effects.json (--small: prints only). Blocks alternate; each asserts how
many effects it made. Bar: 1.5 us for local SGD through the real loop, trace on, exchange of the round excluded by
taking long rounds.
"""

from __future__ import annotations

import argparse
import gc
import json
import platform
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

from paceline.algorithms.aggregations import Parameters
from paceline.algorithms.costs import ModelCost, Works
from paceline.algorithms.loop import train
from paceline.algorithms.phantom import PhantomWorker
from paceline.algorithms.plan import Plan
from paceline.algorithms.rounds import Interval, State
from paceline.algorithms.schedules import Fixed
from paceline.algorithms.splits import Shares
from paceline.algorithms.strategy import Strategy
from paceline.program.effects import Compute, Program, Work, nothing
from paceline.program.outcome import Hooks, Outcome
from paceline.records.spool import Spool, read_spools
from paceline.runtime.engine import run
from paceline.runtime.launcher import launch, under_mpirun

RESULTS = Path(__file__).parent / "results" / "runtime_effects.json"
HOOKS = Hooks()
WORK = Work("step", 8)


def called(count: int) -> float:
    """Seconds for `count` calls timed by hand: what no interpreter can do without."""
    spans = []
    begin = perf_counter()
    for _ in range(count):
        start = perf_counter()
        nothing()
        spans.append((WORK, start, perf_counter()))
    return perf_counter() - begin


def one_by_one(count: int) -> Program[int]:
    """Fresh Computes at depth one."""
    for _ in range(count):
        yield from Compute(WORK, nothing)
    return count


def bare(count: int, trace: bool) -> float:
    """Seconds for `count` fresh Computes of a program without depth."""
    seconds, outcome = timed(one_by_one(count), trace, count)
    assert outcome.result == count
    return seconds


def timed(program: Program[Any], trace: bool, effects: int) -> tuple[float, Outcome]:
    """(seconds, outcome) of a run; its spans are streamed to a file, as in training."""
    with TemporaryDirectory() as folder:
        spool = Spool(Path(folder) / "spans")
        hooks = Hooks(HOOKS.log, HOOKS.checkpoint, spans=spool.take)
        begin = perf_counter()
        outcome = run(program, hooks, trace=trace)
        seconds = perf_counter() - begin
        spool.close()
        spans = [name for name, _, _ in read_spools([spool.path], 1)[0].get("compute", ())]
        assert spans.count("step") == (effects if trace else 0)
    return seconds, outcome


def training(count: int, trace: bool) -> float:
    """Seconds for local SGD of a phantom through the real loop: one round of `count` steps."""
    plan = Plan(
        Strategy(schedule=Fixed(count), aggregation=Parameters()),
        Shares((8,), (1.0,)),
        lambda progress: 0.1,
        10**9,
        Interval(1, "rounds"),
    )
    worker = PhantomWorker(0, Works(ModelCost(1000, 0, 1e6, 1e4), 8, 1))
    seconds, outcome = timed(train(worker, plan, State()), trace, count)
    assert outcome.syncs["parameters"] == 1
    return seconds


BLOCKS: dict[str, Callable[[int], float]] = {
    "calls timed by hand": called,
    "fresh effects": lambda count: bare(count, False),
    "fresh effects, traced": lambda count: bare(count, True),
    "local SGD": lambda count: training(count, False),
    "local SGD, traced": lambda count: training(count, True),
}


def measure(turns: int, count: int) -> dict[str, float]:
    """Microseconds per effect: medians over turns of one block of each kind."""
    taken: dict[str, list[float]] = {name: [] for name in BLOCKS}
    for turn in range(-1, turns):  # the first turn warms up
        for name, block in BLOCKS.items():
            gc.collect()
            seconds = block(count)
            if turn >= 0:
                taken[name].append(seconds / count * 1e6)
    return {name: round(statistics.median(times), 3) for name, times in taken.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description="Cost of an effect in the MPI interpreter.")
    parser.add_argument("--small", action="store_true", help="a short run that writes nothing")
    small = parser.parse_args().small
    if not under_mpirun():
        return launch(sys.argv[1:], 1, program=[__file__])
    turns, count = (3, 2_000) if small else (31, 20_000)
    rows = measure(turns, count)
    for name, microseconds in rows.items():
        print(f"{name:24s} {microseconds:7.3f} us")
    if not small:
        about: dict[str, Any] = {"effects_per_block": count, "turns": turns, "python": platform.python_version()}
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(json.dumps({**about, "microseconds": rows}, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
