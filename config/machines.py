"""The scenario's `cluster:` section as it is written: devices, nodes, network, noise."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from .sections import Section
from .units import Bandwidth, Bytes, Duration, Seconds, Speed


class WorkerGroup(Section):
    """`count` equal workers. Their time per step: `speed`, or `step_time` (one time, or by batch size), or the profile.

    slowdown multiplies every computing time: 4 is a device four times slower. memory, host_memory: what one worker may
    use. host_link: between host and device, in either direction; without one they are the same memory. node: workers
    with the same name share a node; by default each is a node of its own. torch_device: what really trains.
    """

    device: str = "cpu"
    count: int = Field(default=1, ge=1)
    speed: Speed | None = None
    step_time: Duration | dict[int, Duration] | None = None
    slowdown: float = Field(default=1.0, gt=0)
    memory: Bytes | None = None
    host_memory: Bytes | None = None
    host_link: Bandwidth | None = None
    node: str | int | None = None
    torch_device: Literal["cpu", "cuda"] = "cpu"

    @field_validator("step_time")
    @classmethod
    def _times(cls, value: Any) -> Any:
        if isinstance(value, dict) and (not value or min(value) < 1):
            raise ValueError("a step-time table needs batch sizes of 1 or more, like {32: 2 ms, 64: 3 ms}")
        return value

    @model_validator(mode="after")
    def _one_source(self) -> WorkerGroup:
        if self.speed is not None and self.step_time is not None:
            raise ValueError("speed and step_time are both given; keep one")
        return self


class NetworkSpec(Section):
    """How workers are joined; what is missing comes from the profile, else transfers cost nothing."""

    shape: Literal["star", "bus"] = "star"
    bandwidth: Bandwidth | None = None
    latency: Seconds | None = None


class NoiseSpec(Section):
    """Computing times vary lognormally with this sigma around their mean."""

    sigma: float = Field(default=0.0, ge=0, le=2)


class Cluster(Section):
    """The machines. profile: a file that `paceline profile` wrote, relative to the scenario or the working folder."""

    workers: tuple[WorkerGroup, ...]
    network: NetworkSpec = NetworkSpec()
    profile: Path | None = None
    noise: NoiseSpec = NoiseSpec()

    @field_validator("workers")
    @classmethod
    def _some(cls, value: tuple[WorkerGroup, ...]) -> tuple[WorkerGroup, ...]:
        if not value:
            raise ValueError("no workers; list at least one, like [{device: cpu, count: 2}]")
        return value

    @property
    def size(self) -> int:
        """Number of workers."""
        return sum(group.count for group in self.workers)
