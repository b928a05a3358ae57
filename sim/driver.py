"""One worker in the simulation: its program, its clocks, and what each effect does to them.

Rules: time passes first, then `run` is called. What a worker does in one lane (computing on its device, computing on
its host, each direction of its host link) happens one after another; the lanes work at the same time.

Why no SimPy processes: a process makes a Timeout and resumes a generator for each event. Here the program is the only
generator. An event's callback resumes it, and each driver has one Timer, which it sets again for each Compute, since
a worker has only one of them to wait for. So an effect costs about as much as a bare SimPy timeout.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from math import inf
from typing import Any

import simpy

from ..config.timing import Device
from ..program.effects import Checkpoint, Collective, Compute, Move, Program, Startable, Work
from ..program.errors import FaultStruck, not_an_effect
from ..program.loans import deliver
from ..program.outcome import Hooks, Outcome, Spans, count_move
from ..program.texts import describe, doing
from ..records.spool import BUFFERED, FAULTS, Tracer, span_name
from .base_driver import BLOCKED, LANES, BaseDriver, handlers, move_seconds, over, phase_of, running, work_seconds
from .faults import Gone, WorkerFaults
from .meetings import Meetings, WorkerTicket
from .noise import ColumnDraws
from .parts import Part
from .transfers import Timer


class Driver(BaseDriver):
    """Drives one worker's program. `go_on(None)` begins it; SimPy's events do the rest."""

    def __init__(
        self,
        env: simpy.Environment,
        outcome: Outcome,
        program: Program[Any],
        device: Device,
        noise: ColumnDraws | None,
        faults: WorkerFaults | None,
        meetings: Meetings,
        hooks: Hooks,
        part: Part,
        trace: bool,
        debug: bool,
    ) -> None:
        if faults is not None:
            program = faults.around(program, self._time)
        super().__init__(outcome, program, hooks)
        self.tracer = Tracer(outcome.index, hooks.spans) if trace else None
        self._lanes = {} if self.tracer is None else {on: self.tracer.lane(lane) for on, lane in LANES.items()}
        self._env, self._device, self._meetings, self._debug = env, device, meetings, debug
        self._noise = noise  # the factors of its Computes, None without noise
        self._faults = faults  # None where no fault names it
        # Until when started effects keep each lane; "taken": seconds that they still take from computations.
        self._busy: dict[str, float] = {}
        self._waiting: WorkerTicket | None = None
        self._part = part
        self._since = part.begin  # when it began to wait, or ended
        self._round = part.begin  # when its round began
        self._each: Sequence[float] = ()  # seconds of the computations of the last Compute of several, for traces
        self._computed = Timer(env, self._after_compute)

    def state(self) -> str:
        """Where the program is, for errors."""
        if self.lost:
            assert self._faults
            return f"was lost at {self._faults.lost:g} s while it {doing(self._effect)}"
        return super().state()

    @property
    def lost(self) -> bool:
        """Whether a fault took the worker before its program ended."""
        return self.lost_at <= self._env.now

    @property
    def lost_at(self) -> float:
        """When a fault takes the worker; infinite where none does before its program ends."""
        return inf if self.ended or self._faults is None else self._faults.lost

    @property
    def failure(self) -> FaultStruck | None:
        """The exception by which a fault takes the worker; None where it is lost otherwise, or not at all."""
        return None if self._faults is None or not self.lost else self._faults.failure

    @property
    def stands(self) -> float:
        """Since when the program has not gone on; infinite while it does not wait for others."""
        return self._since if self.ended or self._waiting is not None else inf

    def go_on(self, answer: Any) -> None:
        """Send the answer, and handle effects until one must wait. Most of them are Compute, so it is inline."""
        while True:
            try:
                effect = self._send(answer)
            except StopIteration as end:
                self._end(end.value)
                return
            except Gone as gone:
                self._effect = gone.effect
                return
            except Exception as error:
                self._note(error, "program")
                raise
            self._effect = effect
            if type(effect) is Compute:
                price, evaluates, name = self._prices.get(effect.work) or self._price(effect.work)
                seconds = self._taking(effect, price)
                if seconds == inf:
                    return
                delay = seconds if not self._busy else self._queue(LANES[effect.on], seconds)
                if evaluates:
                    self.outcome.evaluating += delay
                else:
                    self.outcome.computing += seconds
                if self.tracer is not None:
                    spans, begin = self._lanes[effect.on], self._env.now + (delay - seconds)
                    if effect.times == 1:  # as Spans.add does
                        spans.names.append(name)
                        spans.starts.append(begin)
                        spans.stops.append(begin + seconds)
                    else:
                        self._add_spans(spans, name, begin)
                    if len(spans.names) > BUFFERED:
                        self.tracer.hand_on(LANES[effect.on], effect.times)
                self._computed.set(delay)
                return
            handler = HANDLERS.get(type(effect))
            if handler is None:
                raise not_an_effect(self.index, effect)
            answer = handler(self, effect)
            if answer is BLOCKED:
                return

    def _after_compute(self, event: simpy.Event) -> None:
        try:
            answer = self._effect.perform()
        except Exception as error:
            self._note(error, describe(self._effect))
            raise
        self.go_on(answer)

    def _end(self, result: Any) -> None:
        super()._end(result)
        self.outcome.seconds, self._since = self._clock(), self._env.now

    def _time(self) -> float:
        return float(self._env.now)

    def _clock(self) -> float:
        return float(self._env.now - self._part.counted - self.outcome.evaluating)

    # --- how long things take -----------------------------------------------------------------------------------------

    def _priced(self, work: Work) -> tuple[float, bool, str]:
        return work_seconds(self._device, work), work.phase == "evaluate", span_name(work)

    def _taking(self, effect: Compute[Any], price: float) -> float:
        """Seconds of all the computations of an effect; infinite for a lost worker. price: of each but the first.

        Nothing comes between them, so they are added up here, and SimPy has one event for all. The clock is the start
        plus their running sum, in every engine.
        """
        first, times = price, effect.times
        if effect.first is not None:
            first = (self._prices.get(effect.first) or self._price(effect.first))[0]
        noise = self._noise if price or first else None
        if times == 1 and self._faults is None:
            return first if noise is None else noise.one(first)
        if noise is not None:
            each = noise.several(first, price, times)
        elif self._faults is None and self.tracer is None:
            return running(first, price, times)
        else:
            each = [first, *[price] * (times - 1)]
        if self._faults is not None:
            begin = max(self._env.now, self._busy.get(LANES[effect.on], 0.0))
            each = self._faults.computing_each(begin, each, effect.work.phase)
        self._each = each
        total = 0.0
        for seconds in each:
            total += seconds
        return total

    def _add_spans(self, spans: Spans, name: str, begin: float) -> None:
        """Add the spans of the last Compute, of several computations, which begins at `begin`."""
        edges = [begin + passed for passed in accumulate(self._each, initial=0.0)]
        spans.names += [name] * len(self._each)
        spans.starts.extend(edges[:-1])
        spans.stops.extend(edges[1:])

    def _queue(self, lane: str, seconds: float) -> float:
        """Seconds until something is over that takes `seconds`, and begins when the lane's started effects are over."""
        begin = max(0.0, self._busy.get(lane, 0.0) - self._env.now)
        if lane == "compute" and (taken := self._busy.get("taken", 0.0)):
            # An exchange's thread and the computation share a core, so at most half of the time is taken.
            loss = min(taken, seconds)
            self._busy["taken"] = taken - loss
            seconds = seconds + loss
        return begin + seconds

    def asleep(self) -> float:
        """Seconds until the worker's pause is over, 0 without one; infinite for a worker that is lost."""
        return 0.0 if self._faults is None else self._faults.moving(self._env.now, 0.0)

    def _slowed(self, move: Move, seconds: float) -> float:
        """How long a Move takes under faults; infinite for a worker that is lost."""
        assert self._faults
        return self._faults.moving(max(self._env.now, self._busy.get(f"to {move.to}", 0.0)), seconds)

    # --- effects that may run while the program goes on ---------------------------------------------------------------

    def _block(self, ticket: WorkerTicket) -> Any:
        self._since = self._env.now
        if ticket.done and not (ticket.longer and self._goes_on(ticket)):
            return self._take(ticket)
        self._waiting = ticket
        return BLOCKED

    def _goes_on(self, ticket: WorkerTicket) -> bool:
        """Whether a collective that the network is done with is not over yet, since this worker computed meanwhile."""
        computing = max(0.0, self._since - ticket.begin)
        rest: float = over(ticket.begin, computing, ticket.end, ticket.longer) - self._env.now
        ticket.longer = 0.0
        if rest > 0:
            Timer(self._env, lambda event: self.finished(ticket)).set(rest)
        return rest > 0

    def _ticket(self, effect: Startable, direct: bool) -> WorkerTicket:
        """Begin a started effect, or one that the program waits in."""
        ticket = WorkerTicket(self, effect, self._env.now, direct, self._debug)
        if isinstance(effect, Collective):
            self._meetings.join(ticket)
            return ticket
        if isinstance(effect, Compute):
            lane = LANES[effect.on]
            price, evaluates, name = self._prices.get(effect.work) or self._price(effect.work)
            seconds = self._taking(effect, price)
            # Started work of the host is not counted: the device may idle meanwhile, and would look busy.
            self.outcome.computing += seconds if effect.on == "device" and not evaluates else 0.0
        else:
            lane, name, seconds = f"to {effect.to}", "move", move_seconds(self._device, effect)
            count_move(self.outcome.moved, effect)
            seconds = seconds if self._faults is None else self._slowed(effect, seconds)
        if seconds == inf:
            return ticket
        delay = self._queue(lane, seconds)
        end = self._env.now + delay
        if not direct:
            self._busy[lane] = end
        if self.tracer is not None:
            self.tracer.span(lane, name, end - seconds if delay > seconds else self._env.now, end)
        Timer(self._env, lambda event: self._after(ticket)).set(delay)
        return ticket

    def _run_beside(self, effect: Startable, ticket: WorkerTicket) -> None:
        taken, ticket.longer = self._meetings.beside(self._device, effect)
        if taken:
            self._busy["taken"] = self._busy.get("taken", 0.0) + taken

    def _after(self, ticket: WorkerTicket) -> None:
        """The time of a started Compute, or of a Move, is over."""
        effect = ticket.effect
        if ticket.loan is not None:
            ticket.loan.check()
        ticket.result = self._run(effect.perform if isinstance(effect, Compute) else effect.copied)
        ticket.done = True
        self.finished(ticket)

    def finished(self, ticket: WorkerTicket) -> None:
        """The ticket's answer is there: go on if the program waits for it."""
        if (
            self._waiting is not ticket
            or (self._faults is not None and self.lost)
            or (ticket.longer and self._goes_on(ticket))
        ):
            return
        self._waiting = None
        if phase_of(ticket.effect) == "evaluate":
            self.outcome.evaluating += self._env.now - self._since
        self.go_on(self._take(ticket))

    def _take(self, ticket: WorkerTicket) -> Any:
        """The ticket's answer, which now belongs to the program."""
        ticket.taken = True
        if not ticket.direct:
            self._started.pop(ticket, None)
            if not self._started:
                self._busy.pop("taken", None)  # what is over takes no more time from computations
        if ticket.loan is not None and not ticket.direct:
            ticket.loan.check()
        self._stop = self._stop or ticket.stop
        if isinstance(ticket.effect, Collective):
            return deliver(ticket.effect, self.index, ticket.result)
        return ticket.result

    # --- observing ----------------------------------------------------------------------------------------------------

    def _checkpoint(self, effect: Checkpoint) -> bool:
        if asleep := self.asleep():
            if asleep < inf:
                Timer(self._env, lambda event: self._awake(effect)).set(asleep)
            blocked: bool = BLOCKED
            return blocked
        if self._hooks.round is not None and effect.round is not None:
            self._hooks.round(self.index, self._clock(), effect.round, effect.loss, self.outcome.sent)
        save = effect.due or self._stop
        if save:
            self._hooks.checkpoint(self.index, self._clock(), effect.state, effect.snapshot())
        if self._part.keep is not None:
            self._part.keep(self.index, self._env.now, self._clock(), effect, save)
        if self.tracer is not None and effect.round is not None:
            self.tracer.span("rounds", f"round {effect.round}", self._round, self._env.now)
            self._round = self._env.now
        return self._stop

    def _awake(self, effect: Checkpoint) -> None:
        """A pause is over that had begun before the Checkpoint."""
        answer = self._checkpoint(effect)
        if answer is not BLOCKED:
            self.go_on(answer)

    def close(self, end: float) -> None:
        """The run is over at `end`: hand on the rest of the spans, or keep them in the outcome."""
        over = self._since if self.ended else min(end, self._env.now)
        if self._faults is not None:
            self._faults.due(min(over, self.lost_at))
        if self.tracer is not None and self._faults is not None:
            for span in self._faults.spans(over):
                self.tracer.span(FAULTS, *span)
        if self.tracer is not None:
            if end < inf:
                self.tracer.cut(end)
            self.outcome.lanes = self.tracer.close()


HANDLERS = handlers(Driver)
