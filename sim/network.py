"""Seconds that a collective takes when nothing else is on its links, and what it puts on which of them.

Rule: what is sent comes from sim/collectives.py, which links it crosses from sim/topology.py; a step takes its message
steps' latencies, the time of its bytes on the link that is busy the longest, and the time of adding up. Prices are pure
and remembered, as a run repeats few kinds very often. Sharing links with others is sim/transfers.py's business.
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
    """One step on its links: `delay` seconds without bytes, then `demand`, which takes `seconds` undisturbed."""

    delay: float
    demand: Demand
    seconds: float


@dataclass(frozen=True, slots=True, eq=False)
class Price:
    """seconds: from the start to the answer, undisturbed. traffic: of one member. links: all that bytes cross."""

    seconds: float
    traffic: Traffic
    parts: tuple[PricedStep, ...]
    links: frozenset[str]


@dataclass(frozen=True, slots=True, eq=False)
class StepLoads:
    """A step's loads in one group. tight: its distinct (load, capacity). sent: senders per member."""

    loads: Loads
    latency: float
    tight: tuple[tuple[float, float], ...]
    sent: float


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
        self._patterns: dict[tuple[str, int, str, int], StepLoads] = {}
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
        taken = collective_steps(kind, network.collective, self._sizes, nbytes)
        parts: list[PricedStep] = []
        patterns: list[StepLoads] = []
        seconds = sent = 0.0
        causes = {"latency": 0.0, "bandwidth": 0.0, "reduce_bandwidth": 0.0}
        for step in taken:
            pattern = self._pattern(step, root)
            delay, added = step.messages * pattern.latency, over(step.added, network.reduce_bandwidth)
            of_bytes = max((over(load * step.nbytes, capacity) for load, capacity in pattern.tight), default=0.0)
            parts.append(PricedStep(delay + added, Demand(pattern.loads, float(step.streams), step.nbytes), of_bytes))
            seconds += delay + of_bytes + added
            for cause, taking in zip(causes, (delay, of_bytes, added), strict=True):
                causes[cause] += taking
            sent += pattern.sent * step.nbytes
            if step.nbytes:
                patterns.append(pattern)
        why = max(causes, key=lambda cause: causes[cause])
        lasting(seconds, f"cluster.network, by its {why},", f"{kind.__name__} of {nbytes} bytes among {n} workers")
        if kind is AllReduce and network.collective != "ordered":
            what = Traffic(sum(step.messages for step in taken), sent)
        else:
            what = traffic(kind, nbytes, n)
        return Price(seconds, what, tuple(parts), self._crossed(tuple(patterns)))

    def _crossed(self, patterns: tuple[StepLoads, ...]) -> frozenset[str]:
        if patterns not in self._links:
            self._links[patterns] = frozenset().union(*(pattern.loads for pattern in patterns))
        return self._links[patterns]

    def _pattern(self, step: CollectiveStep, root: int) -> StepLoads:
        key = (step.pattern, step.distance, step.level, root)
        known = self._patterns.get(key)
        if known is None:
            known = self._patterns[key] = self._everyone() if step.pattern == "everyone" else self._pairs(step, root)
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
    """A described network. nodes: the node of each worker; empty where each is a node of its own."""

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
        """(seconds, traffic of one member) of a collective of workers 0 to members - 1, undisturbed."""
        if members not in self._whole:
            self._whole[members] = self.group(range(members))
        price = self._whole[members].price(kind, nbytes, root)
        return price.seconds, price.traffic
