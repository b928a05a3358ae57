"""The MPI interpreter: drives this rank's program, for real, by the clock on the wall.

Rules of this file: the path of a Compute effect is inline and short (it is the one that a program yields most); what
is not training (evaluation, writing reports and checkpoints) does not count into the training's clock; anything that
all ranks must decide alike travels with a collective.
"""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter
from typing import TYPE_CHECKING, Any, Literal

from ..program.checks import not_started
from ..program.effects import COLLECTIVES, Checkpoint, Compute, Handle, Log, Move, Program, Start, Wait, Work
from ..program.errors import not_an_effect
from ..program.loans import Loan
from ..program.outcome import Hooks, Outcome, Span, count_move
from ..records.spool import BUFFERED, Tracer, span_name
from .collectives import Collectives
from .emulation import Emulation
from .polling import Polling, PollingComm
from .started import StartedEffect, StartedEffects, moved

if TYPE_CHECKING:
    from mpi4py import MPI


def run(
    program: Program[Any],
    hooks: Hooks,
    *,
    comm: MPI.Intracomm | None = None,
    reduction: Literal["ordered", "fast"] = "ordered",
    trace: bool = False,
    debug: bool = False,
    slowness: float = 1.0,
    price: Callable[[Work], float] | None = None,
) -> Outcome:
    """Run this rank's program among those of all ranks of `comm` (None: of the world), and report.

    Every rank calls it, with its own program and the same options. reduction: "ordered" has the bits of the
    rank-ordered fold, "fast" is MPI's own all-reduce. trace: keep spans. debug: check that the ranks' programs fit
    together before each collective, and that borrowed values are not written to. slowness k: after a computation,
    sleep k - 1 times as long as it took. price: a computation lasts price(work) seconds, whatever it took.

    The clock starts behind a barrier. Its seconds leave out effects of phase "evaluate" and the hooks; spans are in
    seconds since that start, with nothing left out.

    Raises what the program raises; ProtocolError, BorrowError and WorkerLost as `program.errors` defines them. A
    rank that raises leaves the others waiting: see `launcher.abort_on_error`.
    """
    from mpi4py import MPI

    if reduction not in ("ordered", "fast"):
        raise ValueError(f"reduction {reduction!r} is neither 'ordered' nor 'fast'")
    base = MPI.COMM_WORLD if comm is None else comm
    # Messages of this run meet no others, and those of started collectives none of the program's own.
    own, beside = base.Dup(), base.Dup()

    def make_emulation() -> Emulation | None:
        return Emulation(slowness, price) if price is not None or slowness != 1.0 else None

    def collectives(which: Any) -> Collectives:
        return Collectives(which, hooks.stop, reduction == "fast", debug)

    threads = MPI.Query_thread() >= MPI.THREAD_MULTIPLE
    polling = Polling()
    lane = PollingComm(beside, polling) if threads else beside
    started = StartedEffects(own.rank, own.size, lambda: collectives(lane), make_emulation, threads, polling)
    rank = _Rank(hooks, collectives(own), started, make_emulation(), trace, debug)
    own.Barrier()
    try:
        outcome = rank.drive(program)
    except BaseException:
        started.leave()
        raise
    rank.close()
    beside.Free()
    own.Free()
    return outcome


