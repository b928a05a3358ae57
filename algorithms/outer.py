"""Aggregations that do more with the round's parameters than average them: outer optimizers, FedNova.

Rule: each begins a round by keeping the parameters (all workers' are equal there) as the vector "_start", and ends it
with elementwise arithmetic that every worker does alike, so parameters stay equal to the last bit. Vectors whose name
begins with "_" do not outlive a round; others are saved in checkpoints.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import Any, ClassVar

import numpy as np

from ..program.effects import Array, Program
from ..program.errors import ScenarioError
from .aggregations import Aggregation, Gradients, Parameters, Until
from .placements import Placement
from .rounds import Round
from .weights import Weights, check_count, check_weights, weight_of
from .worker import Worker


def keep(x: Array, start: Array) -> None:
    """start <- x."""
    start[:] = x


def slow_momentum(x: Array, start: Array, momentum: Array, *, lr: float, alpha: float, beta: float) -> None:
    """u <- beta u + (start - x) / lr; x <- start - alpha lr u."""
    momentum *= np.float32(beta)
    momentum += (start - x) / np.float32(lr)
    x[:] = start - np.float32(alpha * lr) * momentum


def outer_sgd(x: Array, start: Array, momentum: Array, *, lr: float, beta: float, nesterov: bool) -> None:
    """SGD on the pseudo-gradient g = start - x: v <- beta v + g; x <- start - lr (nesterov: g + beta v; else v)."""
    g = start - x
    momentum *= np.float32(beta)
    momentum += g
    x[:] = start - np.float32(lr) * (g + np.float32(beta) * momentum if nesterov else momentum)


def normalise(x: Array, start: Array, *, a: float) -> None:
    """x <- (start - x) / a."""
    np.subtract(start, x, out=x)
    x /= np.float32(a)


def denormalise(x: Array, start: Array, *, tau: float) -> None:
    """x <- start - tau x."""
    x *= np.float32(-tau)
    x += start


class OuterOptimizer(Aggregation):
    """Base of the outer optimizers: a round of Parameters, then a step from its start, with a momentum of its own.

    inner: the round.
    momentum_vector: the name of the momentum among the worker's vectors.
    """

    inner: Parameters
    momentum_vector: ClassVar[str]

    @property
    def parts(self) -> tuple[Aggregation, ...]:
        return (self.inner,)

    def outer_step(self, r: Round) -> Callable[..., None]:
        """The step at the end of round r: a function of the mean parameters, those at the start, and the momentum."""
        raise NotImplementedError

    def round(self, w: Worker, place: Placement, r: Round) -> Program[float]:
        yield from w.transform(keep, "_start")
        loss = yield from self.inner.round(w, place, r)
        yield from w.transform(self.outer_step(r), "_start", self.momentum_vector)
        return loss


@dataclass(frozen=True)
class SlowMo(OuterOptimizer):
    """Slow momentum around the mean of the parameters: every round `u <- beta u + (x_prev - x_avg) / lr`, then
    `x <- x_prev - alpha lr u`, with the learning rate of the round's last step.

    Wang et al., "SlowMo: improving communication-efficient distributed SGD with slow momentum", ICLR 2020,
    arXiv 1910.00643. alpha 1, beta 0 is plain parameter averaging. In the paper all of a round's steps have the same
    rate; where a warm-up raises it, the first step's may be next to 0, and would make u thousands of times too large.
    """

    beta: float = 0.5
    alpha: float = 1.0
    inner: Parameters = Parameters()
    momentum_vector = "slow_momentum"
    vectors = 3

    def __post_init__(self) -> None:
        if not (0 <= self.beta < 1 and self.alpha > 0):
            raise ValueError(f"beta {self.beta!r} must be in [0, 1) and alpha {self.alpha!r} above 0")

    def outer_step(self, r: Round) -> Callable[..., None]:
        lr = r.last_lr
        if not lr > 0:
            raise ScenarioError(
                f"strategy.aggregation.slowmo divides by the learning rate, which is {lr:g} at the end of round "
                f"{r.start.rounds}; give lr_schedule a final_lr above 0"
            )
        return partial(slow_momentum, lr=lr, alpha=self.alpha, beta=self.beta)


@dataclass(frozen=True)
class OuterSGD(OuterOptimizer):
    """SGD on the mean pseudo-gradient `x_prev - mean(x)`: DiLoCo's outer step with lr 0.7 and Nesterov momentum 0.9.

    Douillard et al., "DiLoCo: distributed low-communication training of language models", arXiv 2311.08105. lr 1 and
    momentum 0 is plain parameter averaging. The inner optimizer's state stays local.
    """

    lr: float = 0.7
    momentum: float = 0.9
    nesterov: bool = True
    inner: Parameters = Parameters()
    momentum_vector = "outer_momentum"
    vectors = 4

    def __post_init__(self) -> None:
        if not (self.lr > 0 and 0 <= self.momentum < 1):
            raise ValueError(f"lr {self.lr!r} must be above 0 and momentum {self.momentum!r} in [0, 1)")

    def outer_step(self, r: Round) -> Callable[..., None]:
        return partial(outer_sgd, lr=self.lr, beta=self.momentum, nesterov=self.nesterov)


@dataclass(frozen=True)
class FedNova(Aggregation):
    """Normalised averaging: `x <- x_0 - tau sum_i p_i (x_0 - x_i) / a_i`, with `tau = sum_i p_i a_i`.

    Wang et al., "Tackling the objective inconsistency problem in heterogeneous federated optimization", NeurIPS 2020,
    arXiv 2007.07481: the unbiased counterpart of equal weights with unequal steps. p_i: the workers' shares of the
    round's samples, or given. a_i: what i's steps add up to, given the inner momentum, which is reset in each round.

    momentum, nesterov: the inner optimizer's; `resolve` fills them in.
    """

    weights: Weights = "samples"  # the workers': alike, by a round's samples or steps, or by a step's samples (batches)
    momentum: float | None = field(default=None, init=False)
    nesterov: bool = field(default=False, init=False)
    local = True
    vectors = 1

    def __post_init__(self) -> None:
        check_weights(self.weights)

    def round(self, w: Worker, place: Placement, r: Round) -> Program[float]:
        yield from w.transform(keep, "_start")
        yield from place.local_steps(w, r)
        raw = [weight_of(self.weights, i, r) for i in range(len(r.steps))]
        a = [normaliser(steps, self.momentum or 0.0, self.nesterov) for steps in r.steps]
        tau = sum(p * each for p, each in zip(raw, a, strict=True)) / sum(raw)
        yield from w.transform(partial(normalise, a=a[w.index]), "_start")
        loss = yield from place.average(w, raw[w.index])
        yield from w.transform(partial(denormalise, tau=tau), "_start")
        yield from w.reset()
        return loss

    def resolve(self, optimizer: Mapping[str, Any]) -> Aggregation:
        if optimizer.get("name") != "sgd":
            raise ValueError(
                f"fednova has no normaliser for {optimizer.get('name')}; write optimizer: {{name: sgd, ...}}"
            )
        resolved = FedNova(self.weights)
        object.__setattr__(resolved, "momentum", optimizer.get("momentum", 0.0))
        object.__setattr__(resolved, "nesterov", optimizer.get("nesterov", False))
        return resolved

    def check(self, workers: int) -> None:
        check_count(self.weights, workers)


@lru_cache(maxsize=1024)
def normaliser(steps: int, momentum: float, nesterov: bool = False) -> float:
    """FedNova's a for SGD: the sum over the steps of how often each gradient enters the parameters.

    Heavy ball: c <- rho c + 1, a += c. Nesterov as PyTorch has it: a += 1 + rho c, after c's update.
    """
    c = a = 0.0
    for _ in range(steps):
        c = momentum * c + 1
        a += 1 + momentum * c if nesterov else c
    return a


# The members of the axis, here and in aggregations.py, by the names that scenarios use.
AGGREGATIONS: dict[str, Callable[..., Aggregation]] = {
    "gradients": Gradients,
    "parameters": Parameters,
    "until": Until,
    "slowmo": SlowMo,
    "outer_sgd": OuterSGD,
    "fednova": FedNova,
}
