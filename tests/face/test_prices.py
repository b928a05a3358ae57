"""Prices add up: the phases, units and micro-batches of a step take together as long as the step.

Where nothing is exchanged, a step takes the same time in every placement.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import paceline
from paceline.algorithms.costs import Holding, ModelCost, Works, together
from paceline.algorithms.phantom import PhantomWorker
from paceline.config.profile import workload_key
from paceline.config.scenario import Scenario, validate
from paceline.config.timing import Device
from paceline.learning.cost_tables import cost, merged, total
from paceline.learning_problem import LearningProblem
from paceline.program.effects import Work
from paceline.program.errors import ScenarioError
from paceline.speeds import profile_of, timing_of

MODELS = [
    total(cost(model, args, shape, 10))
    for model, args, shape in [
        ("mlp", {"hidden": (64, 512, 8)}, (64,)),
        ("cnn", {}, (1, 8, 8)),
        ("resnet20", {}, (3, 32, 32)),
        ("vit", {}, (3, 32, 32)),
    ]
] + [together([ModelCost(1000, 0, 0.0, 0.0)] * 3)]  # units that compute nothing

Worker = dict[str, Any]
ENOUGH = (("step",), ("gradient", "update"), ("forward", "update"), ("backward", "update"))
PHASES = ("step", "gradient", "forward", "backward", "update", "host update", "evaluate")
seconds = st.floats(1e-6, 10.0)
tables = st.one_of(
    st.dictionaries(st.sampled_from((1, 8, 16, 32, 100)), seconds, min_size=1, max_size=3),
    seconds.map(lambda known: {0: known}),  # as updates are filed
)


@st.composite
def profiles(draw: st.DrawFn) -> dict[str, dict[int, float]]:
    """Tables of some phases, from which the time of a step follows."""
    known = {*draw(st.sampled_from(ENOUGH)), *draw(st.lists(st.sampled_from(PHASES), max_size=4))}
    return {phase: draw(tables) for phase in sorted(known)}


@st.composite
def sources(draw: st.DrawFn) -> Worker:
    """Where a device's times come from, in each way that there is: a scenario's worker, with a profile's tables."""
    kind = draw(st.sampled_from(("time", "times", "speed", "profile", "flops", "catalogue")))
    if kind == "time":
        own: dict[str, Any] = {"step_time": f"{draw(seconds)!r} s"}
    elif kind == "times":
        known = draw(st.dictionaries(st.integers(1, 100), seconds, min_size=1, max_size=4))
        own = {"step_time": {batch: f"{time!r} s" for batch, time in known.items()}}
    elif kind == "speed":
        own = {"speed": f"{draw(st.floats(1.0, 1e6))!r} samples/s"}
    elif kind == "profile":
        own = {"device": "measured", "profile": draw(profiles())}
    else:
        own = {"device": "epyc-7742"}  # whose host's memory is its own
        if kind == "flops":
            own = {"flops": f"{draw(st.floats(1e6, 1e15))!r} flop/s"}
            own |= draw(st.sampled_from([{}, {"memory_bandwidth": f"{draw(st.floats(1e6, 1e12))!r} B/s"}]))
    return own | {"slowdown": draw(st.sampled_from((1.0, 3.7)))}


def near(expected: float) -> Any:
    return pytest.approx(expected, rel=1e-9, abs=1e-300)


def scenario(worker: Worker, batch: int, micro: int | None, strategy: dict[str, Any], **workload: Any) -> Scenario:
    """Three steps on digits. worker: one, or several equal ones, as `sources` has them."""
    worker = dict(worker)
    known = worker.pop("profile", None)
    document: dict[str, Any] = {
        "workload": {"model": "mlp", "data": "digits", "batch": batch, "micro_batch": micro, "optimizer": {"lr": 0.1}}
        | workload,
        "cluster": {"workers": [worker]},
        "strategy": strategy,
        "budget": {"steps": 3},
    }
    if known is not None:
        key = workload_key(validate(document, "test").workload)
        filed = {phase: {n: f"{time!r} s" for n, time in table.items()} for phase, table in known.items()}
        document["recorded"] = {"profile": {"devices": {worker["device"]: {key: filed}}}}
        document["cluster"]["profile"] = "measured.yaml"
    return validate(document, "test")


def described(found: Scenario) -> Device:
    """The first worker's device."""
    return timing_of(found, profile_of(found, Path()), LearningProblem(found, Path())).devices[0]


def step_seconds(found: Scenario, engine: str = "simpy") -> float:
    """Seconds of a step in a simulation, whose network takes no time."""
    return float(paceline.simulate(found, timing_only=True, engine=engine).summary["seconds"]) / 3


