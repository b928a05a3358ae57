"""THE training loop: every method runs through it. New behaviour goes into an axis, not in here."""

from __future__ import annotations

from ..program.effects import Checkpoint, Program
from .plan import Plan
from .reports import report
from .rounds import Due, State
from .worker import Worker


def train(w: Worker, plan: Plan, state: State) -> Program[State]:
    """Worker w's program: train from `state` to the end of the budget, or until the run is asked to stop.

    Every worker runs this with the same plan and an equal state. Returns the state reached.
    """
    strategy = plan.strategy
    yield from strategy.placement.begin(w)
    if plan.report_start and state.round == 0:
        yield from report(w, plan, state, Due(evaluate=True))
    while not plan.finished(state):
        yield from strategy.sampling.prepare(w, plan, state)
        round = plan.next_round(state)
        loss = yield from strategy.aggregation.round(w, strategy.placement, round)
        state.after(round, loss)
        yield from report(w, plan, state, round.due)
        if (yield from Checkpoint(state, w.snapshot, round.due.save, state.round, state.step, loss)):
            break
    return state
