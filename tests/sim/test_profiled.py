"""Profiles of the second form on the clock: closed forms of what exchanges and computations cost one another, and the
cohort engine against the SimPy engine with all of it."""

from __future__ import annotations

from typing import Any

import pytest

import paceline
from kit.cli import scenario
from paceline.config import yaml
from paceline.config.profile import Profile, save_profile, workload_key
from paceline.config.scenario import Scenario, validate
from paceline.config.tables import PieceTimes
from paceline.config.timing import Device, Network, Timing
from paceline.job import resolve
from paceline.program.effects import AllReduce, Compute, Move, Phantom, Program, Start, Wait, Work, nothing
from paceline.program.outcome import Hooks, Outcome
from paceline.sim.cohort import Cohort
from paceline.sim.cohort import simulate as simulate_cohorts
from paceline.sim.engine import simulate as simulate_events

QUIET = Hooks()
near = pytest.approx


def simpy(program: Any, timing: Timing) -> list[Outcome]:
    return simulate_events([program() for _ in timing.devices], timing, QUIET)


def cohort(program: Any, timing: Timing) -> list[Outcome]:
    return simulate_cohorts([Cohort(program(), tuple(range(len(timing.devices))))], timing, QUIET)


engines = pytest.mark.parametrize("engine", [simpy, cohort])

# --- closed forms -----------------------------------------------------------------------------------------------------

EXCHANGE = 1.0  # s of an all-reduce of 1 MB between two workers, of which each sends 1 MB
LONGER, TAKEN = 0.5, 0.3  # s more next to a computation, s from it


def started(effect: Any, *computing: float, late: float = 0.0) -> Program[None]:
    """Computes next to a started effect, waits for it, and computes once more."""
    handle = yield from Start(effect)
    for seconds in computing:
        yield from Compute(Work("step", 1, flops=seconds), nothing)
    yield from Wait(handle)
    yield from Compute(Work("step", 1, flops=late), nothing)


def clock(
    engine: Any, *computing: float, slowdown: float = 1.0, late: float = 0.0, taken: float = 0.0, **network: float
) -> Outcome:
    device = Device("d", flops=1.0, slowdown=slowdown, pieces=PieceTimes(exchange_taken=((0.0, 0.0), (1e6, taken))))
    timing = Timing((device, device), Network("star", 1e6, **network))
    (outcome, _) = engine(lambda: started(AllReduce(Phantom(1_000_000)), *computing, late=late), timing)
    return outcome


@engines
@pytest.mark.parametrize(
    ("computing", "seconds"),
    [
        (0.0, EXCHANGE),  # nothing next to it
        (0.6, EXCHANGE + 0.6 / 1.5 * LONGER),  # 0.6 s at two thirds of its speed, then at its own
        (1.0, EXCHANGE + 1.0 / 1.5 * LONGER),
        (1.2, EXCHANGE + 1.2 / 1.5 * LONGER),  # the network alone would have been done before
        (1.5, EXCHANGE + LONGER),
        (4.0, 4.0),
    ],
)
def test_an_exchange_gets_on_more_slowly_next_to_a_computation(engine, computing, seconds):
    found = clock(engine, computing, beside_bandwidth=1e6 / LONGER)
    assert (found.seconds, found.computing) == (near(seconds), near(computing))
    assert clock(engine, computing, beside_latency=LONGER / 2).seconds == near(seconds), "two messages"


@engines
@pytest.mark.parametrize(
    ("computing", "seconds"),
    [
        ((2.0,), 2.0 + TAKEN),
        ((0.2, 3.0), 3.2 + TAKEN),  # the first computation loses at most as much as it takes, the second the rest
        ((0.1, 0.1), EXCHANGE),  # 0.1 s each are lost within the exchange's time
    ],
)
def test_an_exchange_takes_time_from_the_computation_next_to_it(engine, computing, seconds):
    found = clock(engine, *computing, taken=TAKEN)
    assert (found.seconds, found.computing) == (near(seconds), near(sum(computing)))
    slow = clock(engine, *computing, slowdown=2.0, taken=TAKEN)
    assert slow.seconds == near(max(EXCHANGE, 2 * seconds) if sum(computing) > 1 else EXCHANGE)


