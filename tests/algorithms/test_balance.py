"""HDP's batch sizes: equal to an independent search for the optimum, exact in total, and within their bounds."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from math import inf
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paceline import simulate
from paceline.algorithms.balance import fixed_total, largest_fitting, no_restriction
from paceline.algorithms.learning_rates import Constant
from paceline.algorithms.plan import Plan
from paceline.algorithms.rounds import Interval, State
from paceline.algorithms.sampling import Sliced, permutation
from paceline.algorithms.schedules import Fixed
from paceline.algorithms.splits import ByBatch, Given, Shares
from paceline.algorithms.strategy import Strategy
from paceline.config.cluster import build_timing
from paceline.config.machines import Cluster
from paceline.config.profile import Profile, workload_key
from paceline.config.scenario import validate
from paceline.config.timing import Device
from paceline.job import Job, resolve
from paceline.program.errors import ScenarioError

SPEEDS = (100.0, 50.0, 40.0, 25.0)
FOUR = [Device(f"gpu{speed:g}", speed=speed, max_batch=64) for speed in SPEEDS]


def slowest(times, batches) -> float:
    return max(t[b - 1] for t, b in zip(times, batches, strict=True))


def optimum(times, total) -> float:
    """The least time in which `total` samples fit: of all the times there are, the first with room for them."""
    for limit in sorted({t for row in times for t in row if t >= max(row[0] for row in times)}):
        if sum(sum(t <= limit for t in row) for row in times) >= total:
            return limit
    return inf


def curve(random: Random) -> list[float]:
    """Step times of 1, 2, ... samples: a straight line, a level one, stairs, or a curve of any bend."""
    most, first, slope = random.randint(1, 40), random.choice([0.0, 1.0, 5.0]), random.uniform(0.001, 5)
    match random.randrange(4):
        case 0:
            return [first + slope * b for b in range(1, most + 1)]
        case 1:
            return [1.0 + first] * most
        case 2:
            width = random.randint(1, 16)
            return [first + slope * -(-b // width) for b in range(1, most + 1)]
        case _:
            return list(itertools.accumulate(random.choice([0.0, 0.5, random.random()]) for _ in range(most)))


def make_case(seed: int) -> tuple[list[list[float]], int]:
    """(step times of up to 8 workers, some of them alike; a total that they can hold). One draw: 20 times faster."""
    random = Random(seed)
    kinds = [curve(random) for _ in range(random.randint(1, 4))]
    times = [random.choice(kinds) for _ in range(random.randint(1, 8))]
    return times, random.randint(len(times), sum(map(len, times)))


cases = st.integers(0, 2**64).map(make_case)


@settings(max_examples=10_000, deadline=None)
@given(cases)
def test_fixed_total_is_the_optimum(case):
    times, total = case
    prices = {id(row): lambda batch, row=row: row[batch - 1] for row in times}
    batches = fixed_total([prices[id(row)] for row in times], [len(row) for row in times], total)
    assert sum(batches) == total
    assert all(1 <= b <= len(row) for b, row in zip(batches, times, strict=True))
    assert slowest(times, batches) == optimum(times, total)


def test_the_independent_search_is_right():
    """Against all divisions that there are."""
    times = [[1.0, 1.5, 4.0], [2.0, 2.0, 2.0, 5.0], [0.5, 3.0]]
    divisions = list(itertools.product(*(range(1, len(row) + 1) for row in times)))
    for total in range(3, 10):
        assert optimum(times, total) == min(slowest(times, b) for b in divisions if sum(b) == total)


@settings(max_examples=1000, deadline=None)
@given(cases)
def test_no_restriction_is_the_largest_balanced_step(case):
    times, _ = case
    batches = no_restriction([lambda b, row=row: row[b - 1] for row in times], [len(row) for row in times])
    limit = min(row[-1] for row in times) * (1 + 1e-9)
    for batch, row in zip(batches, times, strict=True):
        assert batch == 1 or row[batch - 1] <= limit
        assert batch == len(row) or row[batch] > limit


def test_the_papers_example():
    """The released optimiser ends at [64, 53, 51, 47]."""
    assert ByBatch("no_restriction").shares(64, FOUR).batches == (64, 32, 25, 16)
    assert ByBatch().shares(64, FOUR).batches == (64, 64, 64, 64), "min(max) n is all that fits"
    assert ByBatch(total=137).shares(64, FOUR).batches == (64, 32, 25, 16)
    assert ByBatch("equal").shares(64, FOUR).batches == (64,) * 4


def test_many_level_workers_share_evenly():
    """A time that knows no batch: all divisions take as long, and the even one is taken, at once."""
    level = Device("level", {"step": ((1, 2e-3), (2, 2e-3))}, max_batch=1_000_000)
    assert ByBatch(total=64 * 500_000 + 3).shares(1, [level] * 64).batches == (500_001,) * 3 + (500_000,) * 61


def test_measured_times_that_fall():
    """Noise: more samples, less time. The total and the bounds hold nevertheless, and equal workers stay equal."""
    noisy = Device("noisy", {"step": ((16, 1.1), (32, 1.6), (64, 1.5), (128, 2.5))}, max_batch=200)
    batches = ByBatch(total=300).shares(1, [noisy, Device("b", speed=60.0, max_batch=200), noisy]).batches
    assert sum(batches) == 300
    assert max(batches) <= 200
    assert abs(batches[0] - batches[2]) <= 1


def test_cost_in_prices():
    """64 workers, each of its own speed: some 10 prices for each, where halving alone took over 100."""
    asked = 0

    def price(speed):
        def seconds(batch):
            nonlocal asked
            asked += 1
            return 1e-3 + batch / speed

        return seconds

    fixed_total([price(100.0 + 17 * w) for w in range(64)], [4096] * 64, 64 * 512)
    assert asked < 64 * 16


@given(st.integers(1, 5000), st.integers(0, 5000))
def test_largest_fitting(most, limit):
    tried: list[int] = []
    found = largest_fitting(lambda size: tried.append(size) or size <= limit, most)  # type: ignore[func-returns-value]
    assert found == min(most, limit)
    assert tried[0] == min(64, most)
    assert max(tried) <= max(64, 2 * limit), "no size is tried beyond twice one that fits"
    assert len(tried) == len(set(tried)) <= 22


@pytest.mark.parametrize(
    ("split", "devices", "message"),
    [
        (ByBatch(total=3), FOUR, "total is 3; 4 workers take at least 4"),
        (ByBatch(total=257), FOUR, "total is 257; 4 workers take at least 4 and, at their largest batches, 256"),
        (ByBatch("equal", total=10), FOUR, "write a multiple of 4 up to 256"),
        (ByBatch("equal", total=260), FOUR, "write a multiple of 4 up to 256"),
        (ByBatch(max=(1, 2)), FOUR, "max has 2 numbers for 4 workers"),
        (ByBatch("no_restriction"), [*FOUR, Device("new", speed=1.0)], "needs the largest batch of new; write max"),
        (Given(batches=(1, 2)), FOUR, "2 batches for 4 workers"),
    ],
)
def test_what_cannot_be_divided(split, devices, message):
    with pytest.raises(ValueError, match=message):
        split.shares(64, devices)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mode": "fixed"}, "mode is 'fixed'; write fixed_total, no_restriction, equal"),
        ({"total": 0}, "total is 0"),
        ({"total": 2.5}, "total is 2.5"),
        ({"mode": "no_restriction", "total": 64}, "leave total out"),
        ({"max": (64, 0)}, "max has 0"),
        ({"max": True}, "max has True"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        ByBatch(**arguments)


def test_defaults():
    """Without bounds the scenario's batch says how much there is to do; with them, the smallest of them."""
    free = [Device("a", speed=3.0), Device("b", speed=1.0)]
    assert ByBatch().shares(32, free).batches == (48, 16)
    assert ByBatch(max=40).shares(32, free).batches == (40, 40), "total is 2 times 40"
    assert ByBatch(max=40, total=64).shares(32, free).batches == (40, 24), "a bound is kept"
    assert ByBatch(total=200).shares(32, [Device("a", speed=100.0), Device("b", speed=1.0)]).batches == (199, 1)


