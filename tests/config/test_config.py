"""The scenario file: what it accepts. Anything else is answered with one line."""

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.paths import QUICKSTART, SCENARIOS
from paceline.algorithms.placements import Sharded
from paceline.algorithms.plan import Plan
from paceline.algorithms.rounds import Interval
from paceline.algorithms.schedules import Then
from paceline.algorithms.strategy import AXES
from paceline.config import yaml
from paceline.config.lr_schedule import build_rate
from paceline.config.profile import Profile, load_profile, merge_profiles, save_profile
from paceline.config.scenario import Scenario, load, train_settings, validate
from paceline.config.strategy import build_strategy
from paceline.config.timing import Device, interpolate
from paceline.config.units import _BANDWIDTH, _SECONDS, _parse, told_bytes, told_count, told_seconds
from paceline.job import resolve
from paceline.program.errors import ScenarioError


def quickstart() -> dict:
    return yaml.read_mapping(QUICKSTART)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("train={emulate: true, phantom: true}", "train: emulate and phantom exclude one another"),
        ("checkpoint.at=3 steps", "checkpoint.at: write a list, like [1, 2], found '3 steps'"),
        ("budget=4", "budget: write keys and their values, like {key: value}, found 4"),
        ("[x]=1", "[x]: unknown key; known keys: "),  # pydantic writes the kinds of a union like that, too
        ("float=1", "float: unknown key; did you mean"),
        ("workload.optimizer.sgd=1", "workload.optimizer.sgd: unknown key; known keys: "),
        ("cluster.wrokers=1", "cluster.wrokers: unknown key; did you mean 'workers'?"),
        ("cluster.workers=[]", "cluster.workers: no workers; list at least one"),
        ("cluster.workers.0.speed=-4 samples/s", "cluster.workers[0].speed: '-4 samples/s' must be above 0"),
        ("cluster.workers.0.speed=4 s", "'4 s' has the unit 's'; write one of samples/s"),
        ("cluster.workers.0.sped=4", "cluster.workers[0].sped: unknown key; did you mean 'speed'?"),
        ("cluster.workers.7.speed=4", "'7' is not a place in a list of 2"),
        ("cluster.workers.0.count=0", "cluster.workers[0].count: "),
        ("cluster.workers.0.step_time={0: 1 ms}", "batch sizes of 1 or more"),
        ("cluster.workers.0.slowdown=-1", "cluster.workers[0].slowdown: "),
        ("cluster.network.bandwidth=25", "25 is not a quantity with a unit; write it like '25 Gbit/s'"),
        ("cluster.network.latency=5 Gbit/s", "unit 'Gbit/s'; write one of s, ms"),
        ("cluster.network.shape=ring", "cluster.network.shape: "),
        ("cluster.noise.sigma=-1", "cluster.noise.sigma: "),
        ("budget.epochs=-1", "budget.epochs: "),
        ("budget.epochs=.nan", "budget.epochs: "),
        ("budget.steps=4", "budget: give exactly one of epochs, steps and rounds"),
        ("report.every=3", "report.every: 3 is not an interval; write it like '1 epoch'"),
        ("report.every=1.5 rounds", "a whole number of rounds above 0"),
        ("workload.model=3", "workload.model: 3: write a name"),
        ("workload.batch=0", "workload.batch: "),
        ("workload.lr_schedule.name=foo", "unknown name 'foo'; write one of constant, multistep, cosine"),
        (
            "workload.lr_schedule={name: multistep, milestones: [3], gama: 1}",
            "gama: unknown key; did you mean 'gamma'?",
        ),
        ("budget.epoch=312", "budget.epoch: 312: write samples, reference or a number of steps, like '312 steps'"),
        ("budget.epoch=3 rounds", "budget.epoch: '3 rounds': write samples, reference or a number of steps"),
        ("report.log=5", "report.log: 5 is not an interval; write it like '1 epoch'"),
        ("report.norms=loud", "report.norms: "),
        ("report.logs=5 steps", "report.logs: unknown key; did you mean 'log'?"),
        ("checkpoint.at=[10]", "checkpoint.at[0]: 10 is not an interval; write it like '1 epoch'"),
        ("checkpoint.at=10 epochs", "checkpoint.at: "),
        ("checkpoint.optimizer=false", "checkpoint.optimizer: "),
        ("checkpoint.optimizer=one", "checkpoint.optimizer: input should be 'local', 'shared' or 'none', found 'one'"),
        ("workload.data_seed=-1", "workload.data_seed: "),
        ("workload.loaders=-1", "workload.loaders: "),
        ("workload.loaders=all", "workload.loaders: "),
        ("reduction=tree", "reduction: "),
        ("faults=[{pause: {worker: 0}}]", "faults[0]: has no name; write one of straggler, slowdown, pause, "),
        ("faults=[3]", "faults[0]: write keys and their values, like {key: value}, found 3"),
        ("seed=-1", "seed: "),
    ],
)
def test_mistakes_are_one_line(setting, message):
    with pytest.raises(ScenarioError) as error:
        load(QUICKSTART, [setting])
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("strategy", "message"),
    [
        ({"preset": "local_sdg"}, "strategy.preset: 'local_sdg' is unknown; did you mean 'local_sgd'?"),
        ({}, "strategy: give a preset"),
        ({"schedule": {"fixd": 3}}, "strategy.schedule: 'fixd' is unknown; did you mean 'fixed'?"),
        ({"schedule": {"fixed": 0}}, "strategy.schedule.fixed: H is 0; write a whole number"),
        ({"schedule": {"fixed": "sometimes"}}, "H is 'sometimes'"),
        ({"schedule": {"fixed": {"h": 3}}}, "strategy.schedule.fixed.h: unknown argument; did you mean 'H'?"),
        ({"schedule": {"every": 3}}, "strategy.schedule.every: takes no arguments"),
        ({"placement": {"replicated": "fp8"}}, "strategy.placement.replicated: wire is 'fp8'; write one of fp32"),
        ({"schedule": [3]}, "strategy.schedule: [3] is not a member"),
        ({"split": {"given": {"paces": [0.5, 0.5]}}}, "the fastest worker's must be 1"),
        ({"split": {"given": {"batches": [0, 1]}}}, "each must be 1 or more"),
        ({"split": {"given": {"batches": 3}}}, "strategy.split.given: batches is 3; list one number per worker"),
        ({"split": {"given": {"batches": [2, 1.5]}}}, "each must be 1 or more, a whole number"),
        ({"split": {"given": {"paces": ["a", 1]}}}, "strategy.split.given: paces ['a', 1]"),
        ({"placement": {"sharded": {"prefetch": 1.5}}}, "prefetch is 1.5; write a whole number, 1 or more"),
        ({"placement": {"sharded": {"prefetch": True}}}, "prefetch is True; write a whole number, 1 or more"),
        ({"placement": {"offloaded": {"unit_bytes": "1 MBit"}}}, "unit_bytes: '1 MBit' has the unit"),
        ({"placement": {"offloaded": {"unit_bytes": math.nan}}}, "unit_bytes is nan"),
        ({"placement": {"sharded": {"wire": {"a": 1}}}}, "wire is {'a': 1}; write one of fp32"),
        ({"aggregation": {"gradients": ["equal"]}}, "strategy.aggregation.gradients: weights is ('equal',); write"),
        ({"aggregation": {"gradients": [1, math.inf]}}, "must be 0 or more and sum to more than 0"),
        ({"preset": "qsr", "alpha": 1, "init_h": 0, "init_t": "2 steps"}, "init_h is 0; write a whole number of steps"),
        ({"aggregation": {"parameters": {"weights": [0, 0]}}}, "sum to more than 0"),
        ({"aggregation": {"parameters": {"weights": "fair"}}}, "weights is 'fair'"),
        ({"schedule": "qsr"}, "strategy.schedule.qsr.alpha: is missing"),
        ({"schedule": {"qsr": {"alpha": -1}}}, "strategy.schedule.qsr: alpha is -1; write a number of 0 or more"),
        ({"schedule": {"qsr": {"alpha": "much"}}}, "strategy.schedule.qsr.alpha: 'much' is not a number"),
        (
            {"schedule": {"then": {"t": 3, "a": "every", "b": "every"}}},
            "strategy.schedule.then.t: 3 is not an interval",
        ),
        (
            {"schedule": {"then": {"t": "3 steps", "a": "evry", "b": "every"}}},
            "then.a: 'evry' is unknown; did you mean",
        ),
        ({"split": {"by_class": {"steps": {"cpu": 0}}}}, "steps of cpu is 0"),
        ({"aggregation": {"slowmo": {"beta": 1}}}, "beta 1 must be in [0, 1)"),
        ({"preset": "qsr"}, "strategy.alpha: is missing"),
        ({"preset": "local_sgd", "H": 9, "schedule": {"fixed": 8}}, "strategy.H: has no effect together with schedule"),
        ({"preset": "qsr", "alfa": 1}, "strategy.alfa: unknown argument; did you mean 'alpha'?"),
        ({"shedule": "every"}, "strategy: 'shedule' is unknown; did you mean 'schedule'?"),
        ({"aggregation": "gradients", "split": "by_steps"}, "write aggregation: parameters, or a split of equal steps"),
    ],
)
def test_strategy_mistakes_are_one_line(strategy, message):
    scenario = validate(quickstart() | {"strategy": strategy}, "here")
    with pytest.raises(ScenarioError) as error:
        build_strategy(scenario.strategy)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("place", ["7 epochs", "6.5 epochs"])
