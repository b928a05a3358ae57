"""Is there room for a run's checkpoints? Asked before it starts, since a run that cannot save is lost."""

from __future__ import annotations

import shutil
from pathlib import Path

from .job import Job
from .program.errors import ScenarioError
from .program.texts import size


def checkpoint_bytes(job: Job) -> int:
    """The least that a checkpoint takes: parameters, and the optimizer's vectors that are kept.

    Parameters are written once, sharded or not.
    """
    sharded = job.plan.strategy.placement.sharded
    parameters = job.problem.cost.parameters * job.problem.phantoms(job.plan).works[0].held.item
    copies = {"none": 0, "shared": 1, "local": 1 if sharded else job.workers}[job.scenario.checkpoint.optimizer]
    return int(parameters * (1 + copies * job.problem.optimizer_state.size))


def check_room(directory: Path, job: Job, there_already: int = 0) -> None:
    """ScenarioError where the checkpoints that a run keeps at least at the same time do not fit on the disk.

    there_already: how many checkpoints a run that is resumed has; they take no more room.
    """
    need = checkpoint_bytes(job)
    # A checkpoint is removed once a newer one is finished, so there is one more than are kept.
    together = max(1, 1 + (job.scenario.checkpoint.keep or 0) - there_already)
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
