"""What does reading examples when they are needed cost? A torch Dataset of files against the same examples in memory.

ResNet20 at 32 x 32, batch 64, one worker of one thread, in turns of blocks of 8 local steps. Each example is a file of
its own bytes, which __getitem__ opens, reads and scales, with two loader threads and with none. Bar: 1.1 times the
step's time with two loaders.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from .form import compare
from .harness import Found, Run, alternate, timed
from .training import OPTIMIZER, blocks, described, document

SECONDS = 60
TURNS, H, BAR = 20, 8, 1.1
EXAMPLES, TEST = 4096, 64
MEMORY, LAZY, ALONE = "in memory", "read lazily, 2 loaders", "read lazily, no loaders"


def files_of(folder: Path, count: int) -> Any:
    """A torch Dataset of random images in `folder`, which are written there."""
    import torch
    from torch.utils.data import Dataset

    class Files(Dataset[Any]):
        """Images of bytes, one in each file, and labels that follow from their numbers."""

        def __len__(self) -> int:
            return count

        def __getitem__(self, index: int) -> tuple[Any, int]:
            image = torch.from_numpy(np.fromfile(folder / f"{index}.bin", np.uint8))
            return image.view(3, 32, 32).float() / 255, index % 10

    folder.mkdir()
    for index, image in enumerate(np.random.default_rng(count).integers(0, 256, (count, 3 * 32 * 32), np.uint8)):
        image.tofile(folder / f"{index}.bin")
    return Files()


def steps_of(plan: Any, data: Any, loaders: int) -> tuple[Callable[[], None], Any]:
    """(what takes the local steps of the next round, the worker that takes them)."""
    from paceline.learning.build import build_workers

    options: dict[str, Any] = {"model": "resnet20", "optimizer": OPTIMIZER, "seed": 7}
    (worker,) = build_workers(plan, data, **options, indexes=[0], shared_process=False, loaders=loaders)
    rounds = plan.rounds()
    return lambda: worker.steps(next(rounds)).perform(), worker


def step_time(block: Callable[[], None], steps: int) -> float:
    """Milliseconds of one of the steps of a block."""
    return timed(block) / steps * 1e3


def measure(run: Run) -> Found:
    import torch

    from paceline.learning.dataset import Dataset
    from paceline.learning.torch_datasets import lazily

    torch.set_num_threads(1)
    steps = 1 if run.small else H
    with tempfile.TemporaryDirectory() as name:
        train, test = files_of(Path(name, "train"), EXAMPLES), files_of(Path(name, "test"), TEST)
        lazy, arrays = lazily(train, test, 10, "data"), list[Any]()
        for part in (train, test):
            examples = [part[index] for index in range(len(part))]
            arrays += [np.stack([x.numpy() for x, _ in examples]), np.array([y for _, y in examples])]
        size = {"name": "synthetic", "train": EXAMPLES, "test": TEST}
        settings = {"preset": "local_sgd", "H": steps}
        plan = described(document({"name": "resnet20"}, steps, blocks(run, TURNS), settings, size)).plan
        ways = {MEMORY: (Dataset(*arrays, classes=10), 0), LAZY: (lazy, 2), ALONE: (lazy, 0)}
        made = {way: steps_of(plan, *given) for way, given in ways.items()}
        taken = alternate({way: partial(step_time, block, steps) for way, (block, _) in made.items()}, run.turns(TURNS))
        (one, other) = (made[way][1].digest() for way in (LAZY, ALONE))
        assert one == other, "loaders change no bits"
    case = "ResNet20 at 32 x 32, a step"
    return Found(
        [
            compare(case, LAZY, MEMORY, taken, "time", bar=BAR, unit="ms"),
            compare(case, ALONE, MEMORY, taken, "time", unit="ms"),
        ]
    )