def test_a_checkpoint_that_the_run_does_not_reach_is_refused(place):
    scenario = load(QUICKSTART, ["budget.epochs=6", f"checkpoint.at=[1 epoch, 10000 steps, {place}]"])
    amount = place.split()[0]
    with pytest.raises(ScenarioError, match=f"checkpoint.at: {amount} epochs lie after the end of the budget, 6"):
        resolve(scenario, QUICKSTART.parent)


def test_resolved_scenario_reads_back_equal():
    scenario = load(QUICKSTART, ["cluster.network={bandwidth: 25 Gbit/s, latency: 50 us}", "report.every=0.5 epochs"])
    again = validate(yaml.parse(yaml.dump(scenario.model_dump(mode="json", exclude_none=True)), "text"), "text")
    assert again == scenario
    assert again.cluster.network.bandwidth == 25e9 / 8


@pytest.mark.parametrize(("text", "value"), [("1e-4", 1e-4), ("1E3", 1e3), ("-2e+5", -2e5), ("3", 3), ("1e", "1e")])
def test_yaml_numbers(text, value):
    assert yaml.parse(f"x: {text}", "text")["x"] == value


@pytest.mark.parametrize("text", ["a: 1\na: 2", "a: [", "[1]: 2", "\t- x", "a: b: c", "!!python/name:os.system {}"])
def test_yaml_mistakes_name_the_line(tmp_path, text):
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(ScenarioError) as error:
        load(path)
    assert str(path) in str(error.value)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
        max_leaves=6,
    ),
    st.sampled_from(["seed", "workload", "cluster", "strategy", "budget", "report", "checkpoint", "reduction"]),
)
def test_any_value_in_any_section_is_read_or_refused_in_one_line(value, key):
    document = quickstart()
    section = document.get(key)
    document[key] = {**section, **value} if isinstance(value, dict) and isinstance(section, dict) else value
    try:
        scenario = validate(document, "here")
        build_strategy(scenario.strategy)
    except ScenarioError as error:
        assert "\n" not in str(error)  # noqa: PT017
    else:
        assert isinstance(scenario, Scenario)


