"""One cohort in the simulation: the program that stands for its workers, and their clocks.

Rules: a clock is a number while all workers of the cohort have the same one, else a vector. Neither is written to in
place, since tickets keep clocks.

Why the clocks equal SimPy's to the last bit: floating-point addition is not associative, so equal sums need equal
terms in the same order. SimPy adds each delay to the time of the event before it, and so does driver.py; here the same
terms are added in the same order, for all workers at once, and NumPy's float64 arithmetic rounds as Python's does.
Adding a delay of 0 changes no bit, so it may be left out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..config.timing import Device
from ..program.effects import Array, Checkpoint, Collective, Compute, Phantom, Program, Startable, Work
from ..program.errors import not_an_effect
from ..program.outcome import Hooks, Outcome, Span, count_move
from ..program.texts import describe
from .base_driver import BLOCKED, KNOWN, LANES, BaseDriver, handlers, move_seconds, over, running, work_seconds
from .cohort_meetings import CohortMeetings, CohortTicket, NeedsEvents
from .noise import RunNoise

Clocks = float | Array  # seconds: the same for all workers, or of shape (columns,)
FREE = 0.0  # the price of what takes no time on any device; compared by identity, there is nothing to add then
FEW = 16  # up to so many columns, Python finds the largest sooner than NumPy


def later(a: Clocks, b: Clocks) -> Clocks:
    """The later of two clocks, for each worker."""
    return np.maximum(a, b) if isinstance(a, np.ndarray) or isinstance(b, np.ndarray) else max(a, b)


def last_of(clock: Clocks) -> float:
    """The latest of the workers' clocks."""
    if not isinstance(clock, np.ndarray):
        return clock
    return max(clock.tolist()) if clock.size <= FEW else float(np.maximum.reduce(clock))


def at(clock: Clocks, column: int) -> float:
    """One worker's clock or price."""
    return float(clock[column]) if isinstance(clock, np.ndarray) else clock


