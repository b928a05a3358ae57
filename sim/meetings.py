"""Where a collective's members meet: matching, the moment it starts, and who is answered when.

Rule: the k-th collective of a group that one member enters, direct or started, meets the k-th of every other member.
It starts when the last has come and those of the group that started before it are over, as one thread of the runtime
serves a group; how long it takes then is sim/transfers.py's to say.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from math import inf
from typing import Any, Protocol

import simpy

from ..program.checks import check_part, group_members, not_a_member, not_the_same
from ..program.effects import Broadcast, Group
from ..program.loans import Loan
from ..program.outcome import Outcome, Span
from ..program.texts import doing, terms
from ..program.traffic import Traffic, carried
from ..records.spool import BUFFERED
from .answers import results
from .network import Fabric, Prices
from .transfers import Timer, Transfers


class Member(Protocol):
    """What a meeting needs of a worker: sim.driver.Driver."""

    index: int
    outcome: Outcome
    spans: dict[str, list[Span]] | None

    def hand_on(self, lane: str, keep: int = 0) -> None:
        """Give the lane's spans, but for the last `keep`, to who takes them."""

    def asleep(self) -> float:
        """Seconds until it is there again, where a fault holds it; infinite where it is lost."""

    def finished(self, ticket: Ticket) -> None:
        """The ticket's answer is there."""


class Ticket:
    """A worker's part in one effect that may run beside its program: from the yield until the answer is taken."""

    __slots__ = ("direct", "done", "effect", "loan", "member", "result", "since", "stop", "taken")

    def __init__(self, member: Member, effect: Any, since: float, direct: bool, debug: bool) -> None:
        self.member, self.effect, self.since, self.direct = member, effect, since, direct
        self.loan = Loan(effect, member.index) if debug else None
        self.done = self.taken = self.stop = False
        self.result: Any = None


class Meeting:
    """One collective: the tickets that have come so far, by place in the group."""

    __slots__ = ("missing", "terms", "tickets")

    def __init__(self, members: int, terms: tuple[Any, ...]) -> None:
        self.tickets: list[Ticket | None] = [None] * members
        self.missing = members
        self.terms = terms


class Circle:
    """The members of one group and their open meetings, oldest first. queue: those under way or about to start.

    lane: of its spans in traces; a group's own, since several groups' collectives may be under way at a time.
    """

    __slots__ = ("came", "first", "lane", "members", "open", "places", "prices", "queue")

    def __init__(self, members: tuple[int, ...], prices: Prices) -> None:
        self.members, self.prices, self.lane = members, prices, f"network {members}"
        self.queue: deque[list[Ticket]] = deque()
        self.places = {worker: place for place, worker in enumerate(members)}
        self.came = [0] * len(members)  # meetings that each member has entered
        self.first = 0  # number of the oldest open meeting
        self.open: deque[Meeting] = deque()

    def enter(self, ticket: Ticket) -> Meeting:
        """Put the ticket into its meeting: the member's next one."""
        place = self.places[ticket.member.index]
        number = self.came[place] - self.first
        self.came[place] += 1
        wanted = terms(ticket.effect)
        if number == len(self.open):
            self.open.append(Meeting(len(self.members), wanted))
        meeting = self.open[number]
        if meeting.terms != wanted:
            came = [t for t in meeting.tickets if t is not None]
            states = {t.member.index: doing(t.effect) for t in [*came, ticket]}
            raise not_the_same(self.members, states, self.came[place])
        meeting.tickets[place] = ticket
        meeting.missing -= 1
        if not meeting.missing:
            # Members come in order, so the oldest is always the first to be complete.
            self.open.popleft()
            self.first += 1
        return meeting


class Meetings:
    """All groups of a run."""

    def __init__(self, env: simpy.Environment, workers: int, fabric: Fabric, stop: Callable[[], bool]) -> None:
        self._env, self._workers, self._fabric, self._stop = env, workers, fabric, stop
        self.faults = False  # whether a member may be asleep as its collective is to begin
        self._circles: dict[Group, Circle] = {}
        self.transfers = Transfers(env, fabric)
        self._world = self._made(tuple(range(workers)))
        self._world.lane = "network"
        self._circles[None] = self._world

    def join(self, ticket: Ticket) -> None:
        """A worker comes to its next meeting of the effect's group; the last one starts it."""
        effect, worker = ticket.effect, ticket.member.index
        circle = self._circles.get(effect.group) or self._circle(effect, worker)
        if worker not in circle.places:
            raise not_a_member(effect, worker)
        check_part(effect, worker, circle.members)
        meeting = circle.enter(ticket)
        if not meeting.missing:
            self._begin(circle, meeting)

    def _circle(self, effect: Any, worker: int) -> Circle:
        members = group_members(effect, worker, self._workers)
        return self._circles.setdefault(effect.group, self._circles.get(members) or self._made(members))

    def _made(self, members: tuple[int, ...]) -> Circle:
        circle = self._circles[members] = Circle(members, self._fabric.group(members))
        return circle

    def _begin(self, circle: Circle, meeting: Meeting) -> None:
        circle.queue.append([ticket for ticket in meeting.tickets if ticket is not None])
        if len(circle.queue) == 1:
            self._carry(circle)

    def _carry(self, circle: Circle) -> None:
        """Start the group's next collective."""
        tickets, begin = circle.queue[0], self._env.now
        asleep = max(ticket.member.asleep() for ticket in tickets) if self.faults else 0.0
        if asleep:
            if asleep < inf:  # else nobody is answered any more
                Timer(self._env, lambda event: self._carry(circle)).set(asleep)
            return
        first, members = tickets[0].effect, circle.members
        root = members.index(first.root) if type(first) is Broadcast else 0
        price = circle.prices.price(type(first), carried(first, len(members)), root)
        self.transfers.begin(price, lambda: self._over(circle, begin, price.traffic))

    def _over(self, circle: Circle, begin: float, traffic: Traffic) -> None:
        tickets = circle.queue.popleft()
        if circle.queue:
            self._carry(circle)
        self._complete(circle, tickets, begin, traffic)

    def _complete(self, circle: Circle, tickets: Sequence[Ticket], begin: float, traffic: Traffic) -> None:
        for ticket in tickets:
            if ticket.loan is not None:
                ticket.loan.check()
        answers = results([ticket.effect for ticket in tickets], circle.members)
        # One question for all: workers that pass the same collective must agree on whether to stop.
        stop = circle is self._world and self._stop()
        for ticket, result in zip(tickets, answers, strict=True):
            phase, outcome = ticket.effect.phase, ticket.member.outcome
            outcome.sent[phase] = outcome.sent.get(phase, 0.0) + traffic.sent
            outcome.syncs[phase] = outcome.syncs.get(phase, 0) + 1
            ticket.result, ticket.stop, ticket.done = result, stop, True
            if ticket.member.spans is not None:
                spans = ticket.member.spans.setdefault(circle.lane, [])
                self._trace(ticket, spans, begin)
                if len(spans) > BUFFERED:
                    ticket.member.hand_on(circle.lane, 1)
            ticket.member.finished(ticket)

    def _trace(self, ticket: Ticket, spans: list[Span], begin: float) -> None:
        """The waiting of a direct collective is a span of its own; a lane's spans never overlap."""
        free = spans[-1][2] if spans else 0.0
        since = max(ticket.since, free)
        if ticket.direct and since < begin:
            spans.append(("wait", since, begin))
        spans.append((ticket.effect.phase, begin, self._env.now))