class _Rank:
    """One rank's run: what `drive` needs beside the effect at hand."""

    def __init__(
        self,
        hooks: Hooks,
        collectives: Collectives,
        started: StartedEffects,
        emulation: Emulation | None,
        trace: bool,
        debug: bool,
    ) -> None:
        self.hooks, self.collectives, self.started, self.emulation = hooks, collectives, started, emulation
        self.debug, self.halt = debug, False
        self.outcome = Outcome(collectives.rank)
        self.origin = perf_counter()
        self.books: dict[str, list[Any]] = {}  # by phase: bytes sent, number of collectives
        self.round = 0.0  # when the round began, by the bare clock
        self.aside = 0.0  # seconds that the clock leaves out, evaluation included
        self.tracer = Tracer(collectives.rank, hooks.spans, self.named) if trace else None

    def drive(self, program: Program[Any]) -> Outcome:
        """Run the program to its end."""
        send, other, collective, clock, emulation = (
            program.send,
            self.other,
            self.collective,
            perf_counter,
            self.emulation,
        )
        tracer, outcome = self.tracer, self.outcome
        device = tracer.lane("compute") if tracer is not None else []
        host = tracer.lane("host") if tracer is not None else []
        answer: Any = None
        computing = 0.0
        self.origin = clock()
        while True:
            try:
                effect: Any = send(answer)
            except StopIteration as end:
                outcome.result = end.value
                break
            kind = type(effect)
            if kind is Compute:
                start = clock()
                answer = effect.run()
                stop = clock()
                work = effect.work
                if emulation is not None:
                    stop = emulation(work, start, stop)
                if work.phase == "evaluate":
                    self.leave_out(stop - start)
                else:
                    computing += stop - start
                if tracer is not None:
                    lane, spans = ("compute", device) if effect.on == "device" else ("host", host)
                    spans.append((work, start, stop))
                    if len(spans) > BUFFERED:
                        tracer.hand_on(lane)
            elif kind in COLLECTIVES:
                answer = collective(effect)
            else:
                answer = other(effect)
        outcome.seconds = self.clock(clock())
        outcome.computing += computing
        outcome.sent = {phase: book[0] for phase, book in self.books.items()}
        outcome.syncs = {phase: book[1] for phase, book in self.books.items()}
        if tracer is not None:
            outcome.lanes = tracer.close()
        return outcome

    def clock(self, now: float) -> float:
        """Seconds of training until `now`; handing spans on is not training."""
        return now - self.origin - self.aside - (self.tracer.spent if self.tracer is not None else 0.0)

    def leave_out(self, seconds: float) -> None:
        """Count seconds as evaluation, not as training."""
        self.outcome.evaluating += seconds
        self.aside += seconds

    def other(self, effect: Any) -> Any:
        """The answer of any effect but a Compute or a collective."""
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
            self.aside += perf_counter() - start
            return None
        if kind is Move:
            start = perf_counter()
            answer = moved(effect)
            self.span(f"to {effect.to}", "move", start, perf_counter())
            count_move(self.outcome.moved, effect)
            return answer
        raise not_an_effect(self.outcome.index, effect)

    def collective(self, effect: Any) -> Any:
        """Take part in a collective, counted by its phase."""
        collectives = self.collectives
        start = perf_counter()
        if self.debug:
            loan = Loan(effect, self.outcome.index)
            answer = loan.settle(collectives.perform(loan.performed))
        else:
            answer = collectives.perform(effect)
        stop = perf_counter()
        if collectives.halt:
            self.halt = True
        self.count(effect.phase, collectives.sent, start, stop)
        if effect.phase == "evaluate":
            self.leave_out(stop - start)
        return answer

    def count(self, phase: str, sent: float, start: float, stop: float) -> None:
        """Book one collective."""
        book = self.books.get(phase)
        if book is None:
            book = self.books[phase] = [0.0, 0]
        book[0] += sent
        book[1] += 1
        if self.tracer is not None:
            self.tracer.span("network", phase, start, stop)

    def wait(self, handle: Handle[Any]) -> Any:
        """Wait for a started effect, and book it: only now, so that all ranks know of a stop at the same place."""
        start = perf_counter()
        job = handle.inner
        if not isinstance(job, StartedEffect):
            raise not_started(handle.effect, self.outcome.index)
        answer = self.started.wait(job)
        effect = job.effect
        if type(effect) in COLLECTIVES:
            self.halt = self.halt or job.halt
            self.collectives.told = self.collectives.told or job.told
            if effect.phase == "evaluate":
                self.leave_out(perf_counter() - start)
            self.count(effect.phase, job.sent, job.start, job.stop)
        elif type(effect) is Compute:
            # As in the simulator, the host's started work is not counted: the device may idle meanwhile.
            if effect.on == "device" and effect.work.phase != "evaluate":
                self.outcome.computing += job.stop - job.start
            self.span("compute" if effect.on == "device" else "host", effect.work, job.start, job.stop)
        else:
            self.span(f"to {effect.to}", "move", job.start, job.stop)
            count_move(self.outcome.moved, effect)
        return answer

    def checkpoint(self, effect: Checkpoint) -> bool:
        """Write a checkpoint if it is due or the run ends here."""
        start = perf_counter()
        if not self.collectives.told and self.collectives.agree():
            self.halt = True  # no reduction since the last checkpoint told whether a stop was asked for
        self.collectives.told = False
        if effect.due or self.halt:
            self.hooks.checkpoint(self.outcome.index, self.clock(start), effect.state, effect.snapshot())
        now = perf_counter()
        self.aside += now - start
        round = getattr(effect.state, "round", None)
        if round is not None:
            self.span("rounds", f"round {round}", self.round or self.origin, start)
            self.round = now
        return self.halt

    def span(self, lane: str, what: str | Work, start: float, stop: float) -> None:
        """Keep a span, if traced."""
        if self.tracer is not None:
            self.tracer.span(lane, what, start, stop)

    def named(self, spans: list[tuple[str | Work, float, float]]) -> list[Span]:
        """In seconds since the start, sorted by it: a started effect's span is known only when it is waited for."""
        origin = self.origin
        return [
            (what if isinstance(what, str) else span_name(what), start - origin, stop - origin)
            for what, start, stop in sorted(spans, key=lambda span: span[1])
        ]

    def close(self) -> None:
        """The program is at its end: so is all that it started."""
        self.started.close()
        self.collectives.end()
        self.collectives.close()
