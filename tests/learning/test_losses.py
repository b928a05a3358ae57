"""Losses and gradients against torch's own in one process, in micro-batches and on several workers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional

from kit import tasks
from kit.learning import make_plan, train_in_lockstep
from paceline.algorithms.aggregations import Gradients, Parameters
from paceline.algorithms.costs import TAIL
from paceline.algorithms.placements import Offloaded, Replicated, Sharded
from paceline.algorithms.rounds import Interval
from paceline.learning import models
from paceline.learning.build import build_workers
from paceline.learning.data import load
from paceline.learning.loss_arguments import check_loss
from paceline.learning.losses import Loss
from paceline.learning.passes import Passes
from paceline.learning.recipe import Recipe

WEIGHTS = [float(n % 4) for n in range(tasks.VOCABULARY)]


def entropy(**options):
    return lambda outputs, y: functional.cross_entropy(outputs, y, **options)


def weighted(outputs, y):
    return functional.cross_entropy(outputs, y, torch.tensor(WEIGHTS).to(outputs))


# name: (model, data, loss, its arguments, torch's whole-batch loss)
CASES = {
    "ignored": ("language", "text", "cross_entropy", {}, entropy()),
    "ignored 3": ("last_language", "tokens", "cross_entropy", {"ignore_index": 3}, entropy(ignore_index=3)),
    "weighted": ("language", "text", "cross_entropy", {"weight": WEIGHTS}, weighted),
    "mse": ("linear", "table", "mse", {}, functional.mse_loss),
    "mae": ("linear", "table", "mae", {}, functional.l1_loss),
    "binary": ("pair", "pairs", "binary_cross_entropy", {}, tasks.binary),
    "masks": ("unet", "masks", "cross_entropy", {}, entropy()),
    "own mean": ("linear", "table", "torch.nn.functional:huber_loss", {"delta": 0.5}, None),
    "own elements": ("linear", "table", "torch.nn.functional:mse_loss", {"reduction": "none"}, functional.mse_loss),
    "own examples": ("linear", "table", "kit.tasks:squares", {}, lambda o, y: tasks.squares(o, y).mean()),
    "own sum and count": ("language", "text", "kit.tasks:counted", {}, entropy()),
    "own of some": ("language", "text", "kit.tasks:some", {}, entropy()),
}


def torchs(case, outputs, y):
    reference = CASES[case][4] or (lambda o, t: functional.huber_loss(o, t, delta=0.5))
    if CASES[case][0] == "last_language":
        outputs = outputs.movedim(-1, 1)
    return reference(outputs, y)


def given(case: str, **recipe):
    model, data, loss, args, _ = CASES[case]
    found = load(f"kit.tasks:{data}", {})
    options = {"dropout": 0.0} if "language" in model else {"norm": False} if model == "unet" else {}
    built = models.build(f"kit.tasks:{model}", options, found.shape.input_shape, found.shape.classes, 7)
    return built, found, Recipe(loss, loss_args=args, **recipe)


def near(found, expected):
    assert np.linalg.norm(found - expected) <= 1e-6 * np.linalg.norm(expected)


def flat(gradients):
    return torch.cat([g.reshape(-1) for g in gradients]).numpy()


@pytest.mark.parametrize("micro_batch", [None, 3])
@pytest.mark.parametrize("case", CASES)
def test_a_batch_has_torchs_loss_and_gradient(case, micro_batch):
    """Whatever is counted, and in whatever pieces."""
    model, data, recipe = given(case, micro_batch=micro_batch)
    passes = Passes(model, data, recipe, seed=7, worker=0)
    passes.unreached()
    indices = np.arange(3, 14)
    loss = passes.settle(passes.backward(indices, 0))
    found = flat(passes.gradients())
    with torch.no_grad():
        total, count = passes.criterion.sums(passes.forward(passes.inputs(indices)), passes.targets(indices))
    model.zero_grad()
    expected = torchs(case, passes.forward(passes.inputs(indices)), passes.targets(indices))
    expected.backward()
    near(found, flat([p.grad for p in model.parameters()]))
    assert loss == pytest.approx(expected.item(), rel=1e-6)
    assert total / count == pytest.approx(expected.item(), rel=1e-6)


@pytest.mark.parametrize("place", [Replicated(), Replicated(unit_bytes=1), Sharded(unit_bytes=1), Offloaded()])
@pytest.mark.parametrize("case", ["ignored", "weighted", "mse", "own of some", "own examples"])
def test_workers_of_unequal_batches_are_one_process_on_the_whole_batch(case, place):
    """Three steps of three workers, one of which in micro-batches where that is possible."""
    model, data, recipe = given(case, micro_batch=4)
    batches, steps = (2, 7, 3) if not place.sharded else (5, 7, 6), 3
    plan = make_plan(batches, 1, Gradients(), Interval(steps, "steps"), lr=0.1)
    plan = replace(plan, strategy=replace(plan.strategy, placement=place), examples=len(data.train_y))
    name, _, _, _, _ = CASES[case]
    workers = build_workers(
        plan,
        data,
        model=f"kit.tasks:{name}",
        model_args={"dropout": 0.0} if name == "language" else {},
        optimizer={"name": "sgd"},
        seed=7,
        shared_process=True,
        recipe=recipe,
    )
    _, lines = train_in_lockstep(plan, workers)
    passes, total, losses = Passes(model, data, recipe, seed=7, worker=0), sum(batches), []
    own = torch.optim.SGD(model.parameters(), lr=0.1)
    for i in range(steps):
        chosen = plan.strategy.sampling.indices(7, len(data.train_y), 0, total * i, total)
        own.zero_grad()
        loss = torchs(case, model(passes.inputs(chosen)), passes.targets(chosen))
        loss.backward()
        own.step()
        losses.append(loss.item())
    assert lines[-1]["train_loss"] == pytest.approx(np.mean(losses), rel=2e-6)
    if not place.sharded:
        near(workers[0].params[:-TAIL], flat([p.detach() for p in model.parameters()]))
        assert len({w.digest() for w in workers}) == 1
    with torch.no_grad():
        whole = np.arange(len(data.test_y))
        x, y = torch.from_numpy(data.test_x[whole]), torch.from_numpy(data.test_y[whole])
        x = x.long() if name == "language" else x
        assert lines[-1]["test_loss"] == pytest.approx(torchs(case, model.eval()(x), y).item(), rel=2e-6)


def test_local_steps_divide_by_their_own_count():
    model, data, recipe = given("ignored", micro_batch=3)
    plan = make_plan((7,), 2, Parameters(), Interval(2, "steps"), lr=0.1)
    plan = replace(plan, examples=len(data.train_y))
    options = {"model": "kit.tasks:language", "model_args": {"dropout": 0.0}, "optimizer": {"name": "sgd"}, "seed": 7}
    (w,) = build_workers(plan, data, shared_process=False, recipe=recipe, **options)
    train_in_lockstep(plan, [w])
    passes, own, losses = Passes(model, data, recipe, seed=7, worker=0), torch.optim.SGD(model.parameters(), 0.1), []
    for i in range(2):
        chosen = plan.strategy.sampling.indices(7, len(data.train_y), 0, 7 * i, 7)
        own.zero_grad()
        loss = torchs("ignored", model(passes.inputs(chosen)), passes.targets(chosen))
        loss.backward()
        own.step()
        losses.append(loss.item())
    near(w.params[:-TAIL], flat([p.detach() for p in model.parameters()]))
    assert w.step_losses == pytest.approx(losses, rel=1e-6)
    assert w.params[-TAIL:].tolist() == [0.0, pytest.approx(np.mean(losses), rel=1e-6)]


def test_a_batch_in_which_all_counts_is_divided_by_nothing():
    """Its bits are those of the plain mean."""
    model, data, recipe = given("own sum and count")
    full = replace(data, train_y=np.abs(data.train_y) % tasks.VOCABULARY)
    for loss in ("cross_entropy", "kit.tasks:counted"):
        passes = Passes(model, full, replace(recipe, loss=loss), seed=7, worker=0)
        passes.unreached()
        passes.backward(np.arange(9), 0)
        assert passes.missing == 0.0


def test_single_examples_losses_are_means_over_their_elements():
    model, data, recipe = given("ignored", micro_batch=4)
    passes = Passes(model, data, recipe, seed=7, worker=0, each=True)
    passes.settle(passes.backward(np.arange(9), 0))
    with torch.no_grad():
        outputs, y = passes.forward(passes.inputs(np.arange(9))), passes.targets(np.arange(9))
    values = functional.cross_entropy(outputs, y, reduction="none").mean(1)
    assert np.allclose(passes.losses, values.numpy(), rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "args", "message"),
    [
        ("mse", {"delta": 1}, "loss mse has no argument 'delta'; it takes no arguments"),
        (
            "entropy",
            {},
            "no loss 'entropy'; did you mean 'cross_entropy'?; write cross_entropy, mse, mae, bin",
        ),
        ("cross_entropy", {"ignore_index": "0"}, "loss cross_entropy: ignore_index is '0'; write a whole number, like"),
        ("cross_entropy", {"weight": [1, -1]}, r"weight is \[1, -1\]; write a number for each class, 0 or more"),
        ("cross_entropy", {"weight": [0, 0]}, "weight is 0 for every class, so that nothing counts; write one above 0"),
    ],
)
def test_wrong_names_and_arguments_are_one_line(name, args, message):
    with pytest.raises(ValueError, match=message.replace("?", r"\?")):
        check_loss(name, args)


@pytest.mark.parametrize(
    ("loss", "outputs", "message"),
    [
        (
            "cross_entropy",
            (4, 5, 11),
            r"outputs are \(4, 5, 11\), and the targets \(4, 6\) of int64; there must be a value",
        ),
        (
            "mse",
            (4, 5),
            r"the model's outputs are \(4, 5\), and the targets \(4, 6\) of int64; they must have one shape",
        ),
    ],
)
def test_outputs_and_targets_that_do_not_fit_are_shown(loss, outputs, message):
    data = load("kit.tasks:text", {})
    with pytest.raises(ValueError, match=message):
        Loss(Recipe(loss), data)(torch.zeros(outputs), torch.zeros(4, 6, dtype=torch.int64))


def test_labels_beyond_the_models_outputs_are_named():
    _, data, recipe = given("ignored")
    data.train_y[17, 2] = 12
    y = torch.from_numpy(data.train_y[:4])
    expected = (
        "train_y holds the label 12, and with 11 outputs of the model labels go from 0 to 10; only -100 is left out"
    )
    with pytest.raises(ValueError, match=expected):
        Loss(recipe, data).check(torch.zeros(4, 6, 11), y, data)
