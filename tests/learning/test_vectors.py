"""What aggregations ask of a worker apart from steps: own vectors, the optimizer's moments, BatchNorm re-estimated."""

from __future__ import annotations

import copy
from contextlib import suppress

import numpy as np
import pytest
import torch
from torch import nn

from kit.learning import DIGITS, SGD, make, make_plan, train_in_lockstep
from paceline.algorithms.aggregations import Parameters
from paceline.algorithms.costs import TAIL
from paceline.algorithms.rounds import Interval, State
from paceline.learning.optimizer_by_name import carried
from paceline.learning.phantoms import build_phantoms
from paceline.program.effects import AllReduce
from paceline.program.streams import stream

MOMENTS = {"exp_avg", "exp_avg_sq"}


def keep(x, start):
    start[:] = x


def back(x, start, momentum):
    momentum += x - start
    x[:] = start


def test_transforms_write_into_the_parameters_and_into_vectors_that_are_saved():
    plan = make_plan([16, 16])
    (w, _), (v, _) = make(plan), make(plan)
    before = w.params[:-TAIL].copy()
    w.transform(keep, "_start").run()
    w.steps(plan.next_round(State()), 0).run()
    moved = w.params[:-TAIL] - before
    w.transform(back, "_start", "outer").run()
    assert np.array_equal(w.params[:-TAIL], before)
    saved = w.snapshot()
    assert {name for name in saved if name.startswith("vector.")} == {"vector.outer"}
    assert np.array_equal(saved["vector.outer"], moved)
    v.transform(keep, "elsewhere").run()
    v.restore(saved)
    assert np.array_equal(v.snapshot()["vector.outer"], moved)
    assert "vector.elsewhere" not in v.snapshot()
    v.transform(back, "_start", "outer").run()  # _start is zeros again
    assert np.array_equal(v.snapshot()["vector.outer"], moved + before)
    with pytest.raises(ValueError, match=r"vector.outer has 3 elements in the checkpoint"):
        w.restore(saved | {"vector.outer": np.zeros(3, np.float32)})


@pytest.mark.parametrize(
    "optimizer", [{"name": "sgd"}, SGD, {"name": "adamw"}, {"name": "adamw", "decay": "matrices", "clip": 1.0}]
)
def test_moments_are_views_and_reset_begins_anew(optimizer):
    plan = make_plan([16])
    (w,), (new,) = make(plan, optimizer=optimizer), make(plan, optimizer=optimizer)
    (phantom,) = build_phantoms(plan, DIGITS.shape, model="mlp", optimizer=optimizer)
    assert tuple(w.moments) == carried(optimizer).moments == tuple(phantom.moments)
    assert [m.nbytes for m in phantom.moments.values()] == [m.nbytes for m in w.moments.values()]
    r = plan.next_round(State())
    w.steps(r, 0).run()
    for moment in w.moments.values():
        assert moment.any()
    w.reset().run()
    assert not any(array.any() for name, array in w.snapshot().items() if name.startswith("optimizer."))
    new.params[:] = w.params
    w.steps(r, 0).run()
    new.steps(r, 0).run()
    assert np.array_equal(w.params, new.params)
    for name in w.moments:
        w.moments[name][:] = 3.0
        assert (w.moments[name] == 3.0).all()


@pytest.mark.parametrize(
    ("state", "equal"),
    [("averaged", MOMENTS), (("exp_avg",), {"exp_avg"}), (("exp_avg_sq",), {"exp_avg_sq"}), ((), set())],
)
def test_the_named_moments_are_averaged_and_paid_for(state, equal):
    """Against a run without: equal parameters after the first round, and P elements sent for each vector."""
    adamw = {"name": "adamw"}
    plan = make_plan([16, 8], 3, Parameters(optimizer_state=state), Interval(3, "steps"))
    plain = make_plan([16, 8], 3, Parameters(), Interval(3, "steps"))
    workers, others = make(plan, optimizer=adamw), make(plain, optimizer=adamw)
    train_in_lockstep(plan, workers)
    train_in_lockstep(plain, others)
    assert np.array_equal(workers[0].params, others[0].params)
    for name in MOMENTS:
        own = [w.moments[name] for w in others]
        if name in equal:
            assert np.allclose(workers[0].moments[name], (own[0] + own[1]) / 2, rtol=1e-6, atol=1e-12)
            assert np.array_equal(workers[0].moments[name], workers[1].moments[name])
        else:
            assert np.array_equal(workers[0].moments[name], own[0])
    (phantom, _), round = build_phantoms(plan, DIGITS.shape, model="mlp", optimizer=adamw), plan.next_round(State())
    program = plan.strategy.aggregation.round(phantom, plan.strategy.placement, round)
    effect, sent = next(program), []
    with suppress(StopIteration):
        while True:
            if isinstance(effect, AllReduce) and effect.phase == "moments":
                sent.append(effect.value.nbytes)
            effect = program.send(effect.value if isinstance(effect, AllReduce) else None)
    assert sent == [4 * (workers[0].params.size - TAIL)] * len(equal)


def own_norm(input_shape, classes):
    return nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64), nn.Dropout(0.5), nn.Linear(64, classes))


def test_batchnorm_is_estimated_anew_and_the_worker_stays_as_it_is():
    plan = make_plan([16, 16])
    _, w = make(plan, f"{__name__}:own_norm")
    w.steps(plan.next_round(State()), 0).run()
    before = copy.deepcopy(w.snapshot())
    outer = torch.get_rng_state()
    effect = w.estimate_buffers(5, 3)
    found = effect.run()
    assert (effect.work.phase, effect.work.samples) == ("evaluate", 48)
    assert w.estimate_buffers(6, 3).work is effect.work
    for name, array in w.snapshot().items():
        assert np.array_equal(array, before[name]), name
    assert torch.equal(torch.get_rng_state(), outer)
    assert w.model[1].momentum == 0.1
    chosen = stream(7, "bn", 5, 1).integers(0, 1437, (3, 16))
    batches = DIGITS.train_x.reshape(1437, 64)[chosen]
    expected = np.concatenate([batches.mean(1).mean(0), batches.var(1, ddof=1).mean(0)])
    assert np.allclose(found, expected, atol=1e-5)
    assert np.array_equal(found, w.estimate_buffers(5, 3).run())
    assert not np.array_equal(found, w.estimate_buffers(6, 3).run())
    phantom = build_phantoms(plan, DIGITS.shape, model="resnet20")[0]
    (real, _) = make(plan, "resnet20", warm=False)
    assert phantom.estimate_buffers(0, 2).run().nbytes == real.estimate_buffers(0, 2).run().nbytes
