"""Plans, samplers and the loop, and identities between axis members, on a model small enough to work by hand."""

from __future__ import annotations

import dataclasses
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.plans import plan, run
from kit.toy import ToyWorker
from paceline.algorithms.aggregations import Gradients, Parameters
from paceline.algorithms.costs import TAIL, ModelCost, Works
from paceline.algorithms.learning_rates import Constant, Multistep
from paceline.algorithms.loop import train
from paceline.algorithms.phantom import PhantomWorker
from paceline.algorithms.plan import Plan
from paceline.algorithms.presets import PRESETS, local_sgd, sync_sgd
from paceline.algorithms.rounds import Interval, State
from paceline.algorithms.sampling import Shuffled, Uniform
from paceline.algorithms.schedules import Fixed
from paceline.algorithms.splits import BySteps, Even, Given, Shares
from paceline.algorithms.strategy import AXES, Strategy
from paceline.config.timing import Device
from paceline.program.effects import AllReduce, Broadcast, Checkpoint, Compute, Log
from paceline.program.fold import fold, parts
from paceline.program.streams import stream, torch_seed

# -- the loop, by hand ------------------------------------------------------------------------------------------------


def test_the_loop_by_hand():
    """One round of local SGD at H = 2, effect by effect."""
    p = plan(Strategy(schedule=Fixed(2), aggregation=Parameters()), n=1, budget=Interval(1, "rounds"))
    w = PhantomWorker(0, Works(ModelCost(3, 0, 6, 8), 4, 10))
    program = train(w, p, State())
    kinds, effect = [], next(program)
    while not isinstance(effect, Checkpoint):
        kinds.append((type(effect), effect.times if isinstance(effect, Compute) else getattr(effect, "phase", None)))
        effect = program.send(w.params if isinstance(effect, AllReduce | Broadcast) else None)
    assert kinds == [
        (Broadcast, "begin"),
        (Compute, 2),
        (AllReduce, "parameters"),
        (Compute, 1),
        (AllReduce, "evaluate"),
        (Log, None),
    ]
    assert effect.due
    with pytest.raises(StopIteration) as stop:
        program.send(False)
    assert stop.value.value.step == 2


# -- identities -------------------------------------------------------------------------------------------------------


def test_parameter_averaging_every_step_is_gradient_averaging():
    for batches, weights in (((4, 4), "equal"), ((6, 2), "samples")):
        shares = Shares(batches, (1.0, 1.0))
        a, *_ = run(plan(Strategy(Even(), aggregation=Gradients()), shares=shares))
        b, *_ = run(plan(Strategy(Even(), aggregation=Parameters(weights)), shares=shares))
        np.testing.assert_allclose(a[0].params[:-TAIL], b[0].params[:-TAIL], rtol=1e-9)


def test_fixed_one_is_every():
    a, *_ = run(plan(Strategy(schedule=Fixed(1))))
    b, *_ = run(plan(Strategy()))
    assert np.array_equal(a[0].params, b[0].params)


def test_by_steps_at_equal_speeds_is_even():
    devices = [Device("a", speed=3.0), Device("b", speed=3.0)]
    assert BySteps().shares(8, devices) == Even().shares(8, devices)


def test_sync_sgd_is_one_worker_on_the_whole_batch():
    many, *_ = run(plan(sync_sgd(), n=4, shares=Shares((2, 1, 4, 1), (1.0,) * 4)), momentum=0.9)
    one, *_ = run(plan(sync_sgd(), n=1, shares=Shares((8,), (1.0,))), momentum=0.9)
    np.testing.assert_allclose(many[0].params, one[0].params, rtol=1e-9)


# -- plans ------------------------------------------------------------------------------------------------------------


def test_pace_rounds_half_up_and_never_below_one():
    strategy = dataclasses.replace(local_sgd(), schedule=Fixed(8))
    round = plan(strategy, shares=Shares((4,) * 5, (1.0, 0.5, 0.4375, 0.25, 0.01))).next_round(State())
    assert round.steps == (8, 4, 4, 2, 1)
    assert round.division.offsets == (0, 32, 48, 64, 72)
    assert round.samples == 76


def test_auto_h_is_the_ratio_of_speeds():
    assert Fixed("auto").resolve((32.0, 1.0, 8.0)) == Fixed(32)
    assert Fixed("auto").resolve((3.0, 3.0)) == Fixed(1)


@given(
    st.integers(1, 200),
    st.integers(1, 40),
    st.lists(st.tuples(st.integers(1, 9), st.floats(0.01, 1.0)), min_size=0, max_size=4),
    st.sampled_from(["epochs", "steps", "rounds"]),
)
def test_the_last_round_is_cut_to_the_budget(amount, H, others, unit):
    shares = Shares((4, *(b for b, _ in others)), (1.0, *(p for _, p in others)))
    strategy = Strategy(schedule=Fixed(H), aggregation=Parameters())
    p = Plan(strategy, shares, Constant(0.1), 50, Interval(amount / 10 if unit == "epochs" else amount, unit))
    state = State()
    while not p.finished(state):
        round = p.next_round(state)
        assert 1 <= round.H <= H
        assert round.position == state.samples
        state.after(round, 0.0)
    if unit == "steps":
        assert state.step == amount
    elif unit == "rounds":
        assert state.round == amount
    else:  # enough, and not a nominal step more than needed
        assert amount / 10 * 50 <= state.samples + 1e-6
        steps = [max(1, int((round.H - 1) * pace + 0.5)) for pace in shares.paces]
        less = sum(s * b for s, b in zip(steps, shares.batches, strict=True))
        assert round.H == 1 or round.position + less < amount / 10 * 50


