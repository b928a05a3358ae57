"""Faults in virtual time: what they cost, by closed forms to the last bit, and how a run ends that cannot continue."""

from __future__ import annotations

import json
import math
import sys
from dataclasses import replace
from typing import Any

import pytest

import paceline
from kit.paths import SCENARIOS
from paceline.__main__ import main
from paceline.config.fault_plan import PiecewiseRate, chances
from paceline.config.faults import check_faults, mark, remaining
from paceline.config.scenario import validate
from paceline.config.timing import Device, Network, Noise, Timing
from paceline.program.effects import (
    AllReduce,
    Checkpoint,
    Compute,
    Move,
    Phantom,
    Program,
    Start,
    Wait,
    Work,
    barrier,
    nothing,
)
from paceline.program.errors import FaultStruck, ProtocolError, ScenarioError, WorkerLost
from paceline.program.outcome import Hooks, Outcome
from paceline.sim.engine import simulate
from paceline.sim.parts import whole

QUIET = Hooks()
STEP = Work("step", 1)
BASE = {
    "workload": {"model": "mlp", "data": "digits", "batch": 8, "optimizer": {"lr": 0.1}},
    "cluster": {"workers": [{"speed": "1 samples/s", "count": 3}]},
    "strategy": {"preset": "sync_sgd"},
    "budget": {"rounds": 1},
}


def faults(*events: dict[str, Any]) -> Any:
    return validate(BASE | {"faults": list(events)}, "test").faults


def timing(workers: int, *events: dict[str, Any], **more: Any) -> Timing:
    """Devices that take a second for a step, on a network of 1 MB/s without latency."""
    device = Device("d", speed=1.0, host_link=1e6)
    return Timing((device,) * workers, Network("star", 1e6, 0.0), faults=faults(*events), **more)


def run(described: Timing, program: Any, **options: Any) -> list[Outcome]:
    return simulate([program(worker) for worker in range(len(described.devices))], described, QUIET, **options)


def near(seconds: float) -> Any:
    return pytest.approx(seconds, rel=1e-12)


def steps(count: int) -> Any:
    """A program of so many steps of a second."""

    def program(worker: int) -> Program[None]:
        for _ in range(count):
            yield from Compute(STEP, nothing)

    return program


def rounds(count: int, nbytes: int = 0) -> Any:
    """Synchronous training in rounds of one step, as the loop yields it: a step, an exchange, a Checkpoint."""

    def program(worker: int) -> Program[None]:
        for done in range(count):
            yield from Compute(STEP, nothing)
            yield from AllReduce(Phantom(nbytes), phase="gradients")
            yield from Checkpoint(None, dict, round=done + 1, step=done + 1)

    return program


# --- the integral -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("start", "seconds", "taken"),
    [
        (0.0, 2.0, 2.0),  # over as the window begins
        (1.0, 2.0, 5.0),  # one second before, one within, at a quarter of the speed
        (2.0, 1.0, 4.0),
        (3.0, 2.0, 4.25),  # what is left of the window does three quarters of a second
        (6.0, 3.0, 3.0),  # it ends before the window that holds
        (0.0, 5.0, 8.0),  # two before, one within, two after
        (19.0, 3.0, 8.0),  # one second, then a pause of five, then the rest
        (22.0, 0.0, 3.0),  # nothing begins in a pause
        (25.0, 1.0, 1.0),
        (31.0, 2.0, 16.0),  # two windows at once: an eighth of the speed
        (99.0, 2.0, math.inf),
        (200.0, 0.0, math.inf),
    ],
)
def test_a_window_slows_the_part_within_it(start, seconds, taken):
    windows = [(2, 6, 4), (20, 25, math.inf), (31, 50, 4), (30, 50, 2), (100, math.inf, math.inf)]
    assert PiecewiseRate(windows).taken(start, seconds) == near(taken)


def test_without_a_window_nothing_is_rounded():
    assert PiecewiseRate([]).taken(0.1, 0.2) == 0.2
    assert PiecewiseRate([(10, 11, 3)]).taken(0.1, 0.2) == 0.2


