"""The collectives of all workers, met by cohorts: what sim/rendezvous.py is to single workers.

Rule: the k-th collective of one cohort meets the k-th of every other. It begins when the last worker has come and the
network has carried those before it; as every worker takes part in each, one number says until when that is.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from ..algorithms.effects import AllGather, Broadcast, Phantom, ReduceScatter, Value
from ..algorithms.errors import ProtocolError, ScenarioError
from .answers import carried, check, terms
from .network import Fabric
from .texts import describe, doing, everyone


class NeedsEvents(ScenarioError):
    """The cohort engine cannot simulate this exactly: says why. The SimPy engine can."""

    def __init__(self, reason: str) -> None:
        super().__init__(
            reason if ";" in reason else f"the cohort engine cannot do this: {reason}; write --engine simpy"
        )


class Member(Protocol):
    """What a meeting needs of a cohort: sim.crew.Crew."""

    index: int
    tally: dict[str, list[float]]


class Ticket:
    """A cohort's part in one effect that may run beside its program.

    direct: whether the program waits in it. end: when it is over, a number or one per column; None while that is not
    known.
    """

    __slots__ = ("crew", "direct", "effect", "end", "result", "stop", "taken")

    def __init__(self, crew: Member, effect: Any, direct: bool) -> None:
        self.crew, self.effect, self.direct = crew, effect, direct
        self.end: Any = None
        self.result: Any = None
        self.stop = self.taken = False


class Meeting:
    """One collective: the cohorts' tickets so far, and when the last of their workers came."""

    __slots__ = ("arrived", "terms", "tickets")

    def __init__(self, terms: tuple[Any, ...]) -> None:
        self.terms = terms
        self.tickets: list[Ticket] = []
        self.arrived = 0.0


class World:
    """All collectives of a run, whose group is always all workers."""

    def __init__(self, cohorts: int, workers: int, fabric: Fabric, stop: Callable[[], bool]) -> None:
        self._cohorts, self._members, self._fabric, self._stop = cohorts, range(workers), fabric, stop
        self._port = 0.0  # until when the network carries what has begun
        self._open: deque[Meeting] = deque()
        self._first = 0  # number of the oldest open meeting
        self._came: dict[Member, int] = {}  # meetings that each cohort has entered

    def join(self, ticket: Ticket, arrived: float) -> None:
        """A cohort, whose last worker arrives at this time, comes to its next meeting; the last cohort completes it."""
        effect, crew = ticket.effect, ticket.crew
        self._check(effect, crew.index)
        wanted = terms(effect)
        came = self._came.get(crew, 0)
        self._came[crew] = came + 1
        number = came - self._first
        if number == len(self._open):
            self._open.append(Meeting(wanted))
        meeting = self._open[number]
        meeting.tickets.append(ticket)
        if meeting.terms != wanted:
            where = everyone({t.crew.index: doing(t.effect) for t in meeting.tickets})
            raise ProtocolError(f"collective {came + 1} of all workers must be the same for all its members: {where}")
        meeting.arrived = max(meeting.arrived, arrived)
        if len(meeting.tickets) == self._cohorts:
            self._open.popleft()
            self._first += 1
            self._complete(meeting)

    def _check(self, effect: Any, worker: int) -> None:
        group, n = effect.group, len(self._members)
        if group is not None and set(group) != set(self._members):
            raise NeedsEvents(f"{describe(effect)} is not of all workers")
        if type(effect.value) is not Phantom and effect.value.size:
            raise NeedsEvents(f"{describe(effect)} carries numbers, it simulates timing only")
        if type(effect) is ReduceScatter and effect.value.nbytes % n:
            raise NeedsEvents(f"{describe(effect)} gives {n} workers parts of unequal size")
        check(effect, worker, self._members)

    def _complete(self, meeting: Meeting) -> None:
        first, n = meeting.tickets[0].effect, len(self._members)
        nbytes = carried(first, n)
        root = first.root if type(first) is Broadcast else 0
        seconds, traffic = self._fabric.price(type(first), nbytes, n, root)
        # The same sum as SimPy's clock makes, so that both come to the same bits.
        end = self._port = max(meeting.arrived, self._port) + seconds
        stop = self._stop()
        for ticket in meeting.tickets:
            tally = ticket.crew.tally.setdefault(ticket.effect.phase, [0.0, 0])
            tally[0] += traffic.sent
            tally[1] += 1
            ticket.end, ticket.stop = end, stop
            ticket.result = _result(ticket.effect, nbytes, n)


def _result(effect: Any, nbytes: int, members: int) -> Value:
    value: Value = effect.value
    if not isinstance(value, Phantom):
        return value
    if type(effect) is ReduceScatter:
        return Phantom(nbytes // members)
    return Phantom(nbytes) if type(effect) is AllGather else value
