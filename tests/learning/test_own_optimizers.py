"""Optimizers by import path: torch's bits, what outlives a round, what is exchanged and sharded, what is refused."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from kit.learning import DIGITS, make, make_plan, train_in_lockstep
from kit.placements import PLACEMENTS, parameters, plan_of, train_all, workers_of
from paceline.algorithms.aggregations import Parameters
from paceline.algorithms.costs import TAIL
from paceline.algorithms.rounds import Interval, State
from paceline.config.scenario import validate
from paceline.learning import models
from paceline.learning.optimizer_by_name import carried
from paceline.learning.phantoms import build_phantoms


class Counting(torch.optim.Optimizer):
    """Keeps a number for each parameter and one for each group, and draws random numbers."""

    def __init__(self, params, lr, noise=0.01):
        super().__init__(params, {"lr": lr, "noise": noise})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            group["k"] = group.get("k", 0) + 1
            for p in group["params"]:
                if p.grad is not None:
                    state = self.state[p]
                    state["steps"] = state.get("steps", 0) + 1
                    state["last"] = p.grad.clone()  # a new tensor in each step
                    noise = group["noise"] * torch.randn_like(p)
                    p.sub_(p.grad + noise, alpha=group["lr"] / (state["steps"] + group["k"]))


class Norms(torch.optim.Optimizer):
    """Scales each parameter's step by its norm, like LAMB: not elementwise."""

    def __init__(self, params, lr):
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for p in group["params"]:
                p.sub_(p.grad / (p.grad.norm() + 1e-6), alpha=group["lr"] * float(p.norm() + 0.1))


class Listing(Norms):
    def step(self):
        for p in self.param_groups[0]["params"]:
            self.state[p]["all"] = [p]


TORCHS = [
    {"name": "torch.optim:NAdam", "betas": [0.8, 0.95]},
    {"name": "torch.optim:SGD", "momentum": 0.9, "weight_decay": 0.1},
    {"name": "torch.optim:Adam", "amsgrad": True, "clip": 0.2},
    {"name": "torch.optim:RMSprop", "momentum": 0.5, "centered": True},
    {"name": "torch.optim:Adagrad", "initial_accumulator_value": 0.1},
    {"name": "torch.optim:Rprop"},
    {"name": "torch.optim:ASGD"},
    {"name": "torch.optim:Adafactor"},
]
COUNTING = {"name": f"{__name__}:Counting", "lr": 0.05}


def spec_of(spec: dict) -> dict:
    return {"lr": 0.05, "decay": "all"} | spec


@pytest.mark.parametrize("spec", TORCHS)
def test_it_trains_as_torch_does(spec):
    """A hand-written loop on the same batches: the same bits, in steps and in gradient + update."""
    plan = make_plan([16], H=3)
    (w,), (v,) = (make(plan, optimizer=spec_of(spec)) for _ in range(2))
    model = models.build("mlp", {}, (1, 8, 8), 10, seed=7)
    options = {key: value for key, value in spec.items() if key not in ("name", "clip")}
    optimizer = vars(torch.optim)[spec["name"].partition(":")[2]](model.parameters(), lr=0.05, **options)
    r = plan.next_round(State())
    for i in range(3):
        w.steps(r, i).run()
        v.gradient(r, i).run()
        v.update(r, i).run()
        chosen = plan.strategy.sampling.indices(7, 1437, 0, 16 * i, 16)
        optimizer.zero_grad()
        nn.functional.cross_entropy(
            model(torch.from_numpy(DIGITS.train_x[chosen])), torch.from_numpy(DIGITS.train_y[chosen])
        ).backward()
        if "clip" in spec:
            assert nn.utils.clip_grad_norm_(model.parameters(), spec["clip"]) > spec["clip"]
        optimizer.step()
    expected = np.concatenate([p.detach().numpy().ravel() for p in model.parameters()])
    assert np.array_equal(w.params[:-TAIL], expected)
    assert np.array_equal(v.params[:-TAIL], expected)


@pytest.mark.parametrize(
    "spec", [*TORCHS, COUNTING, {"name": "torch.optim:NAdam", "decay": "matrices", "weight_decay": 0.1}]
)
def test_a_snapshot_goes_on_with_the_same_bits_and_reset_begins_again(spec):
    plan = make_plan([16], H=5)
    (w,), (new,), (other,) = (make(plan, "mlp", {"hidden": [16]}, optimizer=spec_of(spec)) for _ in range(3))
    begin = copy.deepcopy(w.snapshot())
    r = plan.next_round(State())
    for i in range(3):
        w.steps(r, i).run()
    saved = copy.deepcopy(w.snapshot())
    new.restore(saved)
    for name, array in new.snapshot().items():
        assert np.array_equal(array, saved[name], equal_nan=True), name
    for worker in (w, new):
        worker.steps(r, 3).run()
    assert np.array_equal(w.params, new.params)
    w.reset().run()
    for name, array in w.snapshot().items():
        assert not name.startswith("optimizer.") or np.array_equal(array, begin[name], equal_nan=True), name
    other.restore(w.snapshot())
    for worker in (w, other):
        worker.steps(r, 4).run()
    assert np.array_equal(w.params, other.params)


