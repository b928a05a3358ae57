"""The split axis: how is the work divided among workers of unequal speed?"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol, get_args

from ..program.errors import brief
from .balance import SAME, fixed_total, no_restriction
from .per_worker import Paces, Sizes

UNLIMITED = 1 << 40  # samples; more than any batch

Mode = Literal["fixed_total", "no_restriction", "equal"]
Rounding = Literal["nearest", "floor"]
Most = int | Sizes | None  # the largest batch of each worker, or one for all


class DeviceView(Protocol):
    """What a split reads of a worker's device. Equal workers share one object.

    max_batch: the most samples that its memory holds, where that is known.
    """

    @property
    def name(self) -> str: ...

    @property
    def max_batch(self) -> int | None: ...

    def step_seconds(self, batch: int) -> float:
        """Seconds of one whole training step on `batch` samples."""


class Capacity(Protocol):
    """What the devices' memory is predicted to hold."""

    def __call__(self, device: DeviceView, most: int) -> int | None:
        """The largest batch up to `most`, at least 1; None where it is not known."""


def unknown_capacity(device: DeviceView, most: int) -> int | None:
    """Nothing is predicted."""
    return None


@dataclass(frozen=True)
class Shares:
    """The division: worker r takes batches[r] samples a step, and about H * paces[r] steps in a round of local steps.

    The fastest worker's pace is 1.
    """

    batches: tuple[int, ...]
    paces: tuple[float, ...]
    rounding: Rounding = "nearest"  # how H * pace becomes a whole number, which is 1 or more

    def completed(self, total: int) -> Shares:
        """Equal batches that are too small for `total` by rounding alone: the first workers take a sample more each."""
        left = total - sum(self.batches)
        if len(set(self.batches)) > 1 or not 0 < left < len(self.batches):
            return self
        return replace(self, batches=tuple(batch + (r < left) for r, batch in enumerate(self.batches)))

    def steps(self, H: int, pace: float) -> int:
        """The local steps that a worker of that pace takes in a round of H nominal steps."""
        # A relative 1e-9 before the floor: 100 * 0.29 is 28.999999999999996 in floating point and means 29.
        taken = math.floor(H * pace + 0.5 if self.rounding == "nearest" else H * pace * (1 + 1e-9))
        return max(1, taken)


class StepsByPace(Sequence[int]):
    """Each worker's steps, said once for each pace: of a million workers, a tuple for each H would fill the memory."""

    def __init__(self, paces: Sequence[float], steps: Mapping[float, int]) -> None:
        self._paces, self._steps = paces, steps

    def __len__(self) -> int:
        return len(self._paces)

    def __iter__(self) -> Iterator[int]:
        return map(self._steps.__getitem__, self._paces)

    def __getitem__(self, worker: Any) -> Any:
        return self._steps[self._paces[worker]]


def check_shares(shares: Shares, workers: int) -> None:
    """ValueError unless the shares are a division among so many workers, whatever member of the axis made them."""
    if len(shares.batches) != workers or len(shares.paces) != workers:
        raise ValueError(
            f"it gives {len(shares.batches)} batches and {len(shares.paces)} paces for {workers} workers; give one each"
        )
    for batch in set(shares.batches):
        if not _whole(batch):
            raise ValueError(f"it gives a batch of {brief(batch)}; give whole numbers of samples, 1 or more")
    paces = set(shares.paces)
    if max(paces) != 1 or min(paces) <= 0:
        raise ValueError(
            f"it gives paces from {min(paces):g} to {max(paces):g}; the fastest worker's is 1, others above 0"
        )


class Split:
    """Base of the members: how is the work divided?"""

    @property
    def chooses_batches(self) -> bool:
        """Whether batches are more than the scenario's batch for each worker."""
        return False

    @property
    def unequal_steps(self) -> bool:
        """Whether workers may take unequal numbers of steps in a round."""
        return False

    def shares(self, batch: int, devices: Sequence[DeviceView], holds: Capacity = unknown_capacity) -> Shares:
        """The division, from the scenario's batch, each worker's device, and what devices hold where it is not given.

        ValueError where it cannot be made.
        """
        raise NotImplementedError