@engines
def test_what_is_over_takes_nothing_more(engine):
    """The exchange took a tenth of a second from a computation, and is waited for: a later one loses nothing."""
    assert clock(engine, 0.1, late=5.0, taken=TAKEN).seconds == near(EXCHANGE + 5.0)


@engines
def test_a_copy_takes_time_from_the_computation_next_to_it(engine):
    pieces = PieceTimes(moves={"host": ((1e6, 0.4),)}, taken=((1e6, 0.3),))
    device = Device("d", flops=1.0, pieces=pieces)
    found = engine(lambda: started(Move(Phantom(1_000_000), "host"), 2.0), Timing((device,)))
    assert found[0].seconds == near(2.3)
    waited = engine(lambda: started(Move(Phantom(1_000_000), "host")), Timing((device,)))
    assert waited[0].seconds == near(0.4), "a copy does not take longer next to a computation"


# --- engines ----------------------------------------------------------------------------------------------------------

HIDDEN = {"name": "mlp", "hidden": [64, 32, 32, 16]}
STRATEGIES: dict[str, dict[str, Any]] = {
    "sync_sgd": {"preset": "sync_sgd", "placement": {"replicated": {"overlap": True, "unit_bytes": 0}}},
    "fsdp": {"preset": "fsdp", "placement": {"sharded": {"unit_bytes": 0}}},
    "lsdp": {"preset": "lsdp", "placement": {"offloaded": {"unit_bytes": 0}}},
    "both": {"preset": "fsdp", "placement": {"sharded_offloaded": {"unit_bytes": 20_000}}},
    "local_sgd": {"preset": "local_sgd"},
    "hdp": {"preset": "hdp"},
}


def described(strategy: dict[str, Any], **cluster: Any) -> Scenario:
    document = scenario(1, HIDDEN, strategy, 1)
    document |= {"budget": {"steps": 150}, "report": {"every": "40 steps"}}
    document["cluster"] = {
        "workers": [{"device": "fast", "count": 2}, {"device": "slow", "count": 2}],
        "network": {"bandwidth": "1 Gbit/s"},
        "profile": "second.yaml",
        "noise": {"source": "profile", "worker_sigma": 0.05},
    } | cluster
    return validate(document, "here")


def second_form(units: int) -> dict[str, Any]:
    """A profile by hand: two devices, one 2.7 times slower than the other."""
    key = workload_key(described(STRATEGIES["fsdp"]).workload)
    shares = [2 * (k + 1) / (units * (units + 1)) for k in range(units)]

    def us(seconds: float) -> str:
        return f"{seconds} us"

    def of(device: str, slow: float) -> dict[str, Any]:
        passes = {
            phase: {"times": {2: us(part * slow), 16: us(5 * part * slow)}, "shares": shares, "cut": us(3 * slow)}
            for phase, part in (("forward", 40), ("backward", 90))
        }
        fetched = {p: one | {"cut": us(5 * slow), "times": {8: us(200 * slow)}} for p, one in passes.items()}
        updates = {"update": {0.25: us(9 * slow), 1: us(30 * slow)}, "host update": {1: us(50 * slow)}}
        steps = {"step": {4: us(150 * slow), 16: us(500 * slow)}, "gradient": {4: us(140 * slow), 16: us(480 * slow)}}
        return {
            "devices": {device: {key: steps | {"update": {0: us(28 * slow)}, "evaluate": {90: us(400 * slow)}}}},
            "pieces": {device: {key: {"units": {"kept": passes, "fetched": fetched}, "updates": updates}}},
            "moves": {
                device: {
                    "device": {400: us(2 * slow), 20_000: us(11 * slow)},
                    "host": {400: us(2 * slow), 20_000: us(7 * slow)},
                }
            },
            "taken": {
                device: {"copies": {1: us(1), 20_000: us(4)}, "exchanges": {1: us(5), 20_000: us(40)}},
            },
            "residuals": {device: {key: [0.93, 0.97, 1.0, 1.01, 1.3]}},
            "variation": {device: {key: {"lasting": us(170 * slow), "correlation": 0.4, "drift": 0.02}}},
        }

    fast, slow = of("fast", 1.0), of("slow", 2.7)
    network = {"latency": "30 us", "bandwidth": "110 MB/s", "reduce_bandwidth": "3 GB/s", "described": "125 MB/s"}
    network |= {"beside_latency": "6 us", "beside_bandwidth": "350 MB/s"}
    return {"version": 2, "network": network} | {section: fast[section] | slow[section] for section in fast}


