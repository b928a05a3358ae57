"""Transfers that share links: every link divides its bandwidth max-min fairly among the transfers that cross it.

Max-min fair means that no transfer can get more without taking from one that has no more than it. Progressive filling
(Bertsekas and Gallager, "Data Networks", 6.5.2) finds these rates: all rates rise together from 0; when a link is full,
the transfers that cross it keep their rates, and the others go on rising until each crosses a full link.

A Demand is one transfer, or all those of one step of a collective. These have a common rate, since each worker
needs what the others send, and they get one share of a link for each connection.

Rule: nothing here knows SimPy. A transfer is a generator that yields what it does next: a Demand, or the time until
which it rests. It is sent the time at which that is over. `due` says when something happens next, and `advance` lets it
happen.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterable, Mapping
from typing import NamedTuple


class Demand(NamedTuple):
    """Bytes to carry."""

    loads: Mapping[str, float]  # link -> how many times nbytes crosses it
    streams: float  # connections: how many shares of a link it gets
    nbytes: float


Course = Generator[Demand | float, float, None]


class Flow:
    """One transfer under way."""

    __slots__ = ("course", "demand", "done", "end", "left", "rate", "since")

    def __init__(self, course: Course, done: Callable[[], None] | None) -> None:
        self.course, self.done = course, done
        self.demand: Demand | None = None  # what it carries now; None while it rests
        self.end = 0.0  # when what it does now is over, in seconds
        self.since = 0.0  # when its rate was last changed
        self.rate, self.left = 0.0, 0.0  # bytes/s since then, and bytes that were left then


def fair_rates(demands: Iterable[Demand], capacity: Callable[[str], float]) -> list[float]:
    """Max-min fair bytes/s of each demand; infinite where no link limits it.

    A demand of rate r takes loads[link] * r bytes/s of a link. Rates rise in proportion to streams.
    """
    waiting = dict(enumerate(demands))
    rates = [math.inf] * len(waiting)
    crossing: dict[str, list[int]] = {}
    for number, demand in waiting.items():
        for link in demand.loads:
            crossing.setdefault(link, []).append(number)
    free = {link: bandwidth for link in crossing if (bandwidth := capacity(link)) < math.inf}
    rising = {link: sum(waiting[i].loads[link] * waiting[i].streams for i in crossing[link]) for link in free}
    users = {link: len(crossing[link]) for link in free}
    while rising:
        # All waiting rates are level * streams. The link on which the level can rise least is the next to be full.
        full = min(rising, key=lambda link: free[link] / rising[link])
        level = free[full] / rising[full]
        for number in [i for i in crossing[full] if i in waiting]:
            demand = waiting.pop(number)
            rates[number] = level * demand.streams
            for link in demand.loads.keys() & rising.keys():
                free[link] = max(0.0, free[link] - demand.loads[link] * rates[number])
                rising[link] -= demand.loads[link] * demand.streams
                users[link] -= 1
                if not users[link]:
                    del rising[link]
    return rates


class Flows:
    """All transfers under way. capacity: bytes/s of a link; `set_capacity` changes one from then on."""

    def __init__(self, capacity: Callable[[str], float]) -> None:
        self._described = capacity
        self.changed: dict[str, float] = {}
        self.active: dict[Flow, None] = {}
        self._stale = False  # whether what is carried, or a link, has changed since the last rates

    def capacity(self, link: str) -> float:
        """Bytes/s of a link now."""
        return self.changed[link] if link in self.changed else self._described(link)

    def set_capacity(self, link: str, bandwidth: float, now: float) -> None:
        """From now on the link carries this many bytes/s; 0: nothing passes."""
        self.advance(now)
        self.changed[link] = bandwidth
        self._stale = True
        self._share(now)

    def add(self, course: Course, now: float, done: Callable[[], None] | None = None) -> Flow:
        """Begin a transfer; done: called when it is over."""
        self.advance(now)
        flow = Flow(course, done)
        self.active[flow] = None
        self._next(flow, None, now)
        self._share(now)
        return flow

    def due(self) -> float:
        """When something happens next, if nothing is added before then; infinite where nothing does."""
        return min((flow.end for flow in self.active), default=math.inf)

    def advance(self, until: float) -> None:
        """Perform all that is due until then, in the order of time; at the same time, in the order of beginning."""
        while (now := self.due()) <= until:
            over = []
            for flow in [flow for flow in self.active if flow.end <= now]:
                if not self._next(flow, now, now) and flow.done is not None:
                    over.append(flow.done)
            self._share(now)
            for done in over:
                done()

    def _next(self, flow: Flow, sent: float | None, now: float) -> bool:
        """Go on to what the transfer does next; false where it is over."""
        self._stale = self._stale or flow.demand is not None
        try:
            what = next(flow.course) if sent is None else flow.course.send(sent)
        except StopIteration:
            del self.active[flow]
            return False
        if isinstance(what, Demand):
            flow.demand, flow.left, flow.rate, flow.since = what, what.nbytes, 0.0, now
            flow.end = math.inf if what.nbytes else now
            self._stale = self._stale or what.nbytes > 0
        else:
            flow.demand, flow.end = None, max(now, what)
        return True

    def _share(self, now: float) -> None:
        """Compute new rates. A transfer that keeps its rate keeps its end, to the last bit."""
        if not self._stale:
            return
        self._stale = False
        carrying = [(flow, flow.demand) for flow in self.active if flow.demand is not None and flow.demand.nbytes]
        rates = fair_rates([demand for _, demand in carrying], self.capacity)
        for (flow, _), rate in zip(carrying, rates, strict=True):
            if rate != flow.rate:
                if flow.rate:
                    flow.left = max(0.0, flow.left - flow.rate * (now - flow.since))
                flow.rate, flow.since = rate, now
                flow.end = now + flow.left / rate if rate else math.inf
