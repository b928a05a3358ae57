"""The placement axis: where do parameters live, and how are they exchanged?

Aggregation says when and with what weight; placement says how. All four members run the same unit-by-unit step
(unitwise.py). They differ in two things: whether each worker keeps a part only (sharded), and whether what it keeps
lies in the device's memory or the host's (offloaded).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

from ..program.effects import AllReduce, Broadcast, Effect, Program, Value
from . import unitwise
from .rounds import Round
from .unitwise import PlacementOptions
from .worker import Worker, last


@dataclass(frozen=True)
class Placement(PlacementOptions):
    """Base of the members; its options are in unitwise.py, since the unit-by-unit step reads them, too."""

    def by_units(self, synchronous: bool, units: int) -> bool:
        """Whether a step goes unit by unit, instead of computing the whole model at once."""
        return self.offloaded or (synchronous and (self.sharded or (self.overlap and units > 1)))

    def begin(self, w: Worker) -> Program[None]:
        """Give every worker worker 0's parameters; sharded, each has its part of the model that all have built."""
        if not self.sharded:
            w.params = yield from Broadcast(w.params, out=w.params, phase="begin")
            if w.staged and not self.offloaded:
                yield from w.push("parameters")

    def synchronous_step(self, w: Worker, round: Round, i: int, weight: float) -> Program[float]:
        """A step with the workers' weighted mean gradient; returns the mean training loss."""
        if self.by_units(True, len(w.units)):
            return (yield from unitwise.step(self, w, round, i, weight))
        staged = w.staged
        yield from w.gradient(round, i)
        if staged:
            yield from w.pull("gradients")
        w.grads = yield from AllReduce(w.grads, weight, out=w.grads, phase="gradients", wire=self.wire)
        if staged:
            yield from w.push("gradients")
        yield from w.update(round, i)
        return last(w.grads)

    def local_steps(self, w: Worker, round: Round) -> Iterable[Effect[Any]]:
        """The round's steps with the worker's own gradients."""
        if not self.offloaded:
            return w.steps(round)
        return unitwise.local_steps(self, w, round)

    def average(self, w: Worker, weight: float) -> Program[float]:
        """Replace the parameters by the workers' weighted mean; returns the mean training loss."""
        staged = w.staged and not self.offloaded
        if staged:
            yield from w.pull("parameters")
        w.params = yield from AllReduce(w.params, weight, out=w.params, phase="parameters", wire=self.wire)
        if staged:
            yield from w.push("parameters")
        return last(w.params)

    def evaluate(self, w: Worker, buffers: Value) -> Program[Value]:
        """Sums over the worker's part of the test set; see Worker.evaluate."""
        if self.sharded or self.offloaded:
            return (yield from unitwise.evaluate(self, w, buffers))
        return (yield from w.evaluate(buffers))


@dataclass(frozen=True)
class Replicated(Placement):
    """Every worker's device holds the whole model (PyTorch's DDP)."""


@dataclass(frozen=True)
class Sharded(Placement):
    """Each of n workers keeps 1/n of parameters, gradients and optimizer state (FSDP).

    A unit is gathered before it is used, forward and backward, and its gradient reduced and scattered.
    Zhao et al., "PyTorch FSDP", VLDB 2023, arXiv 2304.11277.
    """

    sharded: ClassVar[bool] = True


@dataclass(frozen=True)
class Offloaded(Placement):
    """Every worker keeps all in host memory, where the optimizer steps; the device holds prefetch + 1 units (LSDP).

    Mirzaei et al., Parallel Computing 2025, 103164.
    """

    offloaded: ClassVar[bool] = True


@dataclass(frozen=True)
class ShardedOffloaded(Placement):
    """Each of n workers keeps 1/n of everything, in host memory (FSDP with CPU offload)."""

    sharded: ClassVar[bool] = True
    offloaded: ClassVar[bool] = True


# The members by the names that scenarios use.
PLACEMENTS: dict[str, Callable[..., Placement]] = {
    "replicated": Replicated,
    "sharded": Sharded,
    "offloaded": Offloaded,
    "sharded_offloaded": ShardedOffloaded,
}
