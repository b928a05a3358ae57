"""Which links lie between two workers, how much each carries, and how long a message takes: one class per shape.

Rule: links have names, so that errors, faults and tests can speak of them. "out 3" and "in 3" are the two directions of
worker 3's port, "up 1" and "down 1" those of node 1's uplink; "bus" is the bus, and "0 to 1" a link of a matrix. A new
shape is one more name in config/timing.py and one more class in SHAPES.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from ..config.timing import Link, Network, NetworkShape
from ..program.errors import ScenarioError

Loads = dict[str, float]  # link -> how many times the bytes that a member sends cross it


class Topology:
    """The links of a network. Those of a large cluster are made as they are asked for."""

    HINT = 'write "worker 0"'  # how a scenario can name its links

    def __init__(self, network: Network, nodes: Sequence[int]) -> None:
        self.capacity: dict[str, float] = {}  # bytes/s of each link so far
        self.nodes = nodes
        self._network = network

    @property
    def alike(self) -> bool:
        """Whether all links are alike, and a message step takes equally long everywhere.

        In a step of a collective each link that is used then carries what one member sends.
        """
        return False

    def node(self, worker: int) -> int:
        """The number of a worker's node; where no nodes are described, each worker has its own."""
        return self.nodes[worker] if self.nodes else worker

    def latency(self, sender: int, receiver: int) -> float:
        """Seconds of a message step between two workers."""
        return self._network.latency

    def route(self, sender: int, receiver: int) -> tuple[str, ...]:
        """The links that bytes between two workers cross."""
        raise NotImplementedError

    def everyone(self, members: Sequence[int]) -> Loads:
        """The loads when each member sends its bytes in equal parts to all other members."""
        raise NotImplementedError

    def slowest(self, members: Sequence[int]) -> float:
        """The longest latency between any two members."""
        return self._network.latency

    def links(self, name: str) -> tuple[str, ...]:
        """The links of "worker 3" or of "node 1", or the one link of that name. ScenarioError where none has it."""
        kind, _, number = name.partition(" ")
        found = self._belonging(kind, int(number)) if number.isdigit() else ()
        if not found and name not in self.capacity:
            raise ScenarioError(f"a {self._network.shape} network has no link {name!r}; {self.HINT}")
        return found or (name,)

    def ports(self, worker: int) -> tuple[str, ...]:
        """The links that only this worker uses."""
        return self._belonging("worker", worker)

    def everything(self, workers: int) -> tuple[str, ...]:
        """All links among so many workers."""
        named = [("worker", worker) for worker in range(workers)] + [("node", self.node(w)) for w in range(workers)]
        found = [link for kind, number in named for link in self._belonging(kind, number)]
        return tuple(dict.fromkeys([*found, *self.capacity]))

    def _belonging(self, kind: str, number: int) -> tuple[str, ...]:
        return ()


class Star(Topology):
    """A full-duplex port per worker, on a switch that is never the bottleneck."""

    @property
    def alike(self) -> bool:
        return self._network.ports is None

    def _port(self, worker: int) -> tuple[str, str]:
        out, into = f"out {worker}", f"in {worker}"
        if out not in self.capacity:
            ports = self._network.ports
            self.capacity[out] = self.capacity[into] = self._network.bandwidth if ports is None else ports[worker]
        return out, into

    def _belonging(self, kind: str, number: int) -> tuple[str, ...]:
        return self._port(number) if kind == "worker" else ()

    def route(self, sender: int, receiver: int) -> tuple[str, ...]:
        return self._port(sender)[0], self._port(receiver)[1]

    def everyone(self, members: Sequence[int]) -> Loads:
        return {link: 1.0 for worker in members for link in self._port(worker)}


class Bus(Topology):
    """One link, through which all bytes pass."""

    HINT = 'write "bus"'

    def __init__(self, network: Network, nodes: Sequence[int]) -> None:
        super().__init__(network, nodes)
        self.capacity["bus"] = self._network.bandwidth

    def route(self, sender: int, receiver: int) -> tuple[str, ...]:
        return ("bus",)

    def everyone(self, members: Sequence[int]) -> Loads:
        return dict.fromkeys(self.route(0, 0), float(len(members)))


