"""How fast are synchronous SGD and FSDP next to torch's DistributedDataParallel and fully_shard on gloo?

2 ranks of 1 thread. Both train the same model, in the same units, on batches in memory, in one mpirun, alternating
block by block:

- Paceline: train() over the MPI interpreter, as `paceline train` runs it.
- torch: as a careful user writes it (peers/torch_loops.py), with the fastest optimizer that each takes, gradients as
  views of the buckets and no broadcast of buffers. The last units stay gathered between forward and backward, as they
  do in Paceline.
- local steps: Paceline's, which exchange nothing. They are the limit.

Bars: the least ratios of throughputs, 5 % below those of commit 443890b, which is how far medians of runs are apart.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from paceline.job import Job

from .form import compare
from .harness import Found, Run
from .ranks import on_ranks
from .training import PACELINE, SGD, Batches, blocks, build, described, document, gloo, in_turns

SECONDS = 200
TURNS = 24
MLP = {"name": "mlp", "hidden": [1024, 896]}
VIT = {"name": "vit", "patch": 8, "dim": 192, "depth": 4, "heads": 3, "mlp_ratio": 4}
# Name: preset, model, bar, steps of a block.
PAIRS: dict[str, tuple[str, dict[str, Any], float, int]] = {
    "sync_sgd, mlp of 4 M parameters": ("sync_sgd", MLP, 1.3, 8),
    "sync_sgd, resnet20": ("sync_sgd", {"name": "resnet20"}, 0.98, 3),
    "fsdp, mlp of 4 M parameters": ("fsdp", MLP, 2.4, 8),
    "fsdp, vit of 1.8 M parameters": ("fsdp", VIT, 1.22, 2),
}
OTHERS = {"sync_sgd": "DDP on gloo", "fsdp": "fully_shard on gloo"}
ALONE = "local steps alone"


def torch_loop(job: Job, rank: int) -> Callable[[int], None]:
    """The loop over torch.distributed that does what the job does."""
    from paceline.learning import models

    from .peers.torch_loops import Ddp, FullyShard

    place, model, batches = job.plan.strategy.placement, build(job), Batches(job, rank)
    if not place.sharded:
        return Ddp(model, batches, SGD).steps
    parts = models.merge_units(models.units(model), place.unit_bytes)
    return FullyShard(parts, place.prefetch + 1, batches, SGD).steps


def local_steps(job: Job, rank: int, steps: int) -> Callable[[int], None]:
    """What takes a block of local steps: the same model whole in memory, nothing exchanged. job: its H is `steps`."""
    (worker,) = job.problem.workers(job.plan, [rank], shared_process=False)
    round = job.plan.first_round()

    def take(count: int) -> None:
        assert count == steps
        worker.steps(round).perform()

    return take


def on_rank(comm: Any, run: Run) -> dict[str, dict[str, list[float]]]:
    """By pair, milliseconds per step of each way, turn by turn."""
    found, share = {}, run.share(len(PAIRS))
    with gloo(comm):
        for name, (preset, model, _, steps) in PAIRS.items():
            steps = 1 if run.small else steps
            job = described(document(model, steps, blocks(run, TURNS), {"preset": preset}))
            alone = described(document(model, steps, 1, {"preset": "local_sgd", "H": steps}))
            ways = {OTHERS[preset]: torch_loop(job, comm.rank), ALONE: local_steps(alone, comm.rank, steps)}
            found[name] = in_turns(comm, job, ways, steps, share.turns(TURNS, comm))
    return found


def measure(run: Run) -> Found:
    found = Found()
    for name, taken in on_ranks(on_rank, 2, run).items():
        preset, _, bar, _ = PAIRS[name]
        case = f"{name}, 2 ranks, a step"
        found.rows.append(compare(case, PACELINE, OTHERS[preset], taken, bar=bar, limit=ALONE, unit="ms"))
    return found
