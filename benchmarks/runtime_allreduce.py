"""What the ordered all-reduce costs as an effect, against MPI's own Allreduce in the same alternating run, 2 ranks.

Usage: python benchmarks/runtime_allreduce.py [--small] [--ranks N]. Starts its own mpirun. Prints, and writes
benchmarks/results/runtime_allreduce.json (--small: prints only). Whole effects: a program yields fresh AllReduces with
a weight into a buffer of its own; native: comm.Allreduce of the same float32 vectors, a sum without weights. A ratio
is the median over blocks of effect / native of the same block. Bars at 2 ranks: 1 k floats 3, 1 M 1.3, 10 M 1.0. The
large ones also as bf16 and fp16, which pay where a network is slower than this memory.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from paceline.program.effects import AllReduce, Program, Wire
from paceline.program.outcome import Hooks
from paceline.runtime.engine import run
from paceline.runtime.launcher import abort_on_error, launch, under_mpirun

RESULTS = Path(__file__).parent / "results" / "runtime_allreduce.json"
SIZES = (0, 1_000, 1_024, 10_000, 100_000, 1_000_000, 10_000_000)  # floats
HOOKS = Hooks()


def program(
    comm: Any, size: int, weight: float, wire: Wire, count: int, blocks: int
) -> Program[list[tuple[float, float]]]:
    """Per block, (seconds of a native all-reduce, seconds of an AllReduce effect)."""
    value = np.random.Generator(np.random.PCG64([comm.rank, size])).random(size, np.float32)
    out, native = np.empty_like(value), np.empty_like(value)
    taken = []
    for _ in range(blocks + 1):
        comm.Barrier()
        begin = perf_counter()
        for _ in range(count):
            comm.Allreduce(value, native)
        comm.Barrier()
        middle = perf_counter()
        for _ in range(count):
            yield from AllReduce(value, weight, out=out, wire=wire)
        comm.Barrier()
        taken.append(((middle - begin) / count, (perf_counter() - middle) / count))
    return taken[1:]  # the first block warms up


def row(comm: Any, size: int, weight: float, wire: Wire, budget: float, blocks: int) -> dict[str, Any]:
    """Medians for one size; `weight` is this rank's."""
    count = max(2, min(2000, int(budget / (size * 1e-9 + 5e-6))))
    outcome = run(program(comm, size, weight, wire, count, blocks), HOOKS, comm=comm)
    assert outcome.syncs == {"sync": count * (blocks + 1)}
    taken = outcome.result
    return {
        "floats": size,
        "weights": "equal" if weight == 1.0 else "unequal",
        "wire": wire,
        "native_us": round(statistics.median(a for a, _ in taken) * 1e6, 2),
        "effect_us": round(statistics.median(b for _, b in taken) * 1e6, 2),
        "ratio": round(statistics.median(b / a for a, b in taken), 3),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description="The ordered all-reduce against the native one.")
    parser.add_argument("--small", action="store_true", help="a short run that writes nothing")
    parser.add_argument("--ranks", type=int, default=2)
    given = parser.parse_args()
    if not under_mpirun():
        return launch(sys.argv[1:], given.ranks, program=[__file__])
    with abort_on_error():
        from mpi4py import MPI

        comm = MPI.COMM_WORLD
        budget, blocks = (0.002, 3) if given.small else (0.05, 31)
        rows = []
        for size in SIZES[:-1] if given.small else SIZES:
            ways: list[tuple[float, Wire]] = [(1.0, "fp32"), (2.0 + comm.rank, "fp32")]
            ways += [(1.0, "bf16"), (1.0, "fp16")] if size >= 1_000_000 else []
            for weight, wire in ways:
                rows.append(row(comm, size, weight, wire, budget, blocks))
                if comm.rank == 0:
                    r = rows[-1]
                    print(
                        f"{size:9d} floats, {r['weights']:7s} weights, {wire}: native {r['native_us']:10.2f} us, "
                        f"effect {r['effect_us']:10.2f} us, ratio {r['ratio']:.2f}",
                        flush=True,
                    )
        if comm.rank == 0 and not given.small:
            about = {"ranks": comm.size, "mpi": MPI.Get_library_version().split(",")[0].split("\n")[0]}
            about |= {"mpi": about["mpi"].strip("\0 "), "python": platform.python_version(), "numpy": np.__version__}
            RESULTS.parent.mkdir(exist_ok=True)
            RESULTS.write_text(json.dumps({**about, "blocks": blocks, "rows": rows}, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
