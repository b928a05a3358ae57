"""THE training loop: every method runs through it. New behaviour goes into an axis, not in here."""

from __future__ import annotations

from .effects import AllReduce, Array, Checkpoint, Log, Phantom, Program
from .plan import Plan, State
from .worker import Worker


def train(w: Worker, plan: Plan, state: State) -> Program[State]:
    """Worker w's program: train from `state` to the budget's end, or until the run is asked to stop.

    Every worker runs this with the same plan and an equal state. Returns the state reached.
    """
    strategy = plan.strategy
    yield from strategy.placement.begin(w)
    if plan.report_start and state.round == 0:
        yield from report(w, plan, state)
    while not plan.finished(state):
        reports, checkpoints = plan.passed(plan.report, state), plan.passed(plan.checkpoint, state)
        yield from strategy.sampling.prepare(w, plan, state)
        round = plan.next_round(state)
        loss = yield from strategy.aggregation.round(w, strategy.placement, round)
        state.after(round, loss)
        finished = plan.finished(state)
        scheduled = plan.passed(plan.report, state) > reports
        if finished or scheduled:
            yield from report(w, plan, state)
        if scheduled:  # a last report between two scheduled ones leaves no trace, should the run be resumed
            state.loss, state.weight = 0.0, 0
        due = finished or plan.passed(plan.checkpoint, state) > checkpoints
        if (yield from Checkpoint(state, w.snapshot, due)):
            break
    return state


def report(w: Worker, plan: Plan, state: State) -> Program[None]:
    """Evaluate, and log one line: worker 0 speaks for all."""
    sums = yield from evaluate(w, plan, state)
    if w.index == 0:
        known = sums is not None and sums[2] > 0
        yield from Log(
            round=state.round,
            step=state.step,
            samples=state.samples,
            epoch=plan.epochs(state),
            train_loss=state.loss / state.weight if state.weight else float("nan"),
            test_loss=float(sums[0] / sums[2]) if known and sums is not None else float("nan"),
            accuracy=float(sums[1] / sums[2]) if known and sums is not None else float("nan"),
            lr=plan.rate(plan.progress(state)),
            H=state.H,
        )


def evaluate(w: Worker, plan: Plan, state: State) -> Program[Array | None]:
    """[loss, correct, count] summed over the test set, of which every worker takes a part; None for phantoms.

    BatchNorm's statistics are averaged for it, running or re-estimated ones; the workers' own stay as they are.
    """
    buffers = w.buffers
    if buffers.nbytes:
        if plan.estimate:
            buffers = yield from w.estimate_buffers(state.round, max(1, plan.estimate // plan.workers))
        buffers = yield from AllReduce(buffers, phase="evaluate")
    own = yield from w.evaluate(buffers)
    sums = yield from AllReduce(own, op="sum", phase="evaluate")
    return None if isinstance(sums, Phantom) else sums
