"""The described cluster as numbers: how many seconds work takes on its devices, its network, its noise and its faults.

The simulator reads it, and so do `train --phantom` and `train --emulate`, which sleep as long as it says.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import inf
from typing import Literal

from ..program.effects import Work
from ..program.errors import ScenarioError
from .faults import Faults
from .tables import PieceTimes, Table, interpolate

# The rest of the whole: a step is a gradient and an update, a gradient is a forward and a backward pass.
REST = {"gradient": "update", "update": "gradient", "forward": "backward", "backward": "forward"}
# The part of its whole that a phase takes where nothing is known of it. A backward pass has twice the operations of a
# forward pass. The times of an update, and of a norm for clipping, are then counted as part of the gradient's.
USUAL = {"gradient": 1.0, "update": 0.0, "norm": 0.0, "forward": 1 / 3, "backward": 2 / 3}

MEMORY_BANDWIDTH = 10e9  # bytes/s, where nothing says how fast a memory is: about what one core of a processor reaches
LONGEST = 1e18  # seconds, twice the age of the universe: sums of such times stay finite


def over(amount: float, rate: float) -> float:
    """amount / rate in seconds; infinite at a rate of 0, to which a tiny one may have been rounded."""
    return amount / rate if rate else inf if amount else 0.0


def lasting(seconds: float, taker: str, what: str) -> float:
    """`seconds`; ScenarioError where a run with them would never end. taker, what: what takes so long, and for what."""
    if 0 <= seconds <= LONGEST:
        return seconds
    raise ScenarioError(f"{taker} takes {seconds} s for {what}; a time must be 0 s or more, and {LONGEST:g} s at most")


@dataclass(frozen=True)
class Link:
    """A full-duplex link."""

    bandwidth: float  # bytes/s in each direction
    latency: float = 0.0  # seconds per message step


@dataclass(frozen=True)
class BackgroundTraffic:
    """Other traffic from one worker to another: a stream, or a number of bytes again and again."""

    sender: int
    receiver: int
    bandwidth: float | None = None  # bytes/s at most; None: no limit of its own
    nbytes: float | None = None  # bytes at a time; None: an endless stream
    every: float | None = None  # seconds from one sending to the next
    start: float = 0.0  # seconds since the start of the run


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
    # A started collective takes longer while its worker computes, since it looks for messages less often.
    beside_latency: float = 0.0  # seconds more per message step
    beside_bandwidth: float = inf  # bytes/s sent: as many seconds more
    background: tuple[BackgroundTraffic, ...] = ()  # what else the links carry

    def slower(self, factor: float) -> Network:
        """The same network, on which every exchange takes `factor` times as long."""
        return replace(
            self,
            bandwidth=self.bandwidth / factor,
            latency=self.latency * factor,
            inside=self.inside and Link(self.inside.bandwidth / factor, self.inside.latency * factor),
            matrix=self.matrix and tuple(tuple(rate / factor for rate in row) for row in self.matrix),
            ports=self.ports and tuple(rate / factor for rate in self.ports),
            reduce_bandwidth=self.reduce_bandwidth / factor,
            beside_latency=self.beside_latency * factor,
            beside_bandwidth=self.beside_bandwidth / factor,
        )

    @property
    def beside(self) -> bool:
        """Whether started collectives take longer next to computations."""
        return max(self.beside_latency, 1 / self.beside_bandwidth) > 0


def whole_step(batch: int) -> Work:
    """The Work of a training step where only the batch is known."""
    return Work("step", batch)


@dataclass(frozen=True, eq=False)
class Device:
    """A worker's device.

    The price of a step comes from its table, else from `speed`, else from `flops` and `memory_bandwidth`. The prices of
    a step's parts sum to the price of the step. See docs/clusters.md.
    """

    name: str
    tables: Mapping[str, Table] = field(default_factory=dict)  # by phase
    speed: float | None = None  # training samples/s
    slowdown: float = 1.0  # factor on all computing times
    host_link: float | None = None  # bytes/s between host and device; None: they have the same memory
    memory: float | None = None  # bytes that one worker may use; None: not known
    host_memory: float | None = None  # the same for the host's memory
    max_batch: int | None = None  # the most samples that fit into a step; None: not known
    torch_device: str = "cpu"  # the real device that trains: "cpu" or "cuda"
    flops: float | None = None  # flop/s that training reaches: peak times efficiency
    memory_bandwidth: float = inf  # bytes/s
    host_memory_bandwidth: float | None = None  # bytes/s
    step: Callable[[int], Work] = whole_step  # batch -> the Work of a step
    source: str = ""  # where its times come from, for people
    residuals: tuple[float, ...] = ()  # measured times divided by their prices, to draw noise from
    lasting: float = 0.0  # seconds of computing for which a residual holds: a step's; 0: for one computation
    correlation: float = 0.0  # of a residual with the one before
    pieces: PieceTimes = field(default_factory=PieceTimes)  # what was measured in pieces
    guessed: dict[str, None] = field(default_factory=dict)  # phases that their bytes alone have priced

    def seconds(self, work: Work) -> float:
        """Seconds that `work` takes on this device."""
        if (piece := self.pieces.seconds(work)) is not None:
            return self.slowdown * piece
        if work.phase == "host update" and (apart := self._on_host(work)) is not None:
            return self.slowdown * apart
        if work.whole is None and self.flops is not None:
            return self.slowdown * self._roofline(work.flops, work.bytes)
        return self.slowdown * work.fraction * self._price(work)

    def _on_host(self, work: Work) -> float | None:
        """Seconds of an update on a host that has a speed of its own; None where its memory is the device's."""
        if work.phase in self.tables:
            return work.fraction * interpolate(self.tables[work.phase], work.samples)
        if self.host_memory_bandwidth is not None:
            return over(work.bytes, self.host_memory_bandwidth)
        if self.host_link is not None:  # the host has a memory of its own, and memory_bandwidth is the device's
            return self._guess(work)
        return self._by_bytes(work) if work.whole is None else None

    def _by_bytes(self, work: Work) -> float:
        """Seconds of work that only reads and writes the device's memory."""
        return over(work.bytes, self.memory_bandwidth) if self.memory_bandwidth < inf else self._guess(work)

    def _guess(self, work: Work) -> float:
        """Seconds of work that only reads and writes a memory whose speed nothing says. It is noted; see `guesses`."""
        if work.bytes:
            self.guessed[work.phase] = None
        return over(work.bytes, MEMORY_BANDWIDTH)

    def _price(self, work: Work) -> float:
        """Seconds of the whole phase of which `work` is a fraction, without the slowdown.

        Here, and nowhere else, the price of a whole (a step, a gradient) is divided among its phases: in proportion to
        what is known of them, so that their prices sum to the price of the whole.
        """
        whole, phase = work.whole, work.phase
        if whole is None:
            return self._by_itself(work) if self.flops is None else self._roofline(work.flops, work.bytes)
        if phase in (whole.phase, "host update"):
            return self._price(whole)
        own = rest = None
        if self.flops is None:
            own, rest = self._known(phase, whole.samples), self._known(REST.get(phase, ""), whole.samples)
        elif phase in ("gradient", "update"):
            # Why the parts' own rooflines are not their prices: a roofline is the longer of two times, computing and
            # reading memory. Some parts are limited by the one and some by the other, so the sum of the parts'
            # rooflines is more than the roofline of the whole, and the finer it is cut, the more. A step would then
            # take longer because a placement cuts it into units. So the parts' rooflines are used only as proportions.
            own = self._roofline(work.flops, work.bytes)
            rest = self._roofline(whole.flops - work.flops, whole.bytes - work.bytes)
        return cut(self._price(whole), own, rest, USUAL[phase])

    def _roofline(self, flops: float, nbytes: float) -> float:
        """The longer of computing and of reading memory (Williams, Waterman and Patterson, CACM 52, 2009)."""
        return max(over(flops, self.flops or 0.0), over(nbytes, self.memory_bandwidth))

    def _known(self, phase: str, samples: int) -> float | None:
        """Seconds of a phase by its table, or of a gradient by the tables of its passes; None without a table."""
        if phase in self.tables:
            return interpolate(self.tables[phase], samples)
        for one, other in (("forward", "backward"), ("backward", "forward")):
            if phase == "gradient" and one in self.tables:
                known = interpolate(self.tables[one], samples)
                rest = self._known(other, samples)
                return known + (known * USUAL[other] / USUAL[one] if rest is None else rest)
        return None

    def _by_itself(self, work: Work) -> float:
        """Seconds of a whole on a device with tables or a speed. What they do not price is priced by its bytes."""
        phase, samples = work.phase, work.samples
        if phase in self.tables:
            return interpolate(self.tables[phase], samples)
        if phase in ("gradient", "forward", "backward"):  # the program does not say of what whole
            whole = "synchronous step" if phase == "gradient" else "gradient"
            return self._price(Work(phase, samples, whole=Work(whole, samples)))
        if phase == "evaluate":
            return USUAL["forward"] * self._by_itself(Work("step", samples))
        if phase not in ("step", "synchronous step"):
            return self._by_bytes(work)
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
        """In words, which tables of training times do not cover `batch`; empty where all do."""
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
    """The seconds of a part of the whole, so that the part and the rest sum to the whole.

    own, rest: what is known of the part's and the rest's seconds.
    usual: the part's share where neither is known.
    """
    if own is None:
        return usual * whole if rest is None else max(0.0, whole - rest)
    if rest is None:
        return min(own, whole)
    both = own + rest
    if both == whole:
        return own
    return whole * (own / both) if both else usual * whole


