"""How fast is LSHDP on a real 1 Gbit/s star, with workers of speeds 1, 1, 1/2 and 1/4, next to DDP and FSDP?

Four ranks in network namespaces with shaped ports (runtime/star.py; skipped, with the reason, where these cannot be
made) train an MLP on the digits. The modes take turns block by block in one mpirun, all with the same number of samples
in a step:

- DDP, flat: the paper's baseline, equal batches, one unit, its exchange after the backward pass;
- DDP: equal batches, exchanges unit by unit during the backward pass;
- FSDP: equal batches, units gathered and scattered during the computation;
- HDP: as DDP, batches by speed; LSHDP: the same from host memory, which is the device's memory here.

In three ways. "trained": each rank computes for real, then sleeps 1, 1, 3 and 7 times as long as that took (as
--emulate), so that all four need less than two cores for it. "described": each sleeps as long as a described device
takes (as --phantom), and the messages are real. Batch and model are such that the slowest worker computes about as
long, with an equal batch, as the flat exchange takes at the full rate. "slowly": as "trained", with ports of a fifth of
the rate and five times the batch, so that the processors, which carry all four nodes' messages, weigh less.

A ratio is a mode's seconds per step over LSHDP's of the same turn: how many times as fast as the mode LSHDP is. Next to
it stands what the same programs take in simulation: on the described devices, or on devices as measured in the same
run; the network's efficiency is that of a measured exchange. Bar: 1.4 over the flat DDP, trained. The paper gives
35.39 % over data parallel and 52.57 % over FSDP without a definition: as throughput gained 1.354 and 1.526 times, as
time saved 1.548 and 2.108 times as fast.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from paceline.algorithms.costs import TAIL
from paceline.algorithms.rounds import State
from paceline.config.scenario import validate
from paceline.config.timing import Device, Network, Timing
from paceline.job import Job, resolve
from paceline.program.effects import AllReduce, Compute, Program
from paceline.program.outcome import Hooks
from paceline.runtime.engine import run
from paceline.runtime.star import Star
from paceline.sim.engine import simulate

from .form import Limit, Row, compare, rounded
from .harness import Found, Run, Skipped, alternate
from .ranks import on_ranks, slowest

SECONDS = 360
RATE = 125e6  # bytes/s of a port
SLOWDOWNS = (1.0, 1.0, 2.0, 4.0)
IDLING = 2.0  # trained: how many times longer the fastest ranks take than they would
BATCH, WIDTH = 40, 1024
SPEED = 520  # samples/s of the fastest described device: the slowest takes 0.31 s for a batch of 40
MODES: dict[str, dict[str, Any]] = {
    "DDP, flat": {"preset": "sync_sgd", "placement": {"replicated": {"overlap": False}}},
    "DDP": {"preset": "sync_sgd"},
    "FSDP": {"preset": "fsdp"},
    "HDP": {"preset": "hdp"},
    "LSHDP": {"preset": "lshdp"},
}
KINDS = {"trained": 1, "described": 1, "slowly": 5}  # how many times slower the ports are, and larger the batches
PAPER = {"DDP, flat": (1.354, 1.548), "FSDP": (1.526, 2.108)}
BAR, SIMULATED = 1.4, "the same in simulation"


def job(strategy: dict[str, Any], width: int, steps: int, batch: int) -> Job:
    """A mode's training of `steps` steps behind a first one, with a checkpoint due after each."""
    devices = [{"speed": f"{SPEED} samples/s", "slowdown": k} for k in SLOWDOWNS]
    if strategy["preset"] in ("hdp", "lshdp"):
        strategy = {**strategy, "total": 4 * batch}
    document = {
        "workload": {
            "model": {"name": "mlp", "hidden": [width] * 7},
            "data": "digits",
            "batch": batch,
            "optimizer": {"name": "sgd", "lr": 0.01},
        },
        "cluster": {"workers": devices},
        "strategy": strategy,
        "budget": {"steps": steps + 1},
        "checkpoint": {"every": "1 step"},
    }
    return resolve(validate(document, "benchmark"), Path())


def timed(perform: Callable[[Hooks], Any]) -> float:
    """Seconds per step of a training that `perform` runs with these hooks: the first, with its broadcast, left out."""
    moments: list[float] = []
    perform(Hooks(lambda *_: None, lambda worker, seconds, state, arrays: moments.append(seconds)))
    first, last = moments[0], moments[-1]
    return (last - first) / (len(moments) - 1)


