"""How much memory does a rank take that trains ResNet20 on CIFAR-10's files, next to what is predicted?

The files have the official format and random content. One process does what one rank of two does, without messages:
50,000 images, batches of 64 with crops and flips, 8 local steps a round with momentum, then an evaluation of half of
the 10,000 test images. The rows compare what the worker has counted with the prediction; the figures say what each
stage adds, imports included. local_sgd.py measures whole ranks.
"""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from paceline.runtime.resident import resident, resident_peak

from .form import compare, rounded
from .harness import Found, Run
from .local_sgd import TEST, TRAIN, write_images

SECONDS = 30
STEPS, MIB = 16, 1 << 20
WORKLOAD = {
    "model": "resnet20",
    "batch": 64,
    "threads": 1,
    "augment": {"crop": 4, "flip": True},
    "optimizer": {"name": "sgd", "lr": 0.1, "momentum": 0.9},
}
IMPORTS = {
    "NumPy": "numpy",
    "Paceline, as a rank loads it": "paceline.training_rank",
    "MPI's library, not initialised": "mpi4py.MPI",
    "torch": "torch",
}


def stages(folder: Path, steps: int) -> dict[str, Any]:
    """{stages: [(name, MiB in memory, most MiB so far)], ...}, and the MiB that are predicted and counted."""
    import mpi4py

    reached: list[tuple[str, float, float]] = []

    def reach(stage: str) -> None:
        reached.append((stage, rounded(resident() / MIB), rounded(resident_peak() / MIB)))

    mpi4py.rc.initialize = mpi4py.rc.finalize = False
    reach("Python, and the harness")
    for stage, module in IMPORTS.items():
        importlib.import_module(module)
        reach(stage)
    from paceline.algorithms.rounds import State

    from .training import described

    job = described(
        {
            "workload": WORKLOAD | {"data": {"name": "cifar10", "path": str(folder), "verify": False}},
            "cluster": {"workers": [{"count": 2, "speed": "500 samples/s"}]},
            "strategy": {"preset": "local_sgd", "H": 8},
            "budget": {"steps": steps},
        }
    )
    job.problem.load_libraries(job.plan)
    reach("all libraries")
    _ = job.problem.data
    reach("the data")
    (worker,) = job.problem.workers(job.plan, [0], shared_process=False)
    reach("the worker, which has tried a step")
    state = State()
    while state.step < steps:
        worker.steps(job.plan.next_round(state)).perform()
        state = job.plan.ahead(state, 1)
    reach(f"{steps} steps")
    scores: Any = worker.evaluate(worker.buffers).perform()
    assert scores[2] == job.problem.shape.test / 2
    reach("an evaluation")
    predicted = {name: each[0] for name, each in job.memory([w.works for w in job.problem.phantoms(job.plan)]).items()}
    told: dict[str, dict[str, Any]] = {"predicted": predicted, "counted": worker.memory()}
    return {"stages": reached} | {
        name: {key: rounded(value / MIB) for key, value in parts.items()} for name, parts in told.items()
    }


def measure(run: Run) -> Found:
    """In a process of its own, in which nothing has been imported yet."""
    with tempfile.TemporaryDirectory() as folder:
        write_images(Path(folder), *((100, 20) if run.small else (TRAIN, TEST)))
        command = [sys.executable, "-m", "benchmarks.memory", folder, str(8 if run.small else STEPS)]
        figures = json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)
    predicted, counted = figures["predicted"], figures["counted"]
    rows = [
        compare(
            f"resnet20, images as bytes: {name}",
            "counted",
            "predicted",
            {"counted": [counted[name]], "predicted": [predicted[name]]},
            "memory",
            unit="MiB",
        )
        for name in counted
        if predicted.get(name) and counted[name]
    ]
    return Found(rows, figures)


if __name__ == "__main__":
    print(json.dumps(stages(Path(sys.argv[1]), int(sys.argv[2]))))
