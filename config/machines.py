"""The scenario's `cluster:` section as it is written: devices, nodes, network, noise."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import Field, ValidationInfo, field_validator, model_validator

from .catalogue import LinkBandwidth
from .network import BackgroundSpec, NetworkSpec
from .sections import Section
from .units import Bandwidth, Bytes, Count, Duration, Factor, Flops, Share, Speed


class WorkerGroup(Section):
    """`count` equal workers. Their times: `speed`, `step_time` (one time, or by batch size) or `flops`; else the
    profile's, else the catalogue's of the device.

    slowdown multiplies every computing time: 4 is a device four times slower. flops: the peak at the workload's
    precision. efficiency: the part of a peak that training reaches. memory, host_memory: what one worker may use.
    max_batch: the most samples that its memory holds in a step, by default the profile's. host_link: between host and
    device, in either direction; without one they are the same memory. node: workers with the same name share a node; by
    default each is a node of its own. port: the bandwidth of each one's port in a star, where it is not the network's.
    torch_device: what really trains.
    """

    device: str = "cpu"
    count: Count = 1
    speed: Speed | None = None
    step_time: Duration | dict[int, Duration] | None = None
    flops: Flops | None = None
    efficiency: Share | None = None
    slowdown: Factor = 1.0
    memory: Bytes | None = None
    memory_bandwidth: Bandwidth | None = None
    host_memory: Bytes | None = None
    host_memory_bandwidth: Bandwidth | None = None
    max_batch: Count | None = None
    host_link: LinkBandwidth | None = None
    node: str | int | None = None
    torch_device: Literal["cpu", "cuda"] = "cpu"
    port: LinkBandwidth | None = None

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
            self.refuse_rates(beside=given[0])
        return self

    def refuse_rates(self, beside: str) -> None:
        """ValueError where a rate is given that changes no time, since `beside` says how long work takes."""
        for name in ("efficiency", "memory_bandwidth"):
            if getattr(self, name) is not None:
                raise ValueError(f"{name} has no effect beside {beside}; keep one")


class NodeGroup(Section):
    """`count` equal nodes with these devices, one worker each. Workers are numbered node by node.

    host_link: each device's own. host_memory, host_memory_bandwidth: the node's; each worker has an equal part.
    What a device gives itself goes before.
    """

    count: Count = 1
    devices: tuple[WorkerGroup, ...]
    host_link: LinkBandwidth | None = None
    host_memory: Bytes | None = None
    host_memory_bandwidth: Bandwidth | None = None

    @field_validator("devices")
    @classmethod
    def _some(cls, value: tuple[WorkerGroup, ...]) -> tuple[WorkerGroup, ...]:
        if not value:
            raise ValueError("no devices; list at least one, like [{device: a100-40g, count: 8}]")
        if any(group.node is not None for group in value):
            raise ValueError("node has no effect here: these devices share their node; leave it out")
        return value

    def groups(self) -> list[WorkerGroup]:
        """The node's devices, each with its part of what the node gives."""
        workers = sum(group.count for group in self.devices)
        shared = {
            "host_link": self.host_link,
            "host_memory": self.host_memory and self.host_memory / workers,
            "host_memory_bandwidth": self.host_memory_bandwidth and self.host_memory_bandwidth / workers,
        }
        return [
            group.model_copy(update={name: value for name, value in shared.items() if getattr(group, name) is None})
            for group in self.devices
        ]


class WorkerPlace(NamedTuple):
    """Where one worker is. key: its group's in the scenario. node: the node's number."""

    key: str
    group: WorkerGroup
    node: int


class NoiseSpec(Section):
    """Computing times vary around their mean.

    source: "lognormal" with `sigma`, or "profile": as they varied when the profile was measured. worker_sigma: the
    lognormal of a factor that each worker draws once and keeps, so that no two are equally fast.
    """

    source: Literal["lognormal", "profile"] = "lognormal"
    sigma: float = Field(default=0.0, ge=0, le=2)
    worker_sigma: float = Field(default=0.0, ge=0, le=2)

    @model_validator(mode="after")
    def _one_source(self) -> NoiseSpec:
        if self.source == "profile" and self.sigma > 0:
            raise ValueError("source: profile draws from what was measured, and takes no sigma; keep one of the two")
        return self


class Cluster(Section):
    """The machines: `workers`, or `nodes` of several each.

    profile: a file that `paceline profile` wrote, relative to the scenario or the working folder.
    background: what others send over the same network.
    """

    workers: tuple[WorkerGroup, ...] | None = None
    nodes: tuple[NodeGroup, ...] | None = None
    network: NetworkSpec = NetworkSpec()
    background: tuple[BackgroundSpec, ...] = ()
    profile: Path | None = None
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

    @property
    def size(self) -> int:
        """Number of workers, which may be more than can be listed."""
        inside = sum(node.count * sum(group.count for group in node.devices) for node in self.nodes or ())
        return sum(group.count for group in self.workers or ()) + inside

    @property
    def places(self) -> list[WorkerPlace]:
        """Each worker's group and node, in worker order. Nodes are counted as they first appear."""
        places: list[WorkerPlace] = []
        named: dict[str | int, int] = {}
        nodes = 0
        for number, group in enumerate(self.workers or ()):
            for _ in range(group.count):
                node = nodes if group.node is None else named.setdefault(group.node, nodes)
                nodes = max(nodes, node + 1)
                places.append(WorkerPlace(f"workers[{number}]", group, node))
        for number, described in enumerate(self.nodes or ()):
            groups = [(f"nodes[{number}].devices[{i}]", group) for i, group in enumerate(described.groups())]
            for node in range(nodes, nodes + described.count):
                places += [WorkerPlace(key, group, node) for key, group in groups for _ in range(group.count)]
            nodes += described.count
        return places
