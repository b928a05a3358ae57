"""What the runtime adds to a training step: sync_sgd over MPI against a hand-written torch + mpi4py loop, 2 ranks.

Both train the same model on the same batches in one mpirun, alternating block by block; the hand-written loop packs its
gradients into one flat vector and reduces it in place, as a careful user would. Reported: median over blocks of
(Paceline's seconds / the loop's seconds), per model.

    python benchmarks/runtime_step.py [--small]
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

from paceline.algorithms.rounds import State
from paceline.config.scenario import validate
from paceline.job import Job, resolve
from paceline.program.outcome import Hooks
from paceline.records.environment import environment

RESULTS = Path(__file__).parent / "results" / "runtime_step.json"
MODELS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "mlp, 4 M parameters": ({"name": "mlp", "hidden": [1024, 896]}, {"name": "synthetic", "train": 2048, "test": 64}),
    "resnet20": ({"name": "resnet20"}, {"name": "synthetic", "train": 2048, "test": 64}),
}
BATCH = 64
OPTIMIZER = {"name": "sgd", "lr": 0.01, "momentum": 0.9, "weight_decay": 1e-4}


def job(model: dict[str, Any], data: dict[str, Any], steps: int, blocks: int, preset: str = "sync_sgd") -> Job:
    """A preset at 2 workers; a checkpoint falls due at the end of each block."""
    document = {
        "workload": {"model": model, "data": data, "batch": BATCH, "optimizer": OPTIMIZER},
        "cluster": {"workers": [{"speed": "1 samples/s", "count": 2}]},
        "strategy": {"preset": preset},
        "budget": {"steps": steps * blocks},
        "checkpoint": {"every": f"{steps} steps"},
    }
    return resolve(validate(document, "benchmark"), Path())


class Batches:
    """A job's training data in memory, batch by batch in an order of the rank's own."""

    def __init__(self, job: Job, rank: int) -> None:
        import torch

        from paceline.learning import data

        stored = data.load(job.scenario.workload.data.name, job.scenario.workload.data.args)
        self.x, self.y = torch.from_numpy(stored.train_x), torch.from_numpy(stored.train_y)
        self.order = torch.randperm(len(self.y), generator=torch.Generator().manual_seed(rank))
        self.at = 0

    def next(self) -> tuple[Any, Any]:
        """(inputs, targets)."""
        index = self.order[self.at : self.at + BATCH]
        self.at = (self.at + BATCH) % len(self.y)
        return self.x[index], self.y[index]


def build(job: Job) -> Any:
    """The job's model, to be trained."""
    from paceline.learning import models

    model, shape = job.scenario.workload.model, job.problem.shape
    return models.build(model.name, model.args, shape.input_shape, shape.classes, 0).train()


class HandWritten:
    """The loop that a careful user writes."""

    def __init__(self, job: Job, comm: Any) -> None:
        import torch

        self.comm, self.model, self.batches = comm, build(job), Batches(job, comm.Get_rank())
        self.parameters = parameters = list(self.model.parameters())
        self.flat = torch.zeros(sum(p.numel() for p in parameters))
        self.views = []
        start = 0
        for p in parameters:
            self.views.append(self.flat[start : start + p.numel()].view(p.shape))
            start += p.numel()
        options = {key: value for key, value in OPTIMIZER.items() if key != "name"}
        self.optimizer = torch.optim.SGD(parameters, **options, fused=True)

    def steps(self, count: int) -> None:
        """Train `count` steps."""
        import torch
        from mpi4py import MPI

        vector, size = self.flat.numpy(), self.comm.Get_size()
        for _ in range(count):
            x, y = self.batches.next()
            for p in self.parameters:
                p.grad = None  # fresh gradients, packed afterwards, are faster than adding into flat ones
            loss = torch.nn.functional.cross_entropy(self.model(x), y)
            loss.backward()  # type: ignore[no-untyped-call]
            torch.cat([p.grad.view(-1) for p in self.parameters if p.grad is not None], out=self.flat)
            self.comm.Allreduce(MPI.IN_PLACE, vector)
            self.flat /= size
            for p, view in zip(self.parameters, self.views, strict=True):
                p.grad = view
            self.optimizer.step()
            loss.item()


def measure(model: dict[str, Any], data: dict[str, Any], steps: int, blocks: int) -> tuple[list[float], list[float]]:
    """Seconds of each block: (Paceline's, the loop's). The loop's turn comes inside the checkpoint hook."""
    from mpi4py import MPI

    from paceline.runtime.engine import run

    comm = MPI.COMM_WORLD
    described = job(model, data, steps, blocks)
    (worker,) = described.problem.workers(described.plan, [comm.Get_rank()], shared_process=False)
    worker.snapshot = dict  # type: ignore[method-assign,assignment]
    worker.evaluate = described.problem.phantoms(described.plan)[0].evaluate  # type: ignore[method-assign,assignment]
    loop = HandWritten(described, comm)
    loop.steps(5)
    ours: list[float] = []
    theirs: list[float] = []
    begun = [0.0]

    def block(*_: object) -> None:
        comm.Barrier()
        now = time.perf_counter()
        ours.append(now - begun[0])
        loop.steps(steps)
        comm.Barrier()
        begun[0] = time.perf_counter()
        theirs.append(begun[0] - now)

    described.plan.report = None
    begun[0] = time.perf_counter()
    run(described.programs([worker], State())[0], Hooks(lambda *_: None, block), comm=comm)
    return ours[1:], theirs[1:]  # the first block holds the broadcast


def main() -> None:
    """Measure on every rank; rank 0 prints and writes."""
    from mpi4py import MPI

    small = "--small" in sys.argv
    results: dict[str, Any] = {}
    for name, (model, data) in MODELS.items():
        ours, theirs = measure(model, data, 4 if small else 12, 4 if small else 31)
        ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
        quartiles = statistics.quantiles(ratios, n=4)
        results[name] = {
            "ratio": statistics.median(ratios),
            "quartiles": [quartiles[0], quartiles[2]],
            "paceline_ms_per_step": statistics.median(ours) / (4 if small else 12) * 1e3,
            "hand_written_ms_per_step": statistics.median(theirs) / (4 if small else 12) * 1e3,
            "blocks": len(ratios),
        }
    if MPI.COMM_WORLD.Get_rank() == 0:
        print(json.dumps(results, indent=1))
        if not small:
            RESULTS.write_text(json.dumps({"environment": environment(1), "bar": 1.03, **results}, indent=1) + "\n")


if __name__ == "__main__":
    from paceline.runtime.launcher import under_mpirun

    if under_mpirun():
        main()
    else:
        from paceline.runtime.launcher import launch

        raise SystemExit(launch(sys.argv[1:], 2, program=[str(Path(__file__))]))
