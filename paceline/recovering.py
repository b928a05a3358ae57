"""How a run goes on after a worker is lost. One set of rules for real runs and simulations."""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal, NamedTuple

from .config.fewer_workers import without
from .config.profile import Profile
from .config.scenario import RecoverySpec, Scenario
from .job import Job, resolve
from .program.errors import ScenarioError

LOOKS = 8  # smaller numbers of workers that are tried before a run


class Decision(NamedTuple):
    """How a run goes on after a loss."""

    # "shrink": the remaining workers go on from the last sync. "restart": the ranks are started again, from the newest
    # whole checkpoint. "none": the run ends.
    how: Literal["shrink", "restart", "none"]
    why: str = ""  # why nothing better is done, in words; empty where nothing better was asked for


def how_to_go_on(
    spec: RecoverySpec,
    lost: Collection[int],
    workers: int,
    restarts: int,
    sharded: bool,
    gone: Collection[int] = (),
) -> Decision:
    """How a run goes on.

    lost: the lost workers, by their numbers before the loss; empty where they are not known.
    workers: how many there were.
    restarts: how often the run was restarted before.
    sharded: whether each worker has only a part of the parameters.
    gone: the lost workers that cannot be started again, since their host is gone.
    """
    no_shrink = _no_shrink(spec, lost, workers, sharded) if spec.shrink else ""
    if spec.shrink and not no_shrink:
        return Decision("shrink")
    no_restart = _no_restart(spec, workers, restarts, sharded, gone)
    if not no_restart:
        return Decision("restart", no_shrink)
    return Decision("none", "; ".join(filter(None, (no_shrink, no_restart))))


def _no_shrink(spec: RecoverySpec, lost: Collection[int], workers: int, sharded: bool) -> str:
    """Why the remaining workers cannot go on by themselves; empty where they can."""
    if sharded:
        return "a part of the sharded parameters is lost"
    if not lost:
        return "it is not known which worker was lost"
    if 0 in lost:
        return "worker 0 keeps the run's records"
    return _too_few(spec, workers, len(lost))


def _no_restart(spec: RecoverySpec, workers: int, restarts: int, sharded: bool, gone: Collection[int]) -> str:
    """Why the ranks are not started again; empty where they are."""
    if restarts >= spec.max_restarts:
        return f"the run has restarted {_times(restarts)} (max_restarts)" if restarts else "max_restarts is 0"
    if gone and sharded:
        return "sharded parameters resume on as many workers as wrote them"
    return _too_few(spec, workers, len(gone))


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def _too_few(spec: RecoverySpec, workers: int, lost: int) -> str:
    least, left = spec.least(workers), workers - lost
    remain = "worker remains" if left == 1 else "workers remain"
    return f"{left} {remain}, and min_workers is {least}" if left < least else ""


def decided(job: Job, spec: RecoverySpec, lost: Collection[int], restarts: int) -> tuple[Decision, Job | None]:
    """How the remaining workers of a job go on after a loss, and with "shrink" their job.

    spec, lost, restarts: see how_to_go_on.
    """
    sharded = job.plan.strategy.placement.sharded
    decision = how_to_go_on(spec, lost, job.workers, restarts, sharded)
    if decision.how != "shrink":
        return decision, None
    try:
        return decision, next_job(job, lost)
    except ScenarioError as error:  # too much memory for each, for example
        without = spec.model_copy(update={"shrink": False})
        how, why = how_to_go_on(without, lost, job.workers, restarts, sharded)
        return Decision(how, "; ".join(filter(None, (str(error), why)))), None


def next_job(job: Job, gone: Collection[int]) -> Job:
    """The job without some of its workers: the split is made again among those that are left, in their order.

    Worker i of the new job was worker `remaining(job.workers, gone)[i]` (config/fewer_workers.py). The data and the
    model's cost are not loaded again. ScenarioError where the scenario makes no sense with fewer workers.
    """
    return resolve(fewer(job.scenario, job.profile, gone), job.problem.folder, like=job)


def check_fewer(job: Job) -> None:
    """ScenarioError where `recovery` allows fewer workers than the scenario makes sense with.

    Tries it without the last worker, without the last two, and so on.
    """
    spec = job.scenario.recovery
    if not (spec.shrink or spec.max_restarts) or job.plan.strategy.placement.sharded:
        return
    for workers in range(job.workers - 1, max(spec.least(job.workers), job.workers - LOOKS) - 1, -1):
        try:
            next_job(job, range(workers, job.workers))
        except ScenarioError as error:
            more = f"write min_workers: {workers + 1}" if workers + 1 < job.workers else "leave min_workers out"
            raise ScenarioError(
                f"recovery.min_workers is {spec.min_workers}, and with {workers} workers {error}; or {more}"
            ) from None


def fewer(scenario: Scenario, profile: Profile | None, gone: Collection[int]) -> Scenario:
    """The scenario without some of its workers. ScenarioError where that makes no sense.

    profile: the scenario's. Its bandwidths between every two workers are written out, since they change with these.
    """
    network, measured = scenario.cluster.network, profile and profile.network
    if network.shape == "matrix" and network.matrix is None and measured and measured.pairs:
        cluster = {"network": network.model_copy(update={"matrix": measured.pairs.matrix()})}
        scenario = scenario.model_copy(update={"cluster": scenario.cluster.model_copy(update=cluster)})
    return without(scenario, gone)
