"""What follows a round: evaluations, and the lines that a run logs.

Rule: all of it is of phase "evaluate", which every clock leaves out; what is due is the plan's decision.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from ..program.effects import AllReduce, Effect, Log, Phantom, Program, Value
from .metrics import values
from .plan import Plan
from .rounds import Due, State
from .worker import Worker

NORMS = ("grad_norm", "param_norm", "m_norm", "v_norm")  # in the order of Worker.squares


def report(w: Worker, plan: Plan, state: State, due: Due) -> Iterable[Effect[Any]]:
    """Evaluate if that is due, and log one line, with or without the evaluation. Worker 0 logs it for all."""
    return _reported(w, plan, state, due) if due.evaluate or due.log else ()


def _reported(w: Worker, plan: Plan, state: State, due: Due) -> Program[None]:
    tested = (yield from evaluate(w, plan, state)) if due.evaluate else {}
    measured = (yield from norms(w, plan)) if plan.norms else {}
    if w.index == 0:
        yield from Log(
            round=state.round,
            step=state.step,
            samples=state.samples,
            epoch=plan.epochs(state),
            train_loss=state.loss / state.weight if state.weight else math.nan,
            **tested,
            lr=plan.rate(plan.progress(state)),
            H=state.H,
            **measured,
            **({"step_losses": list(w.step_losses)} if plan.step_losses else {}),
        )
    if due.scheduled:  # but not after an extra report at the end: a resumed run must not see it
        state.loss, state.weight = 0.0, 0


def evaluate(w: Worker, plan: Plan, state: State) -> Program[dict[str, float]]:
    """The loss and the metrics on the test set, by name; each worker takes a part of it. NaN for phantoms.

    `Worker.buffers` are averaged for it, BatchNorm's statistics as they run or re-estimated; the workers' own stay as
    they are, and each tests its part with its own other buffers.
    """
    buffers = yield from evaluation_buffers(w, plan, state)
    own = yield from plan.strategy.placement.evaluate(w, buffers)
    sums = yield from AllReduce(own, op="sum", phase="evaluate")
    return values(w.metrics, None if isinstance(sums, Phantom) else sums)


def evaluation_buffers(w: Worker, plan: Plan, state: State) -> Program[Value]:
    """The averaged buffers with which the model is evaluated."""
    buffers = w.buffers
    if buffers.nbytes:
        if plan.estimate:
            buffers = yield from w.estimate_buffers(state.round, max(1, plan.estimate // plan.workers))
        buffers = yield from AllReduce(buffers, phase="evaluate")
    return buffers


def norms(w: Worker, plan: Plan) -> Program[dict[str, float]]:
    """The norms of gradient, parameters and the optimizer's vectors: root mean squares over the workers.

    Where each worker has a part of them, of all parts together.
    """
    own = yield from w.squares()
    mean = yield from AllReduce(own, op="sum" if plan.strategy.placement.sharded else "mean", phase="evaluate")
    values = [math.nan] * (mean.nbytes // 8) if isinstance(mean, Phantom) else [math.sqrt(x) for x in mean]
    return dict(zip(NORMS, values, strict=False))