# --- each kind --------------------------------------------------------------------------------------------------------


def test_a_straggler_is_always_slow():
    found = run(timing(3, {"name": "straggler", "worker": 1, "factor": 2.5}), steps(4))
    assert [o.seconds for o in found] == [4.0, near(10.0), 4.0]
    assert found[1].computing == near(10.0)


def test_a_straggler_by_chance_is_slow_in_that_share_of_its_steps():
    event = {"name": "straggler", "worker": 0, "factor": 3, "probability": 0.25}
    (outcome,) = run(timing(1, event, noise=Noise(seed=4)), steps(1000))
    drawn = chances(0.25, 4, 0)
    slow = sum(next(drawn) for _ in range(1000))
    assert outcome.seconds == near(1000 + 2 * slow)
    assert slow == pytest.approx(250, abs=3 * math.sqrt(1000 * 0.25 * 0.75))
    again = run(timing(1, event, noise=Noise(seed=4)), steps(1000))
    assert again[0].seconds == outcome.seconds
    assert run(timing(1, event, noise=Noise(seed=5)), steps(1000))[0].seconds != outcome.seconds


@pytest.mark.parametrize("micro_batches", [1, 3])
def test_chance_falls_once_for_all_units_and_micro_batches_of_a_step(micro_batches):
    phases = ("forward", "forward", "backward", "backward") * micro_batches + ("update",)

    def program(worker: int) -> Program[None]:
        for _ in range(200):
            for phase in phases:
                yield from Compute(Work(phase, 1), nothing)

    event = {"name": "straggler", "worker": 0, "factor": 3, "probability": 0.5}
    device = Device("d", tables=dict.fromkeys(phases, ((1.0, 1.0),)))
    (outcome,) = run(Timing((device,), faults=faults(event)), program)
    drawn = chances(0.5, 0, 0)
    assert outcome.seconds == near(len(phases) * (200 + 2 * sum(next(drawn) for _ in range(200))))


def test_a_slow_down_in_seconds_and_in_rounds():
    in_seconds = {"name": "slowdown", "worker": 1, "factor": 4, "start": "2.5 s", "end": "7500 ms"}
    found = run(timing(2, in_seconds), rounds(10))
    # 2.5 s of work before, 1.25 s within the five seconds, the rest after.
    assert [o.seconds for o in found] == [near(10 + 5 * 3 / 4)] * 2
    in_rounds = {"name": "slowdown", "worker": 1, "factor": 4, "start": "2 rounds", "end": "5 rounds"}
    assert run(timing(2, in_rounds), rounds(10))[0].seconds == near(7 + 3 * 4)
    in_steps = {"name": "slowdown", "worker": 1, "factor": 4, "end": "3 steps"}
    assert run(timing(2, in_steps), rounds(10))[0].seconds == near(7 + 3 * 4)
    for_good = {"name": "slowdown", "worker": 0, "factor": 4, "start": "8 s"}
    assert run(timing(2, for_good), rounds(10))[1].seconds == near(8 + 2 * 4)


@pytest.mark.parametrize("at", ["2.25 s", "2 s", "2 rounds", "2 steps", "0 s"])
def test_a_pause_delays_a_synchronous_run_by_exactly_that(at):
    event = {"name": "pause", "worker": 2, "at": at, "duration": "1.75 s"}
    assert [o.seconds for o in run(timing(3, event), rounds(6))] == [near(6 + 1.75)] * 3


def test_a_pause_while_a_worker_waits_costs_nothing():
    pause = {"name": "pause", "worker": 0, "at": "1.5 s", "duration": "2 s"}
    slow = {"name": "straggler", "worker": 1, "factor": 4}
    assert run(timing(2, pause, slow), rounds(3))[0].seconds == near(12)
    late = pause | {"at": "3.5 s"}  # the others are there at 4 s, worker 0 at 5.5 s
    assert run(timing(2, late, slow), rounds(1))[0].seconds == near(5.5)


