"""Published training times: a file of groups, and what the words of a group say about each of its rows.

A group's rows ran on the same hardware with the same code. The texts are those of the sources ("2 node(s) of 8",
"InfiniBand 100 Gbit/s between nodes; NVLink inside"), and this module reads them.
Rule: what a text does not say is never guessed. A group without it is told in one line, and is not predicted.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from ..algorithms.presets import PRESETS
from ..program.errors import ScenarioError, brief
from . import yaml
from .catalogue import catalogue
from .sections import Section, first_mistake
from .units import Count, Positive

SCALES = {"h": 3600.0, "min": 60.0, "s": 1.0, "ms": 1e-3}  # seconds
SAMPLES = ("img", "images", "samples", "seq", "sequences")  # what rates count as samples
GIGABITS = "Gbit/s|Gb/s|Gbps|GbE"
UNKNOWN = re.compile(r"(not|un)\b|\?|n/a", re.IGNORECASE)  # begins a text that says that something is not known


class PublishedRow(Section):
    """One run."""

    workers: Count
    devices: str  # how many of what, like "16 x V100 (2 node(s) of 8)"
    batch: Count | Annotated[tuple[Count, ...], Field(min_length=1)] | None = None  # samples, or tokens, per worker
    accumulate: Count | None = None  # micro-batches of `batch` in a step; by default as the group's note says, else 1
    H: int | str = 1  # steps per round
    measured: Positive  # as published, in `unit`
    unit: str  # like "img/s total"
    method: str | None = None  # if it is not the group's
    scenario: Path | None = None  # one of Paceline's that describes this run, where the words here do not suffice
    note: str = ""


class PublishedGroup(Section):
    """Runs of the same code on the same hardware."""

    source: str
    evidence: Literal["code", "docs", "issue", "paper", "2nd"]  # 2nd: a secondary source
    model: str
    params: Positive | None = None
    precision: str = "fp32"
    method: str = ""
    network: str = ""
    note: str = ""
    rows: Annotated[tuple[PublishedRow, ...], Field(min_length=1)]


class PublishedFile(Section):
    """A file of published runs."""

    groups: dict[str, PublishedGroup]


class NotSaid(Exception):
    """What a group does not say, or what Paceline cannot simulate of it."""


@dataclass(frozen=True)
class Unit:
    """How a published number relates to a pace: the seconds of one worker for a sample, or for a step.

    A rate is factor / pace, and a time is factor * pace.
    """

    factor: float
    rate: bool
    of: str = ""  # what a rate counts: a word of SAMPLES, or "tokens"

    def pace(self, measured: float) -> float:
        """The pace that a published number means."""
        return self.factor / measured if self.rate else measured / self.factor

    def published(self, pace: float) -> float:
        """The number as it would be published."""
        return self.factor / pace if self.rate else self.factor * pace


@dataclass(frozen=True)
class PublishedRun:
    """A row in numbers: all that a simulation needs except for the speed of its device."""

    model: str
    parameters: int
    precision: str
    method: str  # a preset
    arguments: dict[str, int]  # of the preset
    devices: tuple[str, ...]  # the device of each worker: the catalogue's name, else the row's own word
    nodes: int  # equal nodes, which the devices fill in order
    batches: tuple[int, ...]  # samples of each worker in a micro-batch
    accumulate: int  # micro-batches of a step
    across: float  # bytes/s of the link of a node to the others; 0: there is one node
    inside: str  # the catalogue's name of the link within a node
    work: float  # what the unit counts (samples, tokens or steps) of one worker in a step, on average


def load_published(paths: Iterable[Path]) -> dict[str, PublishedGroup]:
    """The groups in the files, in the files' order. ScenarioError where a file is wrong or a name comes twice."""
    found: dict[str, PublishedGroup] = {}
    for path in paths:
        try:
            groups = PublishedFile.model_validate(yaml.read_mapping(path, "groups:")).groups
        except ValidationError as error:
            key, message = first_mistake(error)
            raise ScenarioError(f"{path}: {key}: {message}") from None
        if twice := next((name for name in groups if name in found), None):
            raise ScenarioError(f"{path}: groups.{twice}: another file has a group of that name; rename one")
        found |= {name: _placed(group, path.parent) for name, group in groups.items()}
    return found


def _placed(group: PublishedGroup, folder: Path) -> PublishedGroup:
    """The group whose rows name their scenarios from the working folder."""
    rows = tuple(row.model_copy(update={"scenario": row.scenario and folder / row.scenario}) for row in group.rows)
    return group.model_copy(update={"rows": rows})


def unit_of(row: PublishedRow) -> Unit:
    """How to read the row's number. NotSaid where it is neither a rate nor a time of a step."""
    if match := re.match(r"(\w+)/s (total|per GPU)\b", row.unit):
        return Unit(float(row.workers) if match[2] == "total" else 1.0, True, match[1])
    if match := re.match(r"(ms|s)/step\b", row.unit):
        return Unit(1 / SCALES[match[1]], False)
    if match := re.match(r"(h|min|s) for (\d+) steps\b", row.unit):
        return Unit(int(match[2]) / SCALES[match[1]], False)
    raise NotSaid(f"the unit {brief(row.unit)} is neither a rate nor a time of steps")


def preset_of(group: PublishedGroup, row: PublishedRow) -> str:
    """The row's method: the first word, which is a preset. NotSaid where it is none."""
    text = row.method or group.method
    name = re.split(r"[\s(,]", text, maxsplit=1)[0]
    if name not in PRESETS:
        raise NotSaid(f"the method {brief(text or 'none')} is not a preset")
    return name


