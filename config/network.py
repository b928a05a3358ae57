"""The scenario's `cluster.network:` and `cluster.background:` sections, and the Network that they describe.

Rule: a key that the chosen shape does not use is an error, so that no key is without effect.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import ConfigDict, Field, GetJsonSchemaHandler, field_validator, model_validator
from pydantic_core import CoreSchema

from ..program.errors import ScenarioError
from .catalogue import LinkBandwidth, LinkName, catalogue
from .profile import MeasuredNetwork
from .sections import Section
from .timing import BackgroundTraffic, CollectiveAlgorithm, Link, Network, NetworkShape
from .units import Bandwidth, Bytes, Duration, FreeBandwidth, Seconds, Share


class LinkSpec(Section):
    """A link; it may be written as its bandwidth alone."""

    bandwidth: LinkBandwidth  # a quantity, or a link of the catalogue
    latency: Seconds = 0.0  # per message step
    efficiency: Share = 1.0  # the part of the bandwidth that transfers reach

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"anyOf": [{"type": "string"}, super().__get_pydantic_json_schema__(schema, handler)]}

    @model_validator(mode="before")
    @classmethod
    def _short(cls, value: Any) -> Any:
        return {"bandwidth": value} if isinstance(value, str) else value


class NetworkSpec(Section):
    """How workers are joined. Where bandwidth or latency is missing, the profile's is used; without one, transfers take
    no time.
    """

    shape: NetworkShape = "star"
    link: LinkName | None = None  # of the catalogue, instead of a bandwidth
    bandwidth: Bandwidth | None = None  # of a port, of the bus, or of an uplink
    latency: Seconds | None = None  # per message step
    efficiency: Share = 1.0  # the part of the bandwidth that transfers reach
    inside: LinkSpec | None = None  # two_level: a worker's port within its node; by default of the nodes' type
    matrix: tuple[tuple[FreeBandwidth, ...], ...] | None = None  # row: from, column: to; by default the profile's
    collective: CollectiveAlgorithm = "ordered"  # of an all-reduce; `train` performs the ordered one
    reduce_bandwidth: Bandwidth | None = None  # what a worker can add up

    @field_validator("matrix")
    @classmethod
    def _square(cls, value: Any) -> Any:
        for sender, row in enumerate(value or ()):
            if len(row) != len(value):
                raise ValueError(f"row {sender} has {len(row)} bandwidths for {len(value)} rows; give one per worker")
            for receiver, bandwidth in enumerate(row):
                if sender != receiver and not bandwidth:
                    raise ValueError(f"the bandwidth from {sender} to {receiver} is 0; only the diagonal can be")
        return value

    @property
    def rate(self) -> float | None:
        """Bytes/s of a port, of the bus, of an uplink, as the scenario says; None where it does not."""
        return catalogue().links[self.link].bandwidth if self.link else self.bandwidth

    @model_validator(mode="after")
    def _fits_the_shape(self) -> NetworkSpec:
        for key, shape in (("inside", "two_level"), ("matrix", "matrix")):
            if getattr(self, key) is not None and self.shape != shape:
                raise ValueError(f"{key} is for shape: {shape}, and this is a {self.shape}; remove one of them")
        sources = [key for key in ("matrix", "link", "bandwidth") if getattr(self, key) is not None]
        if len(sources) > 1:
            raise ValueError(f"{sources[0]} and {sources[1]} are both given; keep one")
        return self


class BackgroundSpec(Section):
    """Other traffic from one worker's port to another's: a stream of at most `bandwidth`, or `bytes` at a time."""

    model_config = ConfigDict(serialize_by_alias=True)

    sender: int = Field(alias="from", ge=0)
    receiver: int = Field(alias="to", ge=0)
    bandwidth: Bandwidth | None = None
    bytes: Bytes | None = None
    every: Duration | None = None  # how often the bytes are sent
    start: Seconds = 0.0  # when they are sent first, or when the stream begins

    @model_validator(mode="after")
    def _complete(self) -> BackgroundSpec:
        if self.sender == self.receiver:
            raise ValueError(f"from and to are both {self.sender}; a worker's traffic to itself crosses no link")
        if (self.bytes is None) != (self.every is None):
            raise ValueError("bytes and every belong together, like {from: 0, to: 1, bytes: 100 MB, every: 1 s}")
        if self.bandwidth is None and self.bytes is None:
            raise ValueError("how much? give bandwidth (a stream), or bytes and every, or all three")
        return self


def build_network(
    given: NetworkSpec,
    measured: MeasuredNetwork | None,
    ports: Sequence[float | None],
    background: Sequence[BackgroundSpec],
    inside: LinkSpec | None,
) -> Network:
    """The described network. ScenarioError where workers and network do not fit together.

    measured: the profile's network, or None.
    ports: by worker, the bandwidth of its port where it gives one.
    inside: a worker's port within its node, on a two-level network.
    """
    workers, matrix = len(ports), _matrix(given, measured)
    if any(port is not None for port in ports) and given.shape != "star":
        raise ScenarioError(f"cluster.workers: port is for a star of ports, and cluster.network.shape is {given.shape}")
    if matrix is not None and len(matrix) != workers:
        raise ScenarioError(f"cluster.network.matrix is for {len(matrix)} workers, and there are {workers}")
    for number, flow in enumerate(background):
        if max(flow.sender, flow.receiver) >= workers:
            raise ScenarioError(
                f"cluster.background[{number}]: worker {max(flow.sender, flow.receiver)} does not exist; "
                f"write 0 to {workers - 1}"
            )
    if measured and given.rate in (None, measured.described):
        bandwidth, efficiency = measured.bandwidth, 1.0 if given.rate else given.efficiency
    else:
        bandwidth, efficiency = given.rate or float("inf"), given.efficiency
    latency = given.latency if given.latency is not None else (measured.latency if measured else 0.0)
    inside = inside if given.shape == "two_level" else None
    endless = bandwidth == float("inf") and not matrix and not any(ports)
    for key, written in (("network.efficiency", given.efficiency != 1), ("background", background and not inside)):
        if endless and written:
            raise ScenarioError(
                f"cluster.{key} has no effect on a network without a bandwidth; give cluster.network one"
            )
    return Network(
        shape=given.shape,
        bandwidth=bandwidth * efficiency,
        latency=latency,
        inside=Link(inside.bandwidth * inside.efficiency, inside.latency) if inside else None,
        matrix=matrix and tuple(tuple(entry * efficiency for entry in row) for row in matrix),
        ports=tuple((port or bandwidth) * efficiency for port in ports) if any(ports) else None,
        collective=given.collective,
        reduce_bandwidth=given.reduce_bandwidth or (measured and measured.reduce_bandwidth) or float("inf"),
        beside_latency=measured.beside_latency if measured else 0.0,
        beside_bandwidth=(measured and measured.beside_bandwidth) or float("inf"),
        background=tuple(
            BackgroundTraffic(f.sender, f.receiver, f.bandwidth, f.bytes, f.every, f.start) for f in background
        ),
    )


def _matrix(given: NetworkSpec, measured: MeasuredNetwork | None) -> tuple[tuple[float, ...], ...] | None:
    """The bandwidths of a matrix, by workers: as given, else as the profile has them. None for another shape."""
    if given.shape != "matrix" or given.matrix is not None:
        return given.matrix
    if measured is None or measured.pairs is None:
        raise ScenarioError(
            "cluster.network: shape matrix needs matrix, like matrix: [[0, 1 Gbit/s], [1 Gbit/s, 0]], or a "
            "cluster.profile that was measured on several hosts"
        )
    try:
        return measured.pairs.matrix()
    except ValueError as error:
        raise ScenarioError(f"cluster.network.shape: matrix: {error}") from None
