"""How a run goes on after a worker is lost. One set of rules for real runs and simulations."""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal, NamedTuple

from .config.fewer_workers import without
from .config.scenario import RecoverySpec, Scenario
from .job import Job, resolve


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
        return "worker 0 is lost, which keeps the run's records"
    return _too_few(spec, workers, len(lost))


def _no_restart(spec: RecoverySpec, workers: int, restarts: int, sharded: bool, gone: Collection[int]) -> str:
    """Why the ranks are not started again; empty where they are."""
    if restarts >= spec.max_restarts:
        return f"the run has restarted {restarts} times (max_restarts)" if restarts else "max_restarts is 0"
    if gone and sharded:
        return "sharded parameters resume on as many workers as wrote them"
    return _too_few(spec, workers, len(gone))


def _too_few(spec: RecoverySpec, workers: int, lost: int) -> str:
    least = spec.least(workers)
    return f"{workers - lost} workers remain, and min_workers is {least}" if workers - lost < least else ""


def next_job(job: Job, gone: Collection[int]) -> Job:
    """The job without some of its workers: the split is made again among those that are left, in their order.

    Worker i of the new job was worker `remaining(job.workers, gone)[i]` (config/fewer_workers.py). The data and the
    model's cost are not loaded again. ScenarioError where the scenario makes no sense with fewer workers.
    """
    return resolve(without(_with_matrix(job), gone), job.problem.folder, like=job)


def _with_matrix(job: Job) -> Scenario:
    """The job's scenario, in which a profile's bandwidths between workers are written out: they are by worker."""
    scenario, measured = job.scenario, job.profile and job.profile.network
    network = scenario.cluster.network
    if network.shape != "matrix" or network.matrix is not None or not measured or not measured.pairs:
        return scenario
    cluster = {"network": network.model_copy(update={"matrix": measured.pairs.matrix()})}
    return scenario.model_copy(update={"cluster": scenario.cluster.model_copy(update=cluster)})
