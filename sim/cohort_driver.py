"""One cohort in the simulation: the program that stands for its workers, and their clocks.

A cohort may run on several described clusters at the same time: the scenarios of a sweep that have one plan. Its
program does the same on all of them, and only the times differ.

Rules: a clock is a number where it is the same for all workers of the cohort on all clusters, else an array (see
Clocks). Neither is written to in place, since tickets keep clocks.

Why the clocks equal SimPy's to the last bit: floating-point addition is not associative, so equal sums need equal
terms in the same order. SimPy adds each delay to the time of the event before it, and so does driver.py; here the same
terms are added in the same order, for all workers at once, and NumPy's float64 arithmetic rounds as Python's does.
Adding a delay of 0 changes no bit, so it may be left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..config.timing import Device
from ..program.effects import Checkpoint, Collective, Compute, Log, Phantom, Program, Startable, Work
from ..program.errors import not_an_effect
from ..program.outcome import Hooks, Outcome, count_move, ignored
from ..program.texts import describe
from .base_driver import BLOCKED, KNOWN, LANES, BaseDriver, handlers, move_seconds, over, work_seconds
from .clocks import FREE, Clocks, NotAlike, at, last_of, later, of_columns, running_clocks
from .cohort_meetings import CohortMeetings, CohortTicket, NeedsEvents
from .cohort_noise import Draws, draws_of
from .noise import RunNoise


class CohortDriver(BaseDriver):
    """Drives one cohort's program on each of its clusters.

    members: the cohort's workers; the program is the first one's.
    clusters: each one's device of each worker.
    noises: of each cluster; empty if the clusters have no noise.
    hooks: each cluster's.

    A column of the clocks is a worker where there is noise, else a kind of device, since workers on equal devices then
    have the same clock.
    """

    def __init__(
        self,
        program: Program[Any],
        members: Sequence[int],
        clusters: Sequence[Sequence[Device]],
        noises: Sequence[RunNoise],
        meetings: CohortMeetings,
        hooks: Sequence[Hooks],
    ) -> None:
        # This outcome holds what is counted, the same for each member. The clocks are below.
        super().__init__(Outcome(members[0]), program, hooks[0])
        self.members, self._meetings, self._all_hooks = members, meetings, hooks
        kinds: dict[tuple[Device, ...], int] = {}  # a worker's device on each cluster -> the kind's number
        each = zip(*(map(devices.__getitem__, members) for devices in clusters), strict=True)
        numbers = {w: kinds.setdefault(kind, len(kinds)) for w, kind in zip(members, each, strict=True)}
        self._columns, self._devices = numbers, list[Sequence[Device]](zip(*kinds, strict=True))
        self._noise: list[Draws] = []
        if noises:
            ordered = sorted(members, key=lambda worker: (numbers[worker], worker))
            self._columns = {worker: column for column, worker in enumerate(ordered)}
            self._devices = [[devices[worker] for worker in ordered] for devices in clusters]
            self._noise = draws_of(noises, ordered)
        self._repeated: dict[tuple[Work, Work | None, int], Clocks] = {}  # sums of a Compute's computations
        self._now: Clocks = 0.0
        self._computing: Clocks = 0.0
        self._evaluating: Clocks = 0.0
        self._busy: dict[str, Clocks] = {}  # until when started effects keep each lane
        self._waiting: CohortTicket | None = None

    def outcomes(self) -> list[list[Outcome]]:
        """By cluster, the outcome of each member. They share what is counted, since it is the same."""
        shape = len(self._devices), len(self._devices[0])
        clocks = (self._now - self._evaluating, self._evaluating, self._computing)
        by_cluster = zip(*(np.broadcast_to(clock, shape).tolist() for clock in clocks), strict=True)
        counted, found = self.outcome, list[list[Outcome]]()
        for cluster, (seconds, evaluating, computing) in enumerate(by_cluster):
            sent = {phase: at(nbytes, cluster, 0) for phase, nbytes in counted.sent.items()}
            shared: Any = (sent, counted.syncs, counted.moved, {}, 0.0, counted.result)
            found.append(
                [Outcome(w, seconds[i], evaluating[i], computing[i], *shared) for w, i in self._columns.items()]
            )
        return found

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
        return at(self._now, 0, self._columns[self.index])

    # --- how long things take -----------------------------------------------------------------------------------------

    def _priced(self, work: Work) -> tuple[Clocks, bool]:
        seconds = of_columns(self._devices, lambda _, device: work_seconds(device, work))
        if self._noise and isinstance(seconds, np.ndarray) and not seconds.all():
            if len(seconds) > 1:
                raise NotAlike(f"which works of phase {work.phase} draw noise")
            raise NeedsEvents(
                f"some devices take no time for work of phase {work.phase} and so draw no noise, others do"
            )
        return seconds, work.phase == "evaluate"

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
        if self._noise:
            drawn = [draws.total(first, price, times) for draws in self._noise]
            return drawn[0] if len(drawn) == 1 else np.concatenate(drawn, axis=1)
        if times == 1:
            return first
        known = self._repeated.get((effect.work, effect.first, times))
        if known is None:
            if len(self._repeated) >= KNOWN:
                self._repeated.clear()
            known = self._repeated[effect.work, effect.first, times] = running_clocks(first, price, times)
        return known

    # --- time passes --------------------------------------------------------------------------------------------------

    def _compute(self, effect: Compute[Any]) -> None:
        price, evaluates = self._prices.get(effect.work) or self._price(effect.work)
        # Asked here, since a call costs more, and without noise most are so.
        single = not self._noise and effect.times == 1 and effect.first is None
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
            move = effect
            lane, seconds = f"to {move.to}", of_columns(self._devices, lambda _, device: move_seconds(device, move))
            count_move(self.outcome.moved, effect)
        ticket.end = self._now + self._queue(lane, seconds)
        if not direct:
            self._busy[lane] = ticket.end
        return ticket

    def _run_beside(self, effect: Startable, ticket: CohortTicket) -> None:
        beside = self._meetings.beside
        taken = of_columns(self._devices, lambda cluster, device: beside(cluster, device, effect).taken)
        ticket.longer = of_columns(self._devices, lambda cluster, device: beside(cluster, device, effect).longer)
        if isinstance(ticket.longer, np.ndarray) and not ticket.longer.all():
            raise NotAlike("whether exchanges take longer next to computations")
        if taken is not FREE:
            self._busy["taken"] = self._busy.get("taken", 0.0) + taken

    def _take(self, ticket: CohortTicket) -> Any:
        """Wait until the ticket's end, and return its answer, which now belongs to the program."""
        effect, since = ticket.effect, self._now
        self._now = ticket.end if ticket.direct else later(since, ticket.end)
        if ticket.longer is not FREE:
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

    def _log(self, effect: Log) -> None:
        clock, column = self._now - self._evaluating, self._columns[self.index]
        for cluster, hooks in enumerate(self._all_hooks):
            hooks.log(self.index, at(clock, cluster, column), effect.fields)

    def _checkpoint(self, effect: Checkpoint) -> bool:
        if effect.round is not None and any(hooks.round is not None for hooks in self._all_hooks):
            self._passed(effect)
        if effect.due or self._stop:
            clock, arrays = self._now - self._evaluating, effect.snapshot()
            for cluster, hooks in enumerate(self._all_hooks):
                for worker, column in self._columns.items() if hooks.checkpoint is not ignored else ():
                    hooks.checkpoint(worker, at(clock, cluster, column), effect.state, arrays)
        return self._stop

    def _passed(self, effect: Checkpoint) -> None:
        clock, column = self._now - self._evaluating, self._columns[self.index]
        for cluster, hooks in enumerate(self._all_hooks):
            if hooks.round is not None:
                sent = {phase: at(nbytes, cluster, 0) for phase, nbytes in self.outcome.sent.items()}
                hooks.round(self.index, at(clock, cluster, column), effect.round or 0, effect.loss, sent)


HANDLERS = handlers(CohortDriver)
