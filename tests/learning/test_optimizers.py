"""Optimizers against torch's own, weight decay by group, and clipping."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from kit.learning import DIGITS, make, make_plan
from paceline.algorithms.costs import TAIL
from paceline.algorithms.rounds import State
from paceline.learning import models, optimizer_by_name, optimizers
from paceline.learning.optimizers import Layout

CASES = [
    {"name": "sgd"},
    {"name": "sgd", "momentum": 0.9, "nesterov": True, "weight_decay": 0.1},
    {"name": "adamw"},
    {"name": "adamw", "betas": [0.8, 0.95], "eps": 1e-4, "weight_decay": 0.1},
]


def torchs(spec: dict, parameters) -> torch.optim.Optimizer:
    """torch's optimizer of the same description."""
    kind = {"sgd": torch.optim.SGD, "adamw": torch.optim.AdamW}[spec["name"]]
    return kind(parameters, lr=0.05, fused=True, **{k: v for k, v in spec.items() if k not in ("name", "clip")})


@pytest.mark.parametrize("clip", [None, 0.2])
@pytest.mark.parametrize("spec", CASES)
def test_it_trains_as_torch_does(spec, clip):
    """A hand-written loop on the same batches: the same bits, in steps and in gradient + update."""
    plan = make_plan([16], H=5)
    (w,), (v,) = (make(plan, optimizer=spec | {"clip": clip}) for _ in range(2))
    model = models.build("mlp", {}, (1, 8, 8), 10, seed=7)
    optimizer = torchs(spec, model.parameters())
    r = plan.next_round(State())
    for i in range(5):
        w.steps(r, i).run()
        v.gradient(r, i).run()
        v.update(r, i).run()
        chosen = plan.strategy.sampling.indices(7, 1437, 0, 16 * i, 16)
        optimizer.zero_grad()
        x, y = torch.from_numpy(DIGITS.train_x[chosen]), torch.from_numpy(DIGITS.train_y[chosen])
        nn.functional.cross_entropy(model(x), y).backward()
        if clip:
            assert nn.utils.clip_grad_norm_(model.parameters(), clip) > clip
        optimizer.step()
    expected = np.concatenate([p.detach().numpy().ravel() for p in model.parameters()])
    assert np.array_equal(w.params[:-TAIL], expected)
    assert np.array_equal(v.params[:-TAIL], expected)


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_decay_of_matrices_leaves_biases_and_norms(name):
    matrix, bias = torch.ones(3, 2), torch.ones(3)
    spec = {"name": name, "weight_decay": 0.5, "decay": "matrices"}
    own = optimizer_by_name.make(spec, Layout([bias, matrix], [True, True]))
    own.apply([torch.zeros(3), torch.zeros(3, 2)], 0.1)
    assert (bias == 1).all()
    assert torch.allclose(matrix, torch.full((3, 2), 0.95))
    own = optimizer_by_name.make(spec | {"decay": "all"}, Layout([bias, matrix], [True, True]))
    own.apply([torch.zeros(3), torch.zeros(3, 2)], 0.1)
    assert torch.allclose(bias, torch.full((3,), 0.95))


def test_what_is_not_trained_has_room_in_the_moments():
    frozen, trained = torch.ones(4), torch.ones(2)
    own = optimizer_by_name.make({"name": "adamw"}, Layout([frozen, trained], [False, True]))
    own.apply([torch.ones(2)], 0.1)
    assert [own.state[name].numel() for name in own.moments] == [6, 6]
    assert own.state["exp_avg"].tolist() == pytest.approx([0, 0, 0, 0, 0.1, 0.1])
    assert own.state["step"].tolist() == [1]


def test_clipping_scales_long_gradients_only():
    short, long = [torch.tensor([0.3]), torch.tensor([0.4])], [torch.tensor([3.0]), torch.tensor([4.0])]
    optimizers.clip(short, 1.0)
    assert torch.cat(short).tolist() == pytest.approx([0.3, 0.4])
    optimizers.clip(long, 1.0)
    assert torch.cat(long).tolist() == pytest.approx([0.6, 0.8])
    optimizers.clip(long, None)
    assert torch.cat(long).norm().item() == pytest.approx(1.0)
