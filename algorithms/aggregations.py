"""The aggregation axis: when is what exchanged, and with which weight?

Outer optimizers and FedNova are in outer.py; they wrap a round of Parameters.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from ..program.effects import AllReduce, Program
from ..program.errors import brief
from .placements import Placement
from .rounds import NEVER, Interval, Round
from .worker import Worker

Weights = Literal["equal", "samples", "steps"] | tuple[float, ...]
LARGEST = 1e30  # of a given weight: a product of two, and the inverse, are numbers in single precision, too


class Aggregation(Protocol):
    """One round of training, up to and including its exchange."""

    @property
    def synchronous(self) -> bool:
        """Whether it exchanges in every step (at times), so that all workers must take equally many."""

    def round(self, w: Worker, place: Placement, r: Round) -> Program[float]:
        """Worker w's part of round r; returns the round's mean training loss."""

    def resolve(self, optimizer: Mapping[str, Any]) -> Aggregation:
        """The aggregation with what depends on the inner optimizer filled in; ValueError where they do not fit."""

    def check(self, workers: int) -> None:
        """ValueError unless it is for so many workers."""

    @property
    def averages_state(self) -> bool:
        """Whether it exchanges the optimizer's state."""


def check_weights(weights: Weights) -> None:
    """ValueError unless the weights are a known rule or numbers that can be averaged with."""
    if isinstance(weights, str):
        if weights not in ("equal", "samples", "steps"):
            raise ValueError(f"weights is {brief(weights)}; write equal, samples, steps or one number per worker")
        return
    numbers = isinstance(weights, tuple) and not any(isinstance(w, bool) for w in weights)
    if not numbers or not all(isinstance(w, int | float) for w in weights):
        raise ValueError(f"weights is {brief(weights)}; write equal, samples, steps or a list of one number per worker")
    if not all(0 <= w <= LARGEST for w in weights) or not sum(weights) >= 1 / LARGEST:
        raise ValueError(
            f"weights {brief(list(weights))} must be 0 or more and sum to more than 0, each {LARGEST:g} at most"
        )


def check_count(weights: Weights, workers: int) -> None:
    """ValueError where weights are given for another number of workers."""
    if not isinstance(weights, str) and len(weights) != workers:
        raise ValueError(f"{len(weights)} weights for {workers} workers; list one per worker")


def weight_of(weights: Weights, worker: int, r: Round) -> float:
    """A worker's weight in the exchange that ends a round."""
    if weights == "equal":
        return 1.0
    if weights == "steps":
        return float(r.steps[worker])
    if weights == "samples":
        return float(r.steps[worker] * r.batches[worker])
    return float(weights[worker])


@dataclass(frozen=True)
class Gradients:
    """The mean gradient in every step (sync SGD). "samples" makes it the gradient of the whole batch's mean loss."""

    weights: Weights = "samples"
    synchronous = True
    averages_state = False

    def __post_init__(self) -> None:
        check_weights(self.weights)

    def round(self, w: Worker, place: Placement, r: Round) -> Program[float]:
        weight = weight_of(self.weights, w.index, r)
        total = 0.0
        for i in range(r.H):
            total += yield from place.synchronous_step(w, r, i, weight)
        return total / r.H

    def resolve(self, optimizer: Mapping[str, Any]) -> Aggregation:
        return self

    def check(self, workers: int) -> None:
        check_count(self.weights, workers)


@dataclass(frozen=True)
class Parameters:
    """Local steps, then the mean of the parameters (local SGD).

    optimizer_state: what becomes of momentum and Adam's moments at a sync: it stays local, is averaged with the same
    weights, or is reset to zero.
    """

    weights: Weights = "equal"
    optimizer_state: Literal["local", "averaged", "reset"] = "local"
    synchronous = False

    def __post_init__(self) -> None:
        check_weights(self.weights)
        if self.optimizer_state not in ("local", "averaged", "reset"):
            raise ValueError(f"optimizer_state is {brief(self.optimizer_state)}; write local, averaged or reset")

    def round(self, w: Worker, place: Placement, r: Round) -> Program[float]:
        for i in range(r.steps[w.index]):
            yield from place.local_step(w, r, i)
        weight = weight_of(self.weights, w.index, r)
        loss = yield from place.average(w, weight)
        if self.optimizer_state == "averaged":
            for moment in w.moments:
                yield from AllReduce(moment, weight, out=moment, phase="moments")
        elif self.optimizer_state == "reset":
            yield from w.reset()
        return loss

    def resolve(self, optimizer: Mapping[str, Any]) -> Aggregation:
        return self

    def check(self, workers: int) -> None:
        check_count(self.weights, workers)

    @property
    def averages_state(self) -> bool:
        return self.optimizer_state == "averaged"


@dataclass(frozen=True)
class Until:
    """Aggregation `a` until t, then `b`: post-local SGD exchanges gradients first, parameters later."""

    t: Interval = NEVER
    a: Aggregation = Gradients()
    b: Aggregation = Parameters()

    @property
    def synchronous(self) -> bool:
        return self.a.synchronous or self.b.synchronous

    def round(self, w: Worker, place: Placement, r: Round) -> Program[float]:
        return (yield from (self.b if self.t.reached(r.start) else self.a).round(w, place, r))

    def resolve(self, optimizer: Mapping[str, Any]) -> Aggregation:
        return dataclasses.replace(self, a=self.a.resolve(optimizer), b=self.b.resolve(optimizer))

    def check(self, workers: int) -> None:
        self.a.check(workers)
        self.b.check(workers)

    @property
    def averages_state(self) -> bool:
        return self.a.averages_state or self.b.averages_state
