"""How fast is local SGD next to what users would take: a released loop's shape, torch's PostLocalSGD, Accelerate?

2 ranks of 1 thread, in turns of blocks of a round or more in one mpirun.

- ResNet20 on 50,000 CIFAR-shaped images stored as bytes, batch 64, H = 8, momentum, crops and flips, against
  peers/local_sgd_loop.py. Paceline's peak memory of a rank is that of a whole `paceline train`, the loop's that of a
  process that trains as many steps. Bars: not slower; 740 MiB.
- An MLP of 3.2 M parameters on batches in memory, H = 1 and 8, against peers/torch_loops.py. Bars: 1.15 at H = 8.
  Accelerate is an extra (`pip install 'paceline[bench]'`).

The limit is the same training's local steps, which exchange nothing.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from .data_parallel import ALONE, local_steps
from .form import compare
from .harness import Found, Run
from .ranks import on_ranks
from .training import BATCH, PACELINE, SGD, Batches, blocks, build, described, document, gloo, in_turns

SECONDS = 300
TURNS, H = 15, 8
MLP = {"name": "mlp", "hidden": [896, 448]}
RESNET = {"name": "resnet20"}
LOOP, POST_LOCAL, ACCELERATE = "a released loop's shape", "torch PostLocalSGD on gloo", "Accelerate LocalSGD"
BARS = {8: 1.15}  # over PostLocalSGD and Accelerate, by H
MEMORY_MIB = 740.0
TRAIN, TEST = 50_000, 10_000


def write_images(folder: Path, train: int, test: int) -> None:
    """Random images in the binary files of CIFAR-10."""
    draws = np.random.default_rng(7)
    files = {f"data_batch_{i}.bin": train // 5 for i in range(1, 6)} | {"test_batch.bin": test}
    for name, count in files.items():
        rows = draws.integers(0, 256, (count, 1 + 3 * 32 * 32), np.uint8)
        rows[:, 0] %= 10
        (folder / name).write_bytes(rows.tobytes())


def images(folder: Path) -> Any:
    """The training images as the loop reads them."""
    from .peers.local_sgd_loop import Images

    rows = [np.fromfile(folder / f"data_batch_{i}.bin", np.uint8).reshape(-1, 1 + 3 * 32 * 32) for i in range(1, 6)]
    every = np.concatenate(rows)
    return Images(every[:, 1:].reshape(-1, 3, 32, 32), every[:, 0].astype(np.int64))


def resnet(folder: Path, H: int, steps: int, count: int) -> dict[str, Any]:
    """The scenario of ResNet20."""
    data = {"name": "cifar10", "path": str(folder), "verify": False}
    scenario = document(RESNET, steps, count, {"preset": "local_sgd", "H": H}, data)
    scenario["workload"]["augment"] = {"crop": 4, "flip": True}
    return scenario


def loop_of(folder: Path, job: Any, H: int, comm: Any) -> Any:
    """The released loop's shape on the same data."""
    import torch

    from .peers.local_sgd_loop import LocalSgdLoop

    torch.set_num_threads(1)
    return LocalSgdLoop(build(job), images(folder), BATCH, H, comm, SGD)


def on_rank_images(comm: Any, folder: Path, run: Run) -> dict[str, list[float]]:
    """ResNet20: milliseconds per step, turn by turn."""
    steps = 1 if run.small else H
    job = described(resnet(folder, steps, steps, blocks(run, TURNS)))
    ways = {LOOP: loop_of(folder, job, steps, comm).steps, ALONE: local_steps(job, comm.rank, steps)}
    return in_turns(comm, job, ways, steps, run.turns(TURNS, comm))


def on_rank_memory(comm: Any, folder: Path, steps: int) -> float:
    """MiB that the largest rank of the released loop's shape held at most."""
    from paceline.runtime.resident import resident_peak

    loop_of(folder, described(resnet(folder, H, steps, 1)), H, comm).steps(steps)
    return float(max(comm.allgather(resident_peak()))) / 2**20


def on_rank_vectors(comm: Any, run: Run) -> dict[int, dict[str, list[float]]]:
    """The MLP: by H, milliseconds per step, turn by turn."""
    from .peers.torch_loops import Accelerated, PostLocal

    found = {}
    with gloo(comm):
        for period in (1, H):
            steps = H if run.small else 3 * H
            strategy = {"preset": "local_sgd", "H": period}
            job = described(document(MLP, steps, blocks(run, 2 * TURNS), strategy))
            alone = described(document(MLP, steps, 1, {"preset": "local_sgd", "H": steps}))
            batches = Batches(job, comm.rank)
            ways: dict[str, Callable[[int], None]] = {POST_LOCAL: PostLocal(build(job), period, batches, SGD).steps}
            if Accelerated.missing() is None:
                ways[ACCELERATE] = Accelerated(build(job), period, batches, SGD).steps
            ways[ALONE] = local_steps(alone, comm.rank, steps)
            found[period] = in_turns(comm, job, ways, steps, run.share(2).turns(2 * TURNS, comm))
    return found


def memory(folder: Path, steps: int) -> dict[str, list[float]]:
    """MiB that the largest rank held at most: of `paceline train`, and of the loop."""
    import paceline
    from paceline.config import yaml

    path = folder / "resnet20.yaml"
    path.write_text(yaml.dump(resnet(folder, H, steps, 1)))
    measured = paceline.train(path, out=folder / "run").summary["memory_measured"]
    ours = max(measured["resident_peak"]) / 2**20
    return {PACELINE: [ours], LOOP: [on_ranks(on_rank_memory, 2, folder, steps)], f"{MEMORY_MIB:g} MiB": [MEMORY_MIB]}


def measure(run: Run) -> Found:
    from .peers.torch_loops import Accelerated

    found, share = Found(), run.share(3)  # a third is for the whole `paceline train`
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_images(folder, *((500, 100) if run.small else (TRAIN, TEST)))
        taken = on_ranks(on_rank_images, 2, folder, share)
        held = memory(folder, 2 if run.small else 2 * H)
    case = f"resnet20, images as bytes, H = {H}, 2 ranks"
    found.rows.append(compare(f"{case}, a step", PACELINE, LOOP, taken, bar=1.0, limit=ALONE, unit="ms"))
    for against, bar in ((LOOP, None), (f"{MEMORY_MIB:g} MiB", 1.0)):
        row = compare(f"{case}, peak of a rank", PACELINE, against, held, "memory", bar=bar, unit="MiB")
        found.rows.append(row)
    for period, taken in on_ranks(on_rank_vectors, 2, share).items():
        case = f"mlp of 3.2 M parameters, H = {period}, 2 ranks, a step"
        for against in [name for name in taken if name not in (PACELINE, ALONE)]:
            row = compare(case, PACELINE, against, taken, bar=BARS.get(period), limit=ALONE, unit="ms")
            found.rows.append(row)
    if reason := Accelerated.missing():
        found.skipped.append(f"{ACCELERATE}: {reason}")
    return found