def test_what_memory_is_predicted_to_hold_bounds_where_nobody_says_a_bound():
    """What was measured or given goes first; a prediction bounds a batch, and does not say how much there is to do."""
    free = [Device("a", speed=3.0), Device("b", speed=1.0), Device("c", speed=1.0, max_batch=50)]
    asked: list[tuple[str, int]] = []

    def holds(device: Device, most: int) -> int | None:
        asked.append((device.name, most))
        return {"a": 20, "c": 1}.get(device.name)

    assert ByBatch(total=60).shares(32, free, holds).batches == (20, 20, 20)
    assert asked == [("a", 60), ("b", 60)]
    assert ByBatch(total=60).shares(32, [free[0], free[1], free[0]], holds).batches == (20, 20, 20)
    assert len(asked) == 4, "equal workers are asked about once"
    assert ByBatch(max=64, total=60).shares(32, free[:2], holds).batches == (45, 15)
    assert ByBatch().shares(32, free[:2], holds).batches == (20, 44), "total is 2 times 32"
    with pytest.raises(ValueError, match=r"total is 64, and 2 workers are predicted to hold 40 \(20 on a\); write"):
        ByBatch().shares(32, [free[0]] * 2, holds)
    assert ByBatch("no_restriction").shares(32, [free[0], free[2]], holds).batches == (20, 6)
    with pytest.raises(ValueError, match="needs the largest batch of b; write max"):
        ByBatch("no_restriction").shares(32, free, holds)


