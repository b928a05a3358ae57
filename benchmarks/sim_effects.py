"""What does an effect cost in the SimPy interpreter, next to a bare SimPy timeout?

A block of each kind runs in turn, many times over, and is timed by the processor's clock. Each block asserts how many
effects or steps it made; traces go to a file. Fresh effects are one Compute each; in local SGD, the local steps of a
round are one Compute, so its cost is that of a worker-step. Rounds have a quarter of a block's steps where no H is
given. Bars: .45 of the bare rate with the trace off; with trace and noise .35 for fresh effects and .5 for local SGD.
With H = 1 also against the client loop of appfl's vsim (peers/appfl_vsim.py), if appfl is installed: at most twice its
time per client and round.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

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

from .form import compare
from .harness import Found, Run, alternate, process_seconds
from .peers import appfl_vsim

SECONDS = 60
WORKERS = 64
HOOKS = Hooks()


def timing(sigma: float) -> Timing:
    """64 workers in two classes, of unequal speed so that their events interleave."""
    fast, slow = Device("fast", speed=1000.0), Device("slow", speed=370.0)
    return Timing((fast, slow) * (WORKERS // 2), Network("star", 1e9, 1e-5), Noise(sigma, 7))


def bare(count: int) -> float:
    """Processor seconds for 64 SimPy processes of `count` timeouts each."""
    env = simpy.Environment()
    made = 0

    def ticking(delay: float) -> Generator[simpy.Event, Any, None]:
        nonlocal made
        for _ in range(count):
            yield env.timeout(delay)
        made += count

    for worker in range(WORKERS):
        env.process(ticking(0.008 if worker % 2 else 0.0216))
    seconds = process_seconds(env.run)
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
    """Processor seconds for 64 programs of `count` fresh Computes each."""
    stepping = Stepping()
    programs = [stepping.program(worker, count) for worker in range(WORKERS)]
    seconds, _ = simulated(programs, sigma, trace, WORKERS * count)
    assert stepping.made == WORKERS * count
    return seconds


def simulated(programs: Sequence[Program[Any]], sigma: float, trace: bool, effects: int) -> tuple[float, list[Outcome]]:
    """(processor seconds, outcomes) of a simulation; its spans are streamed to a file, as runs with a directory do."""
    with TemporaryDirectory() as folder:
        spool = Spool(Path(folder) / "spans")
        hooks, outcomes = Hooks(HOOKS.log, HOOKS.checkpoint, spans=spool.take), list[Outcome]()
        seconds = process_seconds(lambda: outcomes.extend(simulate(programs, timing(sigma), hooks, trace=trace)))
        spool.close()
        spans = [name for lanes in read_spools([spool.path], WORKERS) for name, _, _ in lanes.get("compute", ())]
        assert spans.count("step") == (effects if trace else 0)
    return seconds, outcomes


def loops(workers: Sequence[PhantomWorker], plan: Plan) -> list[Program[State]]:
    """The programs of equal phantoms, as `paceline simulate` makes them."""
    try:
        from paceline.algorithms.shared_program import shared
    except ImportError:  # in commits before 26 November 2026, which against_commit.py measures
        return [train(worker, plan, State()) for worker in workers]
    return shared(train(workers[0], plan, State()), len(workers))


def training(count: int, sigma: float, trace: bool, H: int) -> float:
    """Processor seconds for local SGD of 64 phantoms through the real loop: `count` steps each, in rounds of H."""
    rounds = count // H
    strategy = Strategy(schedule=Fixed(H), aggregation=Parameters())
    shares = Shares((8,) * WORKERS, (1.0,) * WORKERS)
    plan = Plan(strategy, shares, lambda progress: 0.1, 10**9, Interval(rounds, "rounds"))
    works = Works(ModelCost(1000, 0, 1e6, 1e4), 8, 1)
    programs = loops([PhantomWorker(i, works) for i in range(WORKERS)], plan)
    seconds, outcomes = simulated(programs, sigma, trace, WORKERS * rounds * H)
    assert all(outcome.result.step == rounds * H for outcome in outcomes)
    assert all(outcome.syncs["parameters"] == rounds for outcome in outcomes)
    return seconds


BARE, VSIM = "bare SimPy timeouts", "client loop of appfl's vsim"
BLOCKS: dict[str, Callable[[int], float]] = {
    BARE: bare,
    "fresh effects": lambda count: fresh(count, 0.0, False),
    "fresh effects, trace and noise": lambda count: fresh(count, 0.1, True),
    "local SGD": lambda count: training(count, 0.0, False, count // 4),
    "local SGD, trace and noise": lambda count: training(count, 0.1, True, count // 4),
    "local SGD, H = 1": lambda count: training(count, 0.0, False, 1),
    "local SGD, H = 32": lambda count: training(count, 0.0, False, 32),
}
BARS = {
    "fresh effects": 0.45,
    "fresh effects, trace and noise": 0.35,
    "local SGD": 0.45,
    "local SGD, trace and noise": 0.5,
}
VSIM_BAR = 2.0  # times vsim's time per client and round
CASE = "64 workers, a step"


def measure(run: Run) -> Found:
    """One block of each kind in turn, 64 * count effects or steps a block."""
    found, count = Found(), 96 if run.small else 960
    blocks = dict(BLOCKS)
    if reason := appfl_vsim.missing():
        found.skipped.append(f"{VSIM}: {reason}")
    else:
        blocks[VSIM] = lambda count: process_seconds(lambda: appfl_vsim.rounds(WORKERS, count))
    each = {name: lambda block=block: block(count) / (WORKERS * count) * 1e6 for name, block in blocks.items()}
    taken = alternate(each, run.turns(21))
    for name in list(BLOCKS)[1:]:
        found.rows.append(compare(CASE, name, BARE, taken, bar=BARS.get(name), limit=BARE, unit="us"))
    if VSIM in taken:
        found.rows.append(compare(CASE, "local SGD, H = 1", VSIM, taken, "time", bar=VSIM_BAR, limit=BARE, unit="us"))
    found.figures["steps of a block"] = WORKERS * count
    return found