def test_a_pause_holds_copies_and_what_was_started():
    pause = {"name": "pause", "worker": 0, "at": "500 ms", "duration": "2 s"}

    def program(worker: int) -> Program[None]:
        copy = yield from Start(Move(Phantom(1_000_000), "host"))
        step = yield from Start(Compute(STEP, nothing, on="host"))
        yield from Wait(copy)
        yield from Wait(step)

    assert run(timing(1, pause), program)[0].seconds == near(3.0)


def test_noise_and_faults_multiply():
    noise, event = Noise(sigma=0.3, seed=2), {"name": "straggler", "worker": 0, "factor": 2}
    plain = run(timing(1, noise=noise), steps(20))[0].seconds
    assert run(timing(1, event, noise=noise), steps(20))[0].seconds == near(2 * plain)


def test_same_seed_same_clock():
    events = [
        {"name": "straggler", "worker": 0, "factor": 2, "probability": 0.3},
        {"name": "slowdown", "worker": 1, "factor": 3, "start": "3 s", "end": "9 s"},
        {"name": "pause", "worker": 2, "at": "4 rounds", "duration": "1 s"},
    ]
    runs = [run(timing(3, *events, noise=Noise(0.2, seed)), rounds(20)) for seed in (1, 1, 2)]
    clocks = [[o.seconds for o in outcomes] for outcomes in runs]
    assert clocks[0] == clocks[1] != clocks[2]


# --- links ------------------------------------------------------------------------------------------------------------

MEGABYTE = 1_000_000  # two workers reduce it by sending half of it twice: a second, in two steps


def reducing(worker: int) -> Program[None]:
    yield from AllReduce(Phantom(MEGABYTE))


@pytest.mark.parametrize(
    ("event", "seconds"),
    [
        ({"factor": 4, "start": "2 s"}, 1.0),  # too late
        ({"factor": 4}, 4.0),
        ({"factor": 4, "link": "worker 1"}, 4.0),  # one port is as bad as both
        ({"factor": 4, "start": "250 ms"}, 0.25 + 4 * 0.75),
        ({"factor": 4, "start": "250 ms", "end": "1.25 s"}, 0.25 + 1 + 0.5),  # in which it carried a quarter
        ({"factor": 4, "start": "750 ms", "end": "1.25 s", "link": "worker 0"}, 0.75 + 0.5 + 0.125),
    ],
)
def test_a_slow_link_carries_less_for_a_time(event, seconds):
    assert [o.seconds for o in run(timing(2, event | {"name": "slow_link"}), reducing)] == [near(seconds)] * 2


@pytest.mark.parametrize("at", ["250 ms", "500 ms", "999 ms"])
def test_a_pause_in_a_transfer_delays_it_by_exactly_that(at):
    event = {"name": "pause", "worker": 1, "at": at, "duration": "1.5 s"}
    assert [o.seconds for o in run(timing(2, event), reducing)] == [near(2.5)] * 2
    training = run(timing(3, event | {"at": "1100 ms"}), rounds(4, 300_000))
    assert [o.seconds for o in training] == [near(4 * (1 + 0.4) + 1.5)] * 3


def test_slow_links_add_up_and_end_as_they_are_to():
    both = [{"name": "slow_link", "factor": f, "start": "1 s", "end": f"{1 + f} s"} for f in (2, 4)]

    def program(worker: int) -> Program[None]:
        for _ in range(3):
            yield from AllReduce(Phantom(MEGABYTE))

    # A second whole; two at an eighth and two at a quarter carry 0.75 s' worth; the rest whole.
    assert run(timing(2, *both), program)[0].seconds == near(1 + 4 + 1.25)


@pytest.mark.parametrize(
    ("shape", "link"),
    [("bus", "bus"), ("bus", None), ("star", "worker 1"), ("matrix", "worker 0"), ("matrix", None)],
)
def test_links_of_every_shape(shape, link):
    matrix = ((0, 1e6), (1e6, 0)) if shape == "matrix" else None
    network = Network(shape, 1e6, 0.0, matrix=matrix)
    device = Device("d", speed=1.0)
    event = {"name": "slow_link", "factor": 3} | ({"link": link} if link else {})
    usual = run(Timing((device,) * 2, network), reducing)[0].seconds
    assert run(Timing((device,) * 2, network, faults=faults(event)), reducing)[0].seconds == near(3 * usual)


