"""The catalogue: devices, links and nodes by name, with the figures of their makers' datasheets.

Rule: every figure in catalogue.yaml has a source. What a datasheet does not state is left out, never guessed.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Annotated, Any, get_args

from pydantic import AfterValidator, BeforeValidator, WithJsonSchema

from ..program.errors import nearest
from . import yaml
from .sections import Section
from .units import Bandwidth, Bytes, Clock, Flops


class CatalogueDevice(Section):
    """One device. A GPU states its peaks in `flops`; a CPU states cores, clock and flops_per_cycle instead."""

    maker: str
    source: str  # where the figures are from
    flops: dict[str, Flops] = {}  # precision -> peak flop/s
    cores: int = 0
    clock: Clock | None = None  # Hz
    flops_per_cycle: int = 0  # of one core, in fp32
    memory: Bytes | None = None
    memory_bandwidth: Bandwidth  # bytes/s
    host_link: str | None = None  # a link's name; None for a CPU, which is its own host

    @property
    def peaks(self) -> dict[str, float]:
        """precision -> peak flop/s; for a CPU this is cores x clock x flops per cycle."""
        return self.flops or {"fp32": self.cores * (self.clock or 0.0) * self.flops_per_cycle}


class CatalogueLink(Section):
    """One link."""

    bandwidth: Bandwidth  # bytes/s in each direction
    source: str  # where the figure is from


class CatalogueNode(Section):
    """A machine with several devices of one kind."""

    device: str  # a device's name
    count: int
    inside: str  # the name of the link that joins each device to the others
    memory: Bytes  # of the host
    cpu: str | None = None  # a device's name
    sockets: int = 1  # how many of these processors
    source: str  # where the figures are from

    @property
    def memory_bandwidth(self) -> float | None:
        """Bytes/s of the host's memory, of all its processors together."""
        return self.sockets * catalogue().devices[self.cpu].memory_bandwidth if self.cpu else None


class Catalogue(Section):
    """All devices, links and nodes that a scenario may name."""

    devices: dict[str, CatalogueDevice]
    links: dict[str, CatalogueLink]
    nodes: dict[str, CatalogueNode]


@cache
def catalogue() -> Catalogue:
    """The catalogue that comes with Paceline."""
    return Catalogue.model_validate(yaml.read_mapping(Path(__file__).with_name("catalogue.yaml"), "devices:"))


def _known_link(name: str) -> str:
    return _known(name, "link", catalogue().links)


def _known_node(name: str) -> str:
    return _known(name, "node", catalogue().nodes)


def _known(name: str, kind: str, known: Iterable[str]) -> str:
    if name not in known:
        hint = nearest(name, known) or f"; known: {', '.join(known)}"
        raise ValueError(f"{name!r} is not a {kind} of the catalogue{hint}")
    return name


def _bandwidth(value: Any) -> Any:
    """Replace a link's name by its bandwidth. A value that ends in /s or is not text is read as a quantity later."""
    if not isinstance(value, str) or value.rstrip().endswith("/s"):
        return value
    return f"{catalogue().links[_known_link(value)].bandwidth!r} B/s"


NodeName = Annotated[str, AfterValidator(_known_node)]
LinkName = Annotated[str, AfterValidator(_known_link)]
# Like Bandwidth, but a link's name is accepted as well. (The last validator runs first.)
LinkBandwidth = Annotated[
    float,
    *get_args(Bandwidth)[1:],
    BeforeValidator(_bandwidth),
    WithJsonSchema({"type": "string", "examples": ["25 Gbit/s", "pcie4x16"]}, mode="validation"),
]
