"""Unequal work per worker in every method with local steps: paces and batches against NumPy arithmetic by hand."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.paths import DOCS
from kit.plans import plan, run
from kit.toy import ToyWorker
from paceline.algorithms.aggregations import Gradients, Parameters, Until
from paceline.algorithms.costs import TAIL
from paceline.algorithms.outer import FedNova
from paceline.algorithms.plan import Plan
from paceline.algorithms.presets import PRESETS, diloco, fednova, local_sgd, post_local_sgd, qsr, slowmo
from paceline.algorithms.rounds import Interval, Round, State
from paceline.algorithms.schedules import Fixed
from paceline.algorithms.splits import ByBatch, BySteps, Given, Shares
from paceline.algorithms.strategy import Strategy
from paceline.config import yaml
from paceline.config.explanations import explain
from paceline.config.scenario import StrategySpec, validate
from paceline.config.strategy import build_strategy
from paceline.config.timing import Device
from paceline.job import Job, resolve
from paceline.program.errors import ScenarioError

LR = 0.05
UNEQUAL = Shares((6, 3, 2), (1.0, 0.5, 0.25))  # of 4 steps: 24, 6 and 2 samples
EARLY = Interval(3, "steps")


# -- steps ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("H", "floor", "nearest"),
    [
        (10, (10, 5, 3), (10, 5, 3)),
        (7, (7, 3, 2), (7, 4, 2)),  # of 7, 3.5 and 2.1
        (3, (3, 1, 1), (3, 2, 1)),  # of 3, 1.5 and 0.9
        (1, (1, 1, 1), (1, 1, 1)),
    ],
)
def test_dylu_floors_the_steps_of_speeds_1_and_a_half_and_three_tenths(H, floor, nearest):
    """Liu et al., arXiv 2401.09135: H_w = max(1, floor(H v_w / v_max))."""
    devices = [Device(name, speed=speed) for name, speed in (("a", 1.0), ("b", 0.5), ("c", 0.3))]
    for rounding, expected in (("floor", floor), ("nearest", nearest)):
        shares = BySteps(rounding).shares(4, devices)
        strategy = dataclasses.replace(local_sgd(H), split=BySteps(rounding))
        assert tuple(plan(strategy, shares=shares).first_round().steps) == expected


def test_the_floor_of_a_product_that_means_a_whole_number_is_that_number():
    assert int(100 * 0.29) == 28, "floating point alone"
    assert Shares((1, 1), (1.0, 0.29), "floor").steps(100, 0.29) == 29


def test_a_rounding_that_is_unknown_is_refused():
    with pytest.raises(ScenarioError, match=r"strategy\.split\.by_steps: round is 'up'; write nearest or floor"):
        built(preset="diloco", split={"by_steps": "up"})


# -- batches and paces together ---------------------------------------------------------------------------------------


def test_paces_fill_what_batches_cannot():
    """A fast worker whose memory holds 20 samples, and one so slow that a single sample outlasts the others' step."""
    fast, slow = Device("fast", speed=100.0, max_batch=20), Device("slow", speed=25.0)
    shares = ByBatch(total=60, paces=True).shares(8, [fast, slow])
    assert shares == Shares((20, 40), (1.0, 0.125)), "steps of 0.2 s and 1.6 s"
    cpu = Device("cpu", speed=2.0, max_batch=5)
    assert ByBatch("no_restriction", paces=True).shares(8, [fast, cpu]) == Shares((20, 1), (1.0, 0.4))
    assert ByBatch("no_restriction").shares(8, [fast, cpu]) == Shares((20, 1), (1.0, 1.0))


@given(
    st.lists(st.tuples(st.floats(1.0, 500.0), st.integers(1, 80)), min_size=1, max_size=5),
    st.integers(1, 300),
    st.integers(1, 400),
)
def test_a_round_ends_together_within_half_a_step_of_each_worker(workers, wanted, H):
    """Batches stay within memory and are those that by_batch chooses without paces; steps then balance the round."""
    devices = [Device(f"{i}", speed=speed, max_batch=most) for i, (speed, most) in enumerate(workers)]
    total = min(max(wanted, len(devices)), sum(most for _, most in workers))
    split = ByBatch(total=total, paces=True)
    shares = split.shares(8, devices)
    assert shares.batches == ByBatch(total=total).shares(8, devices).batches
    assert all(batch <= most for batch, (_, most) in zip(shares.batches, workers, strict=True))
    seconds = [device.step_seconds(batch) for device, batch in zip(devices, shares.batches, strict=True)]
    whole = H * min(seconds)
    for step, pace in zip(seconds, shares.paces, strict=True):
        taken = shares.steps(H, pace)
        assert taken == 1 or abs(taken * step - whole) <= 0.5 * step * (1 + 1e-6)
        floored = Shares(shares.batches, shares.paces, "floor").steps(H, pace)
        assert floored == 1 or floored * step <= whole * (1 + 1e-8)
        assert taken - floored in (0, 1)