def test_a_split_is_not_one_that_memory_is_predicted_not_to_hold():
    """A fast device of known memory gets what fits into it, to the last sample, and the others the rest."""
    document = {
        "workload": {"model": "torchvision:resnet50", "data": "imagenet", "batch": 256, "optimizer": {"lr": 0.1}},
        "cluster": {"workers": [{"device": "rtx3090"}, {"device": "epyc-7742", "count": 2}]},
        "strategy": {"preset": "hdp"},
        "budget": {"steps": 1},
    }

    def divided(batches: Sequence[int] = (), **changed: Any) -> Job:
        more = {"split": {"given": {"batches": list(batches)}}} if batches else {}
        strategy = {"strategy": {"preset": "sync_sgd" if more else "hdp"} | more}
        return resolve(validate(document | strategy | changed, "test"), Path())

    job = divided()
    first, *others = job.plan.shares.batches
    assert sum((first, *others)) == 3 * 256
    assert first > max(others)
    assert not job.warnings
    assert "22.4 GiB" in divided((first + 1, *others)).warnings[0]
    small = {"workers": [{"device": "rtx3090", "memory": "100 MB", "count": 2}]}
    with pytest.raises(ScenarioError, match=r"need 194\.985 MiB of 95\.3674 MiB"):
        divided(cluster=small)
    small["workers"][0]["memory"] = "1 GB"
    with pytest.raises(ScenarioError, match=r"split: total is 512, and 2 workers are predicted to hold 16 \(8 on"):
        divided(cluster=small)
    small["workers"][0]["max_batch"] = 256
    assert divided(cluster=small).warnings


# -- the sampler ------------------------------------------------------------------------------------------------------


def sliced(batches, examples, epochs=1.0, tail="pad", H=1) -> Plan:
    shares = Shares(tuple(batches), (1.0,) * len(batches))
    strategy = Strategy(ByBatch(), Fixed(H), Sliced(tail).resolve(shares))
    return Plan(strategy, shares, Constant(0.1), examples, Interval(epochs, "epochs"))


def drawn(p: Plan) -> tuple[State, list[list[np.ndarray]]]:
    """(the end, each worker's batches in their order) of a whole run."""
    state, batches = State(), [[] for _ in range(p.workers)]
    while not p.finished(state):
        r = p.next_round(state)
        for w in range(p.workers):
            for i in range(r.steps[w]):
                batches[w].append(p.strategy.sampling.indices(3, p.examples, w, *r.batch(w, i)))
        state.after(r, 0.0)
    return state, batches


def test_the_published_sampler():
    """N = 50000 and batches that sum to 137: 365 steps, 5 repeats, each worker a slice of the epoch's permutation."""
    batches = (64, 32, 25, 16)
    state, found = drawn(sliced(batches, 50_000, epochs=2))
    assert (state.step, state.samples) == (2 * 365, 2 * 50_005)
    assert [len(own) for own in found] == [2 * 365] * 4
    for epoch in range(2):
        order = permutation(3, epoch, 50_000)
        slices = [np.concatenate(own[365 * epoch : 365 * (epoch + 1)]) for own in found]
        assert [len(own) for own in slices] == [365 * b for b in batches]
        assert np.array_equal(np.concatenate(slices), np.concatenate([order, order[:5]]))
    assert sliced(batches, 50_000).epochs(State(samples=50_005)) == 1.0


@given(
    st.lists(st.integers(1, 9), min_size=1, max_size=5),
    st.integers(1, 120),
    st.sampled_from(["pad", "drop"]),
    st.integers(1, 5),
)
def test_every_example_once(batches, examples, tail, H):
    if tail == "drop" and sum(batches) > examples:
        return
    p = sliced(batches, examples, 1.0, tail, H)
    state, found = drawn(p)
    counts = np.bincount(np.concatenate([x for own in found for x in own]), minlength=examples)
    over = sum(batches) * len(found[0]) - examples
    assert len({len(own) for own in found}) == 1
    assert state.samples == counts.sum() == examples + over
    assert p.epochs(state) == 1.0
    if tail == "pad":
        assert 0 <= over < sum(batches)
        assert counts.min() >= 1
        assert counts.max() - counts.min() <= 1 or sum(batches) > examples
    else:
        assert -sum(batches) < over <= 0
        assert counts.max() == 1


