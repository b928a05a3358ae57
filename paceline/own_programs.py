"""The small programs that a training loop of the user's own runs in addition to the method's."""

from __future__ import annotations

from typing import Any

import numpy as np

from .algorithms.plan import Plan
from .algorithms.reports import report
from .algorithms.rounds import State, due
from .program.effects import AllGather, Program
from .program.errors import ScenarioError


def agreed(rank: int, step: float, lr: float) -> Program[None]:
    """ScenarioError unless all ranks end a round, or the run, after this step and with this learning rate.

    Without it, ranks whose loops part would wait for one another, or average what does not belong together.
    """
    found = (yield from AllGather(np.array([step, lr]), phase="agree")).reshape(-1, 2)
    for other, (their_step, their_lr) in enumerate(found):
        if their_step != step:
            raise ScenarioError(
                f"LocalSync: rank {rank} ends a round or the run after step {step:.0f}, and rank {other} after step "
                f"{their_step:.0f}; all loops must be equally long: give steps=... and leave them where sync.finished"
            )
        if their_lr != lr:
            raise ScenarioError(
                f"LocalSync: the learning rate is {lr:g} on rank {rank} and {their_lr:g} on rank {other}; set the same "
                "on all, or give lr_schedule=..., with which LocalSync sets it"
            )


def last_report(worker: Any, plan: Plan, state: State) -> Program[None]:
    """The report at the end of a run that has ended between two rounds."""
    yield from report(worker, plan, state, due(evaluate=True))
