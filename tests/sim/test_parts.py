"""Parts of a run in the SimPy engine: time, faults and noise go on, and what is known after a loss."""

from __future__ import annotations

from math import inf
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paceline.config.scenario import validate
from paceline.config.timing import Device, Network, Noise, Timing
from paceline.program.effects import AllReduce, Checkpoint, Compute, Phantom, Program, Work, nothing
from paceline.program.errors import ProtocolError, WorkerLost
from paceline.program.outcome import Hooks, Outcome, Spans
from paceline.sim.engine import simulate
from paceline.sim.parts import Loss, Lost, Ongoing, Part

BASE = {
    "workload": {"model": "mlp", "data": "digits", "batch": 8, "optimizer": {"lr": 0.1}},
    "cluster": {"workers": [{"speed": "1 samples/s", "count": 3}]},
    "strategy": {"preset": "sync_sgd"},
    "budget": {"rounds": 1},
}


def timing(workers: int, *events: dict[str, Any], noise: Noise = Noise(), rate: float = inf) -> Timing:  # noqa: B008
    """Devices that take a second for a step."""
    faults = validate(BASE | {"faults": list(events)}, "test").faults
    return Timing((Device("d", speed=1.0),) * workers, Network("star", rate, 0.0), noise=noise, faults=faults)


def rounds(count: int, before: int = 0, steps: int = 1) -> Program[None]:
    for done in range(before, count):
        yield from Compute(Work("step", 1), nothing, times=steps)
        yield from AllReduce(Phantom(0), phase="gradients")
        yield from Checkpoint(None, dict, round=done + 1, step=done + 1)


def near(seconds: float) -> Any:
    return pytest.approx(seconds, rel=1e-12)


def lose(described: Timing, count: int, **more: Any) -> Lost:
    """What is known once programs of so many rounds cannot go on."""
    workers = len(described.devices)
    part = Part(Ongoing(described), range(workers), **more)
    with pytest.raises(Lost) as error:
        simulate([rounds(count) for _ in range(workers)], described, Hooks(), part=part)
    return error.value


def test_a_part_begins_at_any_time_and_counts_its_own_seconds():
    slow = {"name": "slowdown", "worker": 0, "factor": 3, "start": "101 s", "end": "104 s"}
    seen: list[tuple[int, str, list[Any]]] = []

    def take(worker: int, lane: str, spans: Spans) -> None:
        seen.append((worker, lane, list(spans)))

    described = timing(1, slow)
    part = Part(Ongoing(described), [0], begin=100.0, counted=100.0)
    (outcome,) = simulate([rounds(3)], described, Hooks(spans=take), trace=True, part=part)
    assert outcome.seconds == near(5.0)
    steps = next(spans for _, lane, spans in seen if lane == "compute")
    assert [start for _, start, _ in steps] == [near(100.0), near(101.0), near(104.0)]
    part = Part(Ongoing(described), [0], begin=102.0, counted=90.0, outcomes=[Outcome(0, computing=7.0)])
    (outcome,) = simulate([rounds(1)], described, Hooks(), part=part)
    assert outcome.seconds == near(12.0 + 2 + 1 / 3)  # two thirds of the step are slow for two seconds
    assert outcome.computing == near(7.0 + 2 + 1 / 3)


def test_links_are_as_slow_as_they_are_when_a_part_begins():
    slow = {"name": "slow_link", "factor": 2, "start": "5 s", "end": "20 s"}
    described = timing(2, slow, rate=1e6)
    part = Part(Ongoing(described), range(2), begin=10.0, counted=10.0)

    def reducing() -> Program[None]:
        yield from AllReduce(Phantom(1_000_000))

    found = simulate([reducing(), reducing()], described, Hooks(), part=part)
    assert [outcome.seconds for outcome in found] == [near(2.0)] * 2
    gone = timing(2, {"name": "loss", "worker": 1, "at": "5 s"}, rate=1e6)
    found = simulate([reducing(), reducing()], gone, Hooks(), part=Part(Ongoing(gone), range(2), 10.0, counted=10.0))
    assert [outcome.seconds for outcome in found] == [near(1.0)] * 2, "a loss that is over stops no port"