def test_a_parameter_without_a_gradient_has_no_state_and_is_left_alone():
    plan = make_plan([8])
    (w,), (new,) = (make(plan, f"{__name__}:two_heads", optimizer=spec_of(TORCHS[0])) for _ in range(2))
    w.steps(plan.next_round(State()), 0).run()
    begun = w.snapshot()["optimizer._begun"]
    assert begun.tolist() == [1, 1, 0, 0]
    assert torch.equal(w.model[0].idle.weight, torch.ones(2, 64))
    new.restore(w.snapshot())
    for worker in (w, new):
        worker.steps(plan.next_round(State()), 0).run()
    assert np.array_equal(w.params, new.params)


class Heads(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.used, self.idle = nn.Linear(64, classes), nn.Linear(64, 2)
        nn.init.ones_(self.idle.weight)

    def forward(self, x):
        return self.used(x.flatten(1))


def two_heads(input_shape, classes):
    return nn.Sequential(Heads(classes))


def test_what_it_carries_is_known_without_a_model():
    plan = make_plan([16], H=2)
    for spec in map(spec_of, TORCHS):
        (w,), (phantom,) = make(plan, optimizer=spec), build_phantoms(plan, DIGITS.shape, model="mlp", optimizer=spec)
        assert tuple(w.moments) == tuple(phantom.moments)
        assert [m.nbytes for m in w.moments.values()] == [m.nbytes for m in phantom.moments.values()]
        found = sum(t.nbytes for t in w._optimizer.state.values()) / (4 * (w.params.size - 1))
        assert found == pytest.approx(carried(spec).size, abs=0.12), spec


def test_its_moments_are_averaged_in_place():
    spec, budget = spec_of(TORCHS[0]), Interval(4, "steps")
    plan = make_plan([16, 8], 2, Parameters(optimizer_state=("exp_avg_sq",)), budget)
    workers = make(plan, optimizer=spec)
    train_in_lockstep(plan, workers)
    one, two = (w.moments for w in workers)
    assert np.array_equal(one["exp_avg_sq"], two["exp_avg_sq"])
    assert one["exp_avg_sq"].any()
    assert not np.array_equal(one["exp_avg"], two["exp_avg"])


@pytest.mark.parametrize("place", ["fsdp", "fsdp-offload", "lsdp", "ddp"])
def test_placements_train_as_the_whole(place):
    spec, results = spec_of(TORCHS[0]) | {"lr": 1e-3, "clip": 1.0}, []
    for name in ("flat", place):
        plan = plan_of(PLACEMENTS[name], (8, 8, 8), 4, lr=1e-3)
        workers = workers_of(plan, optimizer=spec)
        train_all(plan, workers)
        results.append(parameters(workers))
    assert np.allclose(*results, rtol=0, atol=2e-5)


@pytest.mark.parametrize(
    ("name", "elementwise"),
    [
        ("torch.optim:NAdam", True),
        ("torch.optim:Adafactor", False),
        ("torch.optim:Muon", False),
        (f"{__name__}:Norms", False),
    ],
)
def test_only_elementwise_ones_may_be_sharded(name, elementwise):
    assert carried({"name": name, "lr": 0.01}).elementwise is elementwise


@pytest.mark.parametrize(
    ("spec", "line"),
    [
        ({"name": "torch.optim:LBFGS"}, "optimizer torch.optim:LBFGS needs a closure"),
        ({"name": "torch.optim:SparseAdam"}, "does not support dense gradients"),
        ({"name": "torch.optim:NAdamm"}, "torch.optim has no 'NAdamm'; did you mean 'NAdam'"),
        ({"name": "torch.optim:NAdam", "bettas": [0.9, 0.9]}, "does not take bettas; did you mean 'betas'"),
        ({"name": "torch.optim:NAdam", "betas": [1.5, 0.9]}, "Invalid beta parameter"),
        ({"name": "torch.optim:Rprop", "decay": "matrices"}, "does not take weight_decay"),
        ({"name": "torch.nn:Linear"}, "torch.nn:Linear does not take lr"),
        ({"name": f"{__name__}:two_heads"}, "does not take lr"),
        ({"name": f"{__name__}:Listing"}, "keeps 'all', a list, which cannot be saved"),
    ],
)
def test_what_cannot_be_used_is_told_in_one_line(spec, line):
    with pytest.raises(ValueError, match=line) as error:
        carried(spec_of(spec))
    assert "\n" not in str(error.value)


def test_a_scenario_gives_it_its_arguments():
    workload = {
        "model": "mlp",
        "optimizer": {"name": "torch.optim:NAdam", "lr": 0.002, "betas": [0.9, 0.99], "clip": 1},
    }
    document = {"workload": workload, "cluster": {"workers": [{"speed": "10 samples/s"}]}, "budget": {"steps": 1}}
    found = validate(document | {"strategy": {"preset": "sync_sgd"}}, "here").workload.optimizer
    assert found.model_dump() == workload["optimizer"] | {"decay": "all"}