def test_workers_whose_batches_balance_them_take_equally_many_steps():
    devices = [Device(f"{speed}", speed=float(speed), max_batch=64) for speed in (100, 50, 25)]
    assert ByBatch("no_restriction", paces=True).shares(8, devices) == Shares((64, 32, 16), (1.0, 1.0, 1.0))


def test_batches_of_a_local_method_fit_into_memory_with_its_own_vectors():
    """DiLoCo on a CPU keeps vectors that synchronous SGD does not; the batch is the largest that leaves room."""
    document = {
        "workload": {"model": {"name": "resnet20"}, "data": "synthetic", "batch": 64, "optimizer": {"lr": 0.1}},
        "cluster": {
            "workers": [
                {"device": "fast", "speed": "900 samples/s", "memory": "44 MB"},
                {"device": "slow", "speed": "100 samples/s", "memory": "44 MB"},
            ]
        },
        "budget": {"steps": 8},
    }

    def divided(preset: str, **strategy: Any) -> Job:
        return resolve(validate(document | {"strategy": {"preset": preset} | strategy}, "test"), Path())

    balanced = {"by_batch": {"total": 40, "paces": True}}
    local, outer = divided("local_sgd", H=4, split=balanced), divided("diloco", H=4, split=balanced)
    (first, second), (fewer, more) = local.plan.shares.batches, outer.plan.shares.batches
    assert first + second == fewer + more == 40
    assert 20 < fewer < first < 36, "36 and 4 would balance them"
    assert not outer.warnings
    over = divided("diloco", H=4, split={"given": {"batches": [fewer + 1, more]}})
    assert "may be needed" in over.warnings[0]
    step = fewer / 900, more / 100
    assert outer.plan.shares.paces == pytest.approx((1.0, step[0] / step[1]))
    assert divided("diloco", H=4, split={"by_batch": {"total": 40}}).plan.shares.paces == (1.0, 1.0)


# -- methods by hand --------------------------------------------------------------------------------------------------


class ByHand:
    """The toy workers' local steps, in NumPy alone: SGD with learning rate LR, without momentum."""

    def __init__(self, p: Plan) -> None:
        self.plan, toy = p, ToyWorker(0, p)
        self.x, self.y = toy.x, toy.y

    def batch(self, r: Round, worker: int, i: int) -> np.ndarray:
        return self.plan.strategy.sampling.indices(3, self.plan.examples, worker, *r.batch(worker, i))

    def gradients(self, x: np.ndarray, at: np.ndarray) -> np.ndarray:
        """Each sample's gradient at x."""
        return 2 * self.x[at] * (self.x[at] @ x - self.y[at])[:, None]

    def local(self, r: Round, start: np.ndarray) -> tuple[list[np.ndarray], np.ndarray]:
        """(each worker's parameters after its steps, the sum of all samples' gradients where each was used)."""
        ends, summed = [], np.zeros_like(start)
        for worker, steps in enumerate(r.steps):
            x = start.copy()
            for i in range(steps):
                each = self.gradients(x, self.batch(r, worker, i))
                summed += each.sum(axis=0)
                x -= LR * each.mean(axis=0)
            ends.append(x)
        return ends, summed

    def together(self, r: Round, x: np.ndarray) -> np.ndarray:
        """x after the round's synchronous steps: each with the gradient of all workers' samples."""
        for i in range(r.H):
            at = np.concatenate([self.batch(r, worker, i) for worker in range(self.plan.workers)])
            x = x - LR * self.gradients(x, at).mean(axis=0)
        return x

    def rounds(self, rule: Callable[[Round, np.ndarray], np.ndarray]) -> np.ndarray:
        """The parameters after the plan's rounds, each by the rule."""
        x = np.zeros(self.x.shape[1])
        for r in self.plan.rounds():
            x = rule(r, x)
        return x


def planned(strategy: Strategy, shares: Shares = UNEQUAL, steps: int = 8) -> Plan:
    return plan(strategy, shares=shares, budget=Interval(steps, "steps"))


def trained(p: Plan) -> np.ndarray:
    return run(p)[0][0].params[:-TAIL]


