"""The torch worker: its flat vectors, bits, random streams and snapshots, and that it learns."""

from __future__ import annotations

import copy
from dataclasses import replace
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from torch import nn

from kit.learning import DIGITS, SGD, make, make_plan, train_in_lockstep
from paceline.algorithms.aggregations import Gradients, Parameters
from paceline.algorithms.costs import TAIL
from paceline.algorithms.placements import Offloaded
from paceline.algorithms.rounds import Interval, State
from paceline.algorithms.worker import EVALUATION_BATCH
from paceline.learning import evaluation, flat_storage, models, optimizer_by_name, optimizers
from paceline.learning.parameter_memory import Memory
from paceline.learning.phantoms import build_phantoms
from paceline.learning.recipe import Recipe
from paceline.program.streams import torch_seed


def test_the_model_lives_in_the_vectors():
    (w,) = make(make_plan([8]), "resnet20", {"width": 0.25})
    total = sum(p.numel() for p in w.model.parameters())
    assert w.params.shape == w.grads.shape == (total + TAIL,)
    assert w.params.dtype == w.grads.dtype == w.buffers.dtype == np.float32
    assert np.array_equal(w.params[:-TAIL], np.concatenate([p.detach().numpy().ravel() for p in w.model.parameters()]))
    first, norm = next(w.model.parameters()), w.model[0][2]
    w.params[0] = 5.0
    assert first.view(-1)[0] == 5.0
    w.buffers[:] = 3.0
    assert (norm.running_mean == 3.0).all()
    with torch.no_grad():
        first.view(-1)[1] = 4.0
    assert w.params[1] == 4.0
    w.params = np.arange(total + TAIL, dtype=np.float32)  # an answer in an array of its own
    assert first.view(-1)[2] == 2.0
    assert w.params[-1] == total + TAIL - 1