class CohortDriver(BaseDriver):
    """Drives one cohort's program. members: its workers; the program is the first one's.

    A column of the clocks is a worker where there is noise, else a kind of device, since workers on equal devices then
    have the same clock.
    """

    def __init__(
        self,
        program: Program[Any],
        members: Sequence[int],
        devices: Sequence[Device],
        noise: RunNoise | None,
        meetings: CohortMeetings,
        hooks: Hooks,
    ) -> None:
        # This outcome holds what is counted, the same for each member. The clocks are below.
        super().__init__(Outcome(members[0]), program, hooks)
        self.members, self._meetings = members, meetings
        kinds = list(dict.fromkeys(devices[worker] for worker in members))
        if noise is None:
            self._columns = {worker: kinds.index(devices[worker]) for worker in members}
            self._devices, self._noise = kinds, None
        else:
            ordered = sorted(members, key=lambda worker: (kinds.index(devices[worker]), worker))
            self._columns = {worker: column for column, worker in enumerate(ordered)}
            self._devices, self._noise = [devices[worker] for worker in ordered], noise.together(ordered)
        self._repeated: dict[tuple[Work, Work | None, int], Clocks] = {}  # sums of a Compute's computations
        self._now: Clocks = 0.0
        self._computing: Clocks = 0.0
        self._evaluating: Clocks = 0.0
        self._busy: dict[str, Clocks] = {}  # until when started effects keep each lane
        self._waiting: CohortTicket | None = None

    def outcomes(self) -> list[Outcome]:
        """The outcome of each member. They share what is counted, since it is the same."""
        clocks = (self._now - self._evaluating, self._evaluating, self._computing)
        seconds, evaluating, computing = (np.broadcast_to(clock, len(self._devices)).tolist() for clock in clocks)
        sent, syncs, moved, result = self.outcome.sent, self.outcome.syncs, self.outcome.moved, self.outcome.result
        lanes: dict[str, list[Span]] = {}
        return [
            Outcome(w, seconds[i], evaluating[i], computing[i], sent, syncs, moved, lanes, 0.0, result)
            for w, i in self._columns.items()
        ]

    def ready(self) -> bool:
        """Whether the program can go on."""
        return not self.ended and (self._waiting is None or self._waiting.end is not None)

    def go_on(self) -> None:
        """Handle effects until one must wait for another cohort, or the end. Most are Compute, so it is inline."""
        answer = None
        if self._waiting is not None:
            ticket, self._waiting = self._waiting, None
            answer = self._take(ticket)
        while answer is not BLOCKED:
            try:
                effect = self._send(answer)
            except StopIteration as end:
                self._end(end.value)
                return
            except Exception as error:
                self._note(error, "program")
                raise
            self._effect = effect
            if type(effect) is Compute:
                self._compute(effect)
                try:
                    answer = effect.perform()
                except Exception as error:
                    self._note(error, describe(effect))
                    raise
                continue
            handler = HANDLERS.get(type(effect))
            if handler is None:
                raise not_an_effect(self.index, effect)
            answer = handler(self, effect)

    def _time(self) -> float:
        return self._at(self._now, self.index)

    def _clock(self) -> float:
        """A cohort's report is its first worker's."""
        return self._at(self._now - self._evaluating, self.index)

    def _at(self, clock: Clocks, worker: int) -> float:
        return float(clock[self._columns[worker]]) if isinstance(clock, np.ndarray) else clock

    # --- how long things take -----------------------------------------------------------------------------------------

    def _priced(self, work: Work) -> tuple[Clocks, bool]:
        seconds = self._of_each(work_seconds, work)
        if self._noise is not None and isinstance(seconds, np.ndarray) and not seconds.all():
            raise NeedsEvents(
                f"some devices take no time for work of phase {work.phase} and so draw no noise, others do"
            )
        return seconds, work.phase == "evaluate"

    def _of_each(self, price: Callable[[Device, Any], float], what: Any) -> Clocks:
        """A price for each column: one number where it is the same on all devices."""
        known = {device: price(device, what) for device in dict.fromkeys(self._devices)}
        values = list(known.values())
        if all(value == values[0] for value in values):
            return values[0] or FREE
        return np.array([known[device] for device in self._devices])

    def _queue(self, lane: str, seconds: Clocks) -> Clocks:
        """Seconds until something is over that takes `seconds`, and begins when the lane's started effects are over."""
        begin = later(0.0, self._busy[lane] - self._now) if lane in self._busy else 0.0
        if lane == "compute" and "taken" in self._busy:
            taken = self._busy["taken"]
            loss = np.minimum(taken, seconds)
            self._busy["taken"] = taken - loss
            seconds = seconds + loss
        return begin + seconds

    def _taking(self, effect: Compute[Any], price: Clocks) -> Clocks:
        """Seconds of all the computations of an effect, each of which has a price: a running sum, as in driver.py."""
        first, times = price, effect.times
        if effect.first is not None:
            first = (self._prices.get(effect.first) or self._price(effect.first))[0]
        if price is FREE and first is FREE:
            return FREE
        if self._noise is not None:
            drawn = [draws.total(at(first, place), at(price, place), times) for place, draws in self._noise]
            return drawn[0] if len(drawn) == 1 else np.concatenate(drawn)
        if times == 1:
            return first
        known = self._repeated.get((effect.work, effect.first, times))
        if known is None:
            if len(self._repeated) >= KNOWN:
                self._repeated.clear()
            sums = [running(at(first, i), at(price, i), times) for i in range(len(self._devices))]
            known = self._repeated[effect.work, effect.first, times] = sums[0] if len(sums) == 1 else np.array(sums)
        return known

    # --- time passes --------------------------------------------------------------------------------------------------

    def _compute(self, effect: Compute[Any]) -> None:
        price, evaluates = self._prices.get(effect.work) or self._price(effect.work)
        # Asked here, since a call costs more, and without noise most are so.
        single = self._noise is None and effect.times == 1 and effect.first is None
        seconds = price if single else self._taking(effect, price)
        if self._busy:
            delay = self._queue(LANES[effect.on], seconds)
        elif seconds is FREE:
            return
        else:
            delay = seconds
        if evaluates:
            self._evaluating = self._evaluating + delay
        else:
            self._computing = self._computing + seconds
        self._now = self._now + delay

    def _collective(self, effect: Startable) -> Any:
        ticket = CohortTicket(self, effect, direct=True)
        self._meetings.join(ticket, last_of(self._now))
        return self._block(ticket)

    def _block(self, ticket: CohortTicket) -> Any:
        if ticket.end is None:
            self._waiting = ticket
            return BLOCKED
        return self._take(ticket)

    def _ticket(self, effect: Startable, direct: bool) -> CohortTicket:
        """Begin a started effect, or one that the program waits in."""
        ticket = CohortTicket(self, effect, direct)
        if isinstance(effect, Collective):
            self._meetings.join(ticket, last_of(self._now))
            return ticket
        if isinstance(effect, Compute):
            lane = LANES[effect.on]
            price, evaluates = self._prices.get(effect.work) or self._price(effect.work)
            seconds = self._taking(effect, price)
            if effect.on == "device" and not evaluates:
                self._computing = self._computing + seconds
        else:
            lane, seconds = f"to {effect.to}", self._of_each(move_seconds, effect)
            count_move(self.outcome.moved, effect)
        ticket.end = self._now + self._queue(lane, seconds)
        if not direct:
            self._busy[lane] = ticket.end
        return ticket

    def _run_beside(self, effect: Startable, ticket: CohortTicket) -> None:
        known = {device: self._meetings.beside(device, effect) for device in dict.fromkeys(self._devices)}
        taken = self._of_each(lambda device, effect: known[device].taken, effect)
        ticket.longer = self._of_each(lambda device, effect: known[device].longer, effect)
        if taken is not FREE:
            self._busy["taken"] = self._busy.get("taken", 0.0) + taken

    def _take(self, ticket: CohortTicket) -> Any:
        """Wait until the ticket's end, and return its answer, which now belongs to the program."""
        effect, since = ticket.effect, self._now
        self._now = ticket.end if ticket.direct else later(since, ticket.end)
        if ticket.longer:
            ends = over(ticket.begin, later(0.0, since - ticket.begin), ticket.end, ticket.longer)
            self._now = self._now + later(0.0, ends - self._now)
        ticket.taken = True
        if not ticket.direct:
            self._started.pop(ticket, None)
            if not self._started:
                self._busy.pop("taken", None)  # what is over takes no more time from computations
        answer = ticket.answer
        if isinstance(effect, Collective):
            phase, self._stop = effect.phase, self._stop or ticket.stop
        elif isinstance(effect, Compute):
            phase, answer = effect.work.phase, self._run(effect.perform)
        else:
            phase, value = effect.phase, effect.value  # mostly a phantom, which is its own copy
            answer = value if effect.copy is None and type(value) is Phantom else self._run(effect.copied)
        if phase == "evaluate":
            self._evaluating = self._evaluating + (self._now - since)
        return answer

    # --- observing ----------------------------------------------------------------------------------------------------

    def _checkpoint(self, effect: Checkpoint) -> bool:
        if effect.due or self._stop:
            clock, arrays = self._now - self._evaluating, effect.snapshot()
            for worker in self.members:
                self._hooks.checkpoint(worker, self._at(clock, worker), effect.state, arrays)
        return self._stop


HANDLERS = handlers(CohortDriver)
