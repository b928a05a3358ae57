"""The conformance suite over all interpreters that run in one process. tests/runtime runs the same list under MPI."""

from __future__ import annotations

from typing import Any

import pytest

from kit.conformance import CASES, Case, Record
from paceline.config.timing import Device, Network, Noise, Timing
from paceline.program.effects import Work
from paceline.program.lockstep import lockstep
from paceline.sim.engine import simulate


class Flat(Device):
    """A device that takes the same time for any work."""

    def seconds(self, work: Work) -> float:
        return self.slowdown * 0.25


def run_lockstep(programs: Any, hooks: Any, debug: bool) -> list[Any]:
    return lockstep(programs, hooks, debug)


def run_simpy(programs: Any, hooks: Any, debug: bool) -> list[Any]:
    devices = tuple(Flat(f"device {i}", slowdown=1.0 + i, host_link=1e3) for i in range(len(programs)))
    timing = Timing(devices, Network("star", 1e6, 1e-3))
    return [outcome.result for outcome in simulate(programs, timing, hooks, debug=debug)]


def run_simpy_noisy(programs: Any, hooks: Any, debug: bool) -> list[Any]:
    timing = Timing((Flat("device"),) * len(programs), Network("bus", 1e3), Noise(0.5, 3))
    return [outcome.result for outcome in simulate(programs, timing, hooks, debug=debug, trace=True)]


def run_simpy_timeless(programs: Any, hooks: Any, debug: bool) -> list[Any]:
    timing = Timing(tuple(Flat("device", slowdown=0.0) for _ in programs))
    return [outcome.result for outcome in simulate(programs, timing, hooks, debug=debug)]


@pytest.mark.parametrize("interpreter", [run_lockstep, run_simpy, run_simpy_noisy, run_simpy_timeless])
@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_conformance(case: Case, interpreter: Any) -> None:
    record = Record(case.stop_after)
    programs = [case.make(i) for i in range(case.workers)]
    if case.raises is None:
        case.verify(interpreter(programs, record.hooks(), case.debug), record)
        return
    with pytest.raises(case.raises) as caught:
        interpreter(programs, record.hooks(), case.debug)
    assert type(caught.value) is case.raises
    for words in case.says:
        assert words in str(caught.value)
