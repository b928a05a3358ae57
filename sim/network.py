"""How many seconds a collective takes when it is alone on its links, and how many bytes it puts on which link.

Rule: collectives.py says what is sent, and topology.py which links it crosses. A step takes the latencies of its
message steps, the time of its bytes on the link that needs the longest, and the time for adding up. Prices depend on
nothing else and are remembered, since a run repeats few kinds of collectives very often. What happens when collectives
share links is decided in transfers.py.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from typing import NamedTuple

from ..config.timing import Network, lasting, over
from ..program.effects import AllReduce, Broadcast, Collective
from ..program.errors import ScenarioError
from ..program.traffic import Traffic, traffic
from .collectives import ALGORITHMS, PATTERNS, CollectiveStep, collective_steps
from .flows import Demand
from .topology import Loads, build_topology

Ratios = tuple[tuple[float, float], ...]  # distinct (load, capacity) of links


class PricedStep(NamedTuple):
    """One step on its links."""

    delay: float  # seconds in which no bytes travel: latencies and adding up
    demand: Demand  # the bytes that travel afterwards
    seconds: float  # how long they take, alone on their links


class StepLoads:
    """What one step of a collective puts on the links in one group.

    loads: says it link by link. The cohort engine never asks: a million workers have two million links.
    """

    def __init__(self, latency: float, senders: float, ratios: Ratios, loads: Callable[[], Loads]) -> None:
        self.latency = latency  # seconds of a message step, between the two members for which it is longest
        self.senders = senders  # members that send, as a part of all members
        self.ratios = ratios
        self._loads = loads

    @cached_property
    def loads(self) -> Loads:
        """By link."""
        return self._loads()


class Price:
    """What one kind of collective costs in one group, alone on its links.

    seconds: from the start to the answer.
    traffic: of one member.
    steps: the steps, and what each puts on the links.
    priced: of each step, the seconds in which no bytes travel and those of its bytes.
    known: the links of all steps that were asked for so far, by what they put on them: many prices cross the same ones.
    """

    def __init__(
        self,
        seconds: float,
        traffic: Traffic,
        steps: Sequence[tuple[CollectiveStep, StepLoads]],
        priced: Sequence[tuple[float, float]],
        known: dict[tuple[StepLoads, ...], frozenset[str]],
    ) -> None:
        self.seconds, self.traffic = seconds, traffic
        self._steps, self._priced, self._known = steps, priced, known

    @cached_property
    def steps(self) -> tuple[PricedStep, ...]:
        """Each step on its links."""
        return tuple(
            PricedStep(delay, Demand(loads.loads, float(step.streams), step.nbytes), seconds)
            for (step, loads), (delay, seconds) in zip(self._steps, self._priced, strict=True)
        )

    @cached_property
    def links(self) -> frozenset[str]:
        """All links that bytes cross."""
        crossed = tuple(loads for step, loads in self._steps if step.nbytes)
        if crossed not in self._known:
            self._known[crossed] = frozenset().union(*(loads.loads for loads in crossed))
        return self._known[crossed]


class GroupPrices:
    """What collectives of one group cost."""

    def __init__(self, fabric: Fabric, members: Sequence[int]) -> None:
        self._fabric, self._members = fabric, members
        self._sizes = list(Counter(map(fabric.topology.node, members)).values())  # members in each node
        self._step_loads: dict[tuple[str, int, str, int], StepLoads] = {}
        self._known: dict[tuple[type[Collective], int, int], Price] = {}
        self._links: dict[tuple[StepLoads, ...], frozenset[str]] = {}

    @cached_property
    def _levels(self) -> dict[str, list[Sequence[int]]]:
        """The lists of members among which a step is performed, by its level."""
        blocks: dict[int, list[int]] = {}
        for worker in self._members:
            blocks.setdefault(self._fabric.topology.node(worker), []).append(worker)
        return {"inside": list(blocks.values()), "across": [[block[0] for block in blocks.values()]]}

    def price(self, kind: type[Collective], nbytes: int, root: int = 0) -> Price:
        """nbytes: the whole vector, for AllGather of all members together. root: a Broadcast's, by place."""
        key = (kind, nbytes, root)
        known = self._known.get(key)
        if known is None:
            known = self._known[key] = self._price(kind, nbytes, root if kind is Broadcast else 0)
        return known

    def _price(self, kind: type[Collective], nbytes: int, root: int) -> Price:
        network, n = self._fabric.network, len(self._members)
        steps = collective_steps(kind, network.collective, self._sizes, nbytes)
        on_links = [(step, self._loads(step, root)) for step in steps]
        priced: list[tuple[float, float]] = []
        seconds = sent = 0.0
        causes = {"latency": 0.0, "bandwidth": 0.0, "reduce_bandwidth": 0.0}
        for step, loads in on_links:
            delay, added = step.messages * loads.latency, over(step.added, network.reduce_bandwidth)
            of_bytes = max((over(load * step.nbytes, capacity) for load, capacity in loads.ratios), default=0.0)
            priced.append((delay + added, of_bytes))
            seconds += delay + of_bytes + added
            for cause, taking in zip(causes, (delay, of_bytes, added), strict=True):
                causes[cause] += taking
            sent += loads.senders * step.nbytes
        why = max(causes, key=lambda cause: causes[cause])
        lasting(seconds, f"cluster.network, by its {why},", f"{kind.__name__} of {nbytes} bytes among {n} workers")
        if kind is AllReduce and network.collective != "ordered":
            what = Traffic(sum(step.messages for step in steps), sent)
        else:
            what = traffic(kind, nbytes, n)
        return Price(seconds, what, on_links, priced, self._links)

    def _loads(self, step: CollectiveStep, root: int) -> StepLoads:
        key = (step.pattern, step.distance, step.level, root)
        known = self._step_loads.get(key)
        if known is None:
            known = self._step_loads[key] = self._everyone() if step.pattern == "everyone" else self._pairs(step, root)
        return known

    def _everyone(self) -> StepLoads:
        topology, members = self._fabric.topology, self._members
        return self._made(topology.slowest(members), 1.0, lambda: topology.everyone(members))

    def _pairs(self, step: CollectiveStep, root: int) -> StepLoads:
        topology, blocks = self._fabric.topology, [self._members] if step.level == "all" else self._levels[step.level]

        def pairs() -> Iterator[tuple[int, int]]:
            for block in blocks:
                for a, b in PATTERNS[step.pattern](len(block), step.distance, root):
                    yield block[a], block[b]

        def loads() -> Loads:
            found: Loads = {}
            for a, b in pairs():
                for link in topology.route(a, b):
                    found[link] = found.get(link, 0.0) + 1.0
            return found

        if topology.alike:
            senders = sum(1 for _ in pairs())
            latency = topology.slowest(self._members) if senders else 0.0
        else:
            latencies = [topology.latency(a, b) for a, b in pairs()]
            senders, latency = len(latencies), max(latencies, default=0.0)
        return self._made(latency, senders / len(self._members), loads)

    def _made(self, latency: float, senders: float, loads: Callable[[], Loads]) -> StepLoads:
        """A step whose links are looked at one by one only where they may differ."""
        topology = self._fabric.topology
        if topology.alike:
            return StepLoads(latency, senders, ((1.0, self._fabric.network.bandwidth),) if senders else (), loads)
        found = loads()
        ratios = {(load, topology.capacity[link]) for link, load in found.items()}
        return StepLoads(latency, senders, tuple(ratios), lambda: found)


class Fabric:
    """A described network with its links and prices. nodes: the node of each worker; empty where each has its own."""

    def __init__(self, network: Network, nodes: Sequence[int] = ()) -> None:
        if network.collective not in ALGORITHMS:
            raise ScenarioError(f"network collective is {network.collective!r}; write one of {', '.join(ALGORITHMS)}")
        self.network = network
        self.topology = build_topology(network, nodes)
        self._groups: dict[tuple[int, ...], GroupPrices] = {}
        self._whole: dict[int, GroupPrices] = {}

    def group(self, members: Iterable[int]) -> GroupPrices:
        """What collectives of these workers cost."""
        key = tuple(members)
        return self._groups.setdefault(key, GroupPrices(self, key))

    def price(self, kind: type[Collective], nbytes: int, members: int, root: int = 0) -> tuple[float, Traffic]:
        """(seconds, traffic of one member) of a collective of workers 0 to members - 1, alone on its links."""
        if members not in self._whole:
            self._whole[members] = self.group(range(members))
        price = self._whole[members].price(kind, nbytes, root)
        return price.seconds, price.traffic
