"""Synchronous SGD and FSDP against torch's DistributedDataParallel and fully_shard on gloo, 2 ranks of 1 thread.

Both train the same model, in the same units, on batches in memory, in one mpirun, alternating block by block:

- paceline: train() over the MPI interpreter, as `paceline train` runs it.
- torch: as a careful user writes it, with the fastest optimizer that each takes, gradients as views of the buckets and
  no broadcast of buffers. The last units stay gathered between forward and backward, as they do in Paceline.
- ceiling: Paceline's local steps, which exchange nothing.

Reported, per pair: medians over blocks of torch's seconds / Paceline's (the ratio of throughputs; the bars are least
values of it), and of both throughputs as shares of the ceiling's.

    python benchmarks/data_parallel.py [--small]
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from runtime_step import OPTIMIZER, Batches, build, job

from paceline.algorithms.rounds import State
from paceline.job import Job
from paceline.program.outcome import Hooks
from paceline.records.environment import environment

RESULTS = Path(__file__).parent / "results" / "data_parallel.json"
MLP = {"name": "mlp", "hidden": [1024, 896]}
VIT = {"name": "vit", "patch": 8, "dim": 192, "depth": 4, "heads": 3, "mlp_ratio": 4}
# Name: preset, model, bar, steps of a block.
PAIRS: dict[str, tuple[str, dict[str, Any], float, int]] = {
    "sync_sgd, mlp of 4 M parameters": ("sync_sgd", MLP, 1.15, 8),
    "sync_sgd, resnet20": ("sync_sgd", {"name": "resnet20"}, 0.97, 3),
    "fsdp, mlp of 4 M parameters": ("fsdp", MLP, 1.0, 8),
    "fsdp, vit of 1.8 M parameters": ("fsdp", VIT, 1.0, 2),
}
DATA = {"name": "synthetic", "train": 2048, "test": 64}
BLOCKS = 24


class Torch:
    """The loop that a careful user of torch.distributed writes."""

    def __init__(self, described: Job, rank: int) -> None:
        import torch
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard
        from torch.nn.parallel import DistributedDataParallel

        from paceline.learning import models

        place, model = described.plan.strategy.placement, build(described)
        self.model: torch.nn.Module
        if place.sharded:
            mesh = init_device_mesh("cpu", (2,))
            parts = models.merge_units(models.units(model), place.unit_bytes)
            for unit, part in enumerate(parts):
                fully_shard(part, mesh=mesh, reshard_after_forward=unit < len(parts) - place.prefetch - 1)
            self.model = torch.nn.Sequential(*parts)
            fully_shard(self.model, mesh=mesh)
        else:
            self.model = DistributedDataParallel(model, forward_sync_buffers=False, gradient_as_bucket_view=True)
        best = "foreach" if place.sharded else "fused"  # which sharded parameters cannot
        options: Any = {key: value for key, value in OPTIMIZER.items() if key != "name"} | {best: True}
        self.optimizer = torch.optim.SGD(self.model.parameters(), **options)
        self.batches = Batches(described, rank)

    def steps(self, count: int) -> None:
        """Train `count` steps."""
        import torch

        for _ in range(count):
            x, y = self.batches.next()
            loss = torch.nn.functional.cross_entropy(self.model(x), y)
            loss.backward()  # type: ignore[no-untyped-call]
            self.optimizer.step()
            self.optimizer.zero_grad()
            loss.item()


def ceiling(described: Job, rank: int) -> Callable[[int], None]:
    """What takes so many local steps: the same model whole in memory, nothing exchanged."""
    (worker,) = described.problem.workers(described.plan, [rank], shared_process=False)
    round = described.plan.first_round()

    def steps(count: int) -> None:
        for i in range(count):
            worker.steps(round, i).run()

    return steps


def measure(preset: str, model: dict[str, Any], steps: int, blocks: int) -> dict[str, list[float]]:
    """Seconds of each block, by way. The others' turns come inside the checkpoint hook."""
    from mpi4py import MPI

    from paceline.runtime.engine import run

    comm = MPI.COMM_WORLD
    described = job(model, DATA, steps, blocks + 2, preset)
    (worker,) = described.problem.workers(described.plan, [comm.rank], shared_process=False)
    worker.snapshot = dict  # type: ignore[method-assign,assignment]
    alone = ceiling(job(model, DATA, steps, 1, "local_sgd"), comm.rank)
    others = {"torch": Torch(described, comm.rank).steps, "ceiling": alone}
    seconds: dict[str, list[float]] = {"paceline": [], **{name: [] for name in others}}
    begun = [time.perf_counter()]

    def note(name: str) -> None:
        comm.Barrier()
        now = time.perf_counter()
        seconds[name].append(now - begun[0])
        begun[0] = now

    def block(*_: object) -> None:
        note("paceline")
        for name, way in others.items():
            way(steps)
            note(name)

    run(described.programs([worker], State())[0], Hooks(lambda *_: None, block), comm=comm)
    return {name: taken[1:-1] for name, taken in seconds.items()}  # the first warms up, the last evaluates


def row(seconds: dict[str, list[float]], bar: float, steps: int) -> dict[str, Any]:
    """The figures of one pair."""
    ratios = [t / p for t, p in zip(seconds["torch"], seconds["paceline"], strict=True)]
    quartiles = statistics.quantiles(ratios, n=4)
    of_ceiling = {
        name: statistics.median(c / s for c, s in zip(seconds["ceiling"], seconds[name], strict=True))
        for name in ("paceline", "torch")
    }
    return {
        "bar": bar,
        "ratio": round(statistics.median(ratios), 3),
        "quartiles": [round(quartiles[0], 3), round(quartiles[2], 3)],
        "of_ceiling": {name: round(share, 3) for name, share in of_ceiling.items()},
        "ms_per_step": {name: round(statistics.median(s) / steps * 1e3, 2) for name, s in seconds.items()},
        "blocks": len(ratios),
        "steps": steps,
    }


def main(store: Path, small: bool) -> None:
    """Measure on every rank; rank 0 prints and writes."""
    import torch
    from mpi4py import MPI

    rank = MPI.COMM_WORLD.rank
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    results: dict[str, Any] = {}
    for name, (preset, model, bar, steps) in PAIRS.items():
        steps, blocks = (1, 2) if small else (steps, BLOCKS)
        results[name] = row(measure(preset, model, steps, blocks), bar, steps)
        if rank == 0:
            print(name, json.dumps(results[name]), flush=True)
    torch.distributed.destroy_process_group()
    if rank == 0 and not small:
        about = {"environment": environment(1), "load_average": os.getloadavg()[0]}
        RESULTS.write_text(json.dumps({**about, **results}, indent=1) + "\n")


if __name__ == "__main__":
    from paceline.runtime.launcher import abort_on_error, launch, under_mpirun

    if under_mpirun():
        with abort_on_error():
            main(Path(sys.argv[-1]), "--small" in sys.argv)
    else:
        with tempfile.TemporaryDirectory() as folder:
            raise SystemExit(launch([*sys.argv[1:], str(Path(folder) / "store")], 2, program=[str(Path(__file__))]))
