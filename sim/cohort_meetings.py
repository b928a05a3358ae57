"""The collectives of all workers, met by cohorts: what sim/meetings.py is to single workers.

Rule: the k-th collective of one cohort meets the k-th of every other. It begins when the last worker has come and the
network has carried those before it; as every worker takes part in each, one number says until when that is.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from ..program.checks import check_part, not_the_same
from ..program.effects import AllGather, AllReduce, Broadcast, Phantom, ReduceScatter, Value
from ..program.errors import ScenarioError
from ..program.loans import deliver
from ..program.texts import describe, doing, terms
from ..program.traffic import carried, whole_bytes
from .network import Fabric


class NeedsEvents(ScenarioError):
    """The cohort engine cannot simulate this exactly: says why. The SimPy engine can."""

    def __init__(self, reason: str) -> None:
        super().__init__(
            reason if ";" in reason else f"the cohort engine cannot do this: {reason}; write --engine simpy"
        )


class CohortMember(Protocol):
    """What a meeting needs of a cohort: sim.cohort_driver.CohortDriver."""

    index: int
    tally: dict[str, list[float]]


class CohortTicket:
    """A cohort's part in one effect that may run beside its program.

    direct: whether the program waits in it. end: when it is over, a number or one per column; None while that is not
    known. answer: a collective's.
    """

    __slots__ = ("answer", "direct", "driver", "effect", "end", "stop", "taken")

    def __init__(self, driver: CohortMember, effect: Any, direct: bool) -> None:
        self.driver, self.effect, self.direct = driver, effect, direct
        self.end: Any = None
        self.answer: Any = None
        self.stop = self.taken = False


class CohortMeeting:
    """One collective: the cohorts' tickets so far, and when the last of their workers came."""

    __slots__ = ("arrived", "terms", "tickets")

    def __init__(self, terms: tuple[Any, ...]) -> None:
        self.terms = terms
        self.tickets: list[CohortTicket] = []
        self.arrived = 0.0


class CohortMeetings:
    """All collectives of a run, whose group is always all workers."""

    def __init__(self, cohorts: int, workers: int, fabric: Fabric, stop: Callable[[], bool]) -> None:
        self._cohorts, self._members, self._fabric, self._stop = cohorts, range(workers), fabric, stop
        self._port = 0.0  # until when the network carries what has begun
        self._open: deque[CohortMeeting] = deque()
        self._first = 0  # number of the oldest open meeting
        self._came: dict[CohortMember, int] = {}  # meetings that each cohort has entered
        self._known: dict[tuple[Any, ...], tuple[float, float]] = {}  # terms -> (seconds, bytes that a member sends)

    def join(self, ticket: CohortTicket, arrived: float) -> None:
        """A cohort, whose last worker arrives at this time, comes to its next meeting; the last cohort completes it."""
        effect = ticket.effect
        wanted = terms(effect)
        known = self._known.get(wanted)
        if known is None or effect.group is not None or (type(effect) is AllGather and effect.sizes):
            known = self._check(ticket, wanted)
        if self._cohorts == 1:
            self._complete([ticket], arrived, *known)
            return
        came = self._came[ticket.driver] = self._came.get(ticket.driver, 0) + 1
        if came > self._first + len(self._open):
            self._open.append(CohortMeeting(wanted))
        meeting = self._open[came - self._first - 1]
        meeting.tickets.append(ticket)
        if meeting.terms != wanted:
            raise not_the_same(self._members, {t.driver.index: doing(t.effect) for t in meeting.tickets}, came)
        meeting.arrived = max(meeting.arrived, arrived)
        if len(meeting.tickets) == self._cohorts:
            self._open.popleft()
            self._first += 1
            self._complete(meeting.tickets, meeting.arrived, *known)

    def _check(self, ticket: CohortTicket, wanted: tuple[Any, ...]) -> tuple[float, float]:
        """(seconds, bytes that a member sends) of a collective; it is refused where it cannot be simulated exactly."""
        effect, n = ticket.effect, len(self._members)
        if effect.group is not None and set(effect.group) != set(self._members):
            raise NeedsEvents(f"{describe(effect)} is not of all workers")
        if type(effect.value) is not Phantom and effect.value.size:
            raise NeedsEvents(f"{describe(effect)} carries numbers, it simulates timing only")
        if type(effect) is ReduceScatter and effect.value.nbytes % n:
            raise NeedsEvents(f"{describe(effect)} gives {n} workers parts of unequal size")
        check_part(effect, ticket.driver.index, self._members)
        root = effect.root if type(effect) is Broadcast else 0
        seconds, traffic = self._fabric.price(type(effect), carried(effect, n), n, root)
        known = self._known[wanted] = seconds, traffic.sent
        return known

    def _complete(self, tickets: Sequence[CohortTicket], arrived: float, seconds: float, sent: float) -> None:
        # The same sum as SimPy's clock makes, so that both come to the same bits.
        end = self._port = max(arrived, self._port) + seconds
        stop = self._stop()
        for ticket in tickets:
            effect, tally = ticket.effect, ticket.driver.tally
            if effect.phase not in tally:
                tally[effect.phase] = [0.0, 0]
            counts = tally[effect.phase]
            counts[0] += sent
            counts[1] += 1
            ticket.end, ticket.stop = end, stop
            if effect.out is effect.value and type(effect) is AllReduce:  # most are so
                ticket.answer = effect.out
            else:
                ticket.answer = deliver(effect, ticket.driver.index, self._result(effect))

    def _result(self, effect: Any) -> Value:
        value: Value = effect.value
        if type(effect) is AllReduce or type(effect) is Broadcast or not isinstance(value, Phantom):
            return value
        n = len(self._members)
        return Phantom(value.nbytes // n if type(effect) is ReduceScatter else whole_bytes(effect, n))
