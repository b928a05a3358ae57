"""The catalogue: devices and links by name, as their makers' datasheets state them.

Rule: catalogue.yaml holds facts with their source; what a datasheet leaves out is left out, never guessed.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Annotated, Any, get_args

from pydantic import AfterValidator, BeforeValidator

from ..program.errors import nearest
from . import yaml
from .sections import Section
from .units import Bandwidth, Bytes, Clock, Flops


class CatalogueDevice(Section):
    """One device. flops: peak flop/s by precision; a CPU has cores, clock and flops_per_cycle (fp32, one core) instead.

    memory: bytes; memory_bandwidth: bytes/s; host_link: a link's name, None for a CPU, which is its own host.
    """

    maker: str
    source: str
    flops: dict[str, Flops] = {}
    cores: int = 0
    clock: Clock | None = None
    flops_per_cycle: int = 0
    memory: Bytes | None = None
    memory_bandwidth: Bandwidth
    host_link: str | None = None

    @property
    def peaks(self) -> dict[str, float]:
        """precision -> flop/s; of a CPU cores x clock x flops per cycle."""
        return self.flops or {"fp32": self.cores * (self.clock or 0.0) * self.flops_per_cycle}


class CatalogueLink(Section):
    """One link. bandwidth: bytes/s in either direction."""

    bandwidth: Bandwidth
    source: str


class Catalogue(Section):
    """All that can be named."""

    devices: dict[str, CatalogueDevice]
    links: dict[str, CatalogueLink]


@cache
def catalogue() -> Catalogue:
    """The catalogue that comes with Paceline."""
    return Catalogue.model_validate(yaml.read_mapping(Path(__file__).with_name("catalogue.yaml"), "devices:"))


def _known_link(name: str) -> str:
    links = catalogue().links
    if name not in links:
        hint = nearest(name, links) or f"; known: {', '.join(links)}"
        raise ValueError(f"{name!r} is not a link of the catalogue{hint}")
    return name


def _bandwidth(value: Any) -> Any:
    """A link's name becomes its bandwidth; what ends in /s, or is not text, is left to the units."""
    if not isinstance(value, str) or value.rstrip().endswith("/s"):
        return value
    return f"{catalogue().links[_known_link(value)].bandwidth!r} B/s"


LinkName = Annotated[str, AfterValidator(_known_link)]
# Like Bandwidth, but a link's name will do. (Validators that come last run first.)
LinkBandwidth = Annotated[float, *get_args(Bandwidth)[1:], BeforeValidator(_bandwidth)]