@pytest.fixture
def profiled(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    plain = {"workers": [{"speed": "1 samples/s", "count": 4}], "profile": None, "noise": {}}
    units = len(resolve(described(STRATEGIES["fsdp"], **plain), tmp_path).problem.cost.units)
    assert units > 3
    save_profile(tmp_path / "second.yaml", Profile.model_validate(second_form(units)))


@pytest.mark.parametrize("noise", [{}, {"source": "profile", "worker_sigma": 0.05}], ids=["quiet", "noise"])
@pytest.mark.parametrize("name", STRATEGIES)
@pytest.mark.usefixtures("profiled")
def test_clocks_equal_simpys_with_a_profile_of_the_second_form(name, noise):
    runs = [
        paceline.simulate(described(STRATEGIES[name], noise=noise), timing_only=True, engine=engine)
        for engine in ("cohort", "simpy")
    ]
    ours, theirs = (run.summary | {"engine": ""} for run in runs)
    assert repr(ours) == repr(theirs)
    assert repr(runs[0].lines) == repr(runs[1].lines)
    assert len(runs[0].lines) > 2
    assert ours["seconds"] > 0


@pytest.mark.parametrize("name", STRATEGIES)
@pytest.mark.usefixtures("profiled")
def test_a_full_run_has_the_clock_of_a_timing_only_one(name):
    full, timing_only = (paceline.simulate(described(STRATEGIES[name]), timing_only=only) for only in (False, True))
    assert full.summary["seconds"] == timing_only.summary["seconds"]


@pytest.mark.usefixtures("profiled")
def test_every_section_of_the_second_form_moves_the_clock(tmp_path):
    """Without a section, a strategy that needs it takes another time."""
    whole = yaml.read_mapping(tmp_path / "second.yaml")

    def seconds(name: str, document: dict[str, Any], **cluster: Any) -> float:
        save_profile(tmp_path / "second.yaml", Profile.model_validate(document))
        return float(paceline.simulate(described(STRATEGIES[name], **cluster), timing_only=True).summary["seconds"])

    for section, name in (("pieces", "fsdp"), ("moves", "lsdp"), ("variation", "sync_sgd"), ("network", "fsdp")):
        without = {key: value for key, value in whole.items() if key != section}
        assert seconds(name, whole) != seconds(name, without), section
    rapid = {"network": {"bandwidth": "100 GB/s", "latency": "1 us"}}  # computing takes the longest there
    without = {key: value for key, value in whole.items() if key != "taken"}
    assert seconds("fsdp", whole, **rapid) > seconds("fsdp", without, **rapid)
    for key in ("beside_latency", "beside_bandwidth", "reduce_bandwidth"):
        bare = {name: whole["network"][name] for name in ("latency", "bandwidth", "described")}
        without, known = ({"network": bare | more} for more in ({}, {key: whole["network"][key]}))
        assert seconds("fsdp", whole | known) > seconds("fsdp", whole | without), key
