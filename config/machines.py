"""The scenario's `cluster:` section: workers, nodes, network, noise."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import Field, ValidationInfo, field_validator, model_validator

from .catalogue import CatalogueNode, LinkBandwidth, NodeName, catalogue
from .network import BackgroundSpec, LinkSpec, NetworkSpec
from .sections import Section
from .units import Bandwidth, Bytes, Count, Duration, Factor, Flops, Seed, Share, Speed


class WorkerGroup(Section):
    """`count` equal workers.

    Their times come from `speed`, `step_time` or `flops`; else from the profile, else from the catalogue's device.
    """

    device: str = "cpu"  # a name, of the catalogue or your own
    count: Count = 1
    speed: Speed | None = None
    step_time: Duration | dict[int, Duration] | None = None  # one time for all batches, or by batch size
    flops: Flops | None = None  # the peak at the workload's precision
    efficiency: Share | None = None  # the part of the peak that training reaches
    slowdown: Factor = 1.0  # multiplies every computing time: 4 is a device that is four times slower
    memory: Bytes | None = None  # what one worker may use
    memory_bandwidth: Bandwidth | None = None
    host_memory: Bytes | None = None  # what one worker may use
    host_memory_bandwidth: Bandwidth | None = None
    max_batch: Count | None = None  # the most samples that its memory holds in a step; by default the profile's
    host_link: LinkBandwidth | None = None  # between host and device, each way; without one they share their memory
    node: str | int | None = None  # workers with the same name share a node; by default each has its own
    torch_device: Literal["cpu", "cuda"] = "cpu"  # what `train` runs on
    port: LinkBandwidth | None = None  # the bandwidth of each one's port in a star, where it is not the network's

    @field_validator("step_time")
    @classmethod
    def _times(cls, value: Any) -> Any:
        if isinstance(value, dict) and not (value and min(value) >= 1 and max(value) <= 10**9):
            raise ValueError("a step-time table needs batch sizes of 1 or more, like {32: 2 ms, 64: 3 ms}")
        return value

    @model_validator(mode="after")
    def _one_source(self) -> WorkerGroup:
        given = [name for name in ("speed", "step_time", "flops") if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(f"{given[0]} and {given[1]} are both given; keep one")
        if given and given != ["flops"]:
            self.refuse_rates(given[0])
        return self

    def refuse_rates(self, source: str) -> None:
        """ValueError where a rate is given that has no effect, since `source` says how long work takes."""
        for name in ("efficiency", "memory_bandwidth"):
            if getattr(self, name) is not None:
                raise ValueError(f"{name} has no effect together with {source}; keep one")


class NodeGroup(Section):
    """`count` equal nodes with these devices, one worker each. Workers are numbered node by node.

    What a device says itself has precedence over what the node says, and that over what its type says.
    """

    type: NodeName | None = None  # of the catalogue
    count: Count = 1
    devices: tuple[WorkerGroup, ...] | None = None  # by default the type's
    host_link: LinkBandwidth | None = None  # each device has its own
    host_memory: Bytes | None = None  # the node's, of which each worker has an equal part
    host_memory_bandwidth: Bandwidth | None = None  # likewise

    @field_validator("devices")
    @classmethod
    def _some(cls, value: tuple[WorkerGroup, ...] | None) -> tuple[WorkerGroup, ...] | None:
        if value is not None and not value:
            raise ValueError("no devices; list at least one, like [{device: a100-40g, count: 8}]")
        if any(group.node is not None for group in value or ()):
            raise ValueError("node has no effect here: these devices share their node; leave it out")
        return value

    @model_validator(mode="after")
    def _known(self) -> NodeGroup:
        if self.devices is None and self.type is None:
            raise ValueError("give devices, like [{device: a100-40g, count: 8}], or a type of `paceline catalogue`")
        return self

    @property
    def known(self) -> CatalogueNode | None:
        """What the catalogue says of the node's type."""
        return catalogue().nodes[self.type] if self.type else None

    @property
    def size(self) -> int:
        """The number of a node's workers."""
        return sum(group.count for group in self.each)

    @property
    def each(self) -> tuple[WorkerGroup, ...]:
        """Its devices: those given, else the type's."""
        known = self.known
        return self.devices or ((WorkerGroup(device=known.device, count=known.count),) if known else ())

    def groups(self) -> list[WorkerGroup]:
        """The node's devices, each with its part of what the node gives."""
        memory, bandwidth = self.host_memory, self.host_memory_bandwidth
        if known := self.known:
            memory, bandwidth = memory or known.memory, bandwidth or known.memory_bandwidth
        shared = {
            "host_link": self.host_link,
            "host_memory": memory and memory / self.size,
            "host_memory_bandwidth": bandwidth and bandwidth / self.size,
        }
        return [
            group.model_copy(update={name: value for name, value in shared.items() if getattr(group, name) is None})
            for group in self.each
        ]