@settings(max_examples=300, deadline=None)
@given(
    model=st.sampled_from(MODELS),
    unit_bytes=st.sampled_from((0, 3_000, 1 << 20, 1 << 30)),
    batch=st.integers(1, 100),
    cuts=st.integers(1, 9),
    tests=st.integers(0, 1000),
    host=st.booleans(),
    alone=st.booleans(),
    worker=sources(),
)
def test_the_parts_of_a_step_take_together_what_the_step_takes(
    model: ModelCost, unit_bytes: int, batch: int, cuts: int, tests: int, host: bool, alone: bool, worker: Worker
) -> None:
    """A price that is known for a whole is cut among its parts: by phases, by units, by micro-batches and by all of
    them they add up to it, whatever it comes from; so do an evaluation's units and blocks."""
    device = described(scenario(worker, batch, None, {"preset": "sync_sgd"}))
    host = host and "host update" not in device.tables  # which says that the host is another memory
    works = Works(merged(model, unit_bytes), batch, tests, min(cuts, batch), Holding(host=host), alone)
    w = PhantomWorker(0, works, blocks=min(cuts, max(1, tests)))

    def passes(phase: Any) -> float:
        pieces = [phase(None, 0, chunk, unit) for chunk in range(w.chunks) for unit in range(len(w.units))]
        return math.fsum(device.seconds(piece.work) for piece in pieces)

    gradient, update = device.seconds(works.gradient), device.seconds(works.update)
    assert passes(w.forward) + passes(w.backward) == near(gradient)
    whole = works.gradient.whole
    assert whole is not None
    assert gradient + update == near(device.seconds(whole))
    if alone or not device.tables.keys() & {"gradient", "forward", "backward"}:
        assert device.seconds(whole) == near(device.seconds(works.step))
    blocks = [w.evaluate_unit(w.buffers, block, u) for block in range(w.evaluation_blocks) for u in range(len(w.units))]
    assert math.fsum(device.seconds(piece.work) for piece in blocks) == near(device.seconds(works.evaluate))


LOCAL = {"split": "even", "schedule": {"fixed": 3}, "aggregation": "parameters"}
SYNCHRONOUS = {"aggregation": "gradients"}
WAYS = [
    SYNCHRONOUS | {"placement": {"replicated": {"overlap": False}}},
    SYNCHRONOUS | {"placement": {"replicated": {"unit_bytes": 4000}}},
    SYNCHRONOUS | {"placement": {"sharded": {"unit_bytes": 4000}}},
    SYNCHRONOUS | {"placement": {"offloaded": {"unit_bytes": 4000, "overlap": False}}},
    SYNCHRONOUS | {"placement": "sharded_offloaded"},
    LOCAL | {"placement": {"offloaded": {"unit_bytes": 0}}},
]


@settings(max_examples=50, deadline=None)
@given(worker=sources(), batch=st.integers(1, 64), micro=st.one_of(st.none(), st.integers(1, 64)), clips=st.booleans())
def test_a_step_takes_the_same_time_in_every_placement_where_nothing_is_exchanged(
    worker: Worker, batch: int, micro: int | None, clips: bool
) -> None:
    """All ways of running a step cost the same on one device: as a whole, as gradient and update, unit by unit, in
    micro-batches, from its own or from the host's memory where these are the same."""
    if "profile" in worker:
        worker["profile"].pop("host update", None)  # else the host is another memory
        worker["profile"].pop("evaluate", None)  # evaluations of hours would round away steps of microseconds
    if micro is not None:
        micro = max(micro, math.ceil(batch / 8))
    optimizer = {"lr": 0.1, "clip": 1.0} if clips else {"lr": 0.1}
    assume(described(scenario(worker, batch, None, LOCAL)).seconds(Work("step", batch, 1.0, 1.0)) > 0)
    expected = step_seconds(scenario(worker, batch, micro, LOCAL, optimizer=optimizer), "cohort")
    assert expected > 0
    for number, way in enumerate(WAYS):
        found = scenario(worker, batch, micro, way, optimizer=optimizer)
        assert step_seconds(found, ("simpy", "cohort")[number % 2]) == near(expected), way


@pytest.mark.parametrize("engine", ["simpy", "cohort"])
@pytest.mark.parametrize(
    "strategy",
    [
        {"preset": "sync_sgd"},
        {"preset": "sync_sgd", "placement": {"replicated": {"overlap": False}}},
        {"preset": "hdp"},
        {"preset": "lsdp"},
        {"preset": "fsdp"},
        {"preset": "local_sgd", "H": 3},
    ],
    ids=str,
)
def test_a_step_of_a_given_time_takes_that_time_in_micro_batches(strategy: dict[str, Any], engine: str) -> None:
    """A step's time is that of the whole step, whatever it is cut into, also where workers exchange."""
    two = {"count": 2, "step_time": "10 ms"}
    assert step_seconds(scenario(two, 64, 16, strategy), engine) == pytest.approx(10e-3, rel=1e-9)
    two["step_time"] = {16: "6 ms", 32: "10 ms"}
    assert step_seconds(scenario(two, 32, 16, strategy), engine) == pytest.approx(10e-3, rel=1e-9)


