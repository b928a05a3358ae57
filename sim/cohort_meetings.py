"""The collectives of all workers, met by cohorts: what meetings.py is to single workers.

Rule: a collective begins when the last worker has come (matching.py) and the network has carried the collectives
before it. Every worker takes part in each of them, so they never share links, and one number says when the network is
free.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

from ..config.timing import Device
from ..program.checks import check_part
from ..program.effects import AllGather, AllReduce, Broadcast, Collective, Phantom, ReduceScatter, Startable, Value
from ..program.errors import ScenarioError
from ..program.loans import deliver
from ..program.texts import describe, terms
from ..program.traffic import carried, whole_bytes
from .base_driver import BaseDriver, Beside, Ticket, beside
from .clocks import FREE, Clocks, later, of_clusters
from .matching import Matcher
from .network import Fabric


class NeedsEvents(ScenarioError):
    """The cohort engine cannot simulate this exactly, and says why. The SimPy engine can."""

    def __init__(self, reason: str) -> None:
        super().__init__(
            reason if ";" in reason else f"the cohort engine cannot do this: {reason}; write --engine simpy"
        )


class CohortTicket(Ticket[BaseDriver]):
    """A cohort's ticket."""

    __slots__ = ("answer", "arrived", "begin", "end")

    def __init__(self, driver: BaseDriver, effect: Any, direct: bool) -> None:
        self.driver, self.effect, self.direct = driver, effect, direct
        self.stop = self.taken = False
        self.longer: Clocks = FREE
        self.begin: Clocks = 0.0  # of a collective, by the network
        self.arrived: Clocks = 0.0  # to a collective: when the cohort's last worker came
        self.end: Any = None  # when it is over, as Clocks; None while that is not known
        self.answer: Any = None  # a collective's


class CohortMeetings:
    """All collectives of a run, whose group is always all workers.

    cohorts: the first worker of each.
    fabrics: of each cluster.
    """

    def __init__(
        self, cohorts: Sequence[int], workers: int, fabrics: Sequence[Fabric], stop: Callable[[], bool]
    ) -> None:
        self._members, self._fabrics, self._stop = range(workers), fabrics, stop
        self._later: Callable[[Any, Any], Any] = max if len(fabrics) == 1 else later
        self._alone = len(cohorts) == 1
        self._matcher: Matcher[CohortTicket] = Matcher(cohorts, "all workers")
        self._port: Clocks = 0.0  # when the network is free
        self._known: dict[tuple[Any, ...], tuple[Clocks, Clocks]] = {}  # terms -> (seconds, bytes that a member sends)

    def join(self, ticket: CohortTicket, arrived: Clocks) -> None:
        """A cohort comes to its next meeting; the last cohort completes it. arrived: when its last worker came."""
        effect = ticket.effect
        wanted = terms(effect)
        known = self._known.get(wanted)
        if known is None or effect.group is not None or (type(effect) is AllGather and effect.sizes):
            known = self._check(ticket, wanted)
        if self._alone:
            self._complete([ticket], arrived, *known)
            return
        ticket.arrived = arrived
        if tickets := self._matcher.enter(ticket, wanted):
            self._complete(tickets, reduce(self._later, (t.arrived for t in tickets)), *known)

    def beside(self, cluster: int, device: Device, effect: Startable) -> Beside:
        """What a started effect and a computation of a worker on this device of the cluster cost one another."""
        return beside(device, self._fabrics[cluster].network, effect, len(self._members))

    def _check(self, ticket: CohortTicket, wanted: tuple[Any, ...]) -> tuple[Clocks, Clocks]:
        """(seconds, bytes that a member sends) of a collective. NeedsEvents where it cannot be simulated exactly."""
        effect, n = ticket.effect, len(self._members)
        if effect.group is not None and set(effect.group) != set(self._members):
            raise NeedsEvents(f"{describe(effect)} is not of all workers")
        if type(effect.value) is not Phantom and effect.value.size:
            raise NeedsEvents(f"{describe(effect)} carries numbers, it simulates timing only")
        if type(effect) is ReduceScatter and effect.value.nbytes % n:
            raise NeedsEvents(f"{describe(effect)} gives {n} workers parts of unequal size")
        check_part(effect, ticket.driver.index, self._members)
        root = effect.root if type(effect) is Broadcast else 0
        nbytes = carried(effect, n)
        prices = {each: each.price(type(effect), nbytes, n, root) for each in dict.fromkeys(self._fabrics)}
        seconds = of_clusters([prices[fabric][0] for fabric in self._fabrics])
        known = self._known[wanted] = seconds, of_clusters([prices[fabric][1].sent for fabric in self._fabrics])
        return known

    def _complete(self, tickets: Sequence[CohortTicket], arrived: Clocks, seconds: Clocks, sent: Any) -> None:
        # The sum that SimPy's clock makes, so that both have the same bits.
        begin = self._later(arrived, self._port)
        end = self._port = begin + seconds
        stop = self._stop()
        for ticket in tickets:
            effect, outcome = ticket.effect, ticket.driver.outcome
            outcome.sent[effect.phase] = outcome.sent.get(effect.phase, 0.0) + sent
            outcome.syncs[effect.phase] = outcome.syncs.get(effect.phase, 0) + 1
            ticket.begin, ticket.end, ticket.stop = begin, end, stop
            if effect.out is effect.value and type(effect) is AllReduce:  # most are so
                ticket.answer = effect.out
            else:
                ticket.answer = deliver(effect, ticket.driver.index, self._result(effect))

    def _result(self, effect: Collective) -> Value:
        value: Value = effect.value
        if type(effect) is AllReduce or type(effect) is Broadcast or not isinstance(value, Phantom):
            return value
        n = len(self._members)
        return Phantom(value.nbytes // n if type(effect) is ReduceScatter else whole_bytes(effect, n))
