"""Profiles: what `paceline profile` measured on a machine, for scenarios to read.

For each device and each workload measured on it, a profile holds tables of seconds by number of samples, also of the
pieces into which placements cut a step, how single times varied around the tables, and the largest batch that fits. It
also holds the network's fitted latency and bandwidth. The file is YAML, so that a person can read and correct it;
docs/profiles.md explains every key.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field, ValidationError

from ..program.errors import ScenarioError
from . import yaml
from .measured_cost import MeasuredCost
from .optimizers import SGDSpec
from .sections import Section, first_mistake
from .tables import PassTimes, PieceTimes, Table
from .units import Bandwidth, Duration, FreeBandwidth, Seconds
from .workload import Workload

T = TypeVar("T")


Samples = dict[int, Seconds]  # samples -> seconds
NonEmpty = Annotated[Samples, Field(min_length=1)]


class MeasuredPairs(Section):
    """What was measured between every two hosts: from the row's host to the column's, while both send."""

    hosts: tuple[str, ...]  # their names
    places: tuple[int, ...]  # by rank: its host's row
    latency: tuple[tuple[Seconds, ...], ...]
    bandwidth: tuple[tuple[FreeBandwidth, ...], ...]  # bytes/s; 0 on the diagonal

    @classmethod
    def of(cls, hosts: Any, places: Any, latency: Any, bandwidth: Any) -> MeasuredPairs:
        """The section for plain numbers: seconds and bytes/s."""
        times = [[f"{seconds:.4g} s" for seconds in row] for row in latency]
        rates = [[f"{rate:.4g} B/s" for rate in row] for row in bandwidth]
        return cls(hosts=hosts, places=places, latency=times, bandwidth=rates)  # type: ignore[arg-type]

    def matrix(self) -> tuple[tuple[float, ...], ...]:
        """Bytes/s from each rank to each other. ValueError where ranks share a host: between those nothing is known."""
        if len(self.hosts) < len(self.places):
            raise ValueError(
                f"the profile's {len(self.places)} ranks ran on {len(self.hosts)} hosts, and within a host it has no "
                "bandwidth; write shape: two_level, or a matrix"
            )
        return tuple(tuple(self.bandwidth[a][b] for b in self.places) for a in self.places)


class MeasuredNetwork(Section):
    """Fitted: messages * latency + bytes sent / bandwidth + bytes added / reduce_bandwidth meets the measured times."""

    latency: Seconds
    bandwidth: Bandwidth  # bytes/s
    reduce_bandwidth: Bandwidth | None = None  # bytes/s; None: adding up takes no time that could be told apart
    # How much longer it takes next to a computation: messages * beside_latency + bytes sent / beside_bandwidth.
    beside_latency: Seconds = 0.0
    beside_bandwidth: Bandwidth | None = None
    variation: float = Field(default=0.0, ge=0, le=2)  # how far exchanges were from this: s of a lognormal
    described: Bandwidth | None = None  # what the scenario said of it: scenarios that say the same have this network
    all_reduce: dict[int, Duration] = {}  # bytes -> the measured seconds
    pairs: MeasuredPairs | None = None  # where the ranks ran on several hosts


class MeasuredPass(Section):
    """Forward or backward passes, computed unit by unit."""

    times: NonEmpty  # of all units together, in the finest cut
    shares: Annotated[tuple[Annotated[float, Field(ge=0, le=1)], ...], Field(min_length=1)]  # of each unit in them
    cut: Seconds = 0.0  # that each cut between two units adds

    def read(self) -> PassTimes:
        """As the timing reads it."""
        return PassTimes(_table(self.times), self.shares, self.cut)


class MeasuredUnits(Section):
    """A step computed unit by unit."""

    forward: MeasuredPass
    backward: MeasuredPass


class MeasuredPieces(Section):
    """The pieces of a workload's step that some placements make of it."""

    first: Samples = {}  # the first local step of a round, which follows an exchange; `step` is any other
    # Whether the units' parameters stay on the device, or are fetched before each use.
    units: dict[Literal["kept", "fetched"], MeasuredUnits] = {}
    # "update", "host update" -> the part of all parameters that is updated -> seconds
    updates: dict[Literal["update", "host update"], dict[Annotated[float, Field(gt=0, le=1)], Seconds]] = {}