def weights_by_hand(rule: str, r: Round) -> np.ndarray:
    steps, batches = np.array(r.steps), np.array(r.batches)
    found = {"equal": np.ones(3), "steps": steps, "batches": batches, "samples": steps * batches}[rule]
    return found / found.sum()


def test_every_preset_with_local_steps_takes_paces_and_weights():
    """Those that exchange gradients in every step refuse paces: nothing else may be left out."""
    for name in PRESETS:
        needed = {"qsr": {"alpha": 0.0}, "post_local_sgd": {"t": "3 steps"}}.get(name, {})
        if not built(preset=name, **needed).aggregation.local:
            with pytest.raises(ScenarioError, match="unequal steps, but the aggregation exchanges"):
                built(preset=name, split="by_steps")
            continue
        for rule in ("equal", "samples", "steps", "batches", [3, 2, 1]):
            made = built(preset=name, split={"given": {"paces": [1, 0.5, 0.25]}}, weights=rule, **needed)
            weighted = [each for each in parts_of(made.aggregation) if isinstance(each, Parameters | FedNova)]
            assert [each.weights for each in weighted] == [tuple(rule) if isinstance(rule, list) else rule], name


def test_the_page_names_strategies_that_can_be_built_and_the_splits_that_explain_names():
    text = (DOCS / "unequal_workers.md").read_text()
    lines = re.search(r"```yaml\n(strategy: .*?)```", text, re.S)[1].splitlines()
    made = [built(**yaml.parse(line, "the page")["strategy"]) for line in lines]
    assert [type(each.split) for each in made] == [ByBatch, BySteps, BySteps, ByBatch, ByBatch]
    every = ["even", "by_steps", "by_class", "by_batch", "given"]
    for name, splits in (("diloco", every), ("post_local_sgd", every), ("lsdp", ["even", "by_batch", "given"])):
        assert explain(name)[0].splits == splits
        row = next(line for line in text.splitlines() if line.startswith("| `") and f"`{name}`" in line.split("|")[1])
        assert ("refused" in row) == (splits != every)


def parts_of(aggregation: Any) -> Iterator[Any]:
    yield aggregation
    for part in aggregation.parts:
        yield from parts_of(part)


@pytest.mark.parametrize("rule", ["equal", "samples", "steps", "batches"])
def test_qsr_slowmo_and_diloco_with_unequal_steps_by_hand(rule):
    """Two rounds of 4, 2 and 1 steps: the mean with these weights, and what the method does with it."""

    def mean(r: Round, start: np.ndarray) -> np.ndarray:
        assert r.steps == (4, 2, 1)
        return weights_by_hand(rule, r) @ np.array(hand.local(r, start)[0])

    u, v = np.zeros(5), np.zeros(5)

    def slow_momentum(r: Round, start: np.ndarray) -> np.ndarray:
        u[:] = 0.5 * u + (start - mean(r, start)) / LR
        return start - 0.8 * LR * u

    def nesterov(r: Round, start: np.ndarray) -> np.ndarray:
        g = start - mean(r, start)
        v[:] = 0.9 * v + g
        return start - 0.7 * (g + 0.9 * v)

    for strategy, method in (
        (qsr(2 * LR, h_base=1, weights=rule), mean),  # (alpha / lr)^2 is 4
        (slowmo(4, 0.5, 0.8, weights=rule), slow_momentum),
        (diloco(4, weights=rule), nesterov),
    ):
        p = planned(strategy)
        hand = ByHand(p)
        np.testing.assert_allclose(trained(p), hand.rounds(method), rtol=1e-4, err_msg=str(method))


def test_weights_by_samples_give_the_mean_of_all_samples_updates_where_steps_are_equal():
    """Unequal batches, as of by_batch: x moves by H lr times the mean gradient of all samples that the round used."""
    p = planned(diloco(4, lr=1.0, momentum=0.0, weights="samples"), Shares((6, 3, 2), (1.0, 1.0, 1.0)), 4)
    hand = ByHand(p)
    _, summed = hand.local(p.first_round(), np.zeros(5))
    np.testing.assert_allclose(trained(p), -LR * 4 * summed / p.first_round().samples, rtol=1e-5)


def test_weights_by_batches_let_every_sample_count_alike_where_steps_and_batches_differ():
    """Each sample's gradient then moves x by lr / (sum of the batches); FedNova by lr tau / (samples of the round)."""
    p = planned(local_sgd(4, weights="batches"), steps=4)
    _, summed = ByHand(p).local(p.first_round(), np.zeros(5))
    np.testing.assert_allclose(trained(p), -LR * summed / (6 + 3 + 2), rtol=1e-5)
    nova = fednova(4)
    p = planned(dataclasses.replace(nova, aggregation=nova.aggregation.resolve({"name": "sgd"})), steps=4)
    tau = (24 * 4 + 6 * 2 + 2 * 1) / 32
    np.testing.assert_allclose(trained(p), -LR * tau * summed / 32, rtol=1e-5)