class WorkerPlace(NamedTuple):
    """Where one worker is."""

    key: str  # of its group in the scenario, like "workers[0]"
    group: WorkerGroup
    node: int  # the node's number


class WorkerBlock(NamedTuple):
    """Workers of one group that follow one another: there may be a million of them."""

    key: str  # as of WorkerPlace
    group: WorkerGroup
    nodes: Sequence[int]  # the number of each worker's node


class NoiseSpec(Section):
    """How times vary around their mean: those of computing, and with network_sigma those of exchanges."""

    source: Literal["lognormal", "profile"] = "lognormal"  # profile: as they varied when it was measured
    sigma: float = Field(default=0.0, ge=0, le=2)  # of the lognormal
    worker_sigma: float = Field(default=0.0, ge=0, le=2)  # of the factor that each worker draws once, and keeps
    # Of the factor that all workers share in a run; with source: profile, how far the machine moved when measured.
    run_sigma: float | None = Field(default=None, ge=0, le=2)
    # Of the factor on all exchanges of a run; with source: profile, how far exchanges were from what the profile says.
    network_sigma: float | None = Field(default=None, ge=0, le=2)
    seed: Seed | None = None  # of the draws; by default the scenario's seed

    @model_validator(mode="after")
    def _one_source(self) -> NoiseSpec:
        if self.source == "profile" and self.sigma > 0:
            raise ValueError("source: profile draws from what was measured, and takes no sigma; keep one of the two")
        return self


class Cluster(Section):
    """The machines: either `workers`, or `nodes` with several workers each."""

    workers: tuple[WorkerGroup, ...] | None = None
    nodes: tuple[NodeGroup, ...] | None = None
    network: NetworkSpec = NetworkSpec()
    background: tuple[BackgroundSpec, ...] = ()  # other traffic on the same network
    profile: Path | None = None  # written by `paceline profile`; relative to the scenario or the working folder
    noise: NoiseSpec = NoiseSpec()

    @field_validator("workers", "nodes")
    @classmethod
    def _some(cls, value: tuple[Any, ...] | None, info: ValidationInfo) -> tuple[Any, ...] | None:
        if value is not None and not value:
            devices = "{device: rtx3090, count: 2}"
            like = devices if info.field_name == "workers" else f"{{count: 2, devices: [{devices}]}}"
            raise ValueError(f"no {info.field_name}; list at least one, like [{like}]")
        return value

    @model_validator(mode="after")
    def _one_list(self) -> Cluster:
        if bool(self.workers) == bool(self.nodes):
            found = "workers and nodes are both given; keep one" if self.nodes else "give workers, or nodes"
            raise ValueError(f"{found}, like workers: [{{device: cpu, count: 2}}]")
        return self

    @model_validator(mode="after")
    def _two_level(self) -> Cluster:
        if self.network.shape == "two_level" and self.inside is None:
            raise ValueError(
                "network: shape two_level needs inside, like inside: {bandwidth: 100 GB/s, latency: 2 us}, "
                "or nodes of one type of the catalogue"
            )
        return self

    @property
    def inside(self) -> LinkSpec | None:
        """A worker's port within its node: as the network says, else as the nodes' types say if they agree."""
        known = {node.known.inside if node.known else None for node in self.nodes or ()}
        (link,) = known if len(known) == 1 else (None,)
        return self.network.inside or (LinkSpec.model_validate(link) if link else None)

    @property
    def size(self) -> int:
        """The number of workers, which may be too large to list them."""
        inside = sum(node.count * node.size for node in self.nodes or ())
        return sum(group.count for group in self.workers or ()) + inside

    @property
    def blocks(self) -> list[WorkerBlock]:
        """The workers in their order, those of a group that follow one another together. Nodes are numbered as they
        first appear.
        """
        blocks: list[WorkerBlock] = []
        named: dict[str | int, int] = {}
        nodes = 0
        for number, group in enumerate(self.workers or ()):
            own = group.node is None
            first = nodes if group.node is None else named.setdefault(group.node, nodes)
            nodes = max(nodes, first + (group.count if own else 1))
            places = range(first, nodes) if own else [first] * group.count
            blocks.append(WorkerBlock(f"workers[{number}]", group, places))
        for number, described in enumerate(self.nodes or ()):
            groups = [(f"nodes[{number}].devices[{i}]", group) for i, group in enumerate(described.groups())]
            those, nodes = range(nodes, nodes + described.count), nodes + described.count
            if len(groups) == 1:  # then the workers of all these nodes are alike
                ((key, group),) = groups
                blocks.append(WorkerBlock(key, group, [node for node in those for _ in range(group.count)]))
            else:
                blocks += [WorkerBlock(key, group, [node] * group.count) for node in those for key, group in groups]
        return blocks

    @property
    def places(self) -> list[WorkerPlace]:
        """Each worker's group and node, in worker order."""
        return [WorkerPlace(block.key, block.group, node) for block in self.blocks for node in block.nodes]
