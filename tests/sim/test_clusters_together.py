"""The cohort engine on several clusters at once: what each gives alone, to the last bit, or a refusal."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kit.acting import ACTS, acting
from kit.paths import SCENARIOS
from paceline import ScenarioError
from paceline.config.faults import Pause
from paceline.config.scenario import load
from paceline.config.tables import PieceTimes
from paceline.config.timing import Device, Network, Noise, Timing
from paceline.job import resolve
from paceline.program.effects import Compute, Log, Program, Work, barrier, nothing
from paceline.program.outcome import Hooks, Outcome
from paceline.records.recorder import Recorder
from paceline.sim.clocks import NotAlike
from paceline.sim.cohort import Cohort, most_clusters, simulate, simulate_together
from paceline.sim.cohort_meetings import NeedsEvents
from paceline.simulating import SimulateOptions, run_simulation
from paceline.simulating_together import kind_of, prepared
from paceline.simulating_together import simulate_together as simulate_scenarios

CLUSTER = st.fixed_dictionaries(
    {
        "speeds": st.tuples(*[st.floats(10, 200)] * 3),
        "link": st.sampled_from([None, 1e5]),
        "latency": st.sampled_from([0.0, 0.001, 0.25]),
        "bandwidth": st.floats(1e2, 1e9),
        "collective": st.sampled_from(["ordered", "ring"]),
        "beside": st.sampled_from([0.1, 0.2]),
        "taken": st.sampled_from([0.0, 0.05]),
        "seed": st.integers(0, 2),
        "sigma": st.sampled_from([0.1, 0.6]),
        "run_sigma": st.sampled_from([0.0, 0.3]),
    }
)


def cluster(kinds: list[int], noisy: bool, started: bool, like: dict[str, Any]) -> Timing:
    devices = [
        Device(
            f"device {i}",
            speed=speed,
            host_link=like["link"],
            pieces=PieceTimes(taken=((0.0, 0.0), (1e4, like["taken"])), exchange_taken=((0.0, 0.02), (1e4, 0.3)))
            if i == 1 and started
            else PieceTimes(),
        )
        for i, speed in enumerate(like["speeds"])
    ]
    network = Network(
        "star",
        like["bandwidth"],
        like["latency"],
        collective=like["collective"],
        beside_latency=like["beside"] * started,
    )
    noise = Noise(like["sigma"], like["seed"], run_sigma=like["run_sigma"], worker_sigma=like["run_sigma"] / 2)
    return Timing(tuple(devices[kind] for kind in kinds), network, noise if noisy else Noise())


@settings(max_examples=100, deadline=None)
@given(
    workers=st.lists(st.tuples(st.integers(0, 2), st.booleans()), min_size=1, max_size=6),
    likes=st.lists(CLUSTER, min_size=2, max_size=4),
    acts=st.lists(st.tuples(st.sampled_from(ACTS), st.integers(0, 23)), max_size=25),
    again=st.integers(1, 30),
    noisy=st.booleans(),
    started=st.booleans(),
)
def test_each_cluster_has_the_clocks_that_it_has_alone(workers, likes, acts, again, noisy, started):
    timings = [cluster([kind for kind, _ in workers], noisy, started, like) for like in likes]
    groups: dict[bool, list[int]] = {}
    for worker, (_, late) in enumerate(workers):
        groups.setdefault(late, []).append(worker)

    def program(worker: int) -> Program[None]:
        for _ in range(again):  # so that sums are made ahead
            yield from Compute(STEP, nothing, times=3)
            yield from barrier()
        yield from acting(worker, len(workers), acts, workers[worker][1])

    def run(timings: list[Timing]) -> tuple[list[list[Outcome]], list[list[Any]]]:
        seen: list[list[Any]] = [[] for _ in timings]
        hooks = [Hooks(lambda *a, s=s: s.append(a), lambda *a, s=s: s.append(a[:3])) for s in seen]
        return simulate_together([Cohort(program(g[0]), tuple(g)) for g in groups.values()], timings, hooks), seen

    found, seen = run(timings)
    for place, timing in enumerate(timings):
        ((expected,), (said,)) = run([timing])
        assert found[place] == expected
        assert seen[place] == said


STEP = Work("step", 8)


@pytest.mark.parametrize("noise", [Noise(), Noise(0.2, 3), Noise(0.2, 3, worker_sigma=0.1, network_sigma=0.1)])
def test_classes_may_lie_differently(noise):
    """Workers 0 and 1 are alike on one cluster, 0 and 2 on the other."""
    a, b, c, d = (Device(name, speed=speed) for name, speed in zip("abcd", (80.0, 50.0, 70.0, 20.0), strict=True))
    timings = [Timing((a, a, b), noise=noise), Timing((c, d, c), noise=replace(noise, seed=4))]

    def program() -> Program[None]:
        for _ in range(20):
            yield from Compute(STEP, nothing, times=4)
            yield from barrier()
        yield from Compute(STEP, nothing)

    def run(timings: list[Timing]) -> list[list[Outcome]]:
        return simulate_together([Cohort(program(), (0, 1, 2))], timings, [Hooks()] * len(timings))

    if noise.sigma:
        with pytest.raises(NotAlike, match="how the noise is drawn"):
            run(timings)
        timings[1] = Timing((c, c, d), noise=replace(noise, seed=4))
    assert run(timings) == [run([timing])[0] for timing in timings]


def test_what_cannot_run_together_is_refused_and_leaves_nothing_behind():
    logged: list[Any] = []

    def run(*timings: Timing) -> Any:
        def program() -> Program[None]:
            yield from Log(n=1)
            yield from Compute(Work("update", 1), nothing)

        hooks = [Hooks(lambda *line: logged.append(line)) for _ in timings]
        return simulate_together([Cohort(program(), (0,))], timings, hooks)

    free, slow = Device("free"), Device("slow", {"update": ((1.0, 2.0),)})
    lasting = Device("d", {"update": ((1.0, 2.0),)}, residuals=(0.9, 1.1), lasting=1.0)
    for pair in (
        (Timing((slow,)), Timing((slow,), noise=Noise(0.1))),
        (Timing((free,), noise=Noise(0.1)), Timing((slow,), noise=Noise(0.1))),
        (Timing((lasting,), noise=Noise(seed=1)), Timing((lasting,), noise=Noise(seed=2))),
    ):
        with pytest.raises(NotAlike):
            run(*pair)
    pause = Pause.model_validate({"name": "pause", "worker": 0, "at": "0.2 s", "duration": "1 s"})
    with pytest.raises(NeedsEvents, match="faults"):
        run(Timing((slow,)), Timing((slow,), faults=(pause,)))
    with pytest.raises(ScenarioError, match="device slower takes"):
        run(Timing((slow,)), Timing((Device("slower", {"update": ((1.0, 1e300),)}),)))
    assert not logged
    assert [o.seconds for (o,) in run(Timing((slow,)), Timing((free,)))] == [2.0, 0.0]
    assert len(logged) == 2


def test_many_workers_run_in_small_groups():
    device = Device("d", speed=1.0)
    sizes = [most_clusters(Timing((device,) * workers, noise=Noise(0.1))) for workers in (2, 64, 10_000, 1_000_000)]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] == 1
    assert most_clusters(Timing((device,) * 10_000)) > 100


SETTINGS = ("cluster.network.latency=1 ms", "cluster.network.latency=2 ms", "seed=3", "cluster.noise.sigma=0.3")


@pytest.mark.parametrize("sigma", [0.0, 0.2])
@pytest.mark.parametrize("preset", ["sync_sgd", "local_sgd", "qsr", "biased_local_sgd", "slowmo", "fsdp", "lshdp"])
def test_scenarios_together_have_the_summaries_that_they_have_alone(preset, sigma):
    path, several, options = SCENARIOS / f"{preset}.yaml", [], SimulateOptions(timing_only=True)
    job = None
    common = ["report.trace=false", "budget={steps: 200}", "workload.lr_schedule={name: cosine, final_lr: 0.001}"]
    common += ["report.every=60 steps", f"cluster.noise.sigma={sigma}"]
    for setting in SETTINGS[: 4 if sigma else 3]:
        job = resolve(load(path, [*common, setting]), path.parent, job)
        several.append(prepared(job, {}))
    assert len({kind_of(one, options) for one in several}) == 1
    together = simulate_scenarios(several)
    for one, found in zip(several, together, strict=True):
        alone = run_simulation(one.job, Recorder(None), options).summary
        assert alone["engine"] == "cohort"
        assert repr(found) == repr({key: value for key, value in alone.items() if key in found})
        assert alone.keys() - found.keys() == {"memory_predicted", "memory_parts"}
    assert len({found["seconds"] for found in together}) == len(several)


def test_scenarios_of_other_kinds_run_alone():
    path, options = SCENARIOS / "local_sgd.yaml", SimulateOptions(timing_only=True)

    def kind(*settings: str, options: SimulateOptions = options) -> Any:
        return kind_of(prepared(resolve(load(path, ["report.trace=false", *settings]), path.parent, job), {}), options)

    job = resolve(load(path, ["report.trace=false"]), path.parent)
    assert kind() == kind("cluster.network.latency=1 ms") == kind("seed=9")
    for other in ("budget.epochs=2", "cluster.noise.sigma=0.5", "workload.model.hidden=[8]"):
        assert kind(other) != kind(), other
    assert kind("report.trace=true") is None
    assert kind(options=SimulateOptions(timing_only=False)) is None
    assert kind(options=SimulateOptions(timing_only=True, engine="simpy")) is None


def test_one_cluster_is_a_run_of_its_own():
    timing = Timing((Device("a", speed=80.0), Device("b", speed=50.0)), noise=Noise(0.1, 2))

    def cohorts() -> list[Cohort]:
        def program() -> Program[None]:
            yield from Compute(STEP, nothing, times=5)

        return [Cohort(program(), (0, 1))]

    assert simulate(cohorts(), timing, Hooks()) == simulate_together(cohorts(), [timing], [Hooks()])[0]
