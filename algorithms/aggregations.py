"""The aggregation axis: when is what exchanged, and with which weight?

Outer optimizers and FedNova are in outer.py; they wrap a round of Parameters.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..program.effects import Program
from . import moments
from .placements import Placement
from .rounds import NEVER, Interval, Moment, Round
from .weights import Weights, check_count, check_weights, weight_of
from .worker import Worker


class Aggregation:
    """Base of the members: one round of training, up to and including its exchange.

    What others must know of a member is a property here. A member made of others has it if a part has.
    """

    @property
    def parts(self) -> tuple[Aggregation, ...]:
        """The aggregations that this one is made of."""
        return ()

    @property
    def synchronous(self) -> bool:
        """Whether gradients are exchanged in every step, at least at times: all workers then take equally many."""
        return any(part.synchronous for part in self.parts)

    @property
    def local(self) -> bool:
        """Whether workers take steps with their own gradients, at least at times."""
        return any(part.local for part in self.parts)

    @property
    def averages_state(self) -> bool:
        """Whether the optimizer's state is exchanged."""
        return any(part.averages_state for part in self.parts)

    @property
    def vectors(self) -> int:
        """Vectors as long as the parameters that it has at most, those within its arithmetic included."""
        return max((part.vectors for part in self.parts), default=0)

    def check(self, workers: int) -> None:
        """ValueError unless it suits so many workers."""
        for part in self.parts:
            part.check(workers)

    def resolve(self, optimizer: Mapping[str, Any]) -> Aggregation:
        """The aggregation with what depends on the inner optimizer filled in; ValueError where they do not fit.

        optimizer: its settings, and the names in its state: `moments`, as long as the parameters, and `others`."""
        for part in self.parts:
            part.resolve(optimizer)
        return self

    def at(self, now: Moment) -> Aggregation:
        """What the round that begins now follows: this aggregation itself, or one of its parts."""
        return self

    def round(self, w: Worker, place: Placement, r: Round) -> Program[float]:
        """Worker w's part of round r; returns the round's mean training loss."""
        raise NotImplementedError


@dataclass(frozen=True)
class Gradients(Aggregation):
    """The mean gradient in every step (sync SGD). "samples" makes it the gradient of the whole batch's mean loss."""

    weights: Weights = "samples"  # the workers': alike, by a round's samples or steps, or by a step's samples (batches)
    synchronous = True

    def __post_init__(self) -> None:
        check_weights(self.weights)

    def round(self, w: Worker, place: Placement, r: Round) -> Program[float]:
        weight = weight_of(self.weights, w.index, r)
        total = 0.0
        for i in range(r.H):
            total += yield from place.synchronous_step(w, r, i, weight)
        return total / r.H

    def check(self, workers: int) -> None:
        check_count(self.weights, workers)


@dataclass(frozen=True)
class Parameters(Aggregation):
    """Local steps, then the mean of the parameters (local SGD).

    optimizer_state: what happens to momentum and Adam's moments at a sync. They stay local, are averaged with the same
    weights, or are reset to the state at the beginning. Names, like exp_avg: these are averaged, the others stay local.
    """

    weights: Weights = "equal"  # the workers': alike, by a round's samples or steps, or by a step's samples (batches)
    optimizer_state: moments.OptimizerState = "local"
    local = True

    def __post_init__(self) -> None:
        check_weights(self.weights)
        moments.check(self.optimizer_state)

    def round(self, w: Worker, place: Placement, r: Round) -> Program[float]:
        yield from place.local_steps(w, r)
        weight = weight_of(self.weights, w.index, r)
        loss = yield from place.average(w, weight)
        yield from moments.at_sync(w, self.optimizer_state, weight)
        return loss

    def check(self, workers: int) -> None:
        check_count(self.weights, workers)

    def resolve(self, optimizer: Mapping[str, Any]) -> Aggregation:
        moments.check_names(self.optimizer_state, optimizer)
        return self

    @property
    def averages_state(self) -> bool:
        return moments.averages(self.optimizer_state)


@dataclass(frozen=True)
class Until(Aggregation):
    """Aggregation `a` until t, then `b`: post-local SGD exchanges gradients first, parameters later."""

    t: Interval = NEVER
    a: Aggregation = Gradients()
    b: Aggregation = Parameters()

    @property
    def parts(self) -> tuple[Aggregation, ...]:
        return self.a, self.b

    def at(self, now: Moment) -> Aggregation:
        return (self.b if self.t.reached(now) else self.a).at(now)

    def round(self, w: Worker, place: Placement, r: Round) -> Program[float]:
        return (yield from self.at(r.start).round(w, place, r))

    def resolve(self, optimizer: Mapping[str, Any]) -> Aggregation:
        return dataclasses.replace(self, a=self.a.resolve(optimizer), b=self.b.resolve(optimizer))
