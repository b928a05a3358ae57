"""Training loops as users write them, with paceline.LocalSync. Run under mpirun: own_loop.py FOLDER SCENARIO...

Each scenario is trained in a loop of plain torch into FOLDER/NAME, and so are the runs below that end by themselves.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim.lr_scheduler import CosineAnnealingLR

import paceline
from paceline.algorithms.worker import EVALUATION_BATCH, share
from paceline.config.scenario import Scenario, load, validate
from paceline.learning.data import digits
from paceline.learning.models import build
from paceline.runtime.launcher import world

DATA = digits()
X, Y = torch.from_numpy(DATA.train_x), torch.from_numpy(DATA.train_y)
TEST = torch.from_numpy(DATA.test_x), torch.from_numpy(DATA.test_y)
DESCRIBED = {"seed": 3, "workload": {"model": {"name": "mlp", "hidden": [16]}, "data": "digits", "batch": 8}}


def parts(scenario: Scenario) -> tuple[nn.Module, torch.optim.Optimizer]:
    """The model and the optimizer of a scenario; fused, as Paceline's own are."""
    w = scenario.workload
    model = build(w.model.name, w.model.args, DATA.shape.input_shape, 10, scenario.seed)
    options = w.optimizer.model_dump(exclude={"name", "decay", "clip"})
    kind = torch.optim.AdamW if w.optimizer.name == "adamw" else torch.optim.SGD
    return model, kind(model.parameters(), fused=True, **options)


def plain(lr: float = 0.05) -> tuple[nn.Module, torch.optim.Optimizer]:
    """Those of DESCRIBED."""
    workload = DESCRIBED["workload"] | {"optimizer": {"lr": lr, "momentum": 0.9}}  # type: ignore[operator]
    document = DESCRIBED | {"workload": workload, "budget": {"steps": 1}, "strategy": {"preset": "diloco"}}
    return parts(validate(document | {"cluster": {"workers": [{"speed": "1 samples/s"}]}}, "here"))


def evaluate(model: nn.Module) -> dict[str, tuple[float, float]]:
    """Over this rank's part of the test set, in blocks, as Paceline's own evaluation goes."""
    start, stop = share(len(TEST[0]), *world())
    loss, correct = 0.0, 0
    for block in range(start, stop, EVALUATION_BATCH):
        x, y = (each[block : min(block + EVALUATION_BATCH, stop)] for each in TEST)
        outputs = torch.cat([model(piece) for piece in torch.split(x, 64)])
        loss += cross_entropy(outputs, y).item() * len(y)
        correct += int((outputs.argmax(1) == y).sum())
    return {"test_loss": (loss, stop - start), "accuracy": (correct, stop - start)}


def losses(
    sync: Any, model: nn.Module, optimizer: torch.optim.Optimizer, reduction: str = "mean", steps: int | None = None
) -> Iterator[Tensor]:
    """The batches' losses, each before the next step of the loop and after the optimizer's."""
    for indices in islice(map(torch.from_numpy, sync.batches()), steps):
        # A fresh tensor of the usual strides: a convolution's bits may depend on its input's.
        loss = cross_entropy(model(X.index_select(0, indices)), Y[indices], reduction=reduction)
        optimizer.zero_grad()
        torch.autograd.backward(loss.mean())
        optimizer.step()
        yield loss


def train(path: Path, out: Path) -> None:
    """A scenario."""
    model, optimizer = parts(load(path))
    sync = paceline.LocalSync(model, optimizer, scenario=path, evaluate=partial(evaluate, model), out=out)
    for loss in losses(sync, model, optimizer, "none" if "biased" in path.stem else "mean"):
        sync.step(loss)


def ends_inside_a_round(out: Path) -> None:
    """A loop that does not say how long it is, with torch's own schedule.

    Sliced sampling gives each step its examples, however long the rounds are; another would have planned the last one
    as a whole.
    """
    model, optimizer = plain()
    schedule = CosineAnnealingLR(optimizer, 60)
    measure = partial(evaluate, model)
    with paceline.LocalSync(
        model,
        optimizer,
        "qsr",
        alpha=0.06,
        h_base=2,
        sampling="sliced",
        evaluate=measure,
        out=out,
        scenario=DESCRIBED,
    ) as sync:
        for loss in losses(sync, model, optimizer, steps=51):
            schedule.step()
            sync.step(loss)


def ends_between_rounds(out: Path) -> None:
    """The same for equal rounds, the last of which is whole."""
    model, optimizer = plain()
    sync = paceline.LocalSync(
        model, optimizer, "slowmo", H=4, evaluate=partial(evaluate, model), out=out, scenario=DESCRIBED
    )
    synced = [sync.step(loss) for loss in losses(sync, model, optimizer, steps=16)]
    assert synced == [False, False, False, True] * 4
    sync.close()


def goes_on(out: Path) -> None:
    """DiLoCo for two rounds, and for two more in another LocalSync."""
    saved: list[Any] = []
    for first in (True, False):
        model, optimizer = plain()
        if not first:
            model.load_state_dict(saved[0])
            optimizer.load_state_dict(saved[1])
        sync = paceline.LocalSync(
            model, optimizer, "diloco", H=4, steps=16, out=None if first else out, scenario=DESCRIBED
        )
        if not first:
            sync.load_state_dict(saved[2])
        for loss in losses(sync, model, optimizer, steps=8):
            sync.step(loss)
        if first:
            saved = [model.state_dict(), optimizer.state_dict(), sync.state_dict()]


if __name__ == "__main__":
    torch.set_num_threads(1)
    folder, *scenarios = map(Path, sys.argv[1:])
    for path in scenarios:
        train(path, folder / path.stem)
    for ending in (ends_inside_a_round, ends_between_rounds, goes_on):
        ending(folder / ending.__name__)
