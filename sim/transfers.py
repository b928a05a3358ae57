"""Collectives on the network in virtual time: alone on their links by their price, else sharing them.

Rule: a collective that meets nobody on its links ends at its start plus its price, to the last bit. As soon as another
crosses one of its links, or the link's bandwidth changes, both become flows (sim/flows.py) from where they are. What
others send (cluster.background) is caught up with when a collective is there to notice it, so it keeps no run alive.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import count

import simpy
from simpy.events import NORMAL

from ..config.timing import BackgroundTraffic
from .flows import Course, Demand, Flow, Flows
from .network import Fabric, Price


class Timer(simpy.Event):
    """Calls one function each time it is due. Set again and again, where SimPy's Timeout would be made anew."""

    def __init__(self, env: simpy.Environment, call: Callable[[simpy.Event], None]) -> None:
        super().__init__(env)
        self._ok, self._value = True, None
        self._calls = [call]

    def set(self, delay: float) -> None:
        """Due in `delay` seconds; it must not be pending."""
        self.callbacks = self._calls  # SimPy takes them away from an event that it processes
        self.env.schedule(self, NORMAL, delay)


class Transfer:
    """A collective that nobody disturbs. shared: whether it has become a flow since."""

    __slots__ = ("begin", "done", "price", "shared")

    def __init__(self, price: Price, begin: float, done: Callable[[], None]) -> None:
        self.price, self.begin, self.done, self.shared = price, begin, done, False


class Transfers:
    """All that is on the network of a run."""

    def __init__(self, env: simpy.Environment, fabric: Fabric) -> None:
        self._env, self._topology = env, fabric.topology
        self._flows = Flows(self._topology.capacity.__getitem__)
        self._owners: dict[str, Transfer] = {}  # who is alone on each link
        self._sharing: dict[Flow, frozenset[str]] = {}  # collectives that have become flows, and their links
        self._others: set[str] = set()  # links that the background crosses
        self._planned: Timer | None = None
        self._at = math.inf  # when the planned timer is due
        for number, background in enumerate(fabric.network.background):
            self._add_background(f"background {number}", background)

    def begin(self, price: Price, done: Callable[[], None]) -> None:
        """A collective starts now; `done` is called when it is over."""
        self._settle()
        links = price.links
        alone = Transfer(price, self._env.now, done)
        if self._crowded(links):
            for other in {self._owners[link]: None for link in links & self._owners.keys()}:
                self._share(other)
            self._share(alone)
            self._plan()
            return
        self._owners.update(dict.fromkeys(links, alone))
        Timer(self._env, lambda event: self._end(alone)).set(price.seconds)

    def set_bandwidth(self, name: str, factor: float) -> None:
        """From now on the links of that name ("worker 3", "node 1", "bus", "0 to 1") carry factor * what is described.

        1 makes them whole again, 0 stops them. ScenarioError where the network has no such link.
        """
        self._settle()
        for link in self._topology.links(name):
            if link in self._owners:
                self._share(self._owners[link])
            self._flows.set_capacity(link, factor * self._topology.capacity[link], self._env.now)
            if factor == 1:
                del self._flows.changed[link]
        self._plan()

    def _settle(self) -> None:
        """What is due at this moment happens first: it may begin others, which must be there before anybody shares."""
        if self._sharing:
            self._flows.advance(self._env.now)

    def _crowded(self, links: frozenset[str]) -> bool:
        """Whether anything else is on the links, or they are not as described."""
        if self._owners and not self._owners.keys().isdisjoint(links):
            return True
        if self._others and not self._others.isdisjoint(links):
            return True
        if self._flows.changed and not self._flows.changed.keys().isdisjoint(links):
            return True
        return bool(self._sharing) and not all(links.isdisjoint(other) for other in self._sharing.values())

    def _end(self, alone: Transfer) -> None:
        if not alone.shared:
            self._leave(alone)
            alone.done()

    def _leave(self, alone: Transfer) -> None:
        for link in alone.price.links:
            self._owners.pop(link, None)

    def _share(self, alone: Transfer) -> None:
        """From now on it is a flow."""
        now = self._env.now

        def over() -> None:
            del self._sharing[flow]
            alone.done()

        flow = self._flows.add(course(alone.price, alone.begin, now), now, over)
        if flow in self._flows.active:  # else it is over just now, and its own timer due
            alone.shared = True
            self._leave(alone)
            self._sharing[flow] = alone.price.links

    def _plan(self) -> None:
        """Have the flows' next event come, as long as a collective waits for one."""
        due = self._flows.due() if self._sharing else math.inf
        if due == self._at:
            return
        self._at, self._planned = due, None
        if due < math.inf:
            timer = self._planned = Timer(self._env, lambda event: self._advance(timer, due))
            timer.set(max(0.0, due - self._env.now))

    def _advance(self, timer: Timer, due: float) -> None:
        if timer is self._planned:  # else another plan was made since
            self._at, self._planned = math.inf, None
            self._flows.advance(due)
            self._plan()

    def _add_background(self, name: str, background: BackgroundTraffic) -> None:
        links = dict.fromkeys(self._topology.route(background.sender, background.receiver), 1.0)
        self._others |= links.keys()
        if background.bandwidth is not None:
            links[name] = 1.0  # a link of its own keeps a stream to its bandwidth
            self._flows.changed[name] = background.bandwidth
        nbytes = math.inf if background.nbytes is None else background.nbytes
        self._flows.add(periodic(Demand(links, 1.0, nbytes), background.start, background.every), 0.0)


def course(price: Price, begin: float, now: float) -> Course:
    """What is left at `now` of a collective that began at `begin` and was not disturbed until now."""
    for part in price.parts:
        ready = begin + part.delay
        if ready > now:
            now = yield ready
        carried = (now - ready) / part.seconds if part.seconds else float(now > ready)
        if carried < 1:
            begin = now = yield part.demand._replace(nbytes=part.demand.nbytes * (1 - carried))
        else:
            begin = ready + part.seconds


def periodic(demand: Demand, start: float, every: float | None) -> Course:
    """The demand again and again; one that is late is sent as soon as the one before it is over."""
    now = yield start
    for number in count(1):
        now = yield demand
        due = math.inf if every is None else start + number * every
        if due > now:
            now = yield due