def test_a_gradient_between_exchanges_takes_what_was_measured_there() -> None:
    """A profile's step is a local one; one with an exchange finds its caches cold, and has times of its own."""
    device = Device("d", {"step": ((8, 4.0),), "gradient": ((8, 5.0),), "update": ((0, 1.0),)})
    exchanged, alone = (Works(MODELS[0], 8, 0, alone=alone) for alone in (False, True))
    assert [device.seconds(work) for work in (exchanged.gradient, exchanged.update)] == [5.0, 1.0]
    assert [device.seconds(work) for work in (alone.gradient, alone.update)] == [near(4 * 5 / 6), near(4 / 6)]
    assert device.seconds(alone.step) == device.seconds(exchanged.step) == 4.0


def test_the_phases_that_a_profile_leaves_out_follow_from_those_that_it_has() -> None:
    """A gradient is a step without its update, or its two passes; a step is its gradient and its update."""
    works = Works(MODELS[0], 8, 0)
    step = Device("d", {"step": ((8, 4.0),), "update": ((0, 1.0),)})
    assert [step.seconds(work) for work in (works.step, works.gradient, works.update)] == [4.0, 3.0, 1.0]
    passes = Device("d", {"forward": ((8, 1.0),), "backward": ((8, 3.0),), "update": ((0, 1.0),)})
    assert [passes.seconds(work) for work in (works.step, works.gradient, works.update)] == [5.0, 4.0, 1.0]
    forward = Device("d", {"forward": ((8, 1.0),), "update": ((0, 1.0),)})
    assert forward.seconds(works.step) == 4.0


ENDLESS = [
    (
        {"network": {"latency": "1e25 s"}},
        r"network, by its latency, takes .*e\+25 s for AllReduce of \d+ bytes among 2 ",
    ),
    ({"network": {"bandwidth": "1e-25 bit/s"}}, r"network, by its bandwidth, takes .*e\+\d\d s"),
    ({"network": {"bandwidth": "1e-20 B/s", "efficiency": 1e-9}}, r"by its bandwidth, takes .*e\+\d\d s"),
    ({"network": {"collective": "ring", "reduce_bandwidth": "1e-25 B/s"}}, r"by its reduce_bandwidth, takes .* s"),
    ({"workers": [{"step_time": "1 ms"}, {"step_time": "1e25 s"}]}, r"takes 1e\+25 s for a step of 8 samples"),
    ({"workers": [{"step_time": "1e15 s", "slowdown": 1e9}]}, r"cpu takes 1e\+24 s for a step of 8 samples"),
    ({"workers": [{"speed": "1e-25 samples/s"}]}, r"device cpu takes .*e\+25 s for a step of 8 samples"),
    ({"workers": [{"flops": "1e-25 flop/s"}]}, "device cpu takes .* s for a step of 8 samples"),
    ({"workers": [{"step_time": {2: "4 ms", 5: "2 ms"}}]}, "would take no time for a step of 8 samples; give"),
    (
        {"workers": [{"step_time": "1 ms", "host_link": "1e-25 B/s"}]},
        "host_link of device cpu takes .* s for a copy of",
    ),
    ({"workers": [{"step_time": "1 ms", "host_memory_bandwidth": "1e-25 B/s"}]}, "takes .* s for host update"),
    ({"workers": [{"step_time": "1e308 h"}]}, "'1e308 h' must lie between"),
    ({"network": {"bandwidth": "1 bit/s", "latency": "1e308 s"}}, "'1e308 s' must lie between"),
]


@pytest.mark.parametrize("engine", ["simpy", "cohort"])
@pytest.mark.parametrize(("cluster", "says"), ENDLESS, ids=[says for _, says in ENDLESS])
def test_a_time_that_a_run_cannot_come_to_is_refused(cluster: dict[str, Any], says: str, engine: str) -> None:
    """A price, of computing as of the network, that is infinite or no number never gets into a clock: what takes for
    ever is named."""
    two = {"step_time": "1 ms", "count": 2}
    document = scenario(two, 8, None, {"preset": "lsdp"}).model_dump(mode="json", exclude_none=True)
    document["cluster"] = {"workers": [two]} | cluster
    with pytest.raises(ScenarioError, match=says):
        paceline.simulate(validate(document, "test"), timing_only=True, engine=engine)


def test_faults_that_last_for_ever_are_refused() -> None:
    """A worker that is too slow to ever be done is not one that is lost: what is slowed down is named."""
    document = scenario({"step_time": "1 ms", "count": 2}, 8, None, {"preset": "lsdp"}).model_dump(mode="json")
    slow = {"name": "straggler", "worker": 0, "factor": 1e9}
    pause = {"name": "pause", "worker": 0, "at": "0 s", "duration": "1e25 s"}
    for faults, says in (
        ([slow] * 3, "a worker takes .* s for one computation"),
        ([pause], r"faults\[0\]: worker 0 takes 1e\+25 s for a pause"),
    ):
        with pytest.raises(ScenarioError, match=says):
            paceline.simulate(validate(document | {"faults": faults}, "test"), timing_only=True)
