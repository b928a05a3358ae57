"""How many seconds a collective takes when it is alone on its links, and how many bytes it puts on which link.

Rule: collectives.py says what is sent, and topology.py which links it crosses. A step takes the latencies of its
message steps, the time of its bytes on the link that needs the longest, and the time for adding up. Prices depend on
nothing else and are remembered, since a run repeats few kinds of collectives very often. What happens when collectives
share links is decided in transfers.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ..config.timing import Network, lasting, over
from ..program.effects import AllReduce, Broadcast, Collective
from ..program.errors import ScenarioError
from ..program.traffic import Traffic, traffic
from .collectives import ALGORITHMS, PATTERNS, CollectiveStep, collective_steps
from .flows import Demand
from .topology import Loads, build_topology


class PricedStep(NamedTuple):
    """One step on its links."""

    delay: float  # seconds in which no bytes travel: latencies and adding up
    demand: Demand  # the bytes that travel afterwards
    seconds: float  # how long they take, alone on their links


@dataclass(frozen=True, slots=True, eq=False)
class Price:
    """What one kind of collective costs in one group, alone on its links."""

    seconds: float  # from the start to the answer
    traffic: Traffic  # of one member
    steps: tuple[PricedStep, ...]
    links: frozenset[str]  # all links that bytes cross


@dataclass(frozen=True, slots=True, eq=False)
class StepLoads:
    """What one step of a collective puts on the links in one group."""

    loads: Loads
    latency: float  # seconds of a message step, between the two members for which it is longest
    ratios: tuple[tuple[float, float], ...]  # the distinct (load, capacity) of its links
    senders: float  # members that send, as a part of all members


class GroupPrices:
    """What collectives of one group cost."""

    def __init__(self, fabric: Fabric, members: Sequence[int]) -> None:
        self._fabric, self._members = fabric, members
        blocks: dict[int, list[int]] = {}
        for worker in members:
            blocks.setdefault(fabric.topology.node(worker), []).append(worker)
        self._sizes = [len(block) for block in blocks.values()]
        self._levels: dict[str, list[Sequence[int]]] = {
            "all": [members],
            "inside": list(blocks.values()),
            "across": [[block[0] for block in blocks.values()]],
        }
        self._step_loads: dict[tuple[str, int, str, int], StepLoads] = {}
        self._known: dict[tuple[type[Collective], int, int], Price] = {}
        self._links: dict[tuple[StepLoads, ...], frozenset[str]] = {}  # many prices cross the same ones

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
        priced: list[PricedStep] = []
        crossed: list[StepLoads] = []
        seconds = sent = 0.0
        causes = {"latency": 0.0, "bandwidth": 0.0, "reduce_bandwidth": 0.0}
        for step in steps:
            loads = self._loads(step, root)
            delay, added = step.messages * loads.latency, over(step.added, network.reduce_bandwidth)
            of_bytes = max((over(load * step.nbytes, capacity) for load, capacity in loads.ratios), default=0.0)
            priced.append(PricedStep(delay + added, Demand(loads.loads, float(step.streams), step.nbytes), of_bytes))
            seconds += delay + of_bytes + added
            for cause, taking in zip(causes, (delay, of_bytes, added), strict=True):
                causes[cause] += taking
            sent += loads.senders * step.nbytes
            if step.nbytes:
                crossed.append(loads)
        why = max(causes, key=lambda cause: causes[cause])
        lasting(seconds, f"cluster.network, by its {why},", f"{kind.__name__} of {nbytes} bytes among {n} workers")
        if kind is AllReduce and network.collective != "ordered":
            what = Traffic(sum(step.messages for step in steps), sent)
        else:
            what = traffic(kind, nbytes, n)
        return Price(seconds, what, tuple(priced), self._crossed(tuple(crossed)))

    def _crossed(self, steps: tuple[StepLoads, ...]) -> frozenset[str]:
        if steps not in self._links:
            self._links[steps] = frozenset().union(*(step.loads for step in steps))
        return self._links[steps]

    def _loads(self, step: CollectiveStep, root: int) -> StepLoads:
        key = (step.pattern, step.distance, step.level, root)
        known = self._step_loads.get(key)
        if known is None:
            known = self._step_loads[key] = self._everyone() if step.pattern == "everyone" else self._pairs(step, root)
        return known

    def _everyone(self) -> StepLoads:
        topology = self._fabric.topology
        return self._made(topology.everyone(self._members), topology.slowest(self._members), 1.0)

    def _pairs(self, step: CollectiveStep, root: int) -> StepLoads:
        topology = self._fabric.topology
        loads: Loads = {}
        latency, senders = 0.0, 0
        for block in self._levels[step.level]:
            for a, b in PATTERNS[step.pattern](len(block), step.distance, root):
                latency = max(latency, topology.latency(block[a], block[b]))
                senders += 1
                for link in topology.route(block[a], block[b]):
                    loads[link] = loads.get(link, 0.0) + 1.0
        return self._made(loads, latency, senders / len(self._members))

    def _made(self, loads: Loads, latency: float, sent: float) -> StepLoads:
        capacity = self._fabric.topology.capacity
        return StepLoads(loads, latency, tuple({(load, capacity[link]) for link, load in loads.items()}), sent)


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
