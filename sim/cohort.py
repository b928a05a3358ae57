"""The cohort interpreter: runs one program for all workers whose programs are the same; their clocks are NumPy vectors.

It may do so on several clusters at once, where the programs are the same on all of them: the points of a sweep, say.
Their clocks are then the rows of matrices, and a round costs about as much as on one cluster.

Rule: it gives what the SimPy interpreter gives, to the last bit, or it refuses with NeedsEvents. It needs no queue of
events, because in a bulk-synchronous program only the collectives of all workers make one worker's clock depend on
another's. So a cohort may run ahead of the others until it needs a collective's answer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from typing import Any

from ..config.timing import Timing
from ..program.checks import deadlock
from ..program.effects import Program
from ..program.outcome import Hooks, Outcome
from .cohort_driver import CohortDriver
from .cohort_meetings import CohortMeetings, NeedsEvents
from .cohort_noise import run_noises
from .network import Fabric
from .noise import block_size, varied, varies
from .said import told_at_the_end

MOST = 1024  # clusters at once
DRAWN = 2**22  # numbers that are drawn for all of them together


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
    return simulate_together(cohorts, [timing], [hooks], threads)[0]


def simulate_together(
    cohorts: Sequence[Cohort], timings: Sequence[Timing], hooks: Sequence[Hooks], threads: int = 1
) -> list[list[Outcome]]:
    """The same on several clusters at once: the Outcomes of each, equal to the last bit to those of `simulate`.

    timings: with as many devices each, and the programs do the same on all of them.
    hooks: of each cluster. Only the first ones are asked whether to stop.

    Raises what `simulate` raises for one of the clusters, and NotAlike where they must run one by one.
    """
    workers = len(timings[0].devices)
    if sorted(worker for cohort in cohorts for worker in cohort.members) != list(range(workers)):
        raise ValueError(f"cohorts must hold each of workers 0 to {workers - 1} once")
    for timing in timings:
        if reason := events_needed(timing):
            raise NeedsEvents(reason)
    meetings = CohortMeetings([cohort.members[0] for cohort in cohorts], workers, _fabrics(timings), hooks[0].stop)
    # The pool starts its threads when they get work. A refusal must leave nothing behind.
    with ThreadPoolExecutor(threads) as pool, told_at_the_end(hooks) as held:
        noises = run_noises(timings, pool if threads > 1 else None)
        clusters = [timing.devices for timing in timings]
        drivers = [CohortDriver(each.program, each.members, clusters, noises, meetings, held) for each in cohorts]
        while ready := [driver for driver in drivers if driver.ready()]:
            for driver in ready:
                driver.go_on()
        if not all(driver.ended for driver in drivers):
            raise deadlock({worker: driver.state() for driver in drivers for worker in driver.members})
    by_cluster = zip(*(driver.outcomes() for driver in drivers), strict=True)
    return [sorted(chain(*parts), key=lambda outcome: outcome.index) for parts in by_cluster]


def most_clusters(timing: Timing) -> int:
    """How many clusters like this one may be simulated at once, so that their noise takes some 64 MB at most.

    1 where a factor holds for some time, since the draws then depend on the cluster's prices.
    """
    if not varies(timing.noise, timing.devices):
        return MOST
    kinds = Counter(timing.devices)
    if any(device.lasting for device in kinds):
        return 1
    return max(1, min(MOST, DRAWN // sum(map(block_size, kinds.values()))))


def _fabrics(timings: Sequence[Timing]) -> list[Fabric]:
    """The network of each cluster. Equal ones share a Fabric, and with it the prices."""
    networks = [(varied(timing.network, timing.noise), timing.nodes) for timing in timings]
    fabrics = {network: Fabric(*network) for network in dict.fromkeys(networks)}
    return [fabrics[network] for network in networks]