def test_sliced_is_refused_where_it_makes_no_sense():
    with pytest.raises(ValueError, match="write sampling: shuffled"):
        Sliced().resolve(Shares((4, 4), (1.0, 0.5)))
    with pytest.raises(ValueError, match="write pad or drop"):
        Sliced("next")
    with pytest.raises(ValueError, match="drops all 7 training examples"):
        sliced((4, 4), 7, tail="drop").epochs(State())


# -- the preset -------------------------------------------------------------------------------------------------------


def scenario(**strategy: object) -> dict:
    """Two workers on digits, one four times slower."""
    workers = [{"device": "a", "speed": "4000 samples/s"}, {"device": "b", "speed": "1000 samples/s"}]
    return {
        "workload": {"model": {"name": "mlp", "hidden": [8]}, "batch": 20, "optimizer": {"lr": 0.1}},
        "cluster": {"workers": workers},
        "strategy": strategy,
        "budget": {"steps": 20},
    }


def run(document: dict, timing_only: bool = False):
    return simulate(validate(document, "test"), timing_only=timing_only)


def test_hdp_at_equal_speeds_is_ddp():
    hdp, ddp = scenario(preset="hdp"), scenario(preset="ddp")
    for document in (hdp, ddp):
        document["cluster"]["workers"] = [{"count": 2, "speed": "1000 samples/s"}]
    assert run(hdp).summary["params_sha256"] == run(ddp).summary["params_sha256"]


def test_hdp_steps_in_equal_time():
    """32 and 8 samples take 8 ms each, where 20 and 20 take 5 and 20."""
    hdp, ddp = run(scenario(preset="hdp"), timing_only=True), run(scenario(preset="ddp"), timing_only=True)
    assert hdp.scenario["recorded"]["batches"] == [32, 8]
    assert hdp.summary["samples"] == ddp.summary["samples"] == 800
    assert hdp.summary["seconds"] == pytest.approx(20 * 8e-3)
    assert ddp.summary["seconds"] == pytest.approx(20 * 20e-3)


def test_weighted_by_samples_is_one_worker_on_the_whole_batch():
    """And unweighted, an option, is another thing with unequal batches."""
    one = scenario(preset="ddp")
    one["cluster"]["workers"] = [{"speed": "1000 samples/s"}]
    one["workload"]["batch"] = 40
    weighted = run(scenario(preset="hdp"))
    assert weighted.metrics["test_loss"].iloc[-1] == pytest.approx(run(one).metrics["test_loss"].iloc[-1], rel=1e-5)
    unweighted = run(scenario(preset="hdp", aggregation={"gradients": "equal"}))
    assert unweighted.metrics["test_loss"].iloc[-1] != pytest.approx(weighted.metrics["test_loss"].iloc[-1], rel=1e-3)


@pytest.mark.parametrize(
    ("strategy", "message"),
    [
        ({"preset": "hdp", "total": 1}, "strategy.split: total is 1; 2 workers take at least 2"),
        ({"preset": "hdp", "max": [64, 0]}, "strategy: max has 0"),
        ({"preset": "hdp", "max": [64]}, "strategy.split: max has 1 numbers for 2 workers"),
        ({"preset": "hdp", "max": 8, "total": 17}, "strategy.split: total is 17"),
        ({"preset": "hdp", "mode": "no_restriction"}, "strategy.split: no_restriction needs the largest batch of a"),
        ({"split": {"by_batch": {"mode": "most"}}}, "strategy.split.by_batch: mode is 'most'"),
        ({"preset": "hdp", "sampling": {"sliced": {"batches": [1]}}}, "strategy.sampling.sliced.batches: unknown"),
        ({"preset": "local_sgd", "sampling": "sliced"}, "strategy: sampling sliced gives all workers the same number"),
    ],
)
def test_bad_strategies(strategy, message):
    with pytest.raises(ScenarioError) as error:
        run(scenario(**strategy), timing_only=True)
    assert message in str(error.value)


def test_bounds_from_cluster_and_profile():
    """The scenario's own number goes before the profile's, which is filed under the workload."""
    key = workload_key(validate(scenario(preset="ddp"), "test").workload)
    document = {"devices": {}, "max_batch": {"a": {key: 24}, "b": {key: 4, "other": 9}}}
    groups = validate(scenario(preset="ddp"), "test").cluster.workers
    cluster = Cluster(workers=(groups[0], groups[1].model_copy(update={"max_batch": 6})))
    timing = build_timing(cluster, Profile.model_validate(document), key, 0)
    assert [device.max_batch for device in timing.devices] == [24, 6]
    assert ByBatch().shares(20, timing.devices).batches == (10, 2), "total is 2 times 6"
    assert ByBatch("no_restriction").shares(20, timing.devices).batches == (24, 6)