# -- post-local SGD ---------------------------------------------------------------------------------------------------


def test_post_local_sgd_with_unequal_steps_by_hand():
    """Until t all workers take every step together, whatever their paces; then each takes its own number of steps."""
    p = planned(post_local_sgd(EARLY, 4, weights="equal"), steps=11)
    rounds = list(p.rounds())
    assert [tuple(r.steps) for r in rounds] == [(1, 1, 1)] * 3 + [(4, 2, 1)] * 2
    assert [r.samples for r in rounds] == [11] * 3 + [32] * 2
    assert [r.position for r in rounds] == [0, 11, 22, 33, 65]
    hand = ByHand(p)

    def method(r: Round, x: np.ndarray) -> np.ndarray:
        return hand.together(r, x) if r.start.steps < 3 else np.mean(hand.local(r, x)[0], axis=0)

    np.testing.assert_allclose(trained(p), hand.rounds(method), rtol=1e-5)


def test_synchronous_rounds_of_several_steps_ignore_paces_too():
    strategy = Strategy(Given(paces=UNEQUAL.paces), Fixed(2), aggregation=Until(EARLY, Gradients(), Parameters()))
    assert [tuple(r.steps) for r in planned(strategy, steps=9).rounds()] == [(2, 2, 2)] * 2 + [(2, 1, 1)] * 2 + [
        (1, 1, 1)
    ]


@pytest.mark.parametrize("amount", [0.4, 1.0, 2.3, 5.0])
def test_paced_post_local_sgd_uses_every_example_once_in_an_epoch(amount):
    shares, budget = UNEQUAL, Interval(amount, "epochs")
    p = plan(post_local_sgd(Interval(1, "epochs"), 4), shares=shares, budget=budget, examples=41)
    workers, states, _ = run(p)
    drawn = np.concatenate([at for w in workers for at in w.drawn])
    counts = np.bincount(drawn, minlength=41)
    assert counts.sum() == states[0].samples >= amount * 41
    assert counts.max() - counts.min() <= 1


def test_paced_post_local_sgd_resumes_on_both_sides_of_its_switch():
    whole = planned(post_local_sgd(EARLY, 4), steps=11)
    straight = run(whole, 0.9)[0]
    for steps in (2, 3, 7):
        first, states, _ = run(planned(post_local_sgd(EARLY, 4), steps=steps), 0.9)
        again = [ToyWorker(w, whole, 0.9) for w in range(3)]
        for old, new in zip(first, again, strict=True):
            new.restore(old.snapshot())
        run(whole, 0.9, dataclasses.replace(states[0]), again)
        assert np.array_equal(again[0].params, straight[0].params)


# -- what is refused --------------------------------------------------------------------------------------------------


def built(**strategy: Any) -> Strategy:
    return build_strategy(StrategySpec.model_validate(strategy))


@pytest.mark.parametrize(
    ("strategy", "message"),
    [
        (
            {"preset": "sync_sgd", "split": {"by_steps": "floor"}},
            "the split gives workers unequal steps, but the aggreg",
        ),
        (
            {"preset": "hdp", "split": {"by_batch": {"paces": True}}},
            "the split gives workers unequal steps, but the agg",
        ),
        (
            {"preset": "fsdp", "split": "by_steps"},
            "the split gives workers unequal steps, but the aggregation exchanges",
        ),
        (
            {"preset": "qsr", "alpha": 0.1, "weights": "sample"},
            "weights is 'sample'; write equal, samples, steps, batch",
        ),
        (
            {"preset": "diloco", "weights": "samples", "aggregation": {"outer_sgd": 0.5}},
            "strategy.weights: has no effect together with aggregation; keep one of them",
        ),
    ],
)
def test_unequal_work_that_makes_no_sense_is_refused(strategy, message):
    with pytest.raises(ScenarioError) as refused:
        built(**strategy)
    assert message in str(refused.value)


def test_given_paces_are_refused_where_every_round_is_synchronous():
    with pytest.raises(ValueError, match="all paces must be 1"):
        planned(Strategy(schedule=Fixed(2), aggregation=Gradients()))
    assert planned(Strategy(schedule=Fixed(2), aggregation=Until(EARLY))).next_round(State()).steps == (2, 2, 2)