@pytest.mark.parametrize("size", [0, 5, flat_storage.HUGE // 4 - 1, flat_storage.HUGE // 4 + 3])
def test_vectors_of_any_size_are_zero_aligned_and_as_long_as_asked(size):
    for dtype in (torch.float32, torch.float64):
        vector = flat_storage.zeros(size, dtype, torch.device("cpu"))
        assert vector.shape == (size,)
        assert vector.dtype == dtype
        assert not vector.any()
        assert vector.untyped_storage().nbytes() == size * dtype.itemsize  # as memory is counted
        assert vector.data_ptr() % 64 == 0
        vector.numpy()[:] = 1.0
        assert vector.sum() == size


def test_warming_leaves_no_trace():
    plan = make_plan([8])
    for shared in (True, False):
        (cold,), (warm,) = (make(plan, "resnet20", {"width": 0.25}, shared, warm=flag) for flag in (False, True))
        for name, array in cold.snapshot().items():
            assert np.array_equal(array, warm.snapshot()[name]), name
        assert not warm.grads.any()
        assert warm.squares().run()[0] == 0.0
        assert warm.model.training


@pytest.mark.parametrize(("model", "args"), [("mlp", {"dropout": 0.2}), ("resnet20", {"width": 0.25})])
def test_a_step_is_gradient_and_update_to_the_last_bit(model, args):
    plan = make_plan([16])
    (one,), (two,) = make(plan, model, args), make(plan, model, args)
    r = plan.next_round(State())
    for _ in range(4):
        one.steps(r, 0).run()
        two.gradient(r, 0).run()
        two.update(r, 0).run()
        assert np.array_equal(one.params[:-TAIL], two.params[:-TAIL])
        assert one.params[-1] == two.grads[-1] != 0
    assert np.array_equal(one.buffers, two.buffers)


@pytest.mark.parametrize("options", [{}, {"momentum": 0.9}, {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1}])
def test_it_trains_as_torch_does(options):
    """A hand-written loop with the same stream and the same batches: the same bits."""
    plan = make_plan([16], H=5)
    (w,) = make(plan, "mlp", {"dropout": 0.3}, optimizer={"name": "sgd", **options})
    r = plan.next_round(State())
    for i in range(5):
        w.steps(r, i).run()
    model = models.build("mlp", {"dropout": 0.3}, (1, 8, 8), 10, seed=7)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, fused=True, **options)
    torch.manual_seed(torch_seed(7, "torch", 0))
    losses = []
    for i in range(5):
        chosen = plan.strategy.sampling.indices(7, 1437, 0, 16 * i, 16)
        optimizer.zero_grad()
        x, y = torch.from_numpy(DIGITS.train_x[chosen]), torch.from_numpy(DIGITS.train_y[chosen])
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    expected = np.concatenate([p.detach().numpy().ravel() for p in model.parameters()])
    assert np.array_equal(w.params[:-TAIL], expected)
    assert w.params[-1] == pytest.approx(np.mean(losses), rel=1e-6)


@pytest.mark.parametrize("options", [{}, {"weight_decay": 0.1}, {"momentum": 0.9, "nesterov": True}])
def test_sgd_agrees_with_torchs_plain_loops(options):
    torch.manual_seed(0)
    here, there = torch.randn(50), nn.Parameter(torch.empty(50))
    there.data.copy_(here)
    own = optimizer_by_name.make({"name": "sgd", **options}, optimizers.Layout([here], [True]))
    reference = torch.optim.SGD([there], lr=0.1, foreach=False, **options)
    for lr in (0.1, 0.1, 0.01):
        there.grad = torch.randn(50)
        reference.param_groups[0]["lr"] = lr
        own.apply([there.grad.clone()], lr)
        reference.step()
    assert torch.allclose(here, there.detach(), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("optimizer", [SGD, SGD | {"nesterov": True}])
@pytest.mark.parametrize("batches", [(16, 16, 16), (24, 8, 16)])
def test_parameter_averaging_in_every_step_is_gradient_averaging(optimizer, batches):
    budget = Interval(20, "steps")
    plans = [make_plan(batches, 1, kind("samples"), budget) for kind in (Parameters, Gradients)]
    # Of seeds 1 to 8 one (7) parts by 2e-4 in step 17: rounding moves a ReLU's input across 0, and a gradient with it.
    workers = [make(plan, optimizer=optimizer, seed=1) for plan in plans]
    lines = [train_in_lockstep(plan, ws)[1] for plan, ws in zip(plans, workers, strict=True)]
    assert np.allclose(workers[0][0].params[:-TAIL], workers[1][0].params[:-TAIL], rtol=0, atol=1e-6)
    assert lines[0][-1]["train_loss"] == pytest.approx(lines[1][-1]["train_loss"], rel=1e-5)


@pytest.mark.parametrize(("model", "args"), [("mlp", {"dropout": 0.2}), ("cnn", {"dropout": 0.2})])
def test_workers_in_one_process_compute_as_workers_alone(model, args):
    plan = make_plan([16, 8], H=6)
    r = plan.next_round(State())
    together = make(plan, model, args)
    outer = torch.get_rng_state()
    for i in range(6):  # interleaved
        for w in together:
            w.steps(r, i).run()
    together[0].gradient(r, 0).run()
    assert torch.equal(torch.get_rng_state(), outer)
    alone = []
    for index in range(2):
        (w,) = make(plan, model, args, shared=False, indexes=[index], warm=index == 1)
        for i in range(6):
            w.steps(r, i).run()
        if index == 0:
            w.gradient(r, 0).run()
        alone.append(w)
    assert np.array_equal(together[0].grads, alone[0].grads)
    for a, b in zip(together, alone, strict=True):
        assert np.array_equal(a.params, b.params)
    assert not np.array_equal(together[0].params, together[1].params)


@pytest.mark.parametrize(("model", "args"), [("mlp", {"dropout": 0.2}), ("resnet20", {"width": 0.25})])
def test_going_on_from_a_snapshot_gives_the_same_bits(model, args):
    # Reports at the same rounds: an evaluation averages BatchNorm's statistics.
    full, half = (make_plan([16, 16], 3, budget=Interval(n, "rounds"), report=Interval(3, "rounds")) for n in (6, 3))
    whole = make(full, model, args)
    _, lines = train_in_lockstep(full, whole)
    saved: dict[int, dict[str, np.ndarray]] = {}
    state, _ = train_in_lockstep(half, make(half, model, args), saved=saved)
    assert set(saved) == {0, 1}
    assert "params" in saved[0]
    assert "params" not in saved[1]
    resumed = make(full, model, args)
    for w, arrays in saved.items():
        resumed[w].restore(arrays)
    _, more = train_in_lockstep(full, resumed, state)
    for a, b in zip(whole, resumed, strict=True):
        assert np.array_equal(a.params, b.params)
        assert np.array_equal(a.buffers, b.buffers)
        for name, array in a.snapshot().items():
            assert np.array_equal(array, b.snapshot()[name]), name
    assert more[-1]["test_loss"] == lines[-1]["test_loss"]


def test_a_snapshot_of_something_else_is_refused():
    plan = make_plan([16])
    (small,), (large,) = make(plan, args={"hidden": [8]}), make(plan, args={"hidden": [9]})
    (plain,) = make(plan, args={"hidden": [8]}, optimizer={"name": "sgd"})
    with pytest.raises(ValueError, match="worker 0: params has 612 elements in the checkpoint, 687 here"):
        large.restore(small.snapshot())
    with pytest.raises(ValueError, match=r"holds .*optimizer.momentum.*; expected buffers, counts, params, rng"):
        plain.restore(small.snapshot())


def test_evaluation_covers_the_test_set_once():
    parts = [w.evaluate(w.buffers).run() for w in make(make_plan([16] * 7))]
    (whole,) = [w.evaluate(w.buffers).run() for w in make(make_plan([16]))]
    assert all(p.dtype == np.float64 and p.shape == (3,) for p in parts)
    total = np.sum(parts, axis=0)
    assert total[1] == whole[1] == 360
    assert total[2] == whole[2]
    assert total[0] == pytest.approx(whole[0], rel=1e-6)


@pytest.mark.parametrize(("model", "args"), [("resnet20", {"width": 0.25}), ("mlp", {})])
def test_the_pieces_of_an_evaluation_do_not_change_it(monkeypatch, model, args):
    (w,) = make(make_plan([16]), model, args)
    sums, sizes = [], set()
    w.model.register_forward_pre_hook(lambda _, given: sizes.add(len(given[0])))
    for piece in (evaluation.PIECE, EVALUATION_BATCH):
        monkeypatch.setattr(evaluation, "PIECE", piece)
        sums.append(w.evaluate(w.buffers).run())
    assert sizes == {64, 360 - 256 - 64, 256, 360 - 256}
    assert np.array_equal(*sums), "the loss is that of blocks, whatever the pieces"


def test_as_on_a_gpu(monkeypatch):
    """What the worker asks of one: it waits for it in all that is timed, counts its memory and saves its stream."""
    plan = make_plan([16])
    plan = replace(plan, strategy=replace(plan.strategy, placement=Offloaded(unit_bytes=1)))
    (w,) = make(plan, shared=False)
    gpu, ended, taken = torch.device("cuda", 1), Mock(), Mock()
    monkeypatch.setattr(Memory, "device", gpu)
    monkeypatch.setattr(torch.cuda, "synchronize", ended)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", {gpu: 12345}.get)
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda device: torch.full((16,), device.index, dtype=torch.uint8))
    monkeypatch.setattr(torch.cuda, "set_rng_state", taken)
    round = plan.first_round()
    for effect in (w.forward(round, 0, 0, 0), w.update(round, 0)):
        effect.run()
        ended.assert_called_once_with(gpu)
        ended.reset_mock()
    counted = w.memory()
    assert (counted["device"], counted["activations"]) == (12345, 0), "though its home is the host's memory"
    saved = w.snapshot()
    w.restore(saved)
    assert taken.call_args.args[0].tolist() == [1] * 16
    assert taken.call_args.args[1] == gpu
    w.restore({name: array for name, array in saved.items() if name != "device_rng"})
    monkeypatch.undo()
    w.restore(saved)  # and on the CPU it goes on all the same
    assert "device_rng" not in w.snapshot()


def test_evaluation_changes_nothing():
    (w,) = make(make_plan([16]), "resnet20", {"width": 0.25})
    before = copy.deepcopy(w.snapshot())
    w.evaluate(w.buffers).run()
    assert w.model.training
    assert all(np.array_equal(a, before[k]) for k, a in w.snapshot().items())


def test_phantoms_do_the_same_work():
    plan = make_plan([16, 16, 8])
    workers = make(plan, "resnet20", {"width": 0.25})
    phantoms = build_phantoms(plan, DIGITS.shape, model="resnet20", model_args={"width": 0.25})
    assert workers[0].works is workers[1].works
    assert workers[0].works is not workers[2].works
    for w, p in zip(workers, phantoms, strict=True):
        assert (w.index, w.params.nbytes, w.grads.nbytes) == (p.index, p.params.nbytes, p.grads.nbytes)
        assert w.buffers.nbytes == p.buffers.nbytes
        for phase in ("step", "gradient", "update", "evaluate"):
            a, b = getattr(w.works, phase), getattr(p.works, phase)
            assert (a.phase, a.samples, a.flops, a.bytes) == (b.phase, b.samples, b.flops, b.bytes)


def test_it_learns_the_digits():
    plan = make_plan([32], 8, budget=Interval(6, "epochs"))
    _, lines = train_in_lockstep(plan, make(plan, args={"dropout": 0.1}))
    assert lines[-1]["accuracy"] > 0.95
    assert lines[-1]["train_loss"] < 0.3


def own_loss(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return nn.functional.cross_entropy(outputs, targets, label_smoothing=0.5)


def own_wrong_loss(outputs: torch.Tensor) -> torch.Tensor:
    return outputs.mean()


def own_double(input_shape, classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, classes)).double()


def own_narrow(input_shape, classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(63, classes))


def own_partly_frozen(input_shape, classes):
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, classes))
    model[1].requires_grad_(False)
    model.unused = nn.Parameter(torch.ones(3))
    layers = list(model)
    # A closure over the layers: a copy of this model would compute with the original's parameters.
    model.forward = lambda x: layers[3](layers[2](layers[1](layers[0](x))))
    return model


