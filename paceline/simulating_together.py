"""Scenarios with one plan, simulated together: a cohort run on the clusters of all of them."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .algorithms.phantom import Phantoms
from .job import Job
from .program.outcome import Hooks
from .records.recorder import Recorder
from .simulating import SimulateOptions, check


@dataclass(frozen=True, eq=False)
class Prepared:
    """A scenario that is resolved and may be simulated."""

    job: Job
    workers: Phantoms
    point: Mapping[str, Any]  # of a sweep


def prepared(job: Job, point: Mapping[str, Any]) -> Prepared:
    """The job with its workers as phantoms."""
    return Prepared(job, job.problem.phantoms(job.plan), point)


def kind_of(one: Prepared, options: SimulateOptions) -> Hashable:
    """What scenarios have in common that may be simulated together; None for one that may not.

    Their programs are then the same, so that only their clusters' times differ.
    """
    from .sim.cohort import events_needed
    from .sim.noise import varies

    job, timing = one.job, one.job.timing
    if options.engine == "simpy" or options.needs_simpy(job) or events_needed(timing):
        return None
    cohorts = tuple((members, one.workers[members[0]].kind) for members in job.alike(one.workers))
    return job.plan, cohorts, varies(timing.noise, timing.devices)


def most_together(one: Prepared) -> int:
    """How many scenarios of this kind may be simulated at once."""
    from .sim.cohort import most_clusters

    return most_clusters(one.job.timing)


def simulate_together(several: Sequence[Prepared]) -> list[dict[str, Any]]:
    """The summaries of scenarios of one kind, timing-only and without run directories.

    They are what each has alone, without the memory that it needs. Raises what one of them raises alone, and NotAlike
    where they cannot run together after all.
    """
    from .sim.cohort import simulate_together as simulate

    first, recorders = several[0], [Recorder(None) for _ in several]
    for one in several:
        check(one.job, one.workers, timing_only=True, by_event=False, in_memory=True)
    hooks = [Hooks(recorder.log) for recorder in recorders]
    found = simulate(first.job.cohorts(first.workers), [one.job.timing for one in several], hooks)
    said = {"timing_only": True, "finished": True}
    epochs = first.job.plan.epochs(found[0][0].result)  # of all of them, since their plan is the same
    return [
        recorder.finish("cohort", outcomes, epochs, said | one.job.by_class(outcomes))
        for one, recorder, outcomes in zip(several, recorders, found, strict=True)
    ]
