"""Profiles: what `paceline profile` measured on a machine, and where scenarios read it.

A profile holds devices, each with tables of seconds against samples for every workload that was measured on it, how
single times varied around them, and the largest batch that fits; and the network's fitted latency and bandwidth. Its
file is YAML, so that a person can read and correct it.
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
from .units import Bandwidth, Duration, Seconds
from .workload import SGDSpec, Workload

T = TypeVar("T")


class MeasuredNetwork(Section):
    """Fitted so that messages * latency + bytes sent / bandwidth meets the measured all-reduce times (bytes: time)."""

    latency: Seconds
    bandwidth: Bandwidth
    all_reduce: dict[int, Duration] = {}


class Profile(Section):
    """devices: name -> workload -> phase -> {samples: seconds}. max_batch: name -> workload -> the most samples that
    fit into memory. machine: what it was measured on.

    residuals: name -> workload -> quantiles, evenly spaced, of a training step's measured time over its table's. Their
    mean is above 1 where tables leave out the slowest times.
    """

    machine: dict[str, Any] = {}
    devices: dict[str, dict[str, dict[str, Annotated[dict[int, Seconds], Field(min_length=1)]]]]
    residuals: dict[str, dict[str, tuple[Annotated[float, Field(gt=0, le=1e9)], ...]]] = {}
    max_batch: dict[str, dict[str, Annotated[int, Field(ge=1)]]] = {}
    network: MeasuredNetwork | None = None

    def largest(self, device: str, workload: str) -> int | None:
        """The largest batch that fits, where it was measured."""
        return self.max_batch.get(device, {}).get(workload)

    def tables(self, device: str, workload: str) -> dict[str, Table]:
        """phase -> ((samples, seconds), ...); ValueError where the profile lacks the device or the workload."""
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
        """The residuals of a workload on a device; ValueError where the profile has none."""
        found = self.residuals.get(device, {}).get(workload, ())
        if not found:
            raise ValueError(
                f"the profile has not recorded how times of {workload!r} vary on {device}; "
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
    """The profile in the file at `path`; ScenarioError where it is missing or wrong. It is read once."""
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
    """`new` added to what the file already held; the newest measurement of a device and workload wins."""
    if old is None:
        return new
    merged = {
        "devices": _merged(old.devices, new.devices),
        "residuals": _merged(old.residuals, new.residuals),
        "max_batch": _merged(old.max_batch, new.max_batch),
    }
    return new.model_copy(update={**merged, "network": new.network or old.network})


def _merged(old: dict[str, dict[str, T]], new: dict[str, dict[str, T]]) -> dict[str, dict[str, T]]:
    """device -> workload -> what was measured, the newest first."""
    return {name: old.get(name, {}) | new.get(name, {}) for name in (*old, *new)}


def add_to_profile(path: Path, new: Profile) -> None:
    """Write what was measured to a file, which keeps what else it holds."""
    save_profile(path, merge_profiles(load_profile(path) if path.exists() else None, new))


def save_profile(path: Path, profile: Profile) -> None:
    """Write the profile as YAML; the folder is made where it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.dump(profile.model_dump(mode="json", exclude_none=True)), encoding="utf-8")
