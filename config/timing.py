"""Seconds for work: what the simulator asks of a described cluster, and what `--phantom` and `--emulate` sleep by."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..algorithms.effects import Work


@dataclass(frozen=True)
class Network:
    """How workers are joined.

    shape: "star" (each worker has a full-duplex port to a switch) or "bus" (all share one pipe).
    bandwidth: bytes/s of a port, or of the pipe. latency: seconds per message step.
    """

    shape: str = "star"
    bandwidth: float = float("inf")
    latency: float = 0.0


@dataclass(frozen=True)
class Device:
    """A worker's device. Prices come from, in this order: a table for the phase, the table for "step", a speed.

    tables: phase -> ((samples, seconds), ...) by rising samples. speed: training samples/s. slowdown: factor on all
    computing. host_link: bytes/s between host and device, None where they are the same memory.
    """

    name: str
    tables: dict[str, tuple[tuple[float, float], ...]] = field(default_factory=dict)
    speed: float | None = None
    slowdown: float = 1.0
    host_link: float | None = None

    def seconds(self, work: Work) -> float:
        """Seconds that `work` takes on this device."""
        raise NotImplementedError


@dataclass(frozen=True)
class Noise:
    """Multiplies each computing time by exp(N(-sigma^2/2, sigma)), of mean 1. sigma 0 is no noise."""

    sigma: float = 0.0
    seed: int = 0


@dataclass(frozen=True)
class Timing:
    """The whole described cluster. devices: one per worker; equal workers share one Device object."""

    devices: tuple[Device, ...]
    network: Network = Network()
    noise: Noise = Noise()

    @property
    def slowness(self) -> tuple[float, ...]:
        """How many times slower than the fastest each worker is: what `--emulate` reproduces."""
        raise NotImplementedError
