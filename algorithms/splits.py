"""The split axis: how is the work divided among workers of unequal speed?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Shares:
    """The division: worker r takes batches[r] samples a step and floor(H * paces[r] + 1/2) steps a round (1 or more).

    The fastest worker's pace is 1.
    """

    batches: tuple[int, ...]
    paces: tuple[float, ...]


class Split(Protocol):
    """How the work is divided."""

    def shares(self, batch: int, speeds: Sequence[float], devices: Sequence[str]) -> Shares:
        """The division, from the scenario's batch and each worker's speed (samples/s) and device.

        ValueError where it cannot be made.
        """


@dataclass(frozen=True)
class Even:
    """The same batch and the same number of steps for everyone."""

    def shares(self, batch: int, speeds: Sequence[float], devices: Sequence[str]) -> Shares:
        n = len(speeds)
        return Shares((batch,) * n, (1.0,) * n)


@dataclass(frozen=True)
class BySteps:
    """Equal round time: steps in proportion to speed, the same batch for everyone (Biased Local SGD's division)."""

    def shares(self, batch: int, speeds: Sequence[float], devices: Sequence[str]) -> Shares:
        fastest = max(speeds)
        return Shares((batch,) * len(speeds), tuple(s / fastest for s in speeds))


@dataclass(frozen=True)
class ByClass:
    """Steps in a round given for each class of devices, as in `steps: {gpu: 32, cpu: 1}` beside H = 32."""

    steps: Mapping[str, int]

    def __post_init__(self) -> None:
        if not isinstance(self.steps, Mapping) or not self.steps:
            raise ValueError(f"steps is {self.steps!r}; write one number for each device, like {{gpu: 32, cpu: 1}}")
        for device, count in self.steps.items():
            if not isinstance(count, int) or count < 1:
                raise ValueError(f"steps of {device} is {count!r}; write a whole number, 1 or more")

    def shares(self, batch: int, speeds: Sequence[float], devices: Sequence[str]) -> Shares:
        for device in devices:
            if device not in self.steps:
                raise ValueError(f"steps names {', '.join(self.steps)} but not {device}, which is in the cluster")
        most = max(self.steps[device] for device in devices)
        return Shares((batch,) * len(devices), tuple(self.steps[device] / most for device in devices))


@dataclass(frozen=True)
class Given:
    """Batches and paces as the scenario lists them, one per worker; what is not listed is even."""

    batches: tuple[int, ...] | None = None
    paces: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if any(b < 1 for b in self.batches or ()):
            raise ValueError(f"batches {list(self.batches or ())}: each must be 1 or more")
        if self.paces and not (max(self.paces) == 1 and min(self.paces) > 0):
            raise ValueError(f"paces {list(self.paces)}: the fastest worker's must be 1, the others' above 0")

    def shares(self, batch: int, speeds: Sequence[float], devices: Sequence[str]) -> Shares:
        n = len(speeds)
        for name, given in (("batches", self.batches), ("paces", self.paces)):
            if given is not None and len(given) != n:
                raise ValueError(f"{len(given)} {name} for {n} workers; list one per worker")
        return Shares(tuple(self.batches or (batch,) * n), tuple(self.paces or (1.0,) * n))
