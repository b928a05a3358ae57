"""The reference interpreter: what it answers is what a program means.

The workers take turns, one effect each. Nothing takes time and nothing is sent: a collective completes as soon as its
last member has yielded it. Misuse is found by the same checks as everywhere (checks.py, loans.py), but the numbers are
made here a second time, in the plainest way: rounding, sums and parts share no code with the other interpreters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from . import checks
from . import effects as fx
from .errors import not_an_effect
from .loans import Loan
from .outcome import Hooks
from .texts import ENDED, describe, doing, terms


def lockstep(programs: Sequence[fx.Program[Any]], hooks: Hooks, debug: bool = False) -> list[Any]:
    """Run the programs to their ends and return their results, in worker order.

    hooks: called with a clock that stands at 0.
    debug: check that borrowed values are not written to.
    Raises what a program raises, ProtocolError where the programs do not fit together, and BorrowError.
    """
    return _Run(programs, hooks, debug).to_the_end()


# --- the answers of collectives ---------------------------------------------------------------------------------------


def answers(effects: Sequence[Any], members: tuple[int, ...]) -> list[Any]:
    """What each member gets. effects: one of each member, in rank order; they agree on their terms."""
    first, n = effects[0], len(members)
    arrived = [as_it_arrives(effect.value, effect.wire) for effect in effects]
    phantom = isinstance(first.value, fx.Phantom)
    if isinstance(first, fx.Broadcast):  # the root's value; the root, too, gets it as it arrives at the others
        return [arrived[members.index(first.root)]] * n
    if isinstance(first, fx.AllGather):  # all values, concatenated in rank order
        return [fx.Phantom(sum(value.nbytes for value in arrived)) if phantom else np.concatenate(arrived)] * n
    weights = [effect.weight for effect in effects]
    if first.op == "mean" and not sum(weights) > 0:
        raise checks.bad_weights(describe(first), members, f"weights {weights} have no positive sum, as a mean needs")
    whole = first.value if phantom else reduced(arrived, weights, first.op)
    if isinstance(first, fx.AllReduce):  # it travels back to the members: where values are rounded, once more
        return [as_it_arrives(whole, first.wire)] * n
    # Part r for member r, where it was summed: it does not travel any more.
    if not phantom:
        return list(np.array_split(whole, n))
    # A phantom is cut as the fp32 vector that it stands for, or by the byte where it can be none.
    element = 4 if whole.nbytes % 4 == 0 else 1
    return [fx.Phantom(element * len(part)) for part in np.array_split(np.empty(whole.nbytes // element), n)]


def as_it_arrives(value: Any, wire: str) -> Any:
    """A value as all members see it, the sender too: rounded to the wire's type and widened again.

    bf16 is the upper half of an fp32 number, rounded to the nearest, in a tie to the even one. NaN stays NaN.
    """
    if wire == "fp32" or isinstance(value, fx.Phantom):
        return value
    if wire == "fp16":
        with np.errstate(over="ignore"):  # beyond 65,504 it is infinite
            return value.astype(np.float16).astype(np.float32)
    bits = value.view(np.uint32).astype(np.uint64)
    upper = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16 << 16
    return np.where(np.isnan(value), value, upper.astype(np.uint32).view(np.float32))


def reduced(values: Sequence[fx.Array], weights: Sequence[float], op: fx.Op) -> fx.Array:
    """The sum or mean, added in rank order, in the values' own type.

    Where all weights are equal, the finished sum is multiplied once, instead of each value.
    """
    number, total = values[0].dtype.type, sum(weights)
    if all(weight == weights[0] for weight in weights):
        terms, last = list(values), 1 / len(values) if op == "mean" else weights[0]
    else:
        factors = [weight / total if op == "mean" else weight for weight in weights]
        terms, last = [value * number(factor) for value, factor in zip(values, factors, strict=True)], 1.0
    result = terms[0]
    for term in terms[1:]:
        result = result + term
    return np.asarray(result * number(last))


# --- the turns --------------------------------------------------------------------------------------------------------


@dataclass(eq=False)
class _Pending:
    """One worker's part in one effect, from its yield (or Start) until the program has the answer."""

    worker: int
    effect: Any
    loan: Loan | None  # what the effect has borrowed; None without debug
    done: bool = False  # whether the answer is there; a Compute's or a Move's is made when it is taken
    taken: bool = False  # whether the program has it
    result: Any = None  # of a collective: this worker's, and its own copy
    stop: bool = False  # whether the run was asked to stop when the collective completed

    def check(self) -> None:
        if self.loan is not None:
            self.loan.check()


class _Worker:
    """Where one program is."""

    def __init__(self, number: int, program: fx.Program[Any]) -> None:
        self.number, self.program = number, program
        self.effect: Any = None  # the last one that it yielded
        self.waiting: _Pending | None = None  # what it waits for
        self.answer: Any = None  # what it is sent next
        self.started: list[_Pending] = []
        self.stop = False  # whether it has heard that the run is to stop
        self.ended, self.result = False, None