def own_frozen(input_shape, classes):
    return nn.Linear(64, classes).requires_grad_(False)


def test_parameters_may_be_frozen_or_unused():
    plan = make_plan([16])
    (w,), (v,) = (make(plan, f"{__name__}:own_partly_frozen", optimizer={"name": "sgd"}) for _ in range(2))
    before = w.params.copy()
    r = plan.next_round(State())
    w.steps(r, 0).run()
    v.gradient(r, 0).run()
    v.update(r, 0).run()
    frozen, unused = slice(3, 3 + 64 * 16 + 16), slice(0, 3)  # named_parameters lists a module's own first
    assert np.array_equal(w.params[frozen], before[frozen])
    assert np.array_equal(w.params[unused], before[unused])
    assert not np.array_equal(w.params, before)
    assert np.array_equal(w.params[:-TAIL], v.params[:-TAIL])
    assert not v.grads[frozen].any()


def test_a_users_loss_is_trained_and_evaluated_with():
    plan = make_plan([16])
    (usual,), (own,) = make(plan), make(plan, recipe=Recipe(f"{__name__}:own_loss"))
    assert usual.evaluate(usual.buffers).run()[0] != own.evaluate(own.buffers).run()[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"recipe": Recipe("entropy")},
            "no loss 'entropy'; did you mean 'cross_entropy'?; write cross_entropy, mse, mae, binary_cross_entropy or",
        ),
        (
            {"recipe": Recipe(f"{__name__}:own_wrong_loss")},
            "a training step of 16 examples fails in the loss of outputs (16, 10) and targets (16,): ",
        ),
        (
            {"model": f"{__name__}:own_double"},
            "the model's parameter 1.weight is torch.float64 on cpu",
        ),
        (
            {"model": f"{__name__}:own_narrow"},
            "the model's forward fails on an input of (2, 1, 8, 8): ",
        ),
        ({"model": f"{__name__}:own_frozen"}, "has no parameters to train"),
        ({"shared": False}, "2 workers in one process; build them with shared_process=True"),
    ],
)
def test_a_wrong_workload_is_one_line(options, message):
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the text is compared below
        make(make_plan(), **options)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