class MeasuredMoves(Section):
    """Copies between a device and its host: bytes -> seconds."""

    device: Samples = {}  # to the device
    host: Samples = {}  # to the host


class MeasuredTaken(Section):
    """What started effects take from the computation next to them, since they need the processor, too."""

    copies: Samples = {}  # bytes -> seconds
    exchanges: Samples = {}  # bytes sent -> seconds


class MeasuredVariation(Section):
    """How residuals hang together."""

    lasting: Seconds  # of the steps that they were measured on
    correlation: float = Field(default=0.0, ge=0, lt=1)  # of a step's residual with that of the step before
    drift: float = Field(default=0.0, ge=0, le=2)  # of equal measurements, some time apart: s of a lognormal


class Profile(Section):
    """The contents of a profile's file. A workload's name is made by `workload_key`."""

    version: Literal[1, 2] = 1  # of the format; 2 added pieces, moves and what exchanges take from computations
    machine: dict[str, Any] = {}  # the environment of the measurement, for people
    # device -> workload -> phase -> {samples: seconds}
    devices: dict[str, dict[str, dict[str, NonEmpty]]]
    pieces: dict[str, dict[str, MeasuredPieces]] = {}  # device -> workload -> what placements make of a step
    moves: dict[str, MeasuredMoves] = {}  # device -> copies to and from its host
    taken: dict[str, MeasuredTaken] = {}  # device -> what started effects take from its computations
    # device -> workload -> evenly spaced quantiles of steps' measured times, divided by the mean of their trial
    residuals: dict[str, dict[str, tuple[Annotated[float, Field(gt=0, le=1e9)], ...]]] = {}
    variation: dict[str, dict[str, MeasuredVariation]] = {}  # device -> workload -> how its residuals hang together
    max_batch: dict[str, dict[str, Annotated[int, Field(ge=1)]]] = {}  # device -> workload -> the most samples that fit
    # device -> workload -> bytes that a rank's process grows by after imports, beyond data and arrays: what libraries
    # load when they are first used, and what the allocator keeps
    memory: dict[str, dict[str, Annotated[int, Field(ge=0)]]] = {}
    # A user's model, its arguments and its inputs -> what it costs; see LearningProblem.cost_key
    costs: dict[str, MeasuredCost] = {}
    network: MeasuredNetwork | None = None

    def process(self, device: str, workload: str) -> int:
        """The bytes of `memory`; 0 where they were not measured."""
        return self.memory.get(device, {}).get(workload, 0)

    def largest(self, device: str, workload: str) -> int | None:
        """The largest batch that fits into the device's memory; None where it was not measured."""
        return self.max_batch.get(device, {}).get(workload)

    def tables(self, device: str, workload: str) -> dict[str, Table]:
        """phase -> ((samples, seconds), ...). ValueError where the profile lacks the device or the workload."""
        if device not in self.devices:
            raise ValueError(f"device {device!r} is not in the profile, which has {', '.join(self.devices)}")
        workloads = self.devices[device]
        if workload not in workloads:
            raise ValueError(
                f"the profile has no times of {workload!r} on {device}, only of "
                f"{', '.join(map(repr, workloads))}; measure it with `paceline profile SCENARIO`"
            )
        return {phase: _table(table) for phase, table in workloads[workload].items()}

    def piece_times(self, device: str, workload: str) -> PieceTimes:
        """The times of pieces; empty where they were not measured."""
        pieces = self.pieces.get(device, {}).get(workload) or MeasuredPieces()
        moves, taken = self.moves.get(device) or MeasuredMoves(), self.taken.get(device) or MeasuredTaken()
        return PieceTimes(
            passes={
                (held, phase): one.read()
                for held, units in pieces.units.items()
                for phase, one in (("forward", units.forward), ("backward", units.backward))
            },
            updates={phase: _table(table) for phase, table in pieces.updates.items()},
            first=_table(pieces.first),
            moves={to: _table(table) for to, table in (("device", moves.device), ("host", moves.host)) if table},
            taken=_table(taken.copies),
            exchange_taken=_table(taken.exchanges),
        )

    def factors(self, device: str, workload: str) -> tuple[float, ...]:
        """The residuals of a workload on a device. ValueError where the profile has none."""
        found = self.residuals.get(device, {}).get(workload, ())
        if not found:
            raise ValueError(
                f"the profile does not say how times of {workload!r} vary on {device}; "
                "measure them with `paceline profile SCENARIO`, or write cluster.noise.sigma"
            )
        return found