@given(st.floats(1e-9, 1e9), st.sampled_from([*_SECONDS, *_BANDWIDTH]))
def test_units(number, unit):
    table = _SECONDS if unit in _SECONDS else _BANDWIDTH
    assert math.isclose(_parse(f"{number!r} {unit}", table, "1 s"), number * table[unit])


def test_quantities_are_told_in_units_that_suit_them():
    times = {0: "0 s", 3.456e-3: "3.46 ms", 59.97: "1 min", 44640: "12.4 h", 3600 * 2345: "2,345 h", 1e-12: "0.001 ns"}
    assert {seconds: told_seconds(seconds) for seconds in times} == times
    assert [told_bytes(n) for n in (0, 12, 999.96e6, 11.2e12)] == ["0 B", "12 B", "1 GB", "11.2 TB"]
    assert [told_count(n) for n in (0, 0.5, 512, 65536)] == ["0", "0.5", "512", "65.5 k"]


ARGUMENTS = {
    "by_class": {"steps": {"cpu": 1}},
    "qsr": {"alpha": 0.02},
    "then": {"t": "3 epochs", "a": "every", "b": {"fixed": 4}},
    "warm_up": {"t": "10 steps", "H": 2, "then": {"qsr": 0.02}},
}


def test_every_axis_member_has_a_spelling():
    for axis, members in AXES.items():
        for name in members:
            aggregation = "gradients" if axis == "placement" else "parameters"
            spec = {"aggregation": aggregation, axis: {name: ARGUMENTS[name]} if name in ARGUMENTS else name}
            strategy = build_strategy(validate(quickstart() | {"strategy": spec}, "here").strategy)
            assert type(getattr(strategy, axis)) is (Then if name == "warm_up" else members[name])


