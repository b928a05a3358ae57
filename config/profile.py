"""Profiles: what `paceline profile` measured on a machine, for scenarios to read.

For each device and each workload measured on it, a profile holds a table of seconds by number of samples, how single
times varied around the table, and the largest batch that fits. It also holds the network's fitted latency and
bandwidth. The file is YAML, so that a person can read and correct it.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import Field, ValidationError

from ..program.errors import ScenarioError
from . import yaml
from .sections import Section, first_mistake
from .timing import Table
from .units import Bandwidth, Duration, FreeBandwidth, Seconds
from .workload import SGDSpec, Workload

T = TypeVar("T")


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
    """Fitted so that messages * latency + bytes sent / bandwidth meets the measured times of the all-reduce."""

    latency: Seconds
    bandwidth: Bandwidth  # bytes/s
    all_reduce: dict[int, Duration] = {}  # bytes -> the measured seconds
    pairs: MeasuredPairs | None = None  # where the ranks ran on several hosts


class Profile(Section):
    """The contents of a profile's file. A workload's name is made by `workload_key`."""

    machine: dict[str, Any] = {}  # the environment of the measurement, for people
    # device -> workload -> phase -> {samples: seconds}
    devices: dict[str, dict[str, dict[str, Annotated[dict[int, Seconds], Field(min_length=1)]]]]
    # device -> workload -> evenly spaced quantiles of a step's measured time divided by its table's time. Their mean is
    # above 1, because tables leave out the slowest times.
    residuals: dict[str, dict[str, tuple[Annotated[float, Field(gt=0, le=1e9)], ...]]] = {}
    max_batch: dict[str, dict[str, Annotated[int, Field(ge=1)]]] = {}  # device -> workload -> the most samples that fit
    network: MeasuredNetwork | None = None

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
        return {
            phase: tuple(sorted((float(samples), seconds) for samples, seconds in table.items()))
            for phase, table in workloads[workload].items()
        }

    def factors(self, device: str, workload: str) -> tuple[float, ...]:
        """The residuals of a workload on a device. ValueError where the profile has none."""
        found = self.residuals.get(device, {}).get(workload, ())
        if not found:
            raise ValueError(
                f"the profile does not say how times of {workload!r} vary on {device}; "
                "measure them with `paceline profile SCENARIO`, or write cluster.noise.sigma"
            )
        return found


def workload_key(workload: Workload) -> str:
    """The key under which profiles file this workload's times."""
    args = ", ".join(f"{key}={value}" for key, value in sorted(workload.model.args.items()))
    model, optimizer = f"{workload.model.name}({args})" if args else workload.model.name, workload.optimizer
    kind = optimizer.name + (" with momentum" if isinstance(optimizer, SGDSpec) and optimizer.momentum else "")
    kind += ", clipped" if optimizer.clip else ""
    kind += f", micro-batches of {workload.micro_batch}" if workload.micro_batch else ""
    kind += f", {workload.precision}" if workload.precision != "fp32" else ""
    kind += ", augmented" if workload.augment else ""
    kind += f", {workload.loaders} loaders" if workload.loaders else ""
    threads = f"{workload.threads} thread{'s' if workload.threads > 1 else ''}"
    return f"{model} on {workload.data.name}, {kind}, {threads}"


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
        "residuals": _merged(old.residuals, new.residuals),
        "max_batch": _merged(old.max_batch, new.max_batch),
    }
    return new.model_copy(update={**merged, "network": new.network or old.network})


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