def test_noise_goes_on_where_it_was():
    described = timing(2, noise=Noise(sigma=0.3, seed=5))
    (_, whole) = simulate([rounds(9), rounds(9)], described, Hooks())
    ongoing = Ongoing(described)
    first = simulate([rounds(4), rounds(4)], described, Hooks(), part=Part(ongoing, range(2)))
    second = simulate(
        [rounds(9, 4), rounds(9, 4)], described, Hooks(), part=Part(ongoing, range(2), begin=first[0].seconds)
    )
    assert second[1].seconds == near(whole.seconds)
    (alone,) = simulate([rounds(4)], timing(1), Hooks(), part=Part(Ongoing(described), [1]))
    (before,) = simulate([rounds(4)], timing(1), Hooks(), part=Part(Ongoing(described), [0]))
    assert alone.seconds != before.seconds, "each worker has its own"


@pytest.mark.parametrize("at", ["3.25 s", "3 rounds"])
def test_what_is_known_of_a_loss(at):
    lost = lose(timing(3, {"name": "loss", "worker": 1, "at": at}, {"name": "straggler", "worker": 2, "factor": 2}), 9)
    assert isinstance(lost, WorkerLost)
    if at == "3.25 s":  # in the second round, in which worker 1 waits, and worker 2 computes until 4 s
        assert lost.loss.lost == {0: inf, 1: 3.25, 2: inf}
        assert lost.loss.stands == {0: 3.0, 1: 3.0, 2: 4.0}
        assert lost.loss.met(0.05) == near(4.0)
    else:
        assert lost.loss.lost[1] == 6.0
        assert lost.loss.stands == {0: 7.0, 1: inf, 2: 8.0}
        assert (lost.loss.first, lost.loss.by(6.0), lost.loss.met(0.05), lost.loss.met(5.0)) == (6.0, (1,), 8.0, 11.0)


def test_a_worker_that_is_lost_before_it_comes_is_waited_for():
    slow = {"name": "straggler", "worker": 2, "factor": 4}
    events = [{"name": "loss", "worker": w, "at": at} for w, at in ((1, "0.5 s"), (2, "3 s"))]
    lost = lose(timing(3, slow, *events), 9)
    assert lost.loss.met(0.25) == near(3.25)
    assert lost.loss.by(lost.loss.met(0.25)) == (1, 2)
    later = lose(timing(3, slow, events[0], events[1] | {"at": "9 s"}), 9)
    assert later.loss.by(later.loss.met(0.25)) == (1,), "worker 2 has come by then"
    assert later.loss.met(0.25) == near(4.0)


@given(
    st.lists(st.tuples(st.floats(0, 100) | st.just(inf), st.floats(0, 100) | st.just(inf)), min_size=1, max_size=6),
    st.floats(0, 10),
)
def test_all_that_are_left_have_come_when_they_meet(found, detection):
    lost = {number: min(gone, 50.0) if not number else gone for number, (gone, _) in enumerate(found)}
    stands = {number: stands if lost[number] < inf else min(stands, 60.0) for number, (_, stands) in enumerate(found)}
    loss = Loss(lost, stands)
    met = loss.met(detection)
    assert loss.first + detection <= met < inf
    gone = loss.by(met)
    assert gone
    for number in lost.keys() - {*gone}:
        assert stands[number] <= met or lost[number] > met
    assert met <= max(60.0, *(each for each in lost.values() if each < inf), *(0.0, 100.0)) + detection


