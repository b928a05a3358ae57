"""fp16: loss scaling as torch's GradScaler has it, and steps that are tried again where their gradient overflows."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from kit.cli import scenario
from kit.learning import DIGITS, SGD, make, make_plan
from paceline import simulate
from paceline.algorithms.costs import TAIL
from paceline.algorithms.rounds import State
from paceline.config import yaml
from paceline.learning import models
from paceline.learning.loss_scale import INTERVAL, SCALE
from paceline.learning.recipe import Recipe
from paceline.program.errors import NotFinite, ScenarioError

PLAN = make_plan([16], H=8)
ROUND = PLAN.next_round(State())


def worker(scale: float | None = None, model: str = "mlp", args: dict | None = None, **more):
    recipe = Recipe(precision="fp16", loss_scale=scale, micro_batch=more.pop("micro_batch", None))
    return make(PLAN, model, args, recipe=recipe, **more)[0]


def scale_of(w) -> float:
    return w.snapshot()[SCALE][0]


def test_it_trains_as_torchs_autocast_and_grad_scaler_do():
    w, model = worker(1024.0), models.build("mlp", {}, (1, 8, 8), 10, seed=7)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-4, fused=True)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    for i in range(4):
        w.steps(ROUND, i).run()
        chosen = PLAN.strategy.sampling.indices(7, 1437, 0, 16 * i, 16)
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.float16):
            outputs = model(torch.from_numpy(DIGITS.train_x[chosen]))
        assert outputs.dtype == torch.float16
        loss = nn.functional.cross_entropy(outputs.float(), torch.from_numpy(DIGITS.train_y[chosen]))
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        scaler.step(optimizer)
        scaler.update()
    assert np.array_equal(w.params[:-TAIL], np.concatenate([p.detach().numpy().ravel() for p in model.parameters()]))
    assert scale_of(w) == scaler.get_scale() == 1024.0


@pytest.mark.parametrize(
    ("model", "args", "micro_batch"),
    [("mlp", {"dropout": 0.3}, None), ("mlp", {"dropout": 0.3}, 6), ("resnet20", {"width": 0.25}, 8)],
)
def test_a_step_that_overflows_is_taken_with_the_scale_that_does_not(model, args, micro_batch):
    """As if that scale had been the first: the same parameters, random stream, buffers and losses, to the last bit."""
    one = worker(2.0**60, model, args, micro_batch=micro_batch)
    one.steps(ROUND, 0).run()
    found = scale_of(one)
    assert 1 < found < 2.0**60
    two = worker(found, model, args, micro_batch=micro_batch)
    two.steps(ROUND, 0).run()
    saved = copy.deepcopy(one.snapshot())
    for name, array in two.snapshot().items():
        assert np.array_equal(array, saved[name]), name
    two.gradient(ROUND, 1).run()
    two.update(ROUND, 1).run()
    one.steps(ROUND, 1).run()
    assert np.array_equal(one.params[:-TAIL], two.params[:-TAIL])
    new = worker(2.0**60, model, args, micro_batch=micro_batch)
    new.restore(saved)
    new.steps(ROUND, 1).run()
    assert np.array_equal(one.params[:-TAIL], new.params[:-TAIL])
    assert scale_of(new) == scale_of(one)


def test_the_scale_doubles_after_so_many_steps_without_an_overflow():
    w = worker(64.0)
    w.restore(w.snapshot() | {SCALE: np.array([64.0, INTERVAL - 2])})
    for i, expected in enumerate((64.0, 128.0, 128.0)):
        w.steps(ROUND, i).run()
        assert scale_of(w) == expected
    assert w.snapshot()[SCALE][1] == 1


class Endless(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, grad):
        return grad * float("inf")


class EndlessGradient(nn.Module):
    def forward(self, x):
        return Endless.apply(x)


def endless(input_shape, classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, classes), EndlessGradient())


def test_a_gradient_that_no_scale_makes_finite_is_an_error():
    w = worker(4.0, f"{__name__}:endless")
    with pytest.raises(NotFinite, match="worker 0, step 1: the gradient's norm is inf"):
        w.steps(ROUND, 0).run()
    assert scale_of(w) == 0.5
    unwatched = worker(4.0, f"{__name__}:endless", health=False)
    unwatched.steps(ROUND, 0).run()
    assert not np.isfinite(unwatched.params).all()


def test_a_precision_without_scaling_saves_no_scale():
    (w,) = make(PLAN, recipe=Recipe(precision="bf16"), optimizer=SGD)
    assert SCALE not in w.snapshot()
    with pytest.raises(ValueError, match="write the placement, optimizer and precision of then"):
        w.restore(worker().snapshot())


def written(document: dict, folder: Path) -> Path:
    (folder / "fp16.yaml").write_text(yaml.dump(document))
    return folder / "fp16.yaml"


VIT = {"name": "vit", "dim": 16, "depth": 2}


@pytest.mark.parametrize(
    "strategy",
    [
        {"preset": "fsdp"},
        {"preset": "lsdp"},
        {"preset": "local_sgd", "placement": "offloaded"},
        {"preset": "sync_sgd", "placement": {"replicated": {"unit_bytes": 1}}},
    ],
)
def test_gradients_that_leave_unit_by_unit_are_refused(strategy, tmp_path):
    document = scenario(2, VIT, strategy, 1)
    document["workload"]["precision"] = "fp16"
    with pytest.raises(ScenarioError, match=r"workload.precision: in fp16 .* write placement") as error:
        simulate(written(document, tmp_path), timing_only=True)
    assert "\n" not in str(error.value)


def test_a_timing_only_run_has_the_clock_of_a_run_that_tries_again(tmp_path):
    document = scenario(2, VIT, {"preset": "sync_sgd", "placement": {"replicated": {"overlap": False}}}, 2)
    document["workload"] |= {"precision": "fp16", "loss_scale": 1e12}
    document["budget"] = {"steps": 3}
    path = written(document, tmp_path)
    full, timed = simulate(path), simulate(path, timing_only=True)
    assert full.summary["seconds"] == timed.summary["seconds"]