@dataclass(frozen=True)
class Noise:
    """Noise multiplies times by random factors exp(N(-s^2/2, s)), whose mean is 1; s = 0 means none.

    All but network_sigma are about computing times.
    """

    sigma: float = 0.0  # s of each computing time's factor; a device with residuals draws from these instead
    seed: int = 0
    worker_sigma: float = 0.0  # s of the factor that each worker draws once
    run_sigma: float = 0.0  # s of the factor that all workers of a run share
    network_sigma: float = 0.0  # s of the factor on the time of a run's exchanges


@dataclass(frozen=True)
class Timing:
    """The whole described cluster."""

    devices: tuple[Device, ...]  # one per worker; equal workers share one Device object
    network: Network = Network()
    noise: Noise = Noise()
    nodes: tuple[int, ...] = ()  # the number of each worker's node, from 0; by default each worker has its own
    faults: Faults = ()  # what goes wrong; plans do not take it into account

    def __post_init__(self) -> None:
        if not self.nodes:
            object.__setattr__(self, "nodes", tuple(range(len(self.devices))))
        if len(self.nodes) != len(self.devices):
            raise ValueError(f"{len(self.nodes)} nodes for {len(self.devices)} devices; give each worker's node")

    def speeds(self, batch: int) -> tuple[float, ...]:
        """Each worker's training samples/s at `batch` samples a step; ScenarioError where that is 0 or infinite."""
        known: dict[Device, float] = {}
        for device in dict.fromkeys(self.devices):
            taker, what = f"cluster: device {device.name}", f"a step of {batch} samples"
            try:
                seconds = lasting(device.step_seconds(batch), taker, what)
            except ValueError as error:
                raise ScenarioError(f"cluster: {error}") from None
            if not seconds:
                raise ScenarioError(
                    f"{taker} would take no time for {what}; give it the time of this batch, or a lower rate"
                )
            known[device] = batch / seconds
        return tuple(map(known.__getitem__, self.devices))

    def extrapolated(self, batches: Sequence[int]) -> list[str]:
        """A line for each device and batch that its tables do not cover. batches: per worker."""
        lines: dict[str, None] = {}
        for device, batch in dict.fromkeys(zip(self.devices, batches, strict=True)):
            if beyond := device.beyond(batch):
                lines[f"{device.name}: batch {batch} is extrapolated: {beyond} samples"] = None
        return list(lines)

    def guesses(self) -> list[str]:
        """A line for each device that has been asked for what nothing says the time of."""
        return [
            f"{device.name}: nothing says how long {' and '.join(device.guessed)} take; "
            f"priced by bytes, at {MEMORY_BANDWIDTH / 1e9:g} GB/s"
            for device in dict.fromkeys(self.devices)
            if device.guessed
        ]

    def slowness(self, batch: int) -> tuple[float, ...]:
        """How many times slower than this machine each worker is: what `--emulate` reproduces.

        It is the slowdowns where the scenario gives some, as a multiple of the least one where that is below 1. Else it
        is how many times slower than the fastest worker each is.
        """
        slowdowns = [device.slowdown for device in self.devices]
        if any(slowdown != 1 for slowdown in slowdowns):
            return tuple(slowdown / min(1, *slowdowns) for slowdown in slowdowns)
        speeds = self.speeds(batch)
        return tuple(max(speeds) / speed for speed in speeds)
