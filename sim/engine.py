"""The SimPy interpreter: runs programs of any kind through virtual time, event by event.

Rule: only SimPy's queue decides the order of events (by time, then as they were scheduled), so a run is deterministic.
Callbacks drive the programs, not SimPy processes, so an error from a program, a `run` or a hook comes out unchanged.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from math import inf
from typing import Any

import simpy
from simpy.core import StopSimulation

from ..config.fault_plan import PiecewiseRate
from ..config.timing import Timing
from ..program.checks import deadlock
from ..program.effects import AllReduce, Program
from ..program.errors import ProtocolError, are_lost
from ..program.outcome import Hooks, Outcome, ignored
from ..program.texts import everyone
from .driver import Driver
from .faults import faults_of_workers, link_rates
from .meetings import Meetings
from .network import Fabric
from .noise import varied
from .parts import Loss, Lost, Part, whole
from .transfers import Timer, Transfers


def simulate(
    programs: Sequence[Program[Any]],
    timing: Timing,
    hooks: Hooks,
    *,
    trace: bool = False,
    debug: bool = False,
    limit: float | None = None,
    part: Part | None = None,
) -> list[Outcome]:
    """Run one program per worker in virtual time; returns their Outcomes in worker order.

    timing: the cluster, with one device per program.
    trace: keep the spans of every effect.
    debug: check that programs do not write to borrowed values (BorrowError).
    limit: virtual seconds since the run began, evaluation included, by which all programs must have ended.
    part: which part of a run this is; None: the only one.

    Raises ProtocolError where programs do not fit together, wait for one another for ever, or pass the limit, and
    Lost, a WorkerLost, where a fault took a worker that the others need; both say where every worker is. Raises
    FaultStruck where a fault was to raise an exception and no part follows, ValueError if there are not as many
    programs as devices.
    """
    simulation = Simulation(programs, timing, hooks, trace=trace, debug=debug, part=part)
    outcomes = simulation.run(limit)
    assert outcomes is not None, "nothing pauses it"
    return outcomes


class Simulation:
    """A simulation that may be paused. A program is a generator, and stands still where it is.

    Arguments and errors as of `simulate`. After an error it cannot go on.
    """

    def __init__(
        self,
        programs: Sequence[Program[Any]],
        timing: Timing,
        hooks: Hooks,
        *,
        trace: bool = False,
        debug: bool = False,
        part: Part | None = None,
    ) -> None:
        if len(programs) != len(timing.devices):
            raise ValueError(f"{len(programs)} programs for {len(timing.devices)} devices; give one program per device")
        self._part = part or whole(timing)
        self._env = simpy.Environment(self._part.begin)
        self._drivers = _drivers(self._env, programs, timing, hooks, self._part, trace, debug)
        self._begun = self._paused = False

    def pause(self) -> None:
        """Let `run` return once the programs have taken what happens now. Hooks may call it."""
        if not self._paused:
            self._paused = True
            event = self._env.event()
            event.callbacks.append(StopSimulation.callback)
            event.succeed()

    def run(self, limit: float | None = None) -> list[Outcome] | None:
        """Run on, to the end or until it is paused. The Outcomes in worker order; None where it is paused."""
        if limit is not None and self._part.begin >= limit:
            begin = self._part.begin
            raise ProtocolError(f"not finished after the limit of {limit:g} s: workers go on at {begin:g} s only")
        env, drivers = self._env, self._drivers
        loss, over = None, inf
        try:
            if not self._begun:
                self._begun = True
                for driver in drivers:
                    driver.go_on(None)
            with few_collections(len(drivers)):
                env.run(until=limit)
                if limit is not None and not self._paused:
                    env.step()  # SimPy leaves the event of the limit in its queue, before all others
                    if any(driver.lost for driver in drivers):
                        env.run()  # the others soon wait for it; then no events are left, except those of later faults
            if not self._paused and (loss := _loss(drivers, env)) is not None:
                over = self._part.over(loss)
        finally:
            if not self._paused:
                for driver in drivers:
                    driver.close(over)
        if self._paused:
            self._paused = False
            return None
        if all(driver.ended for driver in drivers):
            return [driver.outcome for driver in drivers]
        states = {driver.index: driver.state() for driver in drivers}
        if env.peek() < inf:
            raise ProtocolError(f"not finished after the limit of {limit:g} s: {everyone(states)}")
        if loss is None:
            raise deadlock(states)
        failures = [driver.failure for driver in drivers if driver.failure is not None]
        if failures and over == inf:
            raise failures[0]
        text = f"{are_lost(loss.by(loss.met(0.0)))}, and no other worker takes over: {everyone(states)}"
        raise Lost(text, loss, over, [driver.outcome for driver in drivers])


def _drivers(
    env: simpy.Environment,
    programs: Sequence[Program[Any]],
    timing: Timing,
    hooks: Hooks,
    part: Part,
    trace: bool,
    debug: bool,
) -> list[Driver]:
    """The programs' drivers, on the cluster as it is when the part begins."""
    fabric = Fabric(varied(timing.network, timing.noise), timing.nodes)
    meetings = Meetings(env, len(programs), fabric, lambda: env.now >= part.stop or hooks.stop())
    if timing.faults:
        meetings.faults = True
        slow_links(env, meetings.transfers, link_rates(timing.faults, fabric.topology, len(programs), part.begin))
    drivers = []
    for i, (program, device, worker) in enumerate(zip(programs, timing.devices, part.workers, strict=True)):
        factors, faults = part.ongoing.factors[worker], part.ongoing.faults[worker]
        if faults is not None:
            faults.told = partial(hooks.struck, worker)
            faults.go_on(part.rounds, part.steps, part.begin)
            if faults.lost < inf:  # time goes on until then, although everything may wait for this worker
                Timer(env, ignored).set(faults.lost - part.begin)
        outcome = replace(part.outcomes[i], index=i) if part.outcomes else Outcome(i)
        drivers.append(Driver(env, outcome, program, device, factors, faults, meetings, hooks, part, trace, debug))
    return drivers


