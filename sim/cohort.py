"""The cohort interpreter: runs one program for all workers whose programs are the same; their clocks are NumPy vectors.

Rule: it gives what the SimPy interpreter gives, to the last bit, or it refuses with NeedsEvents. It needs no queue of
events, because in a bulk-synchronous program only the collectives of all workers make one worker's clock depend on
another's. So a cohort may run ahead of the others until it needs a collective's answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from ..config.timing import Timing
from ..program.checks import deadlock
from ..program.effects import Program
from ..program.outcome import Hooks, Outcome
from .cohort_driver import CohortDriver
from .cohort_meetings import CohortMeetings, NeedsEvents
from .network import Fabric
from .noise import run_noise, varied
from .said import told_at_the_end


@dataclass(frozen=True, slots=True, eq=False)
class Cohort:
    """Workers whose programs yield the same effects, except for the values, the weights and `run`.

    Their devices and their noise may differ: each member has a clock of its own.
    """

    program: Program[Any]  # that of members[0], which also logs for all
    members: tuple[int, ...]  # the workers' numbers


def events_needed(timing: Timing) -> str:
    """What of the cluster this engine cannot simulate, whatever the programs are; empty where it can simulate all."""
    if timing.faults:
        return "faults, which hit single workers"
    return "other traffic on the network (cluster.background)" if timing.network.background else ""


def simulate(cohorts: Sequence[Cohort], timing: Timing, hooks: Hooks, threads: int = 1) -> list[Outcome]:
    """Run the cohorts' programs in virtual time, timing-only; returns the workers' Outcomes in worker order.

    timing: the cluster, with one device per worker.
    threads: that draw noise ahead in a long run.

    Report lines and checkpoints reach the hooks when all programs have ended. Raises NeedsEvents where a program asks
    for what this engine cannot do exactly, ProtocolError where programs do not fit together, and ValueError unless each
    worker is in exactly one cohort.
    """
    workers = len(timing.devices)
    if sorted(worker for cohort in cohorts for worker in cohort.members) != list(range(workers)):
        raise ValueError(f"cohorts must hold each of workers 0 to {workers - 1} once")
    if reason := events_needed(timing):
        raise NeedsEvents(reason)
    fabric = Fabric(varied(timing.network, timing.noise), timing.nodes)
    meetings = CohortMeetings([cohort.members[0] for cohort in cohorts], workers, fabric, hooks.stop)
    # The pool starts its threads when they get work. A refusal must leave nothing behind.
    with ThreadPoolExecutor(threads) as pool, told_at_the_end(hooks) as held:
        noise = run_noise(timing.noise, timing.devices, pool if threads > 1 else None)
        drivers = [
            CohortDriver(cohort.program, cohort.members, timing.devices, noise, meetings, held) for cohort in cohorts
        ]
        while ready := [driver for driver in drivers if driver.ready()]:
            for driver in ready:
                driver.go_on()
        if not all(driver.ended for driver in drivers):
            raise deadlock({worker: driver.state() for driver in drivers for worker in driver.members})
    return sorted((outcome for driver in drivers for outcome in driver.outcomes()), key=lambda outcome: outcome.index)
