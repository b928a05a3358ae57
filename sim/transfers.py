"""Collectives on the network in virtual time: at their price while alone on their links, as flows while sharing them.

Rule: a collective that is alone on its links from its start to its end ends at its start plus its price, to the last
bit. Most are, and one event is enough for them; the cohort engine, which knows only prices, has the same clock then.
As soon as another transfer crosses one of its links, or the bandwidth of a link changes, a collective becomes a flow
(flows.py): what it has sent so far follows from its price, and the rest shares the links. It stays a flow until it is
over.

Background traffic (cluster.background) is advanced only when a collective is there to notice it. Otherwise its
endless events would keep SimPy's queue, and with it the run, alive.
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
    """An event that calls one function each time it is due, and can then be set again.

    SimPy's Timeout is made for one use: for each effect it would cost an object, a list of callbacks and their calls.
    SimPy takes the list away from an event that it processes, and `set` puts the same list back.
    """

    def __init__(self, env: simpy.Environment, call: Callable[[simpy.Event], None]) -> None:
        super().__init__(env)
        self._ok, self._value = True, None
        self._calls = [call]

    def set(self, delay: float) -> None:
        """Be due in `delay` seconds. It must not be pending."""
        self.callbacks = self._calls
        self.env.schedule(self, NORMAL, delay)


class Undisturbed:
    """A collective that was alone on its links when it began. shared: whether it has become a flow since."""

    __slots__ = ("begin", "done", "price", "shared")

    def __init__(self, price: Price, begin: float, done: Callable[[], None]) -> None:
        self.price, self.begin, self.done, self.shared = price, begin, done, False


class Transfers:
    """All that is on the network of a run."""

    def __init__(self, env: simpy.Environment, fabric: Fabric) -> None:
        self._env, self._topology = env, fabric.topology
        self._flows = Flows(self._topology.capacity.__getitem__)
        self._owners: dict[str, Undisturbed] = {}  # the collective that is alone on each link
        self._sharing: dict[Flow, frozenset[str]] = {}  # collectives that have become flows, and their links
        self._others: set[str] = set()  # links that the background crosses
        self._planned: Timer | None = None
        self._at = math.inf  # when the planned timer is due
        for number, background in enumerate(fabric.network.background):
            self._add_background(f"background {number}", background)

    def begin(self, price: Price, done: Callable[[], None]) -> None:
        """Start a collective now; `done` is called when it is over."""
        self._settle()
        links = price.links
        collective = Undisturbed(price, self._env.now, done)
        if self._crowded(links):
            for other in {self._owners[link]: None for link in links & self._owners.keys()}:
                self._share(other)
            self._share(collective)
            self._plan()
            return
        self._owners.update(dict.fromkeys(links, collective))
        Timer(self._env, lambda event: self._end(collective)).set(price.seconds)

    def set_bandwidth(self, name: str, factor: float) -> None:
        """From now on the links of that name ("worker 3", "node 1", "bus", "0 to 1") have this part of their bandwidth.

        1 is all of it, 0 stops the link. ScenarioError where the network has no such link.
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
        """Perform what is due now: it may begin other collectives, which must be known before links are shared out."""
        if self._sharing:
            self._flows.advance(self._env.now)

    def _crowded(self, links: frozenset[str]) -> bool:
        """Whether anything else is on the links, or their bandwidth is not what is described."""
        if self._owners and not self._owners.keys().isdisjoint(links):
            return True
        if self._others and not self._others.isdisjoint(links):
            return True
        if self._flows.changed and not self._flows.changed.keys().isdisjoint(links):
            return True
        return bool(self._sharing) and not all(links.isdisjoint(other) for other in self._sharing.values())

    def _end(self, collective: Undisturbed) -> None:
        if not collective.shared:
            self._leave(collective)
            collective.done()

    def _leave(self, collective: Undisturbed) -> None:
        for link in collective.price.links:
            self._owners.pop(link, None)

    def _share(self, collective: Undisturbed) -> None:
        """Make it a flow from now on."""
        now = self._env.now

        def over() -> None:
            del self._sharing[flow]
            collective.done()

        flow = self._flows.add(course(collective.price, collective.begin, now), now, over)
        if flow in self._flows.active:  # otherwise it is over just now, and its own timer is due
            collective.shared = True
            self._leave(collective)
            self._sharing[flow] = collective.price.links

    def _plan(self) -> None:
        """Set a timer for the flows' next event, while there is a collective among them."""
        due = self._flows.due() if self._sharing else math.inf
        if due == self._at:
            return
        self._at, self._planned = due, None
        if due < math.inf:
            timer = self._planned = Timer(self._env, lambda event: self._advance(timer, due))
            timer.set(max(0.0, due - self._env.now))

    def _advance(self, timer: Timer, due: float) -> None:
        if timer is self._planned:  # otherwise a newer timer has replaced it
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
    """What is left at `now` of a collective that began at `begin` and was alone until now."""
    for step in price.steps:
        ready = begin + step.delay
        if ready > now:
            now = yield ready
        carried = (now - ready) / step.seconds if step.seconds else float(now > ready)
        if carried < 1:
            begin = now = yield step.demand._replace(nbytes=step.demand.nbytes * (1 - carried))
        else:
            begin = ready + step.seconds


def periodic(demand: Demand, start: float, every: float | None) -> Course:
    """The demand, sent every so many seconds; where that is too often, as soon as the one before it is over."""
    now = yield start
    for number in count(1):
        now = yield demand
        due = math.inf if every is None else start + number * every
        if due > now:
            now = yield due
