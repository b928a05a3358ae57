"""The cohort engine against the SimPy engine: clocks equal to the last bit, or a refusal with the reason."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kit.acting import ACTS, acting
from kit.paths import SCENARIOS
from paceline import simulate
from paceline.algorithms.presets import PRESETS
from paceline.algorithms.rounds import State
from paceline.config import yaml
from paceline.config.scenario import Scenario, load
from paceline.config.tables import PieceTimes
from paceline.config.timing import Device, Network, Noise, Timing
from paceline.job import Job, resolve
from paceline.program.effects import (
    AllReduce,
    Checkpoint,
    Compute,
    Log,
    Phantom,
    Program,
    ReduceScatter,
    Start,
    Work,
    barrier,
    nothing,
)
from paceline.program.errors import ProtocolError, ScenarioError
from paceline.program.outcome import Hooks, Outcome
from paceline.records.recorder import Recorder
from paceline.sim.cohort import Cohort
from paceline.sim.cohort import simulate as simulate_cohorts
from paceline.sim.cohort_meetings import NeedsEvents
from paceline.sim.engine import simulate as simulate_events
from paceline.simulating import SimulateOptions, run_simulation

PARTS = ("*.yaml", "papers/[bq]*.yaml", "papers/lshdp*1gbit.yaml")  # LSHDP's other sides are alike, and take long
PATHS = sorted(path for part in PARTS for path in SCENARIOS.glob(part))
REFUSED: dict[str, str] = {}  # scenario -> why cohort cannot simulate it
QUIET = Hooks()


# --- every preset -----------------------------------------------------------------------------------------------------


def job_of(path: Path, sigma: float) -> Job:
    """The scenario, cut to a few hundred steps."""
    document = yaml.read_mapping(path)
    document["budget"] = {"steps": 300}
    document["workload"]["lr_schedule"] = {"name": "cosine", "final_lr": 0.001}  # their own may be longer than that
    document["report"] = {"every": "70 steps"}
    document["cluster"]["noise"] = {"sigma": sigma}
    return resolve(Scenario.model_validate(document), path.parent)


def run(job: Job, engine: str) -> tuple[list[Outcome], list[Any]]:
    """Outcomes and report lines."""
    lines: list[Any] = []
    hooks = Hooks(lambda *line: lines.append(line), lambda *_: None)
    workers = job.problem.phantoms(job.plan)
    if engine == "cohort":
        return simulate_cohorts(job.cohorts(workers), job.timing, hooks), lines
    return simulate_events(job.programs(workers, State()), job.timing, hooks), lines


def same(found: list[Outcome], expected: list[Outcome]) -> None:
    for a, b in zip(found, expected, strict=True):
        assert (a.index, a.seconds, a.computing, a.evaluating) == (b.index, b.seconds, b.computing, b.evaluating)
        assert (a.sent, a.syncs) == (b.sent, b.syncs)


def test_every_preset_has_a_scenario_here() -> None:
    used = {yaml.read_mapping(path)["strategy"].get("preset") for path in SCENARIOS.glob("*.yaml")}
    assert PRESETS.keys() - {"ddp"} <= used


@pytest.mark.parametrize("sigma", [0.0, 0.3])
@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_clocks_equal_simpys(path: Path, sigma: float) -> None:
    job = job_of(path, sigma)
    if path.stem in REFUSED:
        with pytest.raises(NeedsEvents, match=REFUSED[path.stem]):
            run(job, "cohort")
        return
    (found, lines), (expected, expected_lines) = run(job, "cohort"), run(job, "simpy")
    same(found, expected)
    assert repr(lines) == repr(expected_lines)  # phantoms' losses are not numbers, which equal nothing
    assert len(lines) > 2
    assert [repr(o.result) for o in found] == [repr(o.result) for o in expected]


def test_many_workers_make_few_cohorts() -> None:
    document = yaml.read_mapping(SCENARIOS / "local_sgd.yaml")
    for number, workers in enumerate(document["cluster"]["workers"]):
        workers["count"] = 50 + number
    document["cluster"]["noise"] = {"sigma": 0.2}
    document["budget"] = {"rounds": 30}
    job = resolve(Scenario.model_validate(document), SCENARIOS)
    assert job.workers == 101
    assert len(job.cohorts(job.problem.phantoms(job.plan))) == 2  # although 360 tests cannot be shared equally
    (found, lines), (expected, expected_lines) = run(job, "cohort"), run(job, "simpy")
    same(found, expected)
    assert repr(lines) == repr(expected_lines)
    assert len({outcome.computing for outcome in found}) == 101


# --- programs of any kind ---------------------------------------------------------------------------------------------


@settings(max_examples=150, deadline=None)
@given(
    classes=st.lists(st.tuples(st.integers(0, 2), st.booleans()), min_size=1, max_size=7),
    acts=st.lists(st.tuples(st.sampled_from(ACTS), st.integers(0, 23)), max_size=30),
    network=st.builds(
        Network,
        st.sampled_from(["star", "bus"]),
        st.floats(1e2, 1e9),
        st.sampled_from([0.0, 0.001, 0.25]),
        beside_latency=st.sampled_from([0.0, 0.1]),
        beside_bandwidth=st.sampled_from([3e4, float("inf")]),
    ),
    noise=st.builds(Noise, st.sampled_from([0.0, 0.6]), st.just(1), run_sigma=st.sampled_from([0.0, 0.3])),
    residuals=st.sampled_from([(), (0.8, 1.0, 1.3)]),
)
def test_any_program_takes_the_same_time(
    classes: Any, acts: Any, network: Network, noise: Noise, residuals: tuple[float, ...]
) -> None:
    devices = [
        Device(
            f"device {i}",
            speed=100.0 / (1 + i),
            host_link=(None, 1e5, 3e5)[i],
            slowdown=1.0 + i,
            residuals=residuals if i else (),
            lasting=(0.0, 0.1, 0.0)[i],
            correlation=(0.0, 0.6, 0.3)[i],
            pieces=PieceTimes(taken=((0.0, 0.0), (1e4, 0.05)), exchange_taken=((0.0, 0.02), (1e4, 0.3)))
            if i == 1
            else PieceTimes(),
        )
        for i in range(3)
    ]
    timing = Timing(tuple(devices[kind] for kind, _ in classes), network, noise)
    n = len(classes)

    def program(worker: int) -> Program[list[int]]:
        return acting(worker, n, acts, classes[worker][1])

    groups: dict[bool, list[int]] = {}
    for worker, (_, late) in enumerate(classes):
        groups.setdefault(late, []).append(worker)
    seen: tuple[list[Any], list[Any]] = ([], [])
    hooks = [Hooks(lambda *a, s=s: s.append(a), lambda *a, s=s: s.append(a[:3])) for s in seen]
    expected = simulate_events([program(worker) for worker in range(n)], timing, hooks[0])
    found = simulate_cohorts([Cohort(program(g[0]), tuple(g)) for g in groups.values()], timing, hooks[1])
    same(found, expected)
    assert [o.result for o in found] == [o.result for o in expected]
    for events in seen:
        events.sort(key=lambda event: event[0])  # among workers the order is the engine's own
    assert seen[0] == seen[1]


def test_a_stop_reaches_every_cohort() -> None:
    def program() -> Program[list[bool]]:
        stopped = []
        for _ in range(3):
            yield from AllReduce(Phantom(8))
            stopped.append((yield from Checkpoint(0, dict)))
        return stopped

    asked = []

    def stop() -> bool:
        asked.append(None)
        return len(asked) == 2

    timing = Timing((Device("a"), Device("b"), Device("b")))
    outcomes = simulate_cohorts(
        [Cohort(program(), (0,)), Cohort(program(), (1, 2))], timing, Hooks(QUIET.log, QUIET.checkpoint, stop)
    )
    assert [o.result for o in outcomes] == [[False, True, True]] * 3
    assert len(asked) == 3


# --- what it cannot do ------------------------------------------------------------------------------------------------


def alone(effect: Any) -> Program[None]:
    yield from effect


@pytest.mark.parametrize(
    ("effect", "reason"),
    [
        (lambda: AllReduce(Phantom(8), group=(0, 1)), r"AllReduce of 8 B \(sync\) in group \(0, 1\) is not of all"),
        (lambda: ReduceScatter(Phantom(40)), "gives 3 workers parts of unequal size"),
        (lambda: AllReduce(np.ones(2)), "carries numbers"),
    ],
)
def test_what_needs_single_events_is_refused(effect: Any, reason: str) -> None:
    logged: list[Any] = []

    def program() -> Program[None]:
        yield from Log(n=1)
        yield from effect()

    timing = Timing((Device("a"),) * 3)
    with pytest.raises(NeedsEvents, match=f"{reason}.*write --engine simpy"):
        simulate_cohorts([Cohort(program(), (0, 1, 2))], timing, Hooks(lambda *a: logged.append(a), QUIET.checkpoint))
    assert not logged  # so that another engine may begin anew


def test_noise_of_work_that_is_free_on_some_devices_alone_is_refused() -> None:
    devices = (Device("free"), Device("slow", {"update": ((1.0, 2.0),)}))
    cohorts = [Cohort(alone(Compute(Work("update", 1), nothing)), (0, 1))]
    outcomes = simulate_cohorts(cohorts, Timing(devices), QUIET)
    assert [o.seconds for o in outcomes] == [0.0, 2.0]
    cohorts = [Cohort(alone(Compute(Work("update", 1), nothing)), (0, 1))]
    with pytest.raises(NeedsEvents, match="some devices take no time for work of phase update"):
        simulate_cohorts(cohorts, Timing(devices, noise=Noise(0.1)), QUIET)


def test_programs_that_do_not_fit_together_say_where_each_is() -> None:
    timing = Timing((Device("a"),) * 3)
    cohorts = [Cohort(alone(AllReduce(Phantom(8))), (0, 2)), Cohort(alone(barrier()), (1,))]
    with pytest.raises(ProtocolError, match=r"collective 1 .* worker 0 waits in AllReduce of 8 B .* worker 1 waits"):
        simulate_cohorts(cohorts, timing, QUIET)
    cohorts = [Cohort(alone(AllReduce(Phantom(8))), (0, 2)), Cohort(alone(Checkpoint(0, dict)), (1,))]
    with pytest.raises(ProtocolError, match=r"each of workers 0, 2 waits in AllReduce.*; worker 1 has ended"):
        simulate_cohorts(cohorts, timing, QUIET)
    with pytest.raises(ProtocolError, match="ended without a Wait"):
        simulate_cohorts([Cohort(alone(Start(barrier())), (0, 1, 2))], timing, QUIET)
    with pytest.raises(ProtocolError, match="yielded 3, which is not an effect"):
        simulate_cohorts([Cohort((n for n in (3,)), (0, 1, 2))], timing, QUIET)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="workers 0 to 2 once"):
        simulate_cohorts([Cohort(alone(barrier()), (0, 1))], timing, QUIET)


def test_auto_takes_cohort_where_it_applies() -> None:
    quiet = {"settings": ["report.trace=false", "budget.epochs=2"], "timing_only": True}
    path = SCENARIOS / "local_sgd.yaml"
    by_engine = {engine: simulate(path, engine=engine, **quiet) for engine in ("auto", "cohort", "simpy")}
    assert [run.summary.pop("engine") for run in by_engine.values()] == ["cohort", "cohort", "simpy"]
    first, *others = (run.summary for run in by_engine.values())
    assert all(repr(summary) == repr(first) for summary in others)
    assert simulate(path, timing_only=True, settings=["budget.epochs=1"]).summary["engine"] == "simpy"  # a trace


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "--engine cohort computes no numbers; add --timing-only, or write --engine simpy"),
        ({"timing_only": True}, "--engine cohort writes no trace; add --set report.trace=false"),
        ({"timing_only": True, "debug": True}, "leave out --debug"),
    ],
)
def test_cohort_says_what_it_cannot_do(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ScenarioError, match=message):
        simulate(SCENARIOS / "local_sgd.yaml", engine="cohort", **options)


def test_auto_falls_back_where_cohort_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    from paceline.algorithms.placements import Replicated

    def begin(self: Any, w: Any) -> Program[None]:
        yield from barrier((w.index,))

    monkeypatch.setattr(Replicated, "begin", begin)
    quiet: Any = {"settings": ["report.trace=false", "budget.epochs=1"], "timing_only": True}
    run = simulate(SCENARIOS / "local_sgd.yaml", **quiet)
    assert run.summary["engine"] == "simpy"
    assert len(run.lines) == 1
    with pytest.raises(ScenarioError, match="is not of all workers; write --engine simpy"):
        simulate(SCENARIOS / "local_sgd.yaml", engine="cohort", **quiet)


@pytest.mark.parametrize("preset", ["sync_sgd", "local_sgd", "qsr", "biased_local_sgd", "fsdp"])
def test_a_plan_that_serves_again_gives_the_same(preset):
    """A sweep's points with one plan play back what its programs yielded; the third is the first to do so."""
    path = SCENARIOS / f"{preset}.yaml"
    job, before = None, []
    for latency in ("10 us", "20 us", "30 us", "10 us"):
        job = resolve(load(path, [f"cluster.network.latency={latency}", "report.trace=false"]), path.parent, job)
        before.append(run_simulation(job, Recorder(None), SimulateOptions(timing_only=True, engine="cohort")))
    assert len(job.plan.recordings) == (0 if preset == "fsdp" else len(job.cohorts(job.problem.phantoms(job.plan))))
    assert repr(before[0].summary) == repr(before[3].summary)  # NaN is not equal to itself
    assert before[0].metrics.equals(before[3].metrics)
    assert before[0].summary["seconds"] < before[1].summary["seconds"] < before[2].summary["seconds"]