def test_links_that_cannot_be_slow_are_refused():
    slow = {"name": "slow_link", "factor": 2}
    with pytest.raises(ScenarioError, match=r"faults\[0\].link: a star network has no link 'bus'; write \"worker 0\""):
        run(timing(2, slow | {"link": "bus"}), reducing)
    free = Timing((Device("d", speed=1.0),) * 2, faults=faults(slow))
    with pytest.raises(ScenarioError, match=r"faults\[0\]: the network is infinitely fast; give it a bandwidth"):
        run(free, reducing)
    with pytest.raises(ScenarioError, match=r"faults\[0\].link: worker 7 does not exist; write 0 to 1"):
        check_faults(faults(slow | {"link": "worker 7"}), 2)


def test_a_loss_stops_a_transfer():
    event = {"name": "loss", "worker": 0, "at": "250 ms"}
    with pytest.raises(WorkerLost, match=r"worker 0 was lost at 0.25 s while it waits in AllReduce of 1 MB"):
        run(timing(2, event), reducing)


# --- as the worker begins something -----------------------------------------------------------------------------------

EVALUATE = Work("evaluate", 3)


def reporting(worker: int) -> Program[None]:
    """Four rounds of a step of a second; an evaluation of a second and a checkpoint after each second one."""
    for done in range(1, 5):
        yield from Compute(STEP, nothing)
        yield from AllReduce(Phantom(0), phase="gradients")
        if done % 2 == 0:
            yield from Compute(EVALUATE, nothing)
            yield from AllReduce(Phantom(0), phase="evaluate")
        yield from Checkpoint(None, dict, done % 2 == 0, round=done, step=done)


@pytest.mark.parametrize(
    ("when", "round", "at"),
    [
        ({"at": "0 s", "during": "computing"}, 0, 0),
        ({"at": 0, "during": "start"}, 0, 0),
        ({"at": "0 rounds", "during": "exchange"}, 0, 1),
        ({"at": "1 round", "during": "computing"}, 1, 1),
        ({"at": "1 round", "during": "exchange"}, 1, 2),
        ({"at": "1 round", "during": "evaluation"}, 1, 2),
        ({"at": "2 rounds", "during": "evaluation"}, 3, 5),  # that of round 2 comes before its sync
        ({"at": "2 rounds", "during": "checkpoint"}, 1, 3),  # that of the sync itself
        ({"at": "3 steps", "during": "checkpoint"}, 3, 6),
        ({"at": "2.5 s", "during": "computing"}, 2, 3),
        ({"at": "3.5 s", "during": "evaluation"}, 3, 5),
    ],
)
def test_a_fault_strikes_as_the_worker_begins_what_it_names(when, round, at):
    """Evaluation counts for `at`. A pause during one does not count as training, any other one does."""
    struck = list[tuple[int, dict[str, Any]]]()
    hooks = Hooks(struck=lambda worker, entry: struck.append((worker, entry)))
    described = timing(2, {"name": "pause", "worker": 1, "duration": "2 s", **when})
    found = simulate([reporting(0), reporting(1)], described, hooks)
    ((worker, entry),) = struck
    assert (worker, entry["round"], entry["seconds"], entry["name"]) == (1, round, near(at), "pause")
    training, evaluating = (4, 4) if when.get("during") == "evaluation" else (6, 2)
    assert max(o.seconds for o in found) == near(training)
    assert [o.evaluating for o in found] == [near(evaluating)] * 2


