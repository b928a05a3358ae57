"""The memory of a rank that trains ResNet20 on CIFAR-10's files: what each stage adds, what is predicted and counted.

Usage: python benchmarks/memory.py [--small]. Prints, and writes benchmarks/results/memory.json (--small: prints only).
The files have the official format and random content. One process does what one rank of two does, without messages:
50,000 images, batches of 64 with crops and flips, 8 local steps a round with momentum, then an evaluation of 5,000
test images.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import random
import tempfile
from pathlib import Path
from typing import Any

import mpi4py

from paceline.runtime.resident import resident, resident_peak

RESULTS = Path(__file__).parent / "results" / "memory.json"
IMAGES, STEPS = 10_000, 16  # in each of the six files; in the run
MIB = 1 << 20
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


def write_files(folder: Path, images: int) -> None:
    """CIFAR-10's six files, with random pixels."""
    for file in (*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"):
        with (folder / file).open("wb") as opened:
            for label in range(images):
                opened.write(bytes([label % 10]) + random.randbytes(3 * 32 * 32))


def measure(folder: Path, steps: int) -> dict[str, Any]:
    """{stages: (name, bytes in memory, most bytes so far), ...}, and the bytes that are predicted and counted."""
    stages: list[tuple[str, int, int]] = []

    def reached(stage: str) -> None:
        stages.append((stage, resident(), resident_peak()))
        print(f"{stage:40} {stages[-1][1] / MIB:7.1f} MiB, at most {stages[-1][2] / MIB:7.1f}", flush=True)

    mpi4py.rc.initialize = mpi4py.rc.finalize = False
    reached("Python")
    for stage, module in IMPORTS.items():
        importlib.import_module(module)
        reached(stage)
    from paceline.algorithms.rounds import State
    from paceline.config.scenario import validate
    from paceline.job import resolve

    document = {
        "workload": WORKLOAD | {"data": {"name": "cifar10", "path": str(folder), "verify": False}},
        "cluster": {"workers": [{"count": 2, "speed": "500 samples/s"}]},
        "strategy": {"preset": "local_sgd", "H": 8},
        "budget": {"steps": steps},
    }
    job = resolve(validate(document, "benchmark"), Path())
    job.problem.load_libraries(job.plan)
    reached("all libraries")
    _ = job.problem.data
    reached("the data")
    (worker,) = job.problem.workers(job.plan, [0], shared_process=False)
    reached("the worker, which has tried a step")
    state = State()
    while state.step < steps:
        round = job.plan.next_round(state)
        taken = worker.steps(round)
        for _ in range(taken.times):
            taken.run()
        state = job.plan.ahead(state, 1)
    reached(f"{steps} steps")
    assert worker.evaluate(worker.buffers).run()[2] == job.problem.shape.test / 2
    reached("an evaluation")
    predicted = {name: each[0] for name, each in job.memory([w.works for w in job.problem.phantoms(job.plan)]).items()}
    return {"stages": stages, "predicted": predicted, "counted": worker.memory()}


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="few images and steps; write no file")
    small = parser.parse_args().small
    with tempfile.TemporaryDirectory() as folder:
        write_files(Path(folder), 20 if small else IMAGES)
        found = measure(Path(folder), 8 if small else STEPS)
    for name in ("predicted", "counted"):
        print(name, {key: f"{value / MIB:.1f} MiB" for key, value in found[name].items()})
    if not small:
        machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
        RESULTS.write_text(json.dumps({"machine": machine} | found, indent=1) + "\n")


if __name__ == "__main__":
    main()