def _table(measured: Mapping[int, float] | Mapping[float, float]) -> Table:
    return tuple(sorted((float(key), seconds) for key, seconds in measured.items()))


def workload_key(workload: Workload) -> str:
    """The key under which profiles file this workload's times."""
    model, optimizer = model_key(workload), workload.optimizer
    own = ", ".join(f"{key}={value}" for key, value in sorted((optimizer.model_extra or {}).items()))
    kind = f"{optimizer.name}({own})" if own else optimizer.name
    kind += " with momentum" if isinstance(optimizer, SGDSpec) and optimizer.momentum else ""
    kind += ", clipped" if optimizer.clip else ""
    kind += f", micro-batches of {workload.micro_batch}" if workload.micro_batch else ""
    kind += f", {workload.precision}" if workload.precision != "fp32" else ""
    kind += ", augmented" if workload.augment else ""
    kind += f", {workload.loaders} loaders" if workload.loaders else ""
    threads = f"{workload.threads} thread{'s' if workload.threads > 1 else ''}"
    return f"{model} on {workload.data.name}, {kind}, {threads}"


def model_key(workload: Workload) -> str:
    """How keys name the workload's model."""
    args = ", ".join(f"{key}={value}" for key, value in sorted(workload.model.args.items()))
    return f"{workload.model.name}({args})" if args else workload.model.name


def load_profile(path: Path) -> Profile:
    """The profile in the file at `path`. A file is read once. ScenarioError where it is missing or wrong."""
    return _load(path, path.stat().st_mtime_ns if path.exists() else 0)


@lru_cache(maxsize=16)
def _load(path: Path, changed: int) -> Profile:
    document = yaml.read_mapping(path, "devices: and network:")
    try:
        return Profile.model_validate(document)
    except ValidationError as error:
        place, message = first_mistake(error)
        raise ScenarioError(f"{path}: is not a profile: {place}: {message}") from None


def merge_profiles(old: Profile | None, new: Profile) -> Profile:
    """`old` with the measurements of `new`, which replace older ones of the same device and workload."""
    if old is None:
        return new
    merged = {
        "devices": _merged(old.devices, new.devices),
        "pieces": _merged(old.pieces, new.pieces),
        "residuals": _merged(old.residuals, new.residuals),
        "variation": _merged(old.variation, new.variation),
        "max_batch": _merged(old.max_batch, new.max_batch),
        "memory": _merged(old.memory, new.memory),
    }
    rest = {"moves": old.moves | new.moves, "costs": old.costs | new.costs, "network": new.network or old.network}
    return new.model_copy(update={**merged, **rest, "version": max(old.version, new.version)})


def _merged(old: dict[str, dict[str, T]], new: dict[str, dict[str, T]]) -> dict[str, dict[str, T]]:
    """device -> workload -> the newest measurement."""
    return {name: old.get(name, {}) | new.get(name, {}) for name in (*old, *new)}


def add_to_profile(path: Path, new: Profile) -> None:
    """Add measurements to the profile at `path`, which keeps what else it holds, or make it."""
    save_profile(path, merge_profiles(load_profile(path) if path.exists() else None, new))


def save_profile(path: Path, profile: Profile) -> None:
    """Write the profile as YAML. Its folder is made where it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.dump(profile.model_dump(mode="json", exclude_none=True)), encoding="utf-8")
