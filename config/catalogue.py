"""The catalogue: devices and links by name, with the figures of their makers' datasheets.

Rule: every figure in catalogue.yaml has a source. What a datasheet does not state is left out, never guessed.
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


class Catalogue(Section):
    """All devices and links that a scenario may name."""

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
    """Replace a link's name by its bandwidth. A value that ends in /s or is not text is read as a quantity later."""
    if not isinstance(value, str) or value.rstrip().endswith("/s"):
        return value
    return f"{catalogue().links[_known_link(value)].bandwidth!r} B/s"


LinkName = Annotated[str, AfterValidator(_known_link)]
# Like Bandwidth, but a link's name is accepted as well. (The last validator runs first.)
LinkBandwidth = Annotated[float, *get_args(Bandwidth)[1:], BeforeValidator(_bandwidth)]
