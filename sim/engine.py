"""The SimPy interpreter: runs programs of any kind through virtual time, event by event.

Rule: SimPy's queue alone decides the order of events (by time, then as they were scheduled), so a run is deterministic.
What a program, a `run` or a hook raises comes through as it is, since callbacks and not SimPy processes drive programs.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import simpy

from ..algorithms.effects import Program
from ..algorithms.errors import ProtocolError
from ..config.timing import Timing
from ..records.outcome import Hooks, Outcome
from .driver import Driver
from .network import Fabric
from .noise import draws
from .rendezvous import Meetings
from .texts import everyone


def simulate(
    programs: Sequence[Program[Any]],
    timing: Timing,
    hooks: Hooks,
    *,
    trace: bool = False,
    debug: bool = False,
    limit: float | None = None,
) -> list[Outcome]:
    """Run one program per worker in virtual time; returns their Outcomes in worker order.

    timing: the cluster, one device per program. trace: keep spans of every effect. debug: check that borrowed values
    are left alone (BorrowError). limit: virtual seconds, evaluation included, by which all programs must have ended.
    Raises ProtocolError where programs do not fit together, wait for one another for ever, or pass the limit; it says
    where every worker is. ValueError if programs and devices differ in number.
    """
    if len(programs) != len(timing.devices):
        raise ValueError(f"{len(programs)} programs for {len(timing.devices)} devices; give one program per device")
    env = simpy.Environment()
    meetings = Meetings(env, len(programs), Fabric(timing.network, timing.nodes), hooks.stop)
    noise = draws(timing.noise, timing.devices)
    drivers = [
        Driver(env, Outcome(index), program, device, noise.of(index) if noise else None, meetings, hooks, trace, debug)
        for index, (program, device) in enumerate(zip(programs, timing.devices, strict=True))
    ]
    for driver in drivers:
        driver.go_on(None)
    with few_collections(len(programs)):
        env.run(until=limit)
    if all(driver.ended for driver in drivers):
        return [driver.outcome for driver in drivers]
    where = everyone({driver.index: driver.state() for driver in drivers})
    if env.peek() < float("inf"):
        raise ProtocolError(f"not finished after the limit of {limit:g} s: {where}")
    raise ProtocolError(f"the programs do not fit together, nothing can go on: {where}")


@contextmanager
def few_collections(workers: int) -> Iterator[None]:
    """Python's garbage collector comes as seldom for each worker as in a small run.

    It comes after 700 objects by default. Of thousands of workers in a collective each holds some until all are there,
    so it would find nothing but live ones, again and again.
    """
    young, *older = gc.get_threshold()
    gc.set_threshold(max(young, 64 * workers) if young else 0, *older)
    try:
        yield
    finally:
        gc.set_threshold(young, *older)
