"""What does an effect cost in the MPI interpreter, next to calls timed by hand?

Fresh Computes, one by one, and local SGD through the real loop, whose local steps are one Compute. Traces go to a file.
One rank, as a Compute sends nothing; the exchange of a round is excluded by taking long rounds. Each block asserts how
many effects it made. Bar: 1.5 us for local SGD, traced.
"""

from __future__ import annotations

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

from .form import compare
from .harness import Found, Run, alternate
from .ranks import on_ranks

SECONDS = 30
BAR = 1.5  # us of a local step, traced
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


HAND = "calls timed by hand"
BLOCKS: dict[str, Callable[[int], float]] = {
    HAND: called,
    "fresh effects": lambda count: bare(count, False),
    "fresh effects, traced": lambda count: bare(count, True),
    "local SGD": lambda count: training(count, False),
    "local SGD, traced": lambda count: training(count, True),
}


def on_rank(comm: Any, run: Run, count: int) -> dict[str, list[float]]:
    """Microseconds per effect of each block, turn by turn."""
    blocks = {name: lambda block=block: block(count) / count * 1e6 for name, block in BLOCKS.items()}
    return alternate(blocks, run.turns(31))


def measure(run: Run) -> Found:
    count = 2_000 if run.small else 20_000
    taken = on_ranks(on_rank, 1, run, count)
    rows = [compare("an effect, 1 rank", way, HAND, taken, "time", limit=HAND, unit="us") for way in list(BLOCKS)[1:]]
    traced, bar = {"local SGD, traced": taken["local SGD, traced"]}, f"{BAR} us"
    traced[bar] = [BAR] * len(taken[HAND])
    rows.append(compare("an effect, 1 rank", "local SGD, traced", bar, traced, "time", bar=1.0, unit="us"))
    return Found(rows, {"effects of a block": count})
