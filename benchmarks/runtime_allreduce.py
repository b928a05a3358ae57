"""What does the ordered all-reduce cost as an effect, next to MPI's own Allreduce? 2 ranks.

Whole effects: a program yields fresh AllReduces with a weight into a buffer of its own; native: comm.Allreduce of the
same float32 vectors, a sum without weights. The large ones also as bf16 and fp16, which pay where a network is slower
than this memory. Bars, as shares of the native time: 1.5 for 1,000 floats, 1.3 for 1 M, 1.0 for 10 M in every type.
"""

from __future__ import annotations

from time import perf_counter
from typing import Any

import numpy as np

from paceline.program.effects import AllReduce, Program, Wire
from paceline.program.outcome import Hooks
from paceline.runtime.engine import run

from .form import Row, compare
from .harness import Found, Run
from .ranks import on_ranks, slowest

SECONDS = 120
BARS = {1_000: 1.5, 1_000_000: 1.3, 10_000_000: 1.0}  # of the native time, equal weights in fp32; the last in any type
NATIVE, EFFECT = "MPI's Allreduce", "AllReduce effect"
SIZES = (0, 1_000, 1_024, 10_000, 100_000, 1_000_000, 10_000_000)  # floats
HOOKS = Hooks()


def program(comm: Any, size: int, weight: float, wire: Wire, count: int, run_: Run) -> Program[dict[str, list[float]]]:
    """By turn, microseconds of a native all-reduce and of an AllReduce effect."""
    value = np.random.Generator(np.random.PCG64([comm.rank, size])).random(size, np.float32)
    out, native = np.empty_like(value), np.empty_like(value)
    taken: dict[str, list[float]] = {NATIVE: [], EFFECT: []}
    for turn in run_.turns(31, comm):
        for way in reversed(taken) if turn % 2 else taken:
            comm.Barrier()
            begin = perf_counter()
            for _ in range(count):
                if way == NATIVE:
                    comm.Allreduce(value, native)
                else:
                    yield from AllReduce(value, weight, out=out, wire=wire)
            comm.Barrier()
            if turn >= 0:
                taken[way].append((perf_counter() - begin) / count * 1e6)
    return taken


def on_rank(comm: Any, run_: Run, cases: list[tuple[int, str, Wire]]) -> list[dict[str, list[float]]]:
    """What each case took."""
    from paceline.learning.process import prepare

    prepare(1)  # as every rank that trains, for the conversions to bf16 and fp16
    found, share = [], run_.share(len(cases))
    for size, weights, wire in cases:
        count = max(2, min(2000, int((0.002 if run_.small else 0.05) / (size * 1e-9 + 5e-6))))
        weight = 1.0 if weights == "equal" else 2.0 + comm.rank
        outcome = run(program(comm, size, weight, wire, count, share), HOOKS, comm=comm)
        turns = len(outcome.result[EFFECT]) + 1  # with the one that warms up
        assert outcome.syncs == {"sync": count * turns}
        found.append(slowest(comm, outcome.result))
    return found


def measure(run_: Run) -> Found:
    cases: list[tuple[int, str, Wire]] = []
    for size in SIZES[:-1] if run_.small else SIZES:
        cases += [(size, "equal", "fp32"), (size, "unequal", "fp32")]
        cases += [(size, "equal", "bf16"), (size, "equal", "fp16")] if size >= 1_000_000 else []
    rows: list[Row] = []
    for (size, weights, wire), taken in zip(cases, on_ranks(on_rank, 2, run_, cases), strict=True):
        barred = (weights == "equal" and wire == "fp32") or size == max(SIZES)
        rows.append(
            compare(
                f"2 ranks, {size:,} floats, {weights} weights, {wire}",
                EFFECT,
                NATIVE,
                taken,
                "time",
                bar=BARS.get(size) if barred else None,
                limit=NATIVE,
                unit="us",
            )
        )
    return Found(rows)