def test_learning_rate_follows_the_budgets_unit():
    rate = Multistep(1.0, (1.0, 2.0), 0.1)
    p = plan(Strategy(schedule=Fixed(10), aggregation=Parameters()), rate=rate, budget=Interval(3, "epochs"))
    round = p.next_round(State())
    assert (round.slope, round.progress) == (80 / 10 / 40, 0.0)
    assert [round.lr(0, i) for i in (0, 4, 5, 9)] == pytest.approx([1, 1, 0.1, 0.1])
    with pytest.raises(ValueError, match="in order"):
        Multistep(1.0, (2.0, 1.0))


def test_slow_workers_steps_are_spread_over_the_rounds_rates():
    rate = Multistep(1.0, (4.0,), 0.1)
    p = plan(Strategy(schedule=Fixed(8), aggregation=Parameters()), shares=Shares((4, 4), (1.0, 0.25)), rate=rate)
    assert [p.next_round(State()).lr(1, i) for i in range(2)] == pytest.approx([1.0, 0.1])


def test_plans_refuse_what_does_not_fit():
    with pytest.raises(ValueError, match="all paces must be 1"):
        plan(sync_sgd(), shares=Shares((4, 4), (1.0, 0.5)))
    with pytest.raises(ValueError, match="3 weights for 2 workers"):
        plan(Strategy(aggregation=Parameters((1.0, 2.0, 3.0))))
    with pytest.raises(ValueError, match="one per worker"):
        Given(paces=(1.0, 0.5)).shares(4, [Device("a")])


# -- sampling ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("paces", [(1.0, 1.0, 1.0), (1.0, 0.5, 0.125)])
def test_every_example_exactly_once_per_epoch(paces):
    p = plan(
        Strategy(schedule=Fixed(3), aggregation=Parameters()),
        shares=Shares((3, 5, 2), paces),
        budget=Interval(6, "epochs"),
        examples=41,
    )
    workers, states, _ = run(p)
    drawn = np.concatenate([at for w in workers for at in w.drawn])
    counts = np.bincount(drawn, minlength=41)
    assert counts.sum() == states[0].samples
    assert counts.min() >= 6
    assert counts.max() <= 6 + -(-(states[0].samples - 6 * 41) // 41)


def test_samplers_are_functions_of_the_position():
    for sampler in (Shuffled(), Uniform()):
        a = sampler.indices(1, 30, 0, 25, 10)
        assert np.array_equal(a, sampler.indices(1, 30, 0, 25, 10))
        assert not np.array_equal(a, sampler.indices(2, 30, 0, 25, 10))
    assert len(set(Shuffled().indices(1, 30, 0, 0, 30))) == 30


# -- state, stop and resume -------------------------------------------------------------------------------------------


def test_train_2k_is_train_k_and_resume_k():
    strategy = Strategy(schedule=Fixed(3), aggregation=Parameters())
    shares = Shares((4, 4), (1.0, 0.5))
    whole = plan(strategy, shares=shares, budget=Interval(10, "rounds"), report=Interval(1, "rounds"))
    half = plan(strategy, shares=shares, budget=Interval(5, "rounds"), report=Interval(1, "rounds"))
    straight, _, lines = run(whole, momentum=0.9)
    first, states, begun = run(half, momentum=0.9)
    again = [ToyWorker(w, whole, 0.9) for w in range(2)]
    for old, new in zip(first, again, strict=True):
        new.restore(old.snapshot())
    _, _, rest = run(whole, 0.9, states[0], again)
    assert begun + rest == lines
    assert np.array_equal(again[0].params, straight[0].params)


def test_streams_are_named():
    assert stream(1, "a", 2).random() == stream(1, "a", 2).random()
    assert len({stream(1, "a", 2).random(), stream(1, "b", 2).random(), stream(1, "a", 3).random()}) == 3
    assert 0 <= torch_seed(1, "a") < 2**63


# -- the fold ---------------------------------------------------------------------------------------------------------

weights = st.lists(st.floats(0.0, 10.0), min_size=1, max_size=5).filter(lambda w: sum(w) > 1e-3)


@given(weights, st.integers(0, 50), st.sampled_from(["mean", "sum"]), st.integers(0, 2**32 - 1))
def test_fold_of_parts_is_the_whole_fold(ws, size, op, seed):
    values = [np.random.default_rng([seed, r]).normal(size=size).astype(np.float32) for r in range(len(ws))]
    whole = fold(values, ws, op)
    cut = [fold([v[a:b] for v in values], ws, op) for a, b in parts(size, len(ws))]
    assert np.array_equal(np.concatenate(cut), whole)
    expected = sum(w * v.astype(np.float64) for w, v in zip(ws, values, strict=True))
    np.testing.assert_allclose(whole, expected / (sum(ws) if op == "mean" else 1), rtol=1e-4, atol=1e-4)
    fold(values, ws, op, out=values[0])
    assert np.array_equal(values[0], whole)


def test_fold_needs_weight():
    with pytest.raises(ValueError, match="positive sum"):
        fold([np.ones(3)] * 2, [0.0, 0.0])


# -- presets ----------------------------------------------------------------------------------------------------------


ARGUMENTS = {"post_local_sgd": {"t": Interval(5, "steps")}, "qsr": {"alpha": 0.02}}  # what has no default


def test_every_preset_names_its_source_and_members():
    for name, preset in PRESETS.items():
        assert re.search(r"arXiv \d{4}\.\d{5}|20\d\d, \d+", preset.__doc__ or ""), name
        strategy = preset(**ARGUMENTS.get(name, {}))
        for axis, members in AXES.items():
            assert type(getattr(strategy, axis)) in members.values()
