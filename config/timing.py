"""Seconds for work: what the simulator asks of a described cluster, and what `--phantom` and `--emulate` sleep by."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from ..algorithms.effects import Work
from .faults import Faults

Table = tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Link:
    """bandwidth: bytes/s in each direction. latency: seconds per message step."""

    bandwidth: float
    latency: float = 0.0


@dataclass(frozen=True)
class Background:
    """Traffic of others from worker to worker: a stream of at most `bandwidth` bytes/s, or `nbytes` `every` seconds.

    start: seconds at which it begins.
    """

    sender: int
    receiver: int
    bandwidth: float | None = None
    nbytes: float | None = None
    every: float | None = None
    start: float = 0.0


@dataclass(frozen=True)
class Network:
    """How workers are joined.

    shape: "star" (each worker has a full-duplex port to a switch), "bus" (all share one pipe), "two_level" (ports of
    `inside` within a node, and one full-duplex uplink per node) or "matrix" (a link from each worker to each other).
    bandwidth: bytes/s of a port, of the pipe, of an uplink. latency: seconds per message step. efficiency: the part of
    the bandwidth that transfers reach (not of `inside`). matrix: bytes/s from row to column. ports: bytes/s of each
    worker's port in a star, where they differ. collective: the algorithm, see sim/collectives.py. reduce_bandwidth:
    bytes/s that a worker adds up. background: what else the links carry.
    """

    shape: str = "star"
    bandwidth: float = float("inf")
    latency: float = 0.0
    efficiency: float = 1.0
    inside: Link | None = None
    matrix: tuple[tuple[float, ...], ...] | None = None
    ports: tuple[float, ...] | None = None
    collective: str = "ordered"
    reduce_bandwidth: float = float("inf")
    background: tuple[Background, ...] = ()


def whole_step(batch: int) -> Work:
    """One training step of which only the batch is known."""
    return Work("step", batch)


@dataclass(frozen=True, eq=False)
class Device:
    """A worker's device. A price comes from the phase's own table, else from the table of "step", else from `speed`,
    else from `flops` and `memory_bandwidth`.

    tables: phase -> ((samples, seconds), ...) by rising samples. speed: training samples/s. flops: flop/s that it
    reaches, efficiency included. memory_bandwidth, host_memory_bandwidth: bytes/s. slowdown: factor on all computing.
    host_link: bytes/s between host and device, None where they are the same memory. memory, host_memory: bytes that one
    worker may use, None where nobody said; max_batch: likewise, the most samples that fit. torch_device: the real
    device that trains, "cpu" or "cuda". step: the Work of a step by its batch. source: where its times come from, for
    people. residuals: measured computing times over their price, from which noise is drawn; empty where it is not.
    """

    name: str
    tables: Mapping[str, Table] = field(default_factory=dict)
    speed: float | None = None
    slowdown: float = 1.0
    host_link: float | None = None
    memory: float | None = None
    host_memory: float | None = None
    max_batch: int | None = None
    torch_device: str = "cpu"
    flops: float | None = None
    memory_bandwidth: float = float("inf")
    host_memory_bandwidth: float | None = None
    step: Callable[[int], Work] = whole_step
    source: str = ""
    residuals: tuple[float, ...] = ()

    def seconds(self, work: Work) -> float:
        """Seconds that `work` takes on this device.

        Of a unit's work, its fraction of what was measured on the whole. On a datasheet's device, the roofline of
        Williams, Waterman and Patterson (CACM 52, 2009): the longer of computing its flops and touching its bytes.
        """
        if work.phase == "host update" and work.phase not in self.tables:
            known = self.host_memory_bandwidth
            return self.slowdown * work.bytes / known if known else 0.0
        if self.flops is not None:
            return self.slowdown * max(work.flops / self.flops, work.bytes / self.memory_bandwidth)
        return self.slowdown * work.fraction * self._whole(work.phase, work.samples)

    def _whole(self, phase: str, samples: int) -> float:
        """Seconds of a phase on the whole model, slowdown left out.

        Without a table of its own, a gradient costs a step and what else there is nothing; a forward pass costs a third
        of a gradient, since backward takes twice the forward's operations.
        """
        table = self.tables.get(phase)
        if table is not None:
            return interpolate(table, samples)
        if phase in ("forward", "backward", "evaluate"):
            whole = "gradient" if phase != "evaluate" else "step"
            return (2 / 3 if phase == "backward" else 1 / 3) * self._whole(whole, samples)
        if phase not in ("step", "gradient"):
            return 0.0
        if "step" in self.tables:
            return interpolate(self.tables["step"], samples)
        if self.speed is None:
            raise ValueError(f"device {self.name} has no speed and no table of {phase} times")
        return samples / self.speed

    def step_seconds(self, batch: int) -> float:
        """Seconds of one whole training step on `batch` samples."""
        return self.seconds(self.step(batch))

    def beyond(self, batch: int) -> str:
        """What its tables of training times were not measured for, in words; nothing where they cover `batch`."""
        ranges: dict[tuple[float, float], list[str]] = {}
        for phase in ("step", "gradient", "forward", "backward"):
            table = self.tables.get(phase, ())
            if table and not table[0][0] <= batch <= table[-1][0]:
                ranges.setdefault((table[0][0], table[-1][0]), []).append(phase)
        return "; ".join(
            f"its {', '.join(phases)} times are known for " + (f"{low:g} to {high:g}" if high > low else f"{low:g}")
            for (low, high), phases in ranges.items()
        )


def interpolate(table: Table, samples: float) -> float:
    """Seconds for `samples`: on the lines between the table's points, which its end segments continue.

    A table of one point means in proportion to samples.
    """
    if len(table) == 1:
        (known, seconds), *_ = table
        return seconds * samples / known if known else seconds  # an update's time has no samples
    right = min(max(bisect_left(table, (samples,)), 1), len(table) - 1)
    (x0, y0), (x1, y1) = table[right - 1], table[right]
    return max(0.0, y0 + (y1 - y0) * (samples - x0) / (x1 - x0))


@dataclass(frozen=True)
class Noise:
    """Factors exp(N(-s^2/2, s)), of mean 1, on each computing time (s = sigma) and on each worker (s = worker_sigma).

    Devices that have residuals draw from them in place of sigma's. Zeros are no noise.
    """

    sigma: float = 0.0
    seed: int = 0
    worker_sigma: float = 0.0


@dataclass(frozen=True)
class Timing:
    """The whole described cluster. devices: one per worker; equal workers share one Device object.

    nodes: the number of the node that each worker is in, counted from 0; by default each is a node of its own. faults:
    what goes wrong; no plan is made with them in mind.
    """

    devices: tuple[Device, ...]
    network: Network = Network()
    noise: Noise = Noise()
    nodes: tuple[int, ...] = ()
    faults: Faults = ()

    def __post_init__(self) -> None:
        if not self.nodes:
            object.__setattr__(self, "nodes", tuple(range(len(self.devices))))
        if len(self.nodes) != len(self.devices):
            raise ValueError(f"{len(self.nodes)} nodes for {len(self.devices)} devices; give each worker's node")

    def speeds(self, batch: int) -> tuple[float, ...]:
        """Each worker's training samples/s at `batch` samples a step."""
        return tuple(batch / device.step_seconds(batch) for device in self.devices)

    def extrapolated(self, batches: Sequence[int]) -> list[str]:
        """A line for each device and batch outside the range of its tables. batches: per worker."""
        lines: dict[str, None] = {}
        for device, batch in zip(self.devices, batches, strict=True):
            if beyond := device.beyond(batch):
                lines[f"{device.name}: batch {batch} is extrapolated: {beyond} samples"] = None
        return list(lines)

    def slowness(self, batch: int) -> tuple[float, ...]:
        """How many times slower than the fastest each worker is described: what `--emulate` reproduces.

        Where the scenario gives slowdowns, those; else the ratios of the speeds.
        """
        slowdowns = [device.slowdown for device in self.devices]
        if max(slowdowns) > min(slowdowns):
            return tuple(slowdown / min(slowdowns) for slowdown in slowdowns)
        speeds = self.speeds(batch)
        return tuple(max(speeds) / speed for speed in speeds)