class TwoLevel(Star):
    """Within a node a star of `inside` ports; between nodes a star of uplinks, one full-duplex link per node."""

    HINT = 'write "node 0" for its uplink, or "worker 0"'

    def __init__(self, network: Network, nodes: Sequence[int]) -> None:
        super().__init__(network, nodes)
        if network.inside is None:
            raise ScenarioError("a two_level network needs inside, the link within a node")
        self._inside: Link = network.inside

    @property
    def alike(self) -> bool:
        return False

    def _port(self, worker: int) -> tuple[str, str]:
        out, into = f"out {worker}", f"in {worker}"
        self.capacity[out] = self.capacity[into] = self._inside.bandwidth
        return out, into

    def _uplink(self, node: int) -> tuple[str, str]:
        up, down = f"up {node}", f"down {node}"
        self.capacity[up] = self.capacity[down] = self._network.bandwidth
        return up, down

    def _belonging(self, kind: str, number: int) -> tuple[str, ...]:
        return self._uplink(number) if kind == "node" else super()._belonging(kind, number)

    def latency(self, sender: int, receiver: int) -> float:
        return self._inside.latency if self.node(sender) == self.node(receiver) else self._network.latency

    def route(self, sender: int, receiver: int) -> tuple[str, ...]:
        (out, _), (_, into) = self._port(sender), self._port(receiver)
        a, b = self.node(sender), self.node(receiver)
        return (out, into) if a == b else (out, self._uplink(a)[0], self._uplink(b)[1], into)

    def everyone(self, members: Sequence[int]) -> Loads:
        loads, n = super().everyone(members), len(members)
        sizes = Counter(self.node(worker) for worker in members)
        if len(sizes) > 1:
            # Of the n - 1 parts that each of a node's g members sends, n - g leave the node.
            loads |= {link: g * (n - g) / (n - 1) for node, g in sizes.items() for link in self._uplink(node)}
        return loads

    def slowest(self, members: Sequence[int]) -> float:
        alone = len({self.node(worker) for worker in members}) == 1
        return self._inside.latency if alone else max(self._inside.latency, self._network.latency)


class Matrix(Topology):
    """A link from each worker to each other, as a measured matrix of bandwidths gives them."""

    HINT = 'write "0 to 1" for a link, or "worker 0" for all of its links'

    def __init__(self, network: Network, nodes: Sequence[int]) -> None:
        super().__init__(network, nodes)
        for sender, row in enumerate(network.matrix or ()):
            for receiver, bandwidth in enumerate(row):
                if sender != receiver:
                    self.capacity[f"{sender} to {receiver}"] = bandwidth

    def _belonging(self, kind: str, number: int) -> tuple[str, ...]:
        ends = str(number)
        return tuple(link for link in self.capacity if kind == "worker" and ends in link.split(" to "))

    def route(self, sender: int, receiver: int) -> tuple[str, ...]:
        link = f"{sender} to {receiver}"
        if link not in self.capacity:
            raise ScenarioError(f"a network of shape matrix needs the bandwidth from worker {sender} to {receiver}")
        return (link,)

    def everyone(self, members: Sequence[int]) -> Loads:
        part = 1 / (len(members) - 1)
        return {link: part for a in members for b in members if a != b for link in self.route(a, b)}


SHAPES: dict[NetworkShape, type[Topology]] = {"star": Star, "bus": Bus, "two_level": TwoLevel, "matrix": Matrix}


def build_topology(network: Network, nodes: Sequence[int]) -> Topology:
    """The network's links. nodes: the node of each worker; empty where each has its own."""
    if network.shape not in SHAPES:
        raise ScenarioError(f"network shape is {network.shape!r}; write one of {', '.join(SHAPES)}")
    return SHAPES[network.shape](network, nodes)
