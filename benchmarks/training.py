"""What the benchmarks of training share: a job in blocks, its model and data, and turns with other training loops."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from typing import Any

from paceline.algorithms.rounds import State
from paceline.config.scenario import validate
from paceline.job import Job, resolve
from paceline.program.outcome import Hooks

from .harness import Run
from .ranks import slowest

BATCH = 64
OPTIMIZER = {"name": "sgd", "lr": 0.01, "momentum": 0.9, "weight_decay": 1e-4}
SGD = {key: value for key, value in OPTIMIZER.items() if key != "name"}  # as torch.optim.SGD takes it
SYNTHETIC = {"name": "synthetic", "train": 2048, "test": 64}
PACELINE = "Paceline"


def document(
    model: Mapping[str, Any], steps: int, blocks: int, strategy: Mapping[str, Any], data: Mapping[str, Any] = SYNTHETIC
) -> dict[str, Any]:
    """A scenario of 2 equal workers; a checkpoint falls due at the end of each block of `steps` steps."""
    return {
        "workload": {"model": dict(model), "data": dict(data), "batch": BATCH, "optimizer": OPTIMIZER},
        "cluster": {"workers": [{"speed": "1 samples/s", "count": 2}]},
        "strategy": dict(strategy),
        "budget": {"steps": steps * blocks},
        "checkpoint": {"every": f"{steps} steps"},
    }


def described(scenario: Mapping[str, Any]) -> Job:
    """A job of a document."""
    return resolve(validate(dict(scenario), "benchmark"), Path())


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


@contextmanager
def gloo(comm: Any) -> Iterator[None]:
    """torch.distributed on gloo, among the ranks of `comm`, each with one thread."""
    import torch

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        store = comm.bcast(str(Path(folder, "store")))
        torch.distributed.init_process_group(
            "gloo", init_method=f"file://{store}", rank=comm.rank, world_size=comm.size
        )
        yield
        torch.distributed.destroy_process_group()
        comm.Barrier()


def in_turns(
    comm: Any, job: Job, others: Mapping[str, Callable[[int], None]], steps: int, turns: Sequence[int] | Iterator[int]
) -> dict[str, list[float]]:
    """Milliseconds per step: of `job`, trained over the MPI interpreter, and of the others, turn by turn.

    others: each takes so many training steps. Their turns come inside of the checkpoint hook, which ends a block of
    `steps` steps and whose time does not count as training. The job is stopped after the last turn.
    """
    from paceline.runtime.engine import run

    worker: Any = job.problem.workers(job.plan, [comm.rank], shared_process=False)[0]
    worker.snapshot = dict
    worker.evaluate = job.problem.phantoms(job.plan)[comm.rank].evaluate
    job.plan.report = None
    taken: dict[str, list[float]] = {name: [] for name in (PACELINE, *others)}
    turns = iter(turns)
    turn: int | None = next(turns)
    begun = perf_counter()

    def note(name: str) -> None:
        nonlocal begun
        comm.Barrier()
        now = perf_counter()
        if turn is not None and turn >= 0:
            taken[name].append((now - begun) / steps * 1e3)
        begun = now

    def block(*_: object) -> None:
        nonlocal turn, begun
        if turn is None:  # the round in which the job stops
            return
        note(PACELINE)
        for name in reversed(list(others)) if turn % 2 else others:
            others[name](steps)
            note(name)
        turn = next(turns, None)
        comm.Barrier()
        begun = perf_counter()

    run(job.programs([worker], State())[0], Hooks(checkpoint=block, stop=lambda: turn is None), comm=comm)
    return slowest(comm, taken)


def blocks(run: Run, count: int) -> int:
    """Blocks of a job that is to take `count` turns: one warms up, one ends it."""
    return (2 if run.small else count) + 3
