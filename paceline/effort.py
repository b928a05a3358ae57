"""Whether this machine can do what is asked: the time and memory that it takes, to an order of magnitude.

Rule: what needs more memory than is free, or more than a day, is refused with the number. What needs minutes is said.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .config.machines import Cluster
from .config.units import told_seconds
from .program.errors import ScenarioError

# Seconds from which something is refused, and from which it is said: an estimate may be three times too low.
DAY, LONG = 86400.0, 15.0
POINT = 1e-3  # the least seconds for a point of a sweep, as measured
WORKER, EVENTS, ROW = 1024, 7168, 1000  # bytes for a worker, for its events in SimPy, and for a point of a sweep
LITTLE = 1 << 24  # bytes that are always free: a sweep has many points, and asking the machine takes time
# Version 2 and version 1: folder, file with the limit, file with the usage, key of the part of the usage that is files.
CONTROL_GROUPS = (
    ("/sys/fs/cgroup", "memory.max", "memory.current", "file"),
    ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "cache"),
)


@dataclass(frozen=True)
class Effort:
    """What something takes of this machine."""

    what: str  # begins the sentence, like "simulating 8 workers"
    nbytes: float  # of memory
    seconds: float  # as estimated
    least: float  # seconds that it takes at the very least

    def check(self, less: str) -> str:
        """A sentence where it takes long, else an empty text. ScenarioError where it is too much.

        less: what to write instead.
        """
        free = available_memory() if self.nbytes > LITTLE else math.inf
        if self.nbytes > free:
            raise ScenarioError(
                f"{self.what} takes about {self.nbytes / 2**30:.3g} GiB of memory, and {free / 2**30:.3g} GiB are "
                f"free here; write {less}"
            )
        if self.least > DAY:
            raise ScenarioError(f"{self.what} takes about {duration(self.least)} on this machine; write {less}")
        return f"{self.what} takes about {duration(self.seconds)} here" if self.seconds > LONG else ""


def check_workers(cluster: Cluster) -> None:
    """ScenarioError where the workers alone need more memory than is free. Called before any worker is made."""
    count = float(cluster.size)
    Effort(f"cluster: simulating {count:g} workers", WORKER * count, 0.0, 0.0).check("a lower count")


def check_sweep(grid: Mapping[str, Any], points: Sequence[Any], processes: int) -> str:
    """As `Effort.check`, for a sweep over a grid and a list. Called before its points are made."""
    count = math.prod(len(values) for values in grid.values() if isinstance(values, Sequence)) * max(1, len(points))
    seconds = POINT * count / processes
    effort = Effort(f"simulating {count:.7g} points", float(ROW * count), seconds, seconds)
    return effort.check("fewer values in --grid, or a shorter --list")


def available_memory() -> float:
    """Bytes that this process may still take: the least that the machine, its control group and its own limit allow."""
    import resource

    free = [float(_field("/proc/meminfo", "MemAvailable:") * 1024) or math.inf]
    for group, limit, usage, cache in CONTROL_GROUPS:
        if most := _field(f"{group}/{limit}"):
            used = _field(f"{group}/{usage}") - _field(f"{group}/memory.stat", cache)  # pages of files can be freed
            free.append(max(0.0, float(most - used)))
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    if soft != resource.RLIM_INFINITY:
        free.append(max(0.0, float(soft - _field("/proc/self/statm") * resource.getpagesize())))
    return min(free)


def _field(path: str, name: str = "") -> int:
    """The number after a name in a file, or the first one; 0 where it is missing."""
    try:
        words = Path(path).read_text().split()
        return int(words[words.index(name) + 1 if name else 0])
    except (OSError, ValueError, IndexError):
        return 0


def duration(seconds: float) -> str:
    """A time for people, in days and years where it takes so long."""
    if seconds == math.inf:
        return "for ever"
    for size, unit in ((365.25 * DAY, "years"), (DAY, "days")):
        if seconds >= size:
            return f"{seconds / size:.2g} {unit}"
    return told_seconds(seconds, 2)
