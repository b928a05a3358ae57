"""Collectives between workers in virtual time: when each starts, and when its members get their answers.

Rule: a group's collective starts when its last member has come (matching.py) and the group's collectives before it are
over, because in the runtime one thread serves a group. How long it then takes is decided in transfers.py.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from math import inf
from typing import Any, Protocol

import simpy

from ..config.timing import Device
from ..program.checks import check_part, group_members, not_a_member
from ..program.effects import Broadcast, Collective, Group, Startable
from ..program.loans import Loan
from ..program.outcome import Outcome, Spans
from ..program.texts import terms
from ..program.traffic import Traffic, carried
from ..records.spool import BUFFERED, Tracer
from .answers import results
from .base_driver import Beside, Ticket, beside
from .matching import Matcher
from .network import Fabric, GroupPrices
from .transfers import Timer, Transfers


class Member(Protocol):
    """What a collective needs of a worker: sim.driver.Driver."""

    index: int
    outcome: Outcome
    tracer: Tracer | None

    def asleep(self) -> float:
        """Seconds until a fault's pause of the worker is over, 0 without one; infinite where it is lost."""

    def finished(self, ticket: WorkerTicket) -> None:
        """The ticket's answer is there."""


class WorkerTicket(Ticket[Member]):
    """A worker's ticket."""

    __slots__ = ("begin", "done", "end", "loan", "result", "since")

    def __init__(self, driver: Member, effect: Any, since: float, direct: bool, debug: bool) -> None:
        self.driver, self.effect, self.direct = driver, effect, direct
        self.stop = self.taken = self.done = False  # done: whether the result is there
        self.longer = self.begin = self.end = 0.0  # begin, end: of a collective, by the network
        self.since = since  # when the effect was yielded
        self.loan = Loan(effect, driver.index) if debug else None
        self.result: Any = None


class GroupQueue(Matcher[WorkerTicket]):
    """One group's collectives: those that some member has not come to yet (in Matcher), and those that can start."""

    def __init__(self, members: tuple[int, ...], prices: GroupPrices, name: str, lane: str) -> None:
        super().__init__(members, name)
        self.members, self.prices = members, prices
        self.lane = lane  # in traces; a group's own, since several groups' collectives may be under way at a time
        self.queue: deque[list[WorkerTicket]] = deque()  # the first is under way, the others follow


class Meetings:
    """All groups of a run."""

    def __init__(self, env: simpy.Environment, workers: int, fabric: Fabric, stop: Callable[[], bool]) -> None:
        self._env, self._workers, self._fabric, self._stop = env, workers, fabric, stop
        self.faults = False  # whether a fault may hold a member when its collective is to begin
        self.transfers = Transfers(env, fabric)
        self._everyone = self._made(tuple(range(workers)), "all workers", "network")
        self._groups: dict[Group, GroupQueue] = {None: self._everyone, self._everyone.members: self._everyone}

    def join(self, ticket: WorkerTicket) -> None:
        """A worker comes to its next meeting of the effect's group; the last one starts it."""
        effect, worker = ticket.effect, ticket.driver.index
        group = self._groups.get(effect.group) or self._new_group(effect, worker)
        if worker not in group.places:
            raise not_a_member(effect, worker)
        check_part(effect, worker, group.members)
        if tickets := group.enter(ticket, terms(effect)):
            group.queue.append(tickets)
            if len(group.queue) == 1:
                self._carry(group)

    def beside(self, device: Device, effect: Startable) -> Beside:
        """What a started effect and a computation of a worker on this device cost one another."""
        return beside(device, self._fabric.network, effect, self._workers)

    def _new_group(self, effect: Collective, worker: int) -> GroupQueue:
        """The group's queue: the same one in whatever order an effect lists the members."""
        members = group_members(effect, worker, self._workers)
        if members not in self._groups:
            self._groups[members] = self._made(members, f"group {members}", f"network {members}")
        return self._groups.setdefault(effect.group, self._groups[members])

    def _made(self, members: tuple[int, ...], name: str, lane: str) -> GroupQueue:
        return GroupQueue(members, self._fabric.group(members), name, lane)

    def _carry(self, group: GroupQueue) -> None:
        """Start the group's next collective."""
        tickets, begin = group.queue[0], self._env.now
        asleep = max(ticket.driver.asleep() for ticket in tickets) if self.faults else 0.0
        if asleep:
            if asleep < inf:  # else the group is never answered again
                Timer(self._env, lambda event: self._carry(group)).set(asleep)
            return
        first, members = tickets[0].effect, group.members
        root = members.index(first.root) if type(first) is Broadcast else 0
        price = group.prices.price(type(first), carried(first, len(members)), root)
        self.transfers.begin(price, lambda: self._over(group, begin, price.traffic))

    def _over(self, group: GroupQueue, begin: float, traffic: Traffic) -> None:
        tickets = group.queue.popleft()
        if group.queue:
            self._carry(group)
        self._complete(group, tickets, begin, traffic)

    def _complete(self, group: GroupQueue, tickets: Sequence[WorkerTicket], begin: float, traffic: Traffic) -> None:
        for ticket in tickets:
            if ticket.loan is not None:
                ticket.loan.check()
        answers = results([ticket.effect for ticket in tickets], group.members)
        # Asked once for all: workers that pass the same collective must agree on whether to stop.
        stop = group is self._everyone and self._stop()
        for ticket, result in zip(tickets, answers, strict=True):
            phase, outcome = ticket.effect.phase, ticket.driver.outcome
            outcome.sent[phase] = outcome.sent.get(phase, 0.0) + traffic.sent
            outcome.syncs[phase] = outcome.syncs.get(phase, 0) + 1
            ticket.result, ticket.stop, ticket.done = result, stop, True
            ticket.begin, ticket.end = begin, self._env.now
            tracer = ticket.driver.tracer
            if tracer is not None:
                spans = tracer.lane(group.lane)
                self._trace(ticket, spans, begin)
                if len(spans) > BUFFERED:
                    tracer.hand_on(group.lane)
            ticket.driver.finished(ticket)

    def _trace(self, ticket: WorkerTicket, spans: Spans, begin: float) -> None:
        """The waiting of a direct collective is a span of its own; a lane's spans never overlap."""
        free = spans.stops[-1] if spans else 0.0
        since = max(ticket.since, free)
        if ticket.direct and since < begin:
            spans.add("wait", since, begin)
        spans.add(ticket.effect.phase, begin, self._env.now)