def run_of(group: PublishedGroup, row: PublishedRow) -> PublishedRun:
    """The row in numbers. NotSaid, with the first thing that is missing."""
    method, unit = preset_of(group, row), unit_of(row)
    if group.params is None:
        raise NotSaid("the number of parameters is not given")
    if row.batch is None:
        raise NotSaid("the batch is not given")
    if row.H != 1 and (isinstance(row.H, str) or "H" not in inspect.signature(PRESETS[method]).parameters):
        raise NotSaid(f"H is {brief(row.H)}, which the row's words do not suffice to simulate with {method}")
    nodes, devices = nodes_of(row), _devices(row)
    accumulate = row.accumulate or _accumulated(group.note, nodes)
    batches = (row.batch,) * row.workers if isinstance(row.batch, int) else row.batch
    if len(batches) != row.workers or len(devices) != row.workers:
        raise NotSaid(f"{row.workers} workers have {len(devices)} devices and {len(batches)} batches")
    across, inside = _links(group.network, nodes, row.workers // nodes, devices[0])
    tokens = _tokens(group, unit)
    work = accumulate * sum(batches) / row.workers * tokens if unit.rate else 1.0
    parameters = round(group.params)
    return PublishedRun(
        group.model,
        parameters,
        group.precision,
        method,
        {} if row.H == 1 else {"H": int(row.H)},
        devices,
        nodes,
        batches,
        accumulate,
        across,
        inside,
        work,
    )


def not_stated(group: PublishedGroup) -> str:
    """Why a group whose network is only known from the machine's datasheet does not count; empty where it is given."""
    return "the source does not state the network" if UNKNOWN.match(group.network.strip()) else ""


def nodes_of(row: PublishedRow) -> int:
    """The number of nodes: "(2 node(s) of 8)", "(2 machines)"; one where the row speaks of none."""
    match = re.search(r"(\d+) (?:node|machine|server|host)", row.devices)
    nodes = int(match[1]) if match else 1
    if row.workers % nodes:
        raise NotSaid(f"{row.workers} workers do not fill {nodes} equal nodes")
    return nodes


def _devices(row: PublishedRow) -> tuple[str, ...]:
    """Each worker's device: "2 x A6000 + 2 x RTX 2080 Ti, one machine" lists four."""
    listed = re.split(r"[(,]", row.devices, maxsplit=1)[0]
    found: list[str] = []
    for part in listed.split(" + "):
        match = re.match(r"\s*(\d+) x (.+?)\s*$", part)
        if match is None or int(match[1]) > row.workers:
            raise NotSaid(f"the devices {brief(row.devices)} are not given as a number and a name")
        found += [_known(match[2])] * int(match[1])
    return tuple(found)


def _known(words: str) -> str:
    """The catalogue's name of a device, else the words: "RTX 2080 Ti" is rtx2080ti, "V100" the first of its kind."""
    plain = re.sub(r"[\s_-]", "", words).lower()
    names = {re.sub(r"[\s_-]", "", name): name for name in catalogue().devices}
    alike = [name for short, name in names.items() if short == plain or short.startswith((plain, f"rtx{plain}"))]
    alike += [name for short, name in names.items() if plain.startswith(short.removesuffix("sxm"))]
    kind = re.match(r"[a-z]+\d+", plain)
    alike += [name for short, name in names.items() if kind and short.startswith(kind[0])]
    return alike[0] if alike else words


def _accumulated(note: str, nodes: int) -> int:
    """Micro-batches of a step, by nodes: "accumulated micro-batches for 1,2,4 nodes: 32,16,8". 1 where none is said."""
    match = re.search(r"micro-batches for ([\d,]+) nodes: ([\d,]+)", note)
    if match is None:
        return 1
    table: dict[int, int] = dict(zip(*(map(int, part.strip(",").split(",")) for part in match.groups()), strict=False))
    if nodes not in table:
        raise NotSaid(f"the note does not say how many micro-batches {nodes} nodes accumulate")
    return table[nodes]


def _tokens(group: PublishedGroup, unit: Unit) -> int:
    """How many of what the unit counts are in one sample."""
    if not unit.rate or unit.of in SAMPLES:
        return 1
    if unit.of != "tokens":
        raise NotSaid(f"the unit counts {brief(unit.of)}, not samples or tokens")
    if "batch in tokens" in group.note:
        return 1
    if match := re.search(r"sequence (\d+)", group.note):
        return int(match[1])
    raise NotSaid("the tokens of a sample are not given")


def _links(network: str, nodes: int, per_node: int, device: str) -> tuple[float, str]:
    """(bytes/s between nodes, or 0 in one node; the link within a node)."""
    match = re.search(rf"(?:(\d+) x )?(\d+(?:\.\d+)?) ?(?:{GIGABITS})(?: (?:\w+ )?(ports|a GPU|per GPU))?", network)
    if nodes > 1 and match is None:
        raise NotSaid("the network between the nodes is not given")
    across = 0.0
    if nodes > 1 and match is not None:
        across = float(match[2]) / 8 * 1e9 * int(match[1] or 1) * (per_node if match[3] else 1)
    known = catalogue().devices.get(device)
    if "NVLink" in network:
        for node in catalogue().nodes.values():
            if node.device == device:
                return across, node.inside
    if per_node > 1 and not network.strip():
        raise NotSaid("the network is not given")
    if known is not None and known.host_link is not None:
        return across, known.host_link
    if per_node == 1:
        return across, "pcie3x16"  # nothing crosses it
    raise NotSaid("the link within a node is not given")
