"""How loops with paceline.LocalSync fail: own_loop_ends.py WAY. Alone in its process it tries what is refused."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

import paceline
from paceline.program.errors import PacelineError

BIASED = {"aggregation": "parameters", "sampling": {"top_loss": {"workers": [0], "ratio": 1}}}


def made(*strategy: Any, **more: Any) -> tuple[nn.Module, torch.optim.Optimizer, Any]:
    """(model, optimizer, LocalSync)."""
    torch.manual_seed(0)
    model = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    return model, optimizer, paceline.LocalSync(model, optimizer, *strategy, **more)


def step(model: nn.Module, optimizer: torch.optim.Optimizer) -> torch.Tensor:
    """A step of the loop; its loss."""
    loss: torch.Tensor = (model(torch.ones(4, 2)) ** 2).mean()
    optimizer.zero_grad()
    torch.autograd.backward(loss)
    optimizer.step()
    return loss


def loop(steps: int, fails: bool = False) -> None:
    """So many steps, with an error after the third of them."""
    model, optimizer, sync = made("local_sgd", H=4)
    for n in range(steps):
        if fails and n == 3:
            raise ZeroDivisionError("on purpose")
        sync.step(step(model, optimizer))
    sync.close()


def stalls(rank: int) -> None:
    """Rank 1 is busy with something else."""
    deadline = {"floor": "0.5 s", "factor": 1, "then": "end"}
    model, optimizer, sync = made("local_sgd", H=2, out="run", scenario={"deadline": deadline})
    for n in range(6):
        if n == 3 and rank == 1:
            time.sleep(60)
        sync.step(step(model, optimizer))


def is_narrow() -> None:
    """A model in bf16 with batch norm, which is evaluated. Its third step is one too many."""
    model = nn.Sequential(nn.Linear(2, 4), nn.BatchNorm1d(4)).to(torch.bfloat16)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    x = torch.ones(4, 2, dtype=torch.bfloat16)
    sync = paceline.LocalSync(
        model, optimizer, "diloco", H=1, steps=2, evaluate=lambda: {"test_loss": (model(x).sum().item(), 4)}
    )
    for _ in range(3):
        torch.autograd.backward((model(x * torch.arange(8).reshape(4, 2)) ** 2).mean())
        optimizer.step()
        sync.step()


def changes_its_rate() -> None:
    """A scheduler whose step comes after sync.step()."""
    model, optimizer, sync = made("local_sgd", H=2)
    for n in range(4):
        sync.step(step(model, optimizer))
        optimizer.param_groups[0]["lr"] = 0.1 / (n + 2)


def goes_too_far() -> None:
    """A loop that is longer than it said."""
    model, optimizer, sync = made("local_sgd", H=2, steps=3)
    for _ in range(4):
        sync.step(step(model, optimizer))


def forgets_a_step() -> None:
    """Batches without steps."""
    _, _, sync = made("local_sgd", H=2, examples=100, batch=4)
    list(sync.batches())


def gives_no_losses() -> None:
    """Biased sampling without losses."""
    model, optimizer, sync = made(BIASED, examples=100, batch=4)
    sync.step(step(model, optimizer))


def diverges() -> None:
    """A loss that is not a number."""
    model, optimizer, sync = made("local_sgd", H=2)
    step(model, optimizer)
    sync.step(float("nan"))


def goes_on_alone() -> int:
    """What a run of 3 ranks has saved in step 4 of 9, loaded by one rank; the number of samples there."""
    saved = made("local_sgd", H=2, sampling="sliced", examples=100, batch=4)[2].state_dict()
    saved["state"] |= {"round": 2, "step": 4, "samples": 48}
    saved["division"] |= {"batches": (4, 4, 4), "paces": (1.0, 1.0, 1.0)}
    sync = made("local_sgd", H=2, sampling="sliced", examples=100, batch=4)[2]
    sync.load_state_dict(saved)
    samples: int = sync.state_dict()["state"]["samples"]
    return samples


REFUSED: dict[str, Callable[[], object]] = {
    "sync_sgd": lambda: made("sync_sgd"),
    "post_local": lambda: made("post_local_sgd", t="3 steps"),
    "offloaded": lambda: made("diloco", placement="offloaded"),
    "no strategy": lambda: made(),
    "alpha": lambda: made("qsr"),
    "unknown": lambda: made("local_sgd", h=3),
    "workers": lambda: made("local_sgd", scenario={"cluster": {"workers": [{"count": 3, "speed": "1 samples/s"}]}}),
    "schedule": lambda: made("local_sgd", lr_schedule="cosine"),
    "looks ahead": lambda: made({**BIASED, "schedule": {"qsr": 0.5}}, examples=100, batch=4, steps=50),
    "examples": lambda: next(made("local_sgd", H=2)[2].batches()),
    **{
        way.__name__: way
        for way in (is_narrow, changes_its_rate, goes_too_far, forgets_a_step, gives_no_losses, diverges)
    },
}


if __name__ == "__main__":
    way = sys.argv[1]
    if way == "refused":
        for name, action in REFUSED.items():
            try:
                action()
            except PacelineError as error:
                print(f"{name}: {error}")
        print(f"goes on alone: {goes_on_alone()}")
    else:
        from paceline.runtime.launcher import world

        rank, _ = world()
        if way == "stalls":
            stalls(rank)
        loop(8 - rank if way == "shorter" else 8, fails=way == "raises" and rank == 1)