def _loss(drivers: Sequence[Driver], env: simpy.Environment) -> Loss | None:
    """What is known of the lost workers where nothing can go on without them."""
    if env.peek() < inf or not any(driver.lost for driver in drivers):
        return None
    return Loss({d.index: d.lost_at for d in drivers}, {d.index: d.stands for d in drivers})


def check_cluster(timing: Timing, nbytes: int) -> None:
    """ScenarioError where the cluster cannot be simulated.

    That is so where an all-reduce of `nbytes` between the first worker and the last would take for ever, and where a
    fault names a link that does not exist or that has no bandwidth to lose, or lasts for ever.
    """
    fabric, workers = Fabric(timing.network, timing.nodes), len(timing.devices)
    fabric.group(dict.fromkeys((0, workers - 1))).price(AllReduce, nbytes)
    link_rates(timing.faults, fabric.topology, workers)
    faults_of_workers(timing.faults, timing.nodes, timing.noise.seed)


@contextmanager
def few_collections(workers: int) -> Iterator[None]:
    """Have Python collect garbage as seldom, for each worker, as in a small run.

    By default it does so whenever 700 new objects have survived. Each of thousands of workers in a collective holds
    some objects until all workers are there, so the collector would look through live objects again and again.
    """
    young, *older = gc.get_threshold()
    gc.set_threshold(max(young, 64 * workers) if young else 0, *older)
    try:
        yield
    finally:
        gc.set_threshold(young, *older)


def slow_links(env: simpy.Environment, transfers: Transfers, rates: Mapping[str, PiecewiseRate]) -> None:
    """Change the links' bandwidth at the times that `rates` gives. rates: by link."""
    for link, moments in rates.items():
        for moment, rate in moments.from_then_on(env.now):

            def change(event: simpy.Event, link: str = link, rate: float = rate) -> None:
                transfers.set_bandwidth(link, rate)

            if moment > 0 or rate != 1:
                Timer(env, change).set(moment)
