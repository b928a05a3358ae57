"""A simulation that stands still at reports and goes on has the clock that it has without a pause."""

from __future__ import annotations

import pytest

from paceline.config.timing import Device, Network, Noise, Timing
from paceline.program.effects import AllReduce, Compute, Log, Phantom, Program, Work, nothing
from paceline.program.errors import ProtocolError
from paceline.program.outcome import Hooks, Outcome
from paceline.sim.engine import Simulation, simulate

NOISY = Timing(
    (Device("a", speed=3.0), Device("b", speed=2.0), Device("c", speed=1.0)),
    Network("star", 1e6, 0.001),
    noise=Noise(sigma=0.2, seed=5),
)


def worker(index: int, rounds: int) -> Program[int]:
    for done in range(rounds):
        yield from Compute(Work("step", 2), nothing, times=3)
        yield from AllReduce(Phantom(10_000), phase="parameters")
        if index == 0:
            yield from Log(round=done)
    return rounds


def programs(rounds: int) -> list[Program[int]]:
    return [worker(index, rounds) for index in range(3)]


def told(outcomes: list[Outcome]) -> list[tuple[object, ...]]:
    return [(one.seconds, one.computing, one.sent, one.result) for one in outcomes]


def test_pauses_change_nothing() -> None:
    lines: list[float] = []
    whole = simulate(programs(6), NOISY, Hooks(lambda w, seconds, fields: lines.append(seconds)))
    seen: list[float] = []

    def log(w: int, seconds: float, fields: dict[str, object]) -> None:
        seen.append(seconds)
        simulation.pause()
        simulation.pause()  # once is enough

    simulation = Simulation(programs(6), NOISY, Hooks(log))
    others = Simulation(programs(2), NOISY, Hooks())  # runs in between
    for done in range(1, 7):
        assert simulation.run() is None
        assert seen == lines[:done]
        if done == 3:
            assert others.run() is not None
    found = simulation.run()
    assert found is not None
    assert told(found) == told(whole)


def test_a_pause_before_the_first_event() -> None:
    def early(index: int) -> Program[None]:
        yield from Log(round=0)
        yield from Compute(Work("step", 1), nothing)

    simulation = Simulation([early(0)], Timing((Device("a", speed=1.0),)), Hooks(lambda *said: simulation.pause()))
    assert simulation.run() is None
    (outcome,) = simulation.run() or ()
    assert outcome.seconds == 1.0


def test_after_a_pause_what_does_not_fit_together_is_found() -> None:
    simulation = Simulation([worker(0, 2), worker(1, 1), worker(2, 2)], NOISY, Hooks(lambda *said: simulation.pause()))
    assert simulation.run() is None
    with pytest.raises(ProtocolError, match="worker 1"):
        simulation.run()