class Rank:
    """One rank's workers, one for each mode. described: they compute nothing and sleep instead. rate: of a port."""

    def __init__(self, comm: Any, width: int, steps: int, kind: str) -> None:
        self.comm, self.described, self.rate = comm, kind == "described", RATE / KINDS[kind]
        self.jobs = {name: job(strategy, width, steps, BATCH * KINDS[kind]) for name, strategy in MODES.items()}
        self.workers: dict[str, Any] = {}
        for name, its in self.jobs.items():
            if self.described:
                self.workers[name] = its.problem.phantoms(its.plan)[comm.rank]
            else:
                (self.workers[name],) = its.problem.workers(its.plan, [comm.rank], shared_process=False)
                self.workers[name].snapshot = dict  # nothing is written

    def perform(self, program: Program[Any], hooks: Hooks) -> Any:
        """Run a program among the ranks."""
        if self.described:
            return run(program, hooks, comm=self.comm, price=self.jobs["DDP"].timing.devices[self.comm.rank].seconds)
        return run(program, hooks, comm=self.comm, slowness=IDLING * SLOWDOWNS[self.comm.rank])

    def block(self, name: str) -> float:
        """Seconds per step of one training."""
        (program,) = self.jobs[name].programs([self.workers[name]], State())
        return timed(lambda hooks: self.perform(program, hooks))

    def seconds_of(self, program: Callable[[], Program[Any]], repeats: int) -> float:
        """What a program takes, the median."""
        hooks = Hooks()
        return float(statistics.median(self.perform(program(), hooks).seconds for _ in range(repeats)))

    def measured(self, repeats: int) -> dict[str, Any]:
        """This rank's medians: a gradient by batch, an update, an exchange of the whole model."""
        rows: dict[str, dict[int, float]] = {"gradient": {}, "update": {}}
        for name in ("DDP, flat", "HDP"):
            first, worker = self.jobs[name].plan.first_round(), self.workers[name]
            own = first.batches[self.comm.rank]
            rows["gradient"][own] = self.seconds_of(partial(repeated, worker.gradient(first, 0)), repeats) / 4
            rows["update"][1] = self.seconds_of(partial(repeated, worker.update(first, 0)), repeats) / 4
        vector = np.zeros(self.jobs["DDP"].problem.cost.parameters + 1, np.float32)
        exchange = self.seconds_of(lambda: iter(AllReduce(vector, out=vector)), repeats)
        return {**{phase: list(found.items()) for phase, found in rows.items()}, "exchange": exchange}


def repeated(effect: Compute[Any]) -> Program[None]:
    """The effect four times."""
    for _ in range(4):
        yield from effect


def predicted(rank: Rank, everyone: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Seconds per step of each mode in simulation. everyone: what the ranks have measured."""
    devices = list(rank.jobs["DDP"].timing.devices)
    if not rank.described:
        for r, own in enumerate(everyone):
            update = ((0.0, own["update"][0][1]),)  # whatever the batch is
            tables = {"gradient": tuple(sorted(map(tuple, own["gradient"]))), "evaluate": ((1.0, 0.0),)}
            devices[r] = Device("measured", {**tables, "update": update, "host update": update})
    nbytes = 4 * (rank.jobs["DDP"].problem.cost.parameters + TAIL)
    efficiency = min(1.0, 2 * 3 / 4 * nbytes / rank.rate / max(own["exchange"] for own in everyone))
    timing = Timing(tuple(devices), Network("star", rank.rate * efficiency))
    found = {"efficiency": efficiency}
    for name, its in rank.jobs.items():

        def perform(hooks: Hooks, its: Job = its) -> None:
            def checkpoint(worker: int, *rest: Any) -> None:
                if worker == 0:
                    hooks.checkpoint(worker, *rest)

            first = replace(hooks, checkpoint=checkpoint)
            simulate(its.programs(its.problem.phantoms(its.plan), State()), timing, first)

        found[name] = timed(perform)
    return found


def on_rank(comm: Any, kind: str, run: Run) -> tuple[dict[str, list[float]], dict[str, float], dict[str, Any]]:
    """By mode, milliseconds per step, turn by turn; seconds per step in simulation; what else was measured."""
    width, steps, repeats = (64, 2, 2) if run.small else (WIDTH, 3, 5) if KINDS[kind] == 1 else (WIDTH, 2, 3)
    rank = Rank(comm, width, steps, kind)
    for name in MODES:
        rank.block(name)  # warms up, before it is measured what the parts take
    before = rank.measured(repeats)
    ways = {name: lambda name=name: rank.block(name) * 1e3 for name in MODES}
    taken = slowest(comm, alternate(ways, run.turns(20 if KINDS[kind] == 1 else 10, comm)))
    everyone = comm.allgather(before)
    expected = predicted(rank, everyone)
    last = everyone[-1]
    about = {
        "parameters": rank.jobs["DDP"].problem.cost.parameters,
        "batches": {name: rank.jobs[name].plan.shares.batches for name in ("DDP", "LSHDP")},
        "slowest gradient, ms": rounded(dict(last["gradient"])[BATCH * KINDS[kind]] * 1e3),
        "slowest update, ms": rounded(last["update"][0][1] * 1e3),
        "exchange, ms": rounded(last["exchange"] * 1e3),
        "efficiency": rounded(expected["efficiency"]),
        "predicted, ms": {name: rounded(expected[name] * 1e3) for name in MODES},
    }
    return taken, expected, about


def rows(kind: str, taken: dict[str, list[float]], expected: dict[str, float]) -> Iterator[Row]:
    """LSHDP against each other mode."""
    for mode in [mode for mode in MODES if mode != "LSHDP"]:
        limit = Limit(what=SIMULATED, ratio=rounded(expected[mode] / expected["LSHDP"]))
        bar = BAR if (kind, mode) == ("trained", "DDP, flat") else None
        yield compare(f"{kind}, 4 ranks, a step", "LSHDP", mode, taken, bar=bar, limit=limit, unit="ms")


def laid(slower: int) -> Star:
    """Four nodes with ports of RATE, or slower ones."""
    return Star(tuple(range(4)), (RATE / slower,) * 4)


def measure(run: Run) -> Found:
    if reason := laid(1).obstacle():
        raise Skipped(reason)
    found, share = Found(), run.share(len(KINDS))
    for kind in ["described"] if run.small else KINDS:
        taken, expected, found.figures[kind] = on_ranks(on_rank, 4, kind, share, star=laid(KINDS[kind]))
        found.rows += rows(kind, taken, expected)
    found.figures["the paper's throughput and time over LSHDP's"] = PAPER
    return found
