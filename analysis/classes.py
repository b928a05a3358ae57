"""The classes of equal workers of a run: one bar for each, where a bar for each worker would be too many."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..config.catalogue import catalogue
from ..config.machines import Cluster, WorkerGroup
from .run import Run


@dataclass(frozen=True)
class WorkerClass:
    """Workers with equal devices."""

    name: str  # the device's, with its slowdown where another class has the same device
    workers: tuple[int, ...]  # their numbers
    memory: float | None  # bytes of a device; None: not known
    host_memory: float | None  # bytes of a worker's host memory; None: not known
    shared: bool  # whether the device uses the host's memory

    @property
    def told(self) -> str:
        """Its name with the number of workers."""
        return self.name if len(self.workers) == 1 else f"{len(self.workers)} x {self.name}"


def classes(run: Run) -> list[WorkerClass]:
    """A run's classes, by their first worker. One class of all where its cluster is not known, or has changed."""
    count = int(run.summary["workers"])
    section = run.scenario.get("cluster")
    try:
        places = Cluster.model_validate(section).places
    except ValueError:  # pydantic's: of a run from elsewhere, or an earlier version
        places = []
    if len(places) != count:
        return [WorkerClass("workers", tuple(range(count)), None, None, True)]
    found = dict[tuple[str, float, float | None], list[int]]()
    groups = dict[tuple[str, float, float | None], WorkerGroup]()
    for worker, (_, group, _) in enumerate(places):
        key = group.device, group.slowdown, group.memory
        found.setdefault(key, []).append(worker)
        groups.setdefault(key, group)
    names = [device for device, _, _ in found]
    return [
        _class(
            f"{device} x{slowdown:g}" if names.count(device) > 1 else device, workers, groups[device, slowdown, size]
        )
        for (device, slowdown, size), workers in found.items()
    ]


def _class(name: str, workers: Sequence[int], group: WorkerGroup) -> WorkerClass:
    known = catalogue().devices.get(group.device)
    memory = group.memory or (known.memory if known else None)
    link = group.host_link or (known.host_link if known else None)
    return WorkerClass(name, tuple(workers), memory, group.host_memory, link is None and group.host_memory is None)