def test_a_trace_ends_where_the_part_is_over():
    seen: dict[tuple[int, str], list[Any]] = {}

    def take(worker: int, lane: str, spans: Spans) -> None:
        seen.setdefault((worker, lane), []).extend(spans)

    described = timing(2, {"name": "loss", "worker": 1, "at": "1.5 s"})
    part = Part(Ongoing(described), range(2), over=lambda loss: loss.first + 300.25)
    programs = [rounds(9, steps=600 if worker == 0 else 1) for worker in range(2)]
    with pytest.raises(Lost) as error:
        simulate(programs, described, Hooks(spans=take), trace=True, part=part)
    assert error.value.over == near(301.75)
    assert error.value.loss.stands[0] == near(600.0)
    spans = seen[0, "compute"]
    assert (len(spans), spans[-1][1:]) == (302, (near(301.0), near(301.75)))


def test_a_lost_worker_may_be_back_in_the_next_part():
    events = [{"name": "loss", "worker": 1, "at": at} for at in ("2 rounds", "3.5 s", "3 rounds", "12.5 s")]
    described = timing(2, *events)
    ongoing = Ongoing(described)
    with pytest.raises(Lost) as first:
        simulate([rounds(9), rounds(9)], described, Hooks(), part=Part(ongoing, range(2)))
    assert first.value.loss.first == near(2.0)
    part = Part(ongoing, range(2), begin=10.0, rounds=2, steps=2)
    with pytest.raises(Lost) as second:
        simulate([rounds(9, 2), rounds(9, 2)], described, Hooks(), part=part)
    assert second.value.loss.first == near(11.0), "after 3 rounds; what was due at 3.5 s found no worker"
    part = Part(ongoing, range(2), begin=12.0, rounds=2, steps=2)
    with pytest.raises(Lost) as third:
        simulate([rounds(9, 2), rounds(9, 2)], described, Hooks(), part=part)
    assert third.value.loss.first == near(12.5)
    part = Part(ongoing, range(2), begin=20.0, rounds=2, steps=2, counted=20.0)
    assert simulate([rounds(9, 2), rounds(9, 2)], described, Hooks(), part=part)[1].seconds == near(7.0)


def test_a_part_may_be_asked_to_stop():
    passed: list[tuple[int, float, bool]] = []

    def keep(worker: int, now: float, clock: float, effect: Checkpoint, saved: bool) -> None:
        passed.append((worker, now, saved))

    def stopping() -> Program[None]:
        for done in range(9):
            yield from Compute(Work("step", 1), nothing)
            yield from AllReduce(Phantom(0), phase="gradients")
            if (yield from Checkpoint(None, dict, round=done + 1, step=done + 1)):
                return

    described = timing(2)
    part = Part(Ongoing(described), range(2), stop=2.5, keep=keep)
    assert [outcome.seconds for outcome in simulate([stopping(), stopping()], described, Hooks(), part=part)] == [
        3.0
    ] * 2
    assert passed[-2:] == [(0, 3.0, True), (1, 3.0, True)]
    assert not any(saved for _, _, saved in passed[:-2])


def test_the_limit_counts_from_the_start_of_the_run():
    described = timing(1)
    with pytest.raises(ProtocolError, match="not finished after the limit of 9 s: workers go on at 10 s only"):
        simulate([rounds(1)], described, Hooks(), limit=9.0, part=Part(Ongoing(described), [0], begin=10.0))
    with pytest.raises(ProtocolError, match="not finished after the limit of 12 s: worker 0 is in Compute"):
        simulate([rounds(5)], described, Hooks(), limit=12.0, part=Part(Ongoing(described), [0], begin=10.0))
    lost = timing(2, {"name": "loss", "worker": 0, "at": "1.5 s"})
    with pytest.raises(Lost, match="worker 0 is lost"):
        simulate([rounds(5), rounds(5)], lost, Hooks(), limit=1000.0)


def test_only_those_are_named_that_were_lost_by_then():
    events = [{"name": "loss", "worker": w, "at": at} for w, at in ((0, "1.5 s"), (1, "1 h"))]
    assert str(lose(timing(3, *events), 9)).startswith("worker 0 is lost, and no other worker takes over: ")