@pytest.mark.parametrize("during", ["computing", "exchange", "evaluation", "checkpoint", "start"])
def test_a_loss_and_an_exception_in_everything(during):
    """A lost worker gets no answer any more: its checkpoint is not written. An exception ends the run with status 1."""
    event, saved = {"worker": 1, "at": "1 s", "during": during}, list[int]()
    event |= {"at": "0 s"} if during == "start" else {}
    hooks = Hooks(checkpoint=lambda worker, *_: saved.append(worker))
    with pytest.raises(WorkerLost, match="worker 1 was lost at"):
        simulate([reporting(0), reporting(1)], timing(2, event | {"name": "loss"}), hooks)
    assert saved == ([0] if during == "checkpoint" else [])
    with pytest.raises(
        FaultStruck, match=rf"^worker 1 failed: the exception of faults\[0\], at: .*, during: {during}"
    ) as end:
        run(timing(2, event | {"name": "exception"}), reporting)
    assert end.value.status == 1


def test_start_is_the_first_thing_only():
    event = {"name": "pause", "worker": 0, "at": "1 round", "during": "start", "duration": "2 s"}
    assert run(timing(1, event), reporting)[0].seconds == near(4)


def test_what_was_to_strike_before_a_part_begins_does_not_strike():
    """Except for what says `during`, and for windows, which hold on."""
    events = [
        {"name": "pause", "worker": 0, "at": "2 rounds", "duration": "1 s"},
        {"name": "pause", "worker": 0, "at": "4 s", "duration": "9 s"},
        {"name": "pause", "worker": 0, "at": "3 rounds", "duration": "2 s"},
        {"name": "pause", "worker": 0, "at": "1 s", "during": "exchange", "duration": "4 s"},
        {"name": "slowdown", "worker": 0, "factor": 2, "start": "1 s", "end": "7 s"},
    ]
    described, struck = timing(1, *events), list[Any]()
    part = replace(whole(described), begin=5.0, counted=5.0, rounds=3, steps=3)
    hooks = Hooks(struck=lambda worker, entry: struck.append((entry["fault"], entry["round"], entry["seconds"])))
    (outcome,) = simulate([reporting(0)], described, hooks, part=part)
    # 2 s of pause, no part of the first step within the window, 4 s of pause, three steps more.
    assert outcome.seconds == near(2 + 1 + 4 + 3)
    assert struck == [(2, 3, 5.0), (3, 3, near(8)), (4, 3, 1.0)]


def test_what_has_struck_does_not_strike_again():
    """A loss that struck is known by its number and its time, also after the list of faults has become shorter."""
    events = [{"name": "slowdown", "worker": 0, "factor": 2}, {"name": "loss", "worker": 1, "at": "3 rounds"}]
    known = faults(*events, {"name": "loss", "worker": 1, "at": "4 rounds"})
    struck = [{"worker": 0, "round": 0, "seconds": 0.0, **mark(0, known[0])}, {"worker": 1, **mark(1, known[1])}]
    assert [number for number, _ in remaining(known, struck)] == [0, 2]
    later = faults(events[1] | {"number": 1, "worker": 0}, events[1] | {"at": "5 rounds"})
    assert remaining(later, [struck[0]]) == [(1, later[0]), (1, later[1])]
    assert remaining(later, struck) == [(1, later[1])], "it has the number of another list, and another time"
    with pytest.raises(ScenarioError, match=r"faults\[1\].number: 1 is another fault's; leave it out"):
        check_faults(later, 2)


def test_a_run_tells_what_struck(tmp_path):
    settings = [
        "budget={rounds: 9}",
        "faults=[{name: pause, worker: 1, at: 5 rounds, duration: 1 s}, {name: straggler, worker: 0, factor: 2}, "
        "{name: slowdown, worker: 1, factor: 2, start: 2 rounds, end: 4 rounds}, {name: loss, worker: 0, at: 1 h}]",
    ]
    found = paceline.simulate(SCENARIO, timing_only=True, settings=settings, out=tmp_path)
    told = [(e["fault"], e["name"], e["worker"], e["round"], e.get("at")) for e in found.summary["faults"]]
    assert told == [(1, "straggler", 0, 0, None), (2, "slowdown", 1, 2, None), (0, "pause", 1, 5, "5 rounds")]
    lanes = [lanes["faults"] for lanes in found.lanes]
    ends = [0.0, *(stop for _, _, stop in found.lanes[1]["rounds"])]
    assert lanes[0] == [("straggler", 0.0, pytest.approx(ends[-1]))]
    assert lanes[1] == [("slowdown", ends[2], ends[4]), ("pause", ends[5], pytest.approx(ends[5] + 1))]


