"""Is there room for a run's checkpoints? Asked before it starts, since a run that cannot save is lost."""

from __future__ import annotations

import shutil
from pathlib import Path

from .algorithms.costs import Works
from .job import Job
from .program.errors import ScenarioError
from .program.texts import size


def checkpoint_bytes(job: Job, works: Works) -> int:
    """The least that a checkpoint takes: parameters, and the optimizer's vectors that are kept.

    Parameters are written once, sharded or not. works: of any worker.
    """
    sharded = job.plan.strategy.placement.sharded
    parameters = job.problem.cost.parameters * works.held.item
    copies = {"none": 0, "shared": 1, "local": 1 if sharded else job.workers}[job.scenario.checkpoint.optimizer]
    return int(parameters * (1 + copies * job.problem.optimizer_state.size))


def check_room(directory: Path, job: Job) -> None:
    """ScenarioError where the checkpoints that a run keeps at least at the same time do not fit on the disk."""
    need = checkpoint_bytes(job, job.problem.phantoms(job.plan).works[0])
    together = 1 + (job.scenario.checkpoint.keep or 0)  # a checkpoint is removed once a newer one is finished
    there = next(parent for parent in (directory, *directory.absolute().parents) if parent.exists())
    free = shutil.disk_usage(there).free
    if need > free:
        raise ScenarioError(
            f"{directory}: a checkpoint takes {size(need)}, and {size(free)} are free there; name another folder with "
            "--out, or keep less with checkpoint.optimizer"
        )
    if together * need > free:
        raise ScenarioError(
            f"{directory}: {together} checkpoints take {size(together * need)} (checkpoint.keep, and a new one), and "
            f"{size(free)} are free there; write a smaller checkpoint.keep, or name another folder with --out"
        )