@dataclass(frozen=True)
class Even(Split):
    """The same batch and the same number of steps for all workers."""

    def shares(self, batch: int, devices: Sequence[DeviceView], holds: Capacity = unknown_capacity) -> Shares:
        n = len(devices)
        return Shares((batch,) * n, (1.0,) * n)


@dataclass(frozen=True)
class BySteps(Split):
    """Equal round time: steps in proportion to speed, the same batch for all workers (Biased Local SGD's division).

    With round: floor these are the dynamic local updates (DyLU) of Liu et al., arXiv 2401.09135: worker w of speed v_w
    takes `H_w = max(1, floor(H v_w / v_max))` steps, so it never takes longer than the fastest, unless one step does.
    """

    round: Rounding = "nearest"  # how H v_w / v_max becomes a whole number of steps
    unequal_steps = True

    def __post_init__(self) -> None:
        if self.round not in get_args(Rounding):
            raise ValueError(f"round is {self.round!r}; write {' or '.join(get_args(Rounding))}")

    def shares(self, batch: int, devices: Sequence[DeviceView], holds: Capacity = unknown_capacity) -> Shares:
        speeds = {device: batch / device.step_seconds(batch) for device in dict.fromkeys(devices)}
        fastest = max(speeds.values())
        return Shares((batch,) * len(devices), tuple(speeds[device] / fastest for device in devices), self.round)


@dataclass(frozen=True)
class ByClass(Split):
    """Steps in a round given for each class of devices, like `steps: {gpu: 32, cpu: 1}` with H = 32."""

    steps: Mapping[str, int]
    unequal_steps = True

    def __post_init__(self) -> None:
        if not isinstance(self.steps, Mapping) or not self.steps:
            raise ValueError(f"steps is {self.steps!r}; write one number for each device, like {{gpu: 32, cpu: 1}}")
        for device, count in self.steps.items():
            if not isinstance(count, int) or count < 1:
                raise ValueError(f"steps of {device} is {count!r}; write a whole number, 1 or more")

    def shares(self, batch: int, devices: Sequence[DeviceView], holds: Capacity = unknown_capacity) -> Shares:
        for device in dict.fromkeys(devices):
            if device.name not in self.steps:
                raise ValueError(f"steps names {', '.join(self.steps)} but not {device.name}, which is in the cluster")
        counts = [self.steps[device.name] for device in devices]
        most = max(counts)
        return Shares((batch,) * len(counts), tuple(count / most for count in counts))