# --- runs that cannot finish ------------------------------------------------------------------------------------------

WAITS = "waits in AllReduce of 400 B (gradients), 400 bytes, phantom, mean"


@pytest.mark.parametrize(
    ("at", "doing", "seconds"),
    [("3.25 s", "is in Compute (step)", "3.25"), ("2 rounds", "is in Compute (step)", "2.0016")],
)
def test_a_lost_worker_ends_the_run_and_names_who_waits(at, doing, seconds):
    event = {"name": "loss", "worker": 1, "at": at}
    with pytest.raises(WorkerLost) as error:
        run(timing(3, event), rounds(9, 400))
    assert str(error.value) == (
        f"worker 1 is lost, and no other worker takes over: each of workers 0, 2 {WAITS}; "
        f"worker 1 was lost at {seconds} s while it {doing}"
    )


def test_a_worker_lost_as_it_waits_joins_no_collective():
    events = [{"name": "loss", "worker": 0, "at": "1.5 s"}, {"name": "straggler", "worker": 1, "factor": 2}]
    with pytest.raises(WorkerLost, match=r"worker 0 was lost at 1\.5 s while it waits in AllReduce of 0 B"):
        run(timing(2, *events), rounds(3))


def test_a_worker_lost_while_all_others_wait_for_it():
    """On a network whose links are infinitely fast, where no link is stopped at that time."""
    events = faults({"name": "straggler", "worker": 1, "factor": 9}, {"name": "loss", "worker": 1, "at": "5 s"})
    with pytest.raises(WorkerLost, match="worker 1 was lost at 5 s while it is in Compute"):
        run(Timing((Device("d", speed=1.0),) * 2, faults=events), rounds(3))


def test_who_has_ended_cannot_be_lost():
    event = {"name": "loss", "worker": 0, "at": "2 s"}
    assert [o.seconds for o in run(timing(2, event), steps(2))] == [2.0, 2.0]
    with pytest.raises(
        WorkerLost, match="workers 0, 1 are lost, and no other worker takes over: worker 0 was lost at 2 s while"
    ):
        run(timing(2, event, event | {"worker": 1, "at": "1.5 s"}), steps(3))


def test_the_limit_comes_before_a_pause_is_over():
    event = {"name": "pause", "worker": 1, "at": "0 s", "duration": "1 h"}
    with pytest.raises(ProtocolError, match=r"limit of 60 s: worker 0 waits in .*; worker 1 is in Compute"):
        run(timing(2, event), rounds(2), limit=60.0)

    def waiting(worker: int) -> Program[None]:
        yield from barrier()

    assert run(timing(2, event), waiting)[0].seconds == near(3600.0)


# --- the scenario -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("event", "message"),
    [
        ({"name": "slow"}, "faults[0]: unknown name 'slow'; write one of straggler, slowdown, pause"),
        ({"name": "pause", "worker": 0, "at": "soon", "duration": "1 s"}, "faults[0].at: 'soon' is not a time"),
        (
            {"name": "pause", "worker": 0, "at": "1.5 rounds", "duration": "1 s"},
            "faults[0].at: '1.5 rounds' is not a time",
        ),
        ({"name": "pause", "worker": 0, "at": "1 s"}, "faults[0].duration: is missing"),
        ({"name": "straggler", "worker": 0, "factor": 0.5}, "faults[0].factor: "),
        ({"name": "straggler", "worker": 0, "factor": 2, "chance": 1}, "faults[0].chance: unknown key"),
        (
            {"name": "slowdown", "worker": 0, "factor": 2, "start": "4 s", "end": "3 s"},
            "end 3.0 s must come",
        ),
        ({"name": "slowdown", "worker": 0, "factor": 2, "start": "4 s", "end": "9 rounds"}, "in the same unit"),
        ({"name": "slow_link", "factor": 2, "start": "4 rounds"}, "a link does not count rounds and steps"),
        ({"name": "loss", "worker": 0, "during": "start"}, "faults[0].at: is missing"),
        ({"name": "exception", "worker": 0, "at": 0, "during": "lunch"}, "faults[0].during: "),
        ({"name": "loss", "worker": -1, "at": "4 rounds"}, "faults[0].worker: "),
    ],
)
def test_bad_faults_are_refused(event, message):
    with pytest.raises(ScenarioError) as error:
        faults(event)
    assert message in str(error.value)