def test_device_prices():
    from paceline.program.effects import Work

    table = Device("d", {"step": ((16, 1.0), (32, 2.0))}, slowdown=2)
    assert table.seconds(Work("step", 24)) == 3.0
    assert table.seconds(Work("gradient", 32)) == 4.0
    assert table.seconds(Work("update")) == 0.0
    assert table.seconds(Work("evaluate", 32)) == pytest.approx(4 / 3)
    assert Device("d", speed=10).seconds(Work("step", 5)) == 0.5
    assert interpolate(((4, 2.0),), 8) == 4.0
    assert interpolate(((0, 2.0),), 0) == 2.0
    assert interpolate(((1, 2.0), (2, 2.0)), 64) == 2.0
    with pytest.raises(ValueError, match="no table of step"):
        Device("d", {"gradient": ((1, 1.0),)}).seconds(Work("step", 1))


def test_profile_round_trip_and_merge(tmp_path):
    one = Profile.model_validate({"devices": {"cpu": {"mlp": {"step": {32: "2 ms"}}}}})
    two = Profile.model_validate(
        {"devices": {"cpu": {"cnn": {"step": {8: "1 ms"}}}}, "network": {"latency": "5 us", "bandwidth": "1 GB/s"}}
    )
    path = tmp_path / "sub" / "p.yaml"
    save_profile(path, merge_profiles(one, two))
    read = load_profile(path)
    assert read.tables("cpu", "mlp") == {"step": ((32.0, 2e-3),)}
    assert read.tables("cpu", "cnn") == {"step": ((8.0, 1e-3),)}
    assert read.network is not None
    with pytest.raises(ValueError, match="paceline profile"):
        read.tables("cpu", "vit")
    with pytest.raises(ValueError, match="not in the profile"):
        read.tables("gpu", "mlp")
    path.write_text("devices: {cpu: {mlp: {step: {32: 2}}}}")
    with pytest.raises(ScenarioError, match="not a quantity with a unit"):
        load_profile(path)


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        ("{name: multistep, milestones: [4, 2]}", "milestones [4.0, 2.0] must not fall"),
        ("{name: multistep, milestones: [40]}", "milestone 40 lies after the end of the budget, 30"),
        ("{name: cosine, warm_up: 30}", "workload.lr_schedule: the warm-up of 30 is not shorter"),
        ("{name: constant, warm_up: 31}", "warm_up: 31 is not less than the budget of 30"),
        ("{name: cosine_step, base: 1}", "workload.lr_schedule.base: "),
        ("{name: cosine, warm_up: 5 step s}", "warm_up: '5 step s' is not an interval; write it like"),
        ("{name: cosine, warm_up: -1}", "workload.lr_schedule.warm_up: -1: write 0 or more"),
        ("{name: cosine, warm_up: true}", "workload.lr_schedule: warm_up is True"),
        (
            "{name: cosine, warm_up: 5 steps}",
            "warm_up: 5 steps is not always the same part of a budget of epochs; write a",
        ),
        ("{name: cosine, warm_up: 5 rounds}", "warm_up: 5 rounds is not always the same part of a budget of epochs"),
        ("{name: cosine, warm_up_from: 0.1}", "workload.lr_schedule.warm_up_from: there is no warm-up; give warm_up"),
        ("{name: cosine, warm_up: 1, warm_up_from: -1}", "workload.lr_schedule.warm_up_from: "),
    ],
)
def test_learning_rate_mistakes_are_one_line(schedule, message):
    with pytest.raises(ScenarioError, match=re.escape(message)):
        build_rate(
            0.1, load(QUICKSTART, [f"workload.lr_schedule={schedule}"]).workload.lr_schedule, Interval(30, "epochs")
        )


def test_learning_rate_schedules_end_with_the_budget():
    for name in ("cosine", "linear"):
        schedule = f"{{name: {name}, warm_up: 5, final_lr: 0.01}}"
        workload = load(QUICKSTART, [f"workload.lr_schedule={schedule}", "workload.optimizer.lr=0.11"]).workload
        rate = build_rate(workload.optimizer.lr, workload.lr_schedule, Interval(25, "epochs"))
        assert [rate(t) for t in (0.0, 5.0, 15.0, 25.0)] == pytest.approx([0.01, 0.11, 0.06, 0.01])


def test_a_warm_up_may_have_its_own_unit_and_beginning():
    """10,000 steps among 300 epochs of 312, as QSR's recipe has it."""
    schedule = "{name: cosine, warm_up: 10000 steps, final_lr: 1e-6, warm_up_from: 0.002}"
    workload = load(QUICKSTART, [f"workload.lr_schedule={schedule}", "workload.optimizer.lr=0.008"]).workload
    rate = build_rate(workload.optimizer.lr, workload.lr_schedule, Interval(300, "epochs"), 1 / 312)
    found = [rate(step / 312) for step in (0, 5000, 10_000, 51_800, 93_600)]
    assert found == pytest.approx([0.002, 0.005, 0.008, 0.0040005, 1e-6])