@dataclass(frozen=True)
class ByBatch(Split):
    """Equal step time: batches such that all workers finish a step together (HDP's division).

    See balance.py; Mirzaei et al., Parallel Computing 2025, 103164. Where memory, or a batch of 1, keeps steps unequal,
    paces: true lets workers take steps in proportion to 1 / their step's time, so that they finish a round together.
    """

    # fixed_total: exactly `total` samples a step, in the least time. no_restriction: the largest balanced step that
    # memory allows. equal: the same batch for all workers.
    mode: Mode = "fixed_total"
    total: int | None = None  # by default n times the smallest known max, else n times the scenario's batch
    # Each worker's largest batch, or one for all. By default what the cluster or its profile says, else what is
    # predicted to fit.
    max: Most = None
    paces: bool = False  # whether a worker takes the more local steps the shorter its step is; else all take H
    chooses_batches = True

    @property
    def unequal_steps(self) -> bool:
        return self.paces

    def __post_init__(self) -> None:
        if self.mode not in get_args(Mode):
            raise ValueError(f"mode is {self.mode!r}; write {', '.join(get_args(Mode))}")
        if self.total is not None and not _whole(self.total):
            raise ValueError(f"total is {self.total!r}; write a whole number of samples, 1 or more for each worker")
        if self.total is not None and self.mode == "no_restriction":
            raise ValueError(f"total is {self.total}, but no_restriction follows from max alone; leave total out")
        for size in self.max if isinstance(self.max, tuple) else (self.max,):
            if size is not None and not _whole(size):
                raise ValueError(f"max has {size!r}; write whole numbers of samples, 1 or more")

    def shares(self, batch: int, devices: Sequence[DeviceView], holds: Capacity = unknown_capacity) -> Shares:
        n, bounds = len(devices), self._bounds(devices)
        known = [size for size in bounds if size is not None]
        total = self.total if self.total is not None else n * min(known, default=batch)
        limit = UNLIMITED if self.mode == "no_restriction" else max(1, total)
        free = dict.fromkeys(device for device, size in zip(devices, bounds, strict=True) if size is None)
        held = {device: holds(device, limit) for device in free}
        most = [size or held[device] or limit for device, size in zip(devices, bounds, strict=True)]
        seconds = [device.step_seconds for device in devices]
        if self.mode == "no_restriction":
            if missing := [device.name for device, size in held.items() if size in (None, limit)]:
                raise ValueError(
                    f"no_restriction needs the largest batch of {missing[0]}; write max, or measure it with "
                    "`paceline batch-sizes SCENARIO`"
                )
            batches = no_restriction(seconds, most)
        elif total > sum(most) and any(held.values()):
            sizes = dict.fromkeys(f"{size} on {device.name}" for device, size in held.items() if size)
            raise ValueError(
                f"total is {total}, and {n} workers are predicted to hold {sum(most)} ({', '.join([*sizes][:4])}); "
                "write a smaller total, workload.batch or workload.micro_batch, or max where you know better"
            )
        elif self.mode == "equal":
            if total % n or not 1 <= total // n <= min(most):
                raise ValueError(
                    f"total is {total}, which {n} workers cannot share equally; write a multiple of {n} up to "
                    f"{n * min(most)}"
                )
            batches = (total // n,) * n
        else:
            batches = fixed_total(seconds, most, total)
        return Shares(batches, self._paces(devices, batches))

    def _paces(self, devices: Sequence[DeviceView], batches: Sequence[int]) -> tuple[float, ...]:
        """Each worker's pace, given its batch."""
        if not self.paces:
            return (1.0,) * len(batches)
        kinds = list(zip(devices, batches, strict=True))
        seconds = {kind: kind[0].step_seconds(kind[1]) for kind in dict.fromkeys(kinds)}
        shortest = min(seconds.values())
        return tuple(1.0 if seconds[kind] <= shortest * SAME else shortest / seconds[kind] for kind in kinds)

    def _bounds(self, devices: Sequence[DeviceView]) -> list[int | None]:
        """Each worker's largest batch, None where it is not known."""
        if isinstance(self.max, tuple):
            if len(self.max) != len(devices):
                raise ValueError(f"max has {len(self.max)} numbers for {len(devices)} workers; list one per worker")
            return list(self.max)
        return [device.max_batch if self.max is None else self.max for device in devices]


def _whole(size: object) -> bool:
    return isinstance(size, int) and not isinstance(size, bool) and size >= 1


@dataclass(frozen=True)
class Given(Split):
    """Batches and paces as the scenario lists them, one per worker; what is not listed is even."""

    batches: Sizes | None = None
    paces: Paces | None = None

    @property
    def chooses_batches(self) -> bool:
        return self.batches is not None

    def __post_init__(self) -> None:
        for name, given in (("batches", self.batches), ("paces", self.paces)):
            if given is not None and not isinstance(given, tuple):
                raise ValueError(f"{name} is {given!r}; list one number per worker")
        if not all(_whole(size) for size in self.batches or ()):
            raise ValueError(f"batches {list(self.batches or ())}: each must be 1 or more, a whole number")
        numbers = all(isinstance(pace, int | float) for pace in self.paces or ())
        if self.paces and not (numbers and max(self.paces) == 1 and min(self.paces) > 0):
            raise ValueError(f"paces {list(self.paces)}: the fastest worker's must be 1, the others' above 0")

    def shares(self, batch: int, devices: Sequence[DeviceView], holds: Capacity = unknown_capacity) -> Shares:
        n = len(devices)
        for name, given in (("batches", self.batches), ("paces", self.paces)):
            if given is not None and len(given) != n:
                raise ValueError(f"{len(given)} {name} for {n} workers; list one per worker")
        return Shares(tuple(self.batches or (batch,) * n), tuple(self.paces or (1.0,) * n))


# The members by the names that scenarios use.
SPLITS: dict[str, Callable[..., Split]] = {
    "even": Even,
    "by_steps": BySteps,
    "by_class": ByClass,
    "by_batch": ByBatch,
    "given": Given,
}