def test_a_fault_of_nobody_is_refused():
    with pytest.raises(ScenarioError, match=r"faults\[1\].worker: worker 3 does not exist; write 0 to 2"):
        check_faults(faults({"name": "loss", "worker": 2, "at": "0 s"}, {"name": "loss", "worker": 3, "at": "0 s"}), 3)


def test_faults_are_written_as_they_are_read():
    events = [
        {"name": "slowdown", "worker": 1, "factor": 3.0, "start": "2 rounds", "end": "5 rounds"},
        {"name": "pause", "worker": 0, "at": "250 ms", "duration": "1 min"},
        {"name": "straggler", "worker": 0, "factor": 2},
        {"name": "slow_link", "factor": 2, "start": "1 s"},
    ]
    written = validate(BASE | {"faults": events}, "test").model_dump(mode="json", exclude_none=True)["faults"]
    assert written[1] == {"name": "pause", "worker": 0, "at": "0.25 s", "duration": "60.0 s"}
    assert faults(*written) == faults(*events)


SCENARIO = SCENARIOS / "local_sgd.yaml"


def test_a_run_that_cannot_finish_keeps_its_reports(tmp_path, capsys, monkeypatch):
    def command(*arguments: str, status: int = 2) -> str:
        """What it says on standard error, after ending with this status."""
        monkeypatch.setattr(sys, "argv", ["paceline", "simulate", str(SCENARIO), "--timing-only", *arguments])
        with pytest.raises(SystemExit) as end:
            main()
        assert end.value.code == status
        (said,) = capsys.readouterr().err.strip().splitlines()
        return said

    settings = ["--out", str(tmp_path), "--force", "--set", "report.every=1 round", "--set", "budget={rounds: 9}"]
    said = command(*settings, "--set", "faults=[{name: loss, worker: 1, at: 3 rounds}]", status=1)
    assert "worker 1 is lost, and no other worker takes over: worker 0 waits in AllReduce" in said
    assert [json.loads(line)["round"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()] == [1, 2, 3]
    assert not (tmp_path / "summary.json").exists(), "which a finished run has"
    assert "not finished after the limit of 2e-06 s: " in command(*settings, "--limit", "2 us")
    assert "--limit: '2' is not a quantity with a unit" in command(*settings, "--limit", "2")


def test_faults_change_the_clock_and_not_the_plan(tmp_path):
    untraced, slow = "report.trace=false", "faults=[{name: slowdown, worker: 0, factor: 3, end: 4 rounds}]"
    plain, slowed = (paceline.simulate(SCENARIO, timing_only=True, settings=s) for s in ([untraced], [untraced, slow]))
    assert slowed.summary["seconds"] > plain.summary["seconds"]
    assert slowed.summary["samples"] == plain.summary["samples"]
    assert slowed.summary["engine"] == "simpy"
    assert slowed.scenario["recorded"]["paces"] == plain.scenario["recorded"]["paces"]
    paceline.simulate(SCENARIO, timing_only=True, settings=[untraced], out=tmp_path)
    with pytest.raises(ScenarioError, match="faults, which hit single workers; write --engine simpy"):
        paceline.simulate(
            SCENARIO, timing_only=True, settings=[untraced, slow], engine="cohort", out=tmp_path, force=True
        )
    assert (tmp_path / "summary.json").exists(), "an earlier run, which a refused one does not replace"