@pytest.mark.parametrize(
    ("budget", "warm_up"),
    [
        ("{epochs: 2, epoch: 24 steps}", 0.5),
        ("{epochs: 2}", 12 * 64 / 1437),
        ("{steps: 48}", 12),
        ("{epochs: 2, epoch: 24 steps}", "0.5 epochs"),
    ],
)
def test_a_warm_up_in_steps_is_that_in_the_budgets_unit(budget, warm_up):
    def plan(warm_up: object) -> Plan:
        schedule = f"workload.lr_schedule={{name: cosine, warm_up: {warm_up}}}"
        return resolve(load(SCENARIOS / "qsr.yaml", [f"budget={budget}", schedule]), SCENARIOS).plan

    steps, other = plan("12 steps"), plan(warm_up)
    assert steps.strategy.schedule.init_t == Interval(12, "steps")
    for a, b in zip(steps.rounds(), other.rounds(), strict=True):
        assert [a.H, *(a.lr(0, i) for i in range(a.H))] == pytest.approx(
            [b.H, *(b.lr(0, i) for i in range(b.H))], rel=1e-3
        )


def test_a_total_batch_is_shared_by_the_workers():
    two = load(QUICKSTART, ["workload.total_batch=96", "workload.batch=null"])
    assert two.batch * two.cluster.size == 96
    assert load(QUICKSTART, ["workload.batch=null"]).batch == 64
    with pytest.raises(ScenarioError, match=r"workload: batch is 9 and total_batch 96; leave one of them out"):
        load(QUICKSTART, ["workload.total_batch=96", "workload.batch=9"])
    with pytest.raises(ScenarioError, match=r"workload.total_batch: 1 samples cannot be shared by 2 workers; write 2"):
        _ = load(QUICKSTART, ["workload.total_batch=1", "workload.batch=null"]).batch


@pytest.mark.parametrize(
    ("strategy", "batches"),
    [
        ("{preset: sync_sgd}", (34, 33, 33)),
        ("{preset: local_sgd, H: 4}", (34, 33, 33)),
        ("{split: {given: {paces: [1, 1, 0.5]}}, aggregation: parameters}", (34, 33, 33)),
        ("{split: {given: {batches: [33, 33, 33]}}}", (33, 33, 33)),
        ("{preset: hdp, max: 33}", (33, 33, 33)),
        ("{preset: hdp, total: 100}", (33, 33, 34)),
    ],
)
def test_a_total_batch_that_does_not_divide_is_shared_as_equally_as_can_be(strategy, batches):
    settings = ["workload.total_batch=100", "workload.batch=null", f"strategy={strategy}"]
    job = resolve(load(QUICKSTART, ["cluster={workers: [{speed: 9 samples/s, count: 3}]}", *settings]), SCENARIOS)
    assert sorted(job.plan.shares.batches) == sorted(batches)
    follows = "so batches differ by a sample" if sum(batches) == 100 else "and a step uses 99 samples"
    assert job.remarks[-1] == f"workload.total_batch: 100 is not a multiple of 3, {follows}"


def test_bytes_of_a_strategy_may_have_a_unit():
    placements = [
        build_strategy(
            validate(quickstart() | {"strategy": {"placement": {"sharded": args}}}, "here").strategy
        ).placement
        for args in ({"unit_bytes": "2 kB"}, {"unit_bytes": 2000})
    ]
    assert placements == [Sharded(unit_bytes=2000)] * 2


def test_flags_have_precedence_over_the_scenario(tmp_path):
    """A flag that was not given leaves what the scenario says; --emulate and --phantom replace one another."""
    path = tmp_path / "emulated.yaml"
    path.write_text(yaml.dump({**quickstart(), "train": {"emulate": True, "emulate_network": True}}))

    def under(**flags: bool | None) -> tuple[bool, bool, bool]:
        train = load(path, train_settings(**flags)).train
        return train.emulate, train.phantom, train.emulate_network

    assert under(emulate=None, phantom=None) == (True, False, True)
    assert under(phantom=True, emulate=None) == (False, True, True)
    assert under(emulate=False, emulate_network=False) == (False, False, False)
    with pytest.raises(ScenarioError, match="--emulate and --phantom exclude one another"):
        train_settings(emulate=True, phantom=True)
