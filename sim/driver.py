"""One worker in the simulation: its program, its clocks, and what each effect does to them.

Rules: a program is resumed from event callbacks, by a timer that is set again and again, so an effect costs about as
much as a bare SimPy timeout. Time passes first, then `run` is called. What a worker does in one lane (its device's
computing, its host's, each direction of its host link) goes one after another; lanes run beside one another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import inf
from typing import Any

import simpy

from ..config.timing import Device
from ..program.checks import check_startable, never_waited, not_started, waited_twice
from ..program.effects import (
    COLLECTIVES,
    Checkpoint,
    Collective,
    Compute,
    Handle,
    Log,
    Move,
    Phantom,
    Program,
    Start,
    Wait,
    Work,
)
from ..program.errors import not_an_effect
from ..program.loans import deliver
from ..program.outcome import Hooks, Outcome, Span, count_move
from ..program.texts import describe, doing
from ..records.spool import BUFFERED
from .faults import Condition
from .meetings import Meetings, Ticket
from .prices import LANES, move_seconds, work_seconds
from .transfers import Timer

BLOCKED: Any = object()  # what a handler returns when the program must wait; an answer may be None
KNOWN = 4096  # Works whose price a worker remembers; programs reuse a few, this bounds those that do not


class Driver:
    """Drives one program. `go_on(None)` begins it; SimPy's events do the rest."""

    def __init__(
        self,
        env: simpy.Environment,
        outcome: Outcome,
        program: Program[Any],
        device: Device,
        noise: Iterator[float] | None,
        condition: Condition | None,
        meetings: Meetings,
        hooks: Hooks,
        trace: bool,
        debug: bool,
    ) -> None:
        self.condition = condition  # None without faults
        self.outcome, self.index = outcome, outcome.index
        self.spans: dict[str, list[Span]] | None = outcome.lanes if trace else None
        self.ended = False
        self._env, self._device, self._meetings, self._hooks, self._debug = env, device, meetings, hooks, debug
        self._send, self._noise = program.send, noise
        self._prices: dict[Work, tuple[float, bool, str]] = {}  # seconds, whether it evaluates, name in traces
        self._busy: dict[str, float] = {}  # until when started effects keep each lane
        self._effect: Any = None  # where the program is
        self._waiting: Ticket | None = None
        self._since = 0.0  # when it began to wait
        self._round = 0.0  # when its round began
        self._started: dict[Ticket, None] = {}  # those that no Wait has taken yet, in order
        self._stop = False  # whether a world collective brought the wish to stop
        self._computed = Timer(env, self._after_compute)

    def state(self) -> str:
        """Where the program is, for errors."""
        if self.lost:
            assert self.condition
            return f"was lost at {self.condition.lost:g} s while it {doing(self._effect)}"
        return "has ended" if self.ended else doing(self._effect)

    @property
    def lost(self) -> bool:
        """Whether the worker went before its program ended."""
        return not self.ended and self.condition is not None and self.condition.lost <= self._env.now

    def go_on(self, answer: Any) -> None:
        """Send the answer, and handle effects until one must wait. Compute is most of them, so it is in line."""
        while True:
            try:
                effect = self._send(answer)
            except StopIteration as end:
                self._end(end.value)
                return
            except Exception as error:
                error.add_note(f"in worker {self.index}'s program, at {self._env.now:g} s of virtual time")
                raise
            self._effect = effect
            if type(effect) is Compute:
                seconds, evaluates, name = self._prices.get(effect.work) or self._price(effect.work)
                if self._noise is not None and seconds:
                    seconds *= next(self._noise)
                if self.condition is not None:
                    seconds = self._slowed(effect, seconds)
                    if seconds == inf:
                        return
                delay = seconds if not self._busy else self._queue(LANES[effect.on], seconds)
                if evaluates:
                    self.outcome.evaluating += delay
                else:
                    self.outcome.computing += seconds
                if self.spans is not None:
                    begin = self._env.now + (delay - seconds)
                    self._span(LANES[effect.on], name, begin, begin + seconds)
                self._computed.set(delay)
                return
            handler = HANDLERS.get(type(effect))
            if handler is None:
                raise not_an_effect(self.index, effect)
            answer = handler(self, effect)
            if answer is BLOCKED:
                return

    def _after_compute(self, event: simpy.Event) -> None:
        self.go_on(self._run(self._effect.run))

    def _run(self, run: Callable[[], Any]) -> Any:
        try:
            return run()
        except Exception as error:
            error.add_note(f"in worker {self.index}'s {describe(self._effect)}, at {self._env.now:g} s of virtual time")
            raise

    def _end(self, result: Any) -> None:
        if self._started:
            raise never_waited((ticket.effect for ticket in self._started), self.index)
        self.ended = True
        self.outcome.result = result
        self.outcome.seconds = self._clock()

    def _clock(self) -> float:
        """Virtual seconds, evaluation excluded: what reports and outcomes are stamped with."""
        return float(self._env.now - self.outcome.evaluating)

    # --- prices -------------------------------------------------------------------------------------------------------

    def _price(self, work: Work) -> tuple[float, bool, str]:
        """(seconds, whether it is evaluation, name in traces) of a kind of work, remembered by its identity."""
        seconds = work_seconds(self._device, work)
        if len(self._prices) >= KNOWN:
            self._prices.clear()
        name = work.phase if work.unit is None else f"{work.phase} {work.unit}"
        known = self._prices[work] = (seconds, work.phase == "evaluate", name)
        return known

    def _queue(self, lane: str, seconds: float) -> float:
        """Seconds until something of `seconds` is over that begins when the lane's started effects are."""
        return max(0.0, self._busy.get(lane, 0.0) - self._env.now) + seconds

    def asleep(self) -> float:
        """Seconds until a pause is over; infinite for a worker that is lost."""
        return 0.0 if self.condition is None else self.condition.moving(self._env.now, 0.0)

    def _slowed(self, effect: Any, seconds: float) -> float:
        """What faults make of the seconds of a Compute or a Move; infinite for a worker that is lost."""
        assert self.condition
        if isinstance(effect, Move):
            return self.condition.moving(max(self._env.now, self._busy.get(f"to {effect.to}", 0.0)), seconds)
        begin = max(self._env.now, self._busy.get(LANES[effect.on], 0.0))
        return self.condition.computing(begin, seconds, effect.work.phase)

    # --- effects that may run beside the program ----------------------------------------------------------------------

    def _direct(self, effect: Any) -> Any:
        return self._block(self._ticket(effect, direct=True))

    def _block(self, ticket: Ticket) -> Any:
        self._waiting, self._since = ticket, self._env.now
        return BLOCKED

    def _start(self, effect: Start[Any]) -> Handle[Any]:
        inner = effect.effect
        check_startable(inner, self.index)
        ticket = self._ticket(inner, direct=False)
        self._started[ticket] = None
        return Handle(inner, ticket)

    def _ticket(self, effect: Any, direct: bool) -> Ticket:
        """Begin a started effect, or one that the program waits in."""
        ticket = Ticket(self, effect, self._env.now, direct, self._debug)
        if isinstance(effect, Collective):
            self._meetings.join(ticket)
            return ticket
        if isinstance(effect, Compute):
            lane = LANES[effect.on]
            seconds, evaluates, name = self._prices.get(effect.work) or self._price(effect.work)
            seconds *= next(self._noise) if self._noise is not None and seconds else 1.0
            seconds = seconds if self.condition is None else self._slowed(effect, seconds)
            # The host's started work is not counted: it would make a device that idles meanwhile look busy.
            self.outcome.computing += seconds if effect.on == "device" and not evaluates else 0.0
        else:
            lane, name, seconds = f"to {effect.to}", "move", move_seconds(self._device, effect)
            count_move(self.outcome.moved, effect)
            seconds = seconds if self.condition is None else self._slowed(effect, seconds)
        if seconds == inf:
            return ticket
        delay = self._queue(lane, seconds)
        end = self._env.now + delay
        if not direct:
            self._busy[lane] = end
        if self.spans is not None:
            self._span(lane, name, end - seconds if delay > seconds else self._env.now, end)
        Timer(self._env, lambda event: self._after(ticket)).set(delay)
        return ticket

    def _after(self, ticket: Ticket) -> None:
        """The time of a started Compute, or of a Move, is over."""
        effect = ticket.effect
        if ticket.loan is not None:
            ticket.loan.check()
        if isinstance(effect, Compute):
            ticket.result = self._run(effect.run)
        elif effect.copy is not None:
            ticket.result = self._run(effect.copy)
        else:
            ticket.result = effect.value if isinstance(effect.value, Phantom) else effect.value.copy()
        ticket.done = True
        self.finished(ticket)

    def _wait(self, effect: Wait[Any]) -> Any:
        ticket = effect.handle.inner
        if not isinstance(ticket, Ticket) or ticket.member is not self:
            raise not_started(effect.handle.effect, self.index)
        if ticket.taken:
            raise waited_twice(ticket.effect, self.index)
        return self._take(ticket) if ticket.done else self._block(ticket)

    def finished(self, ticket: Ticket) -> None:
        """The ticket's answer is there: go on if the program waits for it."""
        if self._waiting is not ticket:
            return
        self._waiting = None
        if phase_of(ticket.effect) == "evaluate":
            self.outcome.evaluating += self._env.now - self._since
        self.go_on(self._take(ticket))

    def _take(self, ticket: Ticket) -> Any:
        """The ticket's answer, which from now on is the program's."""
        ticket.taken = True
        self._started.pop(ticket, None)
        if ticket.loan is not None and not ticket.direct:
            ticket.loan.check()
        self._stop = self._stop or ticket.stop
        if isinstance(ticket.effect, Collective):
            return deliver(ticket.effect, self.index, ticket.result)
        return ticket.result

    # --- observing ----------------------------------------------------------------------------------------------------

    def _log(self, effect: Log) -> None:
        self._hooks.log(self.index, self._clock(), effect.fields)

    def _checkpoint(self, effect: Checkpoint) -> bool:
        if effect.due or self._stop:
            self._hooks.checkpoint(self.index, self._clock(), effect.state, effect.snapshot())
        if self.condition is not None:
            self.condition.passed(effect.state, self._env.now)
        round = getattr(effect.state, "round", None)
        if self.spans is not None and round is not None:
            self._span("rounds", f"round {round}", self._round, self._env.now)
            self._round = self._env.now
        return self._stop

    def _span(self, lane: str, name: str, start: float, stop: float) -> None:
        if self.spans is not None:
            spans = self.spans.setdefault(lane, [])
            spans.append((name, start, stop))
            if len(spans) > BUFFERED:
                self.hand_on(lane, 1)

    def hand_on(self, lane: str, keep: int = 0) -> None:
        """Give the lane's spans, but for the last `keep`, to who takes them."""
        if self._hooks.spans is not None and self.spans is not None:
            spans = self.spans[lane]
            self._hooks.spans(self.index, lane, spans[: len(spans) - keep])
            del spans[: len(spans) - keep]

    def hand_on_all(self) -> None:
        """The run is over: give all spans to who takes them."""
        if self._hooks.spans is not None:
            for lane in list(self.spans or ()):
                self.hand_on(lane)
                del self.outcome.lanes[lane]


# One table for all: thousands of workers would each bring theirs into the processor's cache.
HANDLERS: dict[type, Callable[[Driver, Any], Any]] = {
    Move: Driver._direct,
    Start: Driver._start,
    Wait: Driver._wait,
    Log: Driver._log,
    Checkpoint: Driver._checkpoint,
    **dict.fromkeys(COLLECTIVES, Driver._direct),
}


def phase_of(effect: Any) -> str:
    """What an effect's time is counted as."""
    phase: str = effect.work.phase if type(effect) is Compute else getattr(effect, "phase", "move")
    return phase
