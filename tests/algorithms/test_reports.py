"""What follows a round: report lines with and without an evaluation, norms, and checkpoints at given places."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from kit.learning import DIGITS, SGD, make, make_plan, train_in_lockstep
from kit.plans import plan, run
from paceline.algorithms.aggregations import Gradients, Parameters
from paceline.algorithms.costs import TAIL
from paceline.algorithms.placements import Sharded
from paceline.algorithms.rounds import Interval, State
from paceline.algorithms.schedules import Fixed, Qsr, Schedule
from paceline.algorithms.strategy import Strategy
from paceline.learning.phantoms import build_phantoms

pytestmark = pytest.mark.usefixtures("torch_as_it_was")
ADAMW = {"name": "adamw", "lr": 0.01}


def local(schedule: Schedule) -> Strategy:
    return Strategy(schedule=schedule, aggregation=Parameters())


def test_lines_between_evaluations_change_nothing_else():
    strategy = local(Fixed(2))
    sparse = plan(strategy, report=Interval(10, "steps"))
    dense = plan(strategy, report=Interval(10, "steps"), log=Interval(4, "steps"), norms=True)
    expected, (workers, _, lines) = run(sparse)[2], run(dense)
    assert [(line["step"], "test_loss" in line) for line in lines] == [
        *((4, False), (8, False), (10, True)),
        *((12, False), (16, False), (20, True)),
    ]
    names = set(expected[0])
    assert [{name: line[name] for name in names} for line in lines if "test_loss" in line] == expected
    assert names - set(lines[0]) == {"test_loss", "mae"}
    each = [line["train_loss"] for line in run(plan(strategy, report=Interval(2, "steps")))[2]]
    assert lines[1]["train_loss"] == pytest.approx(sum(each[:4]) / 4), "the mean since the last evaluation"
    norms = np.array([[w.grads[:-TAIL] @ w.grads[:-TAIL], w.params[:-TAIL] @ w.params[:-TAIL]] for w in workers])
    found = [lines[-1][name] for name in ("grad_norm", "param_norm")]
    assert found == pytest.approx(np.sqrt(norms.mean(0)))
    assert "v_norm" not in lines[-1]


@pytest.mark.parametrize(
    "strategy",
    [local(Fixed(3)), Strategy(schedule=Fixed(3)), Strategy(schedule=Fixed(3), placement=Sharded())],
    ids=["local", "synchronous", "sharded"],
)
def test_step_losses_are_worker_0s_own(strategy):
    every = {"budget": Interval(9, "steps"), "log": Interval(1, "rounds")}
    p = replace(make_plan(**every, step_losses=True), strategy=strategy)
    _, lines = train_in_lockstep(p, make(p))
    found = [line["step_losses"] for line in lines]
    assert [len(losses) for losses in found] == [3, 3, 3]
    assert len({loss for losses in found for loss in losses}) == 9
    alone = replace(make_plan((16,), **every, step_losses=True), strategy=local(Fixed(3)))
    _, lines = train_in_lockstep(alone, make(alone))
    assert sum(lines[0]["step_losses"]) / 3 == pytest.approx(lines[0]["train_loss"], rel=1e-6)
    phantoms = build_phantoms(p, DIGITS.shape, model="mlp", optimizer=SGD)
    assert [line["step_losses"] for line in train_in_lockstep(p, phantoms)[1]] == [[]] * 3


def test_checkpoints_at_given_places():
    """Also a place within a round: the sync that reaches it."""
    p = plan(
        local(Fixed(3)),
        checkpoint=Interval(9, "steps"),
        checkpoint_at=(Interval(1, "epochs"), Interval(4, "rounds"), Interval(18, "steps")),
    )
    state, saved = State(), []
    while not p.finished(state):
        r = p.next_round(state)
        state.after(r, 0.0)
        saved += [state.step] if r.due.save else []
    assert saved == [6, 9, 12, 18, 20]  # 40 examples in batches of 8: an epoch is 5 steps, which round 2 reaches


def test_epochs_of_so_many_steps():
    p = plan(Strategy(), budget=Interval(2.5, "epochs"), report=Interval(1, "epochs"), accounting=7, examples=10**6)
    _, states, lines = run(replace(p, examples=40))
    assert states[0].step == 18, "2.5 epochs of 7 steps, begun ones whole"
    assert [line["step"] for line in lines] == [7, 14, 18]
    assert [line["epoch"] for line in lines] == [1.0, 2.0, 18 / 7]
    capped = plan(local(Qsr(alpha=1.0, h_base=4)), budget=Interval(3, "epochs"), accounting=7)
    assert capped.ahead(State(), 100).step == 21, "qsr's H has a bound, and the last sync falls on the last step"


@pytest.mark.parametrize("aggregation", [Gradients(), Parameters()])
@pytest.mark.parametrize(("optimizer", "names"), [(SGD | {"momentum": 0.0}, ""), (SGD, "m"), (ADAMW, "mv")])
def test_norms_are_those_of_the_vectors(optimizer, names, aggregation):
    p = make_plan(
        H=1 if aggregation.synchronous else 2, aggregation=aggregation, budget=Interval(4, "steps"), norms=True
    )
    workers = make(p, optimizer=optimizer)
    _, lines = train_in_lockstep(p, workers)
    assert {key for key in lines[-1] if key.endswith("_norm")} == {f"{n}_norm" for n in ("grad", "param", *names)}
    assert lines[-1]["param_norm"] == pytest.approx(np.linalg.norm(workers[0].params[:-TAIL]), rel=1e-6)
    moments = [[np.linalg.norm(m) for m in w.moments.values()] for w in workers]
    for name, norms in zip(names, np.transpose(moments), strict=True):
        assert lines[-1][f"{name}_norm"] == pytest.approx(math.sqrt(np.mean(norms**2)), rel=1e-6)
    if aggregation.synchronous:
        assert lines[-1]["grad_norm"] == pytest.approx(np.linalg.norm(workers[0].grads[:-TAIL]), rel=1e-6)
    else:
        own = [np.sqrt(sum((g.norm() ** 2).item() for g in w._passes.gradients())) for w in workers]
        assert lines[-1]["grad_norm"] == pytest.approx(math.sqrt(np.mean(np.square(own))), rel=1e-6)
        assert own[0] != own[1]


def test_phantoms_log_the_same_lines_without_numbers():
    p = make_plan(budget=Interval(4, "steps"), norms=True, log=Interval(2, "steps"))
    workers = make(p, optimizer=ADAMW)
    phantoms = build_phantoms(p, DIGITS.shape, model="mlp", optimizer=ADAMW)
    (_, lines), (_, bare) = train_in_lockstep(p, workers), train_in_lockstep(p, phantoms)
    assert [set(line) for line in lines] == [set(line) for line in bare]
    assert math.isnan(bare[0]["v_norm"])
    assert lines[0]["v_norm"] > 0
