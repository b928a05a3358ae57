"""The aggregation axis: when is what exchanged, and with which weight?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from .effects import Program
from .placements import Placement
from .worker import Worker

if TYPE_CHECKING:
    from .plan import Round

Weights = Literal["equal", "samples", "steps"] | tuple[float, ...]


class Aggregation(Protocol):
    """One round of training, up to and including its exchange."""

    synchronous: bool  # exchanges in every step, so all workers must take equally many

    def round(self, w: Worker, place: Placement, r: Round) -> Program[float]:
        """Worker w's part of round r; returns the round's mean training loss."""


def check_weights(weights: Weights) -> None:
    """ValueError unless the weights are a known rule or numbers that can be averaged with."""
    if isinstance(weights, str):
        if weights not in ("equal", "samples", "steps"):
            raise ValueError(f"weights is {weights!r}; write equal, samples, steps or one number per worker")
    elif any(w < 0 for w in weights) or not sum(weights) > 0:
        raise ValueError(f"weights {list(weights)} must be 0 or more and sum to more than 0")


def weight_of(weights: Weights, w: Worker, r: Round) -> float:
    """A worker's weight in the exchange that ends a round."""
    if weights == "equal":
        return 1.0
    if weights == "steps":
        return float(r.steps[w.index])
    if weights == "samples":
        return float(r.steps[w.index] * r.batches[w.index])
    return float(weights[w.index])


@dataclass(frozen=True)
class Gradients:
    """The mean gradient in every step (sync SGD). "samples" makes it the gradient of the whole batch's mean loss."""

    weights: Weights = "samples"
    synchronous = True

    def __post_init__(self) -> None:
        check_weights(self.weights)

    def round(self, w: Worker, place: Placement, r: Round) -> Program[float]:
        weight = weight_of(self.weights, w, r)
        total = 0.0
        for i in range(r.H):
            total += yield from place.synchronous_step(w, r, i, weight)
        return total / r.H


@dataclass(frozen=True)
class Parameters:
    """Local steps, then the mean of the parameters (local SGD). The optimizer's state stays local."""

    weights: Weights = "equal"
    synchronous = False

    def __post_init__(self) -> None:
        check_weights(self.weights)

    def round(self, w: Worker, place: Placement, r: Round) -> Program[float]:
        for i in range(r.steps[w.index]):
            yield from w.step(r, i)
        return (yield from place.average(w, weight_of(self.weights, w, r)))
