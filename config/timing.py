"""Seconds for work: what the simulator asks of a described cluster, and what `--phantom` and `--emulate` sleep by."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Literal

from ..program.effects import Work
from ..program.errors import ScenarioError
from .faults import Faults

Table = tuple[tuple[float, float], ...]

REST = {"gradient": "update", "update": "gradient", "forward": "backward", "backward": "forward"}  # of the same whole
# What part of its whole a phase is where nothing more is known. Backward takes twice the forward's operations; what an
# update takes, and a norm to clip by, is within the time of the rest.
USUAL = {"gradient": 1.0, "update": 0.0, "norm": 0.0, "forward": 1 / 3, "backward": 2 / 3}

LONGEST = 1e18  # seconds, twice the age of the universe: sums of such times stay finite


def over(amount: float, rate: float) -> float:
    """Seconds of so much at so much a second: infinite at a rate of 0, which a tiny one may have been rounded to."""
    return amount / rate if rate else inf if amount else 0.0


def lasting(seconds: float, taker: str, what: str) -> float:
    """`seconds`; ScenarioError where a run with them would never end. taker, what: what takes them, and for what."""
    if 0 <= seconds <= LONGEST:
        return seconds
    raise ScenarioError(f"{taker} takes {seconds} s for {what}; a time must be 0 s or more, and {LONGEST:g} s at most")


@dataclass(frozen=True)
class Link:
    """bandwidth: bytes/s in each direction. latency: seconds per message step."""

    bandwidth: float
    latency: float = 0.0


@dataclass(frozen=True)
class BackgroundTraffic:
    """Traffic of others from worker to worker: a stream of at most `bandwidth` bytes/s, or `nbytes` `every` seconds.

    start: seconds at which it begins.
    """

    sender: int
    receiver: int
    bandwidth: float | None = None
    nbytes: float | None = None
    every: float | None = None
    start: float = 0.0


NetworkShape = Literal[  # of a network; the links of each are in sim/topology.py
    "star",  # each worker has a full-duplex port to a switch
    "bus",  # all workers share one pipe
    "two_level",  # a star within each node, and one full-duplex uplink per node
    "matrix",  # a link from each worker to each other
]
CollectiveAlgorithm = Literal[  # of an all-reduce; the steps of each are in sim/collectives.py
    "ordered", "ring", "recursive_doubling", "rabenseifner", "tree", "two_level", "auto"
]


@dataclass(frozen=True)
class Network:
    """How workers are joined. Bandwidths are those that transfers reach."""

    shape: NetworkShape = "star"
    bandwidth: float = inf  # bytes/s of a port, of the bus, of an uplink
    latency: float = 0.0  # seconds per message step
    inside: Link | None = None  # two_level: a worker's port within its node
    matrix: tuple[tuple[float, ...], ...] | None = None  # bytes/s from the row's worker to the column's
    ports: tuple[float, ...] | None = None  # star: bytes/s of each worker's port, where they differ
    collective: CollectiveAlgorithm = "ordered"
    reduce_bandwidth: float = inf  # bytes/s that a worker adds up
    background: tuple[BackgroundTraffic, ...] = ()  # what else the links carry


def whole_step(batch: int) -> Work:
    """One training step of which only the batch is known."""
    return Work("step", batch)


@dataclass(frozen=True, eq=False)
class Device:
    """A worker's device. A step's price comes from its table, else from `speed`, else from `flops` and
    `memory_bandwidth`; what it is done in adds up to it.

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
    memory_bandwidth: float = inf
    host_memory_bandwidth: float | None = None
    step: Callable[[int], Work] = whole_step
    source: str = ""
    residuals: tuple[float, ...] = ()

    def seconds(self, work: Work) -> float:
        """Seconds that `work` takes on this device: its fraction of what its phase takes in the whole."""
        if work.phase == "host update" and (apart := self._on_host(work)) is not None:
            return self.slowdown * apart
        if work.whole is None and self.flops is not None:
            return self.slowdown * self._roofline(work.flops, work.bytes)
        return self.slowdown * work.fraction * self._price(work)

    def _on_host(self, work: Work) -> float | None:
        """Seconds of an update of which the host's own speed is known; None where the host's memory is the device's."""
        if work.phase in self.tables:
            return work.fraction * interpolate(self.tables[work.phase], work.samples)
        if self.host_memory_bandwidth is not None:
            return over(work.bytes, self.host_memory_bandwidth)
        if self.host_link is not None:
            return 0.0  # nobody said how fast that host is
        return over(work.bytes, self.memory_bandwidth) if work.whole is None else None

    def _price(self, work: Work) -> float:
        """Seconds of the phase in the whole of which `work` is a fraction, slowdown left out.

        Here, and nowhere else, a price known for a whole is cut: by what is known of its phases, scaled so that they
        add up to it.
        """
        whole, phase = work.whole, work.phase
        if whole is None:
            return (
                self._by_itself(phase, work.samples) if self.flops is None else self._roofline(work.flops, work.bytes)
            )
        if phase in (whole.phase, "host update"):
            return self._price(whole)
        own = rest = None
        if self.flops is None:
            own, rest = self._known(phase, whole.samples), self._known(REST.get(phase, ""), whole.samples)
        elif phase in ("gradient", "update"):
            # Which is the longer, computing or touching, differs from piece to piece: the rooflines of pieces add up to
            # more than the whole's, the more the finer it is cut. So they only say how the whole's is divided.
            own = self._roofline(work.flops, work.bytes)
            rest = self._roofline(whole.flops - work.flops, whole.bytes - work.bytes)
        return cut(self._price(whole), own, rest, USUAL[phase])

    def _roofline(self, flops: float, nbytes: float) -> float:
        """Williams, Waterman and Patterson (CACM 52, 2009): the longer of computing and of touching memory."""
        return max(over(flops, self.flops or 0.0), over(nbytes, self.memory_bandwidth))

    def _known(self, phase: str, samples: int) -> float | None:
        """Seconds of a phase by its own table, of a gradient by those of its two passes; None without."""
        if phase in self.tables:
            return interpolate(self.tables[phase], samples)
        for one, other in (("forward", "backward"), ("backward", "forward")):
            if phase == "gradient" and one in self.tables:
                known = interpolate(self.tables[one], samples)
                rest = self._known(other, samples)
                return known + (known * USUAL[other] / USUAL[one] if rest is None else rest)
        return None

    def _by_itself(self, phase: str, samples: int) -> float:
        """Seconds of a whole on a device with tables or a speed; 0 for what neither knows."""
        if phase in self.tables:
            return interpolate(self.tables[phase], samples)
        if phase in ("gradient", "forward", "backward"):  # of a whole that nobody named
            whole = "synchronous step" if phase == "gradient" else "gradient"
            return self._price(Work(phase, samples, whole=Work(whole, samples)))
        if phase == "evaluate":
            return USUAL["forward"] * self._by_itself("step", samples)
        if phase not in ("step", "synchronous step"):
            return 0.0
        gradient, update = self._known("gradient", samples), self._known("update", samples)
        if phase == "synchronous step" and gradient is not None:
            return gradient + (update or 0.0)
        if "step" in self.tables:
            return interpolate(self.tables["step"], samples)
        if self.speed is not None:
            return samples / self.speed
        if gradient is None or update is None:
            raise ValueError(f"device {self.name} has no speed and no table of step times, or of gradient and update")
        return gradient + update

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


def cut(whole: float, own: float | None, rest: float | None, usual: float) -> float:
    """A part's seconds, so that it and the rest add up to the whole.

    own, rest: seconds that are known of them. usual: the part's share where neither is.
    """
    if own is None:
        return usual * whole if rest is None else max(0.0, whole - rest)
    if rest is None:
        return min(own, whole)
    both = own + rest
    if both == whole:
        return own
    return whole * (own / both) if both else usual * whole


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
        """Each worker's training samples/s at `batch` samples a step; ScenarioError where that is not a speed."""
        known: dict[Device, float] = {}
        for device in dict.fromkeys(self.devices):
            taker, what = f"cluster: device {device.name}", f"a step of {batch} samples"
            try:
                seconds = lasting(device.step_seconds(batch), taker, what)
            except ValueError as error:
                raise ScenarioError(f"cluster: {error}") from None
            if not seconds:
                raise ScenarioError(
                    f"{taker} would take no time for {what}; give it the time of a smaller batch, or a lower rate"
                )
            known[device] = batch / seconds
        return tuple(known[device] for device in self.devices)

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
