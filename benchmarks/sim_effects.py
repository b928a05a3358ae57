"""What an effect costs in the SimPy interpreter, against a bare SimPy timeout in the same alternating run.

Usage: python benchmarks/sim_effects.py [--small]. Prints, and writes benchmarks/results/sim_effects.json (--small:
prints only). A block of each kind runs in turn, many times over; a ratio is the median over turns of effects per
second divided by bare timeouts per second in the same turn, so that a busy machine slows both. Each block asserts how
many effects it made; traces go to a file. Bars: 0.45 with the trace off, 0.35 with trace and noise.
"""

from __future__ import annotations

import argparse
import gc
import json
import platform
import statistics
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import numpy as np
import simpy

from paceline.algorithms.aggregations import Parameters
from paceline.algorithms.costs import ModelCost, Works
from paceline.algorithms.loop import train
from paceline.algorithms.phantom import PhantomWorker
from paceline.algorithms.plan import Plan
from paceline.algorithms.rounds import Interval, State
from paceline.algorithms.schedules import Fixed
from paceline.algorithms.splits import Shares
from paceline.algorithms.strategy import Strategy
from paceline.config.timing import Device, Network, Noise, Timing
from paceline.program.effects import Compute, Program, Work, nothing
from paceline.program.outcome import Hooks, Outcome
from paceline.records.spool import Spool, read_spools
from paceline.sim.engine import simulate

WORKERS = 64
RESULTS = Path(__file__).parent / "results" / "sim_effects.json"
HOOKS = Hooks()


def timing(sigma: float) -> Timing:
    """64 workers in two classes, of unequal speed so that their events interleave."""
    fast, slow = Device("fast", speed=1000.0), Device("slow", speed=370.0)
    return Timing((fast, slow) * (WORKERS // 2), Network("star", 1e9, 1e-5), Noise(sigma, 7))


def bare(count: int) -> float:
    """Seconds for 64 SimPy processes of `count` timeouts each."""
    env = simpy.Environment()
    made = 0

    def ticking(delay: float) -> Iterator[simpy.Event]:
        nonlocal made
        for _ in range(count):
            yield env.timeout(delay)
        made += count

    for worker in range(WORKERS):
        env.process(ticking(0.008 if worker % 2 else 0.0216))
    begin = perf_counter()
    env.run()
    seconds = perf_counter() - begin
    assert made == WORKERS * count
    return seconds


class Stepping:
    """Programs as deep as the loop's (program, round, effect) that yield nothing but fresh Computes."""

    def __init__(self) -> None:
        self.works = [Work("step", 8) for _ in range(WORKERS)]
        self.made = 0

    def step(self, worker: int) -> Compute[None]:
        return Compute(self.works[worker], nothing)

    def round(self, worker: int, count: int) -> Program[None]:
        for _ in range(count):
            yield from self.step(worker)
        self.made += count

    def program(self, worker: int, count: int) -> Program[None]:
        yield from self.round(worker, count)


def fresh(count: int, sigma: float, trace: bool) -> float:
    """Seconds for 64 programs of `count` fresh Computes each."""
    stepping = Stepping()
    programs = [stepping.program(worker, count) for worker in range(WORKERS)]
    seconds, _ = timed(programs, sigma, trace, WORKERS * count)
    assert stepping.made == WORKERS * count
    return seconds


def timed(programs: Sequence[Program[Any]], sigma: float, trace: bool, effects: int) -> tuple[float, list[Outcome]]:
    """(seconds, outcomes) of a simulation; its spans are streamed to a file, as runs with a directory do."""
    with TemporaryDirectory() as folder:
        spool = Spool(Path(folder) / "spans")
        hooks = Hooks(HOOKS.log, HOOKS.checkpoint, spans=spool.take)
        begin = perf_counter()
        outcomes = simulate(programs, timing(sigma), hooks, trace=trace)
        seconds = perf_counter() - begin
        spool.close()
        spans = [name for lanes in read_spools([spool.path], WORKERS) for name, _, _ in lanes.get("compute", ())]
        assert spans.count("step") == (effects if trace else 0)
    return seconds, outcomes


class CountingWorker(PhantomWorker):
    """A phantom that counts its steps."""

    made = 0

    def steps(self, round: Any, start: int = 0) -> Compute[None]:
        compute = super().steps(round, start)
        self.made += compute.times
        return compute


def training(count: int, sigma: float, trace: bool) -> float:
    """Seconds for local SGD of 64 phantoms through the real loop: four rounds of count / 4 steps each."""
    strategy = Strategy(schedule=Fixed(count // 4), aggregation=Parameters())
    shares = Shares((8,) * WORKERS, (1.0,) * WORKERS)
    plan = Plan(strategy, shares, lambda progress: 0.1, 10**9, Interval(4, "rounds"))
    works = [Works(ModelCost(1000, 0, 1e6, 1e4), 8, 1) for _ in range(WORKERS)]
    workers = [CountingWorker(i, works[i]) for i in range(WORKERS)]
    programs = [train(worker, plan, State()) for worker in workers]
    seconds, outcomes = timed(programs, sigma, trace, WORKERS * (count // 4) * 4)
    assert sum(worker.made for worker in workers) == WORKERS * (count // 4) * 4
    assert all(outcome.syncs["parameters"] == 4 for outcome in outcomes)
    return seconds


BLOCKS: dict[str, Callable[[int], float]] = {
    "bare SimPy timeouts": bare,
    "fresh effects": lambda count: fresh(count, 0.0, False),
    "fresh effects, trace and noise": lambda count: fresh(count, 0.1, True),
    "local SGD": lambda count: training(count, 0.0, False),
    "local SGD, trace and noise": lambda count: training(count, 0.1, True),
}


def measure(turns: int, count: int) -> dict[str, Any]:
    """Medians over `turns` turns of one block of each kind, 64 * count effects a block."""
    seconds: dict[str, list[float]] = {name: [] for name in BLOCKS}
    for turn in range(-1, turns):  # the first turn warms up
        for name, block in BLOCKS.items():
            gc.collect()
            taken = block(count)
            if turn >= 0:
                seconds[name].append(taken)
    reference = seconds["bare SimPy timeouts"]
    return {
        name: {
            "microseconds": round(statistics.median(taken) / (WORKERS * count) * 1e6, 3),
            "ratio": round(statistics.median(b / t for b, t in zip(reference, taken, strict=True)), 3),
        }
        for name, taken in seconds.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Cost of an effect in the SimPy interpreter.")
    parser.add_argument("--small", action="store_true", help="a short run that writes nothing")
    small = parser.parse_args().small
    turns, count = (3, 100) if small else (21, 1000)
    rows = measure(turns, count)
    for name, row in rows.items():
        print(f"{name:34s} {row['microseconds']:7.3f} us  {row['ratio']:6.3f} of the bare rate")
    if not small:
        versions = {"python": platform.python_version(), "simpy": simpy.__version__, "numpy": np.__version__}
        about = {"workers": WORKERS, "effects_per_block": WORKERS * count, "turns": turns, **versions}
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(json.dumps({**about, "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