class _Run:
    """All programs of one run."""

    def __init__(self, programs: Sequence[fx.Program[Any]], hooks: Hooks, debug: bool) -> None:
        self.workers = [_Worker(number, program) for number, program in enumerate(programs)]
        self.hooks, self.debug = hooks, debug
        # For each group, and each of its members: the collectives that it has come to and others have not, in order.
        self.open: dict[tuple[int, ...], list[list[_Pending]]] = {}

    def to_the_end(self) -> list[Any]:
        """Give turns until all programs have ended; their results."""
        while running := [worker for worker in self.workers if not worker.ended]:
            went_on = [self.turn(worker) for worker in running]
            if not any(went_on):
                raise checks.deadlock({w.number: ENDED if w.ended else doing(w.effect) for w in self.workers})
        return [worker.result for worker in self.workers]

    def turn(self, worker: _Worker) -> bool:
        """Let the program go on to its next effect; False if the answer of the last one is not there yet."""
        if worker.waiting is not None:
            if not worker.waiting.done:
                return False
            worker.answer, worker.waiting = self.take(worker, worker.waiting), None
        try:
            worker.effect = worker.program.send(worker.answer)
        except StopIteration as end:
            if left := [pending.effect for pending in worker.started if not pending.taken]:
                raise checks.never_waited(left, worker.number) from None
            worker.ended, worker.result = True, end.value
            return True
        worker.answer = self.handle(worker, worker.effect)
        return True

    def handle(self, worker: _Worker, effect: fx.Effect[Any]) -> Any:
        """The answer of the effect if the program need not wait for it; else None, and `worker.waiting` is set."""
        match effect:
            case fx.Compute() | fx.Move() | fx.Collective():
                worker.waiting = self.begin(worker, effect)
            case fx.Start():
                worker.started.append(self.begin(worker, checks.startable(effect.effect, worker.number)))
                return fx.Handle(effect.effect, worker.started[-1])
            case fx.Wait():
                pending = effect.handle.inner
                if pending not in worker.started:
                    raise checks.not_started(effect.handle.effect, worker.number)
                if pending.taken:
                    raise checks.waited_twice(pending.effect, worker.number)
                worker.waiting = pending
            case fx.Log():
                self.hooks.log(worker.number, 0.0, effect.fields)
            case fx.Checkpoint():
                if effect.due or worker.stop:
                    self.hooks.checkpoint(worker.number, 0.0, effect.state, effect.snapshot())
                return worker.stop
            case _:
                raise not_an_effect(worker.number, effect)
        return None

    def begin(self, worker: _Worker, effect: fx.Effect[Any]) -> _Pending:
        """Begin an effect that the program waits for, now or later."""
        pending = _Pending(worker.number, effect, Loan(effect, worker.number) if self.debug else None)
        if isinstance(effect, fx.Collective):
            self.join(pending, effect)
        else:
            pending.done = True
        return pending

    def join(self, pending: _Pending, effect: fx.Collective) -> None:
        """Come to a collective: a member's k-th of a group, started or not, meets the k-th of every other member."""
        members = checks.group_members(effect, pending.worker, len(self.workers))
        checks.check_part(effect, pending.worker, members)
        queues = self.open.setdefault(members, [[] for _ in members])
        queues[members.index(pending.worker)].append(pending)
        if all(queues):
            self.complete([queue.pop(0) for queue in queues], members)

    def complete(self, met: list[_Pending], members: tuple[int, ...]) -> None:
        """All members have come: make everyone's answer."""
        if any(terms(pending.effect) != terms(met[0].effect) for pending in met):
            states = {pending.worker: doing(pending.effect) for pending in met}
            raise checks.not_the_same(f"the collective of workers {members}", states)
        for pending in met:
            pending.check()
        # Asked once for all: workers that pass the same collective must agree on whether to stop.
        stop = len(members) == len(self.workers) and self.hooks.stop()
        for pending, result in zip(met, answers([pending.effect for pending in met], members), strict=True):
            # Copied now: the first member that goes on may change the value from which the others' answers come.
            pending.result = fx.Phantom(result.nbytes) if isinstance(result, fx.Phantom) else result.copy()
            pending.done, pending.stop = True, stop

    def take(self, worker: _Worker, pending: _Pending) -> Any:
        """The answer, which from now on is the program's."""
        effect, result = pending.effect, pending.result
        pending.taken = True
        pending.check()
        if isinstance(effect, fx.Compute):
            return effect.perform()
        if isinstance(effect, fx.Move):
            return effect.copied()
        worker.stop = worker.stop or pending.stop
        if effect.out is None:
            return result
        checks.check_out(effect, worker.number, result.nbytes if isinstance(result, fx.Phantom) else result.size)
        if not isinstance(result, fx.Phantom):
            effect.out[:] = result
        return effect.out
