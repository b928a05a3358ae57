"""The cohort interpreter: one program for all workers whose programs say the same, their clocks as NumPy vectors.

Rule: it gives what the SimPy interpreter gives, to the last bit, or refuses with NeedsEvents. It can because in a
bulk-synchronous program nothing but the collectives of all workers joins their clocks, so a cohort may run ahead of
another until it needs a collective's answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..config.timing import Timing
from ..program.checks import deadlock
from ..program.effects import Program
from ..program.outcome import Hooks, Outcome
from .cohort_driver import CohortDriver
from .cohort_meetings import CohortMeetings, NeedsEvents
from .network import Fabric
from .noise import run_noise


@dataclass(frozen=True, slots=True, eq=False)
class Cohort:
    """Workers whose programs yield the same effects but for their numbers' values, weights and `run`.

    program: that of members[0], who also logs for all. Devices and noise may differ: they are the clocks' affair.
    """

    program: Program[Any]
    members: tuple[int, ...]


def events_needed(timing: Timing) -> str:
    """What of the cluster this engine cannot do, whatever the programs; empty where there is nothing."""
    if timing.faults:
        return "faults, which hit single workers"
    return "others send over the network, too (cluster.background)" if timing.network.background else ""


def simulate(cohorts: Sequence[Cohort], timing: Timing, hooks: Hooks) -> list[Outcome]:
    """Run the cohorts' programs, timing-only, in virtual time; returns the workers' Outcomes in their order.

    timing: the cluster, one device per worker. Report lines and checkpoints reach the hooks when all programs have
    ended. Raises NeedsEvents where a program asks for what this engine cannot do exactly, ProtocolError where programs
    do not fit together. ValueError unless the cohorts' members are all the workers, each once.
    """
    workers = len(timing.devices)
    if sorted(worker for cohort in cohorts for worker in cohort.members) != list(range(workers)):
        raise ValueError(f"cohorts must hold each of workers 0 to {workers - 1} once")
    if reason := events_needed(timing):
        raise NeedsEvents(reason)
    said: list[tuple[Any, ...]] = []  # kept back, as a refusal must leave nothing behind
    held = Hooks(
        lambda *line: said.append((hooks.log, *line)),
        lambda *snapshot: said.append((hooks.checkpoint, *snapshot)),
        hooks.stop,
    )
    fabric, noise = Fabric(timing.network, timing.nodes), run_noise(timing.noise, timing.devices)
    meetings = CohortMeetings([cohort.members[0] for cohort in cohorts], workers, fabric, hooks.stop)
    drivers = [
        CohortDriver(cohort.program, cohort.members, timing.devices, noise, meetings, held) for cohort in cohorts
    ]
    while ready := [driver for driver in drivers if driver.ready()]:
        for driver in ready:
            driver.go_on()
    if not all(driver.ended for driver in drivers):
        raise deadlock({worker: driver.state() for driver in drivers for worker in driver.members})
    for call, *arguments in said:
        call(*arguments)
    return sorted((outcome for driver in drivers for outcome in driver.outcomes()), key=lambda outcome: outcome.index)
