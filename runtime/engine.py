"""The MPI interpreter: drives this rank's program for real, in wall-clock time.

Rules of this file: the path of a Compute effect is inline and short, since programs yield it most. What is not
training (evaluation, writing reports and checkpoints) is left out of the training's clock. What all ranks must decide
alike travels with a collective.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from ..program.checks import not_started
from ..program.effects import (
    COLLECTIVES,
    Checkpoint,
    Collective,
    Compute,
    Handle,
    Log,
    Move,
    Program,
    Start,
    Wait,
    Work,
)
from ..program.errors import WorkerLost, are_lost, not_an_effect
from ..program.loans import Loan
from ..program.outcome import Hooks, Outcome, Spans, count_move
from ..records.spool import BUFFERED, FAULTS, Tracer, span_name
from . import ulfm
from .collectives import Collectives
from .emulation import Emulation
from .faults import FaultyEmulation, RankFaults
from .polling import Polling, PollingComm
from .started import StartedEffect, StartedEffects
from .watch import Watch

if TYPE_CHECKING:
    from mpi4py import MPI

T = TypeVar("T")


def run(program: Program[Any], hooks: Hooks, **options: Any) -> Outcome:
    """Run this rank's program. Every rank calls it, with its own program and the same options, which are RankRun's.

    Raises what the program raises; ProtocolError, BorrowError and WorkerLost as program/errors.py defines them. A rank
    that raises leaves the others waiting: see `launcher.abort_on_error`.
    """
    rank = RankRun(hooks, **options)
    return rank.finish(rank.drive(program))


class RankRun:
    """One rank's run: of a whole program, or of its pieces, one after the other, between which the caller computes.

    comm, slowness, price, watch, faults: see `join`.
    reduction: "ordered" gives the bits of the rank-ordered fold; "fast" is MPI's own all-reduce.
    trace: keep spans.
    debug: before each collective check that the ranks' programs fit together, and check that borrowed values are not
        written to.
    lane: whose the spans are, by its number in the trace; None: this rank's.
    elapsed: seconds that the clock of the other ranks shows when this one joins them.

    The clock starts after a barrier. The Outcome's seconds leave out effects of phase "evaluate" and the hooks; spans
    are in seconds since the start, with nothing left out. What has passed between two pieces belongs to the first
    effect of the second one. After a lost worker, the others `join` again and run another program: then the clock and
    all that is counted go on, and what has passed in between is training time.
    """

    def __init__(
        self,
        hooks: Hooks,
        *,
        comm: MPI.Intracomm | None = None,
        reduction: Literal["ordered", "fast"] = "ordered",
        trace: bool = False,
        debug: bool = False,
        slowness: float = 1.0,
        price: Callable[[Work], float] | None = None,
        watch: Watch | None = None,
        faults: RankFaults | None = None,
        lane: int | None = None,
        elapsed: float = 0.0,
    ) -> None:
        if reduction not in ("ordered", "fast"):
            raise ValueError(f"reduction {reduction!r} is neither 'ordered' nor 'fast'")
        self.hooks, self.fast, self.debug = hooks, reduction == "fast", debug
        self.halt = False  # whether this worker knows that the run is to stop
        self.outcome = Outcome(0)
        self.left_out = 0.0  # seconds that are not training: evaluation, hooks
        self.waiting: Collective | str | None = None  # see watch.Watched
        self.slowest = 0.0  # seconds; see watch.Watched
        self.computing = 0.0  # likewise
        self.tracer: Tracer | None = None
        self.faults: RankFaults | None = None
        self.watch: Watch | None = None
        self.origin = 0.0  # when the run began, by the bare clock
        self.elapsed = elapsed
        self.join(comm, slowness, price, watch, faults)
        if trace:
            self.tracer = Tracer(self.own.rank if lane is None else lane, hooks.spans, self.named)

    def join(
        self,
        comm: MPI.Intracomm | None,
        slowness: float = 1.0,
        price: Callable[[Work], float] | None = None,
        watch: Watch | None = None,
        faults: RankFaults | None = None,
    ) -> None:
        """Run among the ranks of `comm` from now on, all of which call this.

        comm: None for all ranks of the job.
        slowness: k makes a computation last k times as long, by a sleep after it.
        price: makes a computation last price(work) seconds, whatever it took.
        watch: notices stalls.
        faults: those of the scenario that hit this rank; None where none does.
        """
        from mpi4py import MPI

        self.base = MPI.COMM_WORLD if comm is None else comm
        # Two communicators of this run's own: started collectives and the program's other ones are matched apart.
        with ulfm.noticing(self.base):
            self.own = self.base.Dup()
        with ulfm.noticing(self.base, self.own):
            self.lanes = self.base.Dup()

        def make_emulation() -> Emulation | None:
            if faults is not None:
                return FaultyEmulation(slowness, price, faults)
            return Emulation(slowness, price) if price is not None or slowness != 1.0 else None

        def collectives(which: Any) -> Collectives:
            return Collectives(which, self.hooks.stop, self.fast, self.debug)

        threads = MPI.Query_thread() >= MPI.THREAD_MULTIPLE
        polling = Polling()
        lane = PollingComm(self.lanes, polling) if threads else self.lanes
        self.started = StartedEffects(
            self.own.rank, self.own.size, lambda: collectives(lane), make_emulation, threads, polling
        )
        self.collectives, self.emulation = collectives(self.own), make_emulation()
        self.outcome.index = self.own.rank
        with self.leaving():
            self.own.Barrier()
        self.waiting = None
        # When the effect before was answered, by the bare clock: what has passed since then belongs to the next.
        self.since = perf_counter()
        self.round = self.since  # when the round began
        if not self.origin:  # the first time
            self.origin = self.outcome.began = self.since - self.elapsed
        if self.watch is not None:  # that of the ranks before a loss
            self.watch.close()
        self.watch, self.faults = watch, faults
        if watch is not None:
            watch.begin(self)
        if faults is not None:
            faults.told = partial(self.hooks.struck, self.own.rank)
            faults.begin(self.origin, self.since)

    def drive(self, program: Program[T]) -> T:
        """Run a program, or the next piece of one, to its end; what it returns.

        After a WorkerLost no rank waits for another one in this run, and its threads have ended.
        """
        faults = self.faults
        try:
            return self._drive(program if faults is None else faults.around(program, faults.now))
        except BaseException:
            with self.leaving():  # only here, since it takes a microsecond, and pieces may be short
                raise

    @contextmanager
    def leaving(self) -> Iterator[None]:
        """Around what waits for other ranks: an error in it ends the threads. See `drive` for a lost worker."""
        try:
            yield
        except BaseException as error:
            self.started.leave()
            self._end_faults()
            if ulfm.survives() and (isinstance(error, WorkerLost) or ulfm.tells_of_loss(error)):
                raise self.give_up(str(error)) from error
            raise

    def give_up(self, what: str) -> WorkerLost:
        """Let every rank come out of what it waits for in this run, and end the threads of this one."""
        self.waiting = "a loss of workers"
        ulfm.revoke((self.base, self.own, self.lanes))
        self.collectives.revoke()
        self.started.give_up()
        lost = ulfm.known_lost(self.base)
        return WorkerLost(f"{are_lost(lost)}: {what}", lost)

    def _drive(self, program: Program[T]) -> T:
        send, other, collective = program.send, self.other, self.collective
        clock, emulation = perf_counter, self.emulation
        tracer = self.tracer
        device = tracer.lane("compute") if tracer is not None else Spans()
        host = tracer.lane("host") if tracer is not None else Spans()
        answer: Any = None
        computing, since = 0.0, self.since
        try:
            while True:
                try:
                    effect: Any = send(answer)
                except StopIteration as end:
                    self.since = since
                    result: T = end.value
                    return result
                kind = type(effect)
                if kind is Compute:
                    work = effect.first or effect.work
                    for _ in range(effect.times):
                        if emulation is not None:
                            emulation.begin()
                        answer = effect.run()
                        stop = clock()
                        if emulation is not None:
                            stop = emulation(work, since, stop)
                        if work.phase == "evaluate":
                            self.evaluated(stop - since)
                        else:
                            computing += stop - since
                        if tracer is not None:
                            spans = device if effect.on == "device" else host
                            spans.add(work, since, stop)
                            if len(spans.names) > BUFFERED:
                                tracer.hand_on("host" if spans is host else "compute")
                                stop = clock()
                        since, work = stop, effect.work
                else:
                    self.since, self.computing = since, computing
                    answer = collective(effect) if kind in COLLECTIVES else other(effect)
                    since = self.since
        finally:  # also where a worker is lost: the run may go on without it
            self.outcome.computing, self.computing = self.outcome.computing + computing, 0.0

    def finish(self, result: Any) -> Outcome:
        """End the run, whose program has returned `result`: what it started ends, and what MPI holds is freed."""
        with self.leaving():
            return self._finish(result)

    def _finish(self, result: Any) -> Outcome:
        outcome = self.outcome
        outcome.seconds, outcome.result = self.clock(perf_counter()), result
        self._end_faults()
        if self.tracer is not None:
            outcome.lanes = self.tracer.close()
        self.started.close()
        self.collectives.end()
        self.collectives.close()
        if self.watch is not None:
            self.watch.close()
            self.watch = None
        self.lanes.Free()
        self.own.Free()
        return outcome

    def _end_faults(self) -> None:
        faults, self.faults = self.faults, None
        if faults is not None:
            faults.end()
            for name, start, stop in faults.spans(faults.now()) if self.tracer is not None else ():
                self.span(FAULTS, name, start + faults.zero, stop + faults.zero)

    def clock(self, now: float) -> float:
        """Seconds of training until `now`; handing spans on is not training."""
        return now - self.origin - self.left_out - (self.tracer.spent if self.tracer is not None else 0.0)

    def evaluated(self, seconds: float) -> None:
        """Count seconds as evaluation, not as training."""
        self.outcome.evaluating += seconds
        self.left_out += seconds

    def other(self, effect: Any) -> Any:
        """The answer of an effect that is neither a Compute nor a collective."""
        kind = type(effect)
        if kind is Start:
            return Handle(effect.effect, self.started.begin(effect.effect, self.debug))
        if kind is Wait:
            return self.wait(effect.handle)
        if kind is Checkpoint:
            return self.checkpoint(effect)
        if kind is Log:
            start = perf_counter()
            self.hooks.log(self.outcome.index, self.clock(start), effect.fields)
            self.leave_out(start)
            return None
        if kind is Move:
            answer = effect.copied()
            start, self.since = self.since, perf_counter()
            self.span(f"to {effect.to}", "move", start, self.since)
            count_move(self.outcome.moved, effect)
            return answer
        raise not_an_effect(self.outcome.index, effect)

    def collective(self, effect: Collective) -> Any:
        """Take part in a collective, counted by its phase."""
        collectives = self.collectives
        self.waiting = effect
        if self.debug:
            loan = Loan(effect, self.outcome.index)
            answer = loan.settle(collectives.perform(loan.performed))
        else:
            answer = collectives.perform(effect)
        self.waiting = None
        start, self.since = self.since, perf_counter()
        if collectives.halt:
            self.halt = True
        self.count(effect.phase, collectives.sent, start, self.since)
        if effect.phase == "evaluate":
            self.evaluated(self.since - start)
        return answer

    def count(self, phase: str, sent: float, start: float, stop: float) -> None:
        """Count one collective."""
        outcome = self.outcome
        outcome.sent[phase] = outcome.sent.get(phase, 0.0) + sent
        outcome.syncs[phase] = outcome.syncs.get(phase, 0) + 1
        if stop - start > self.slowest:
            self.slowest = stop - start
        if self.tracer is not None:
            self.tracer.span("network", phase, start, stop)

    def wait(self, handle: Handle[Any]) -> Any:
        """Wait for a started effect, and count it only now: so all ranks learn of a stop at the same place."""
        started = handle.inner
        if not isinstance(started, StartedEffect):
            raise not_started(handle.effect, self.outcome.index)
        effect = started.effect
        if isinstance(effect, Collective):
            self.waiting = effect
        answer = self.started.wait(started)
        self.waiting = None
        start, self.since = self.since, perf_counter()
        if isinstance(effect, Collective):
            self.halt = self.halt or started.halt
            self.collectives.told = self.collectives.told or started.told
            if effect.phase == "evaluate":
                self.evaluated(self.since - start)
            self.count(effect.phase, started.sent, started.start, started.stop)
        elif isinstance(effect, Compute):
            # As in the simulator, the host's started work is not counted: the device may idle meanwhile.
            if effect.on == "device" and effect.work.phase != "evaluate":
                self.outcome.computing += started.stop - started.start
            self.span("compute" if effect.on == "device" else "host", effect.work, started.start, started.stop)
        else:
            self.span(f"to {effect.to}", "move", started.start, started.stop)
            count_move(self.outcome.moved, effect)
        return answer

    def checkpoint(self, effect: Checkpoint) -> bool:
        """Write a checkpoint if it is due or the run ends here; whether it does."""
        self.since = start = perf_counter()
        self.waiting = "a checkpoint"
        if not self.collectives.told and self.collectives.agree():
            self.halt = True  # no reduction since the last checkpoint said whether a stop was asked for
        self.collectives.told = False
        if self.hooks.sync is not None:  # before the checkpoint, so that a loss in it costs no round
            self.hooks.sync(self.outcome.index, self.clock(start), effect)
        if self.hooks.round is not None and effect.round is not None:
            self.hooks.round(self.outcome.index, self.clock(start), effect.round, effect.loss, self.outcome.sent)
        if effect.due or self.halt:
            self.hooks.checkpoint(self.outcome.index, self.clock(start), effect.state, effect.snapshot())
        self.waiting = None
        self.leave_out(start)
        if effect.round is not None:
            self.span("rounds", f"round {effect.round}", self.round, start)
            self.round = self.since
        return self.halt

    def leave_out(self, start: float) -> None:
        """What has passed since `start` is not training."""
        self.since = perf_counter()
        self.left_out += self.since - start

    def span(self, lane: str, what: str | Work, start: float, stop: float) -> None:
        """Keep a span, if traced."""
        if self.tracer is not None:
            self.tracer.span(lane, what, start, stop)

    def named(self, spans: Spans) -> Spans:
        """In seconds since the start, sorted by it: a started effect's span is known only when it is waited for."""
        origin, found = self.origin, Spans()
        kept: list[tuple[Any, float, float]] = sorted(spans, key=lambda span: span[1])
        for what, start, stop in kept:
            found.add(what if isinstance(what, str) else span_name(what), start - origin, stop - origin)
        return found
