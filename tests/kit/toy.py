"""A worker with a model small enough to work by hand: linear regression in NumPy, with momentum."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from paceline.algorithms.costs import TAIL, ModelCost, Works
from paceline.algorithms.metrics import TEST_LOSS, Metric
from paceline.algorithms.plan import Plan
from paceline.algorithms.rounds import Round
from paceline.algorithms.scores import Scores
from paceline.algorithms.worker import UnitValues, share
from paceline.program.effects import Array, Compute
from paceline.program.streams import stream


class ToyWorker:
    """min mean (x . p - y)^2 over `examples` points; follows the Worker protocol in float64."""

    def __init__(self, index: int, plan: Plan, momentum: float = 0.0, size: int = 5) -> None:
        random = stream(1, "toy")
        self.x = random.normal(size=(plan.examples, size))
        self.y = self.x @ random.normal(size=size) + 0.1 * random.normal(size=plan.examples)
        self.index, self.plan, self.momentum = index, plan, momentum
        self.params = np.zeros(size + TAIL)
        self.grads = np.zeros(size + TAIL)
        self.velocity = np.zeros(size)
        self.buffers = np.zeros(1, np.float32)
        self.staged = False
        self.metrics = (TEST_LOSS, Metric("mae"))
        self.units = [UnitValues(self.params, self.params, self.grads, self.grads)]
        self.drawn: list[Array] = []
        self.step_losses: list[float] = []
        self.scores = Scores(plan.examples, 3)
        self.vectors: dict[str, Array] = {}
        self.works = Works(ModelCost(size, 1, 2 * size, 8), plan.shares.batches[index], 10)

    def _gradient(self, round: Round, i: int) -> float:
        position, size = round.batch(self.index, i)
        if len(self.scores.chosen):
            at = self.scores.take(size)
        else:
            at = self.plan.strategy.sampling.indices(3, self.plan.examples, self.index, position, size)
        self.drawn.append(at)
        error = self.x[at] @ self.params[:-TAIL] - self.y[at]
        self.scores.record(at, error**2, round.nominal(self.index, i))
        self.grads[:-TAIL] = 2 * self.x[at].T @ error / size
        return float(np.mean(error**2))

    def _apply(self, round: Round, i: int) -> None:
        self.velocity[:] = self.momentum * self.velocity + self.grads[:-TAIL]
        self.params[:-TAIL] -= round.lr(self.index, i) * self.velocity

    def _step(self, round: Round, i: int) -> None:
        loss = self._gradient(round, i)
        self.params[-1] += (loss - self.params[-1]) / (i + 1)
        self._apply(round, i)

    def _gradient_only(self, round: Round, i: int) -> None:
        self.grads[-1] = self._gradient(round, i)

    def steps(self, round: Round, start: int = 0) -> Compute[None]:
        each = range(start, round.steps[self.index])
        calls = iter(each)
        first = self.works.first(start)
        return Compute(self.works.step, lambda: self._step(round, next(calls)), times=len(each), first=first)

    def gradient(self, round: Round, i: int) -> Compute[None]:
        return Compute(self.works.gradient, partial(self._gradient_only, round, i))

    def update(self, round: Round, i: int) -> Compute[None]:
        return Compute(self.works.update, partial(self._apply, round, i))

    def evaluate(self, buffers: Array) -> Compute[Array]:
        start, stop = share(len(self.y), self.index, self.plan.workers)

        def run() -> Array:
            error = self.x[start:stop] @ self.params[:-TAIL] - self.y[start:stop]
            return np.array([np.sum(error**2), stop - start, np.sum(abs(error)), stop - start])

        return Compute(self.works.evaluate, run)

    @property
    def moments(self) -> dict[str, Array]:
        return {"momentum": self.velocity}

    def reset(self) -> Compute[None]:
        return Compute(self.works.update, partial(self.velocity.fill, 0.0))

    def transform(self, function: Callable[..., None], *names: str) -> Compute[None]:
        vectors = [self.vectors.setdefault(name, np.zeros(len(self.params) - TAIL)) for name in names]
        return Compute(self.works.update, partial(function, self.params[:-TAIL], *vectors))

    def on_scores(self, function: Callable[[Scores], Any], nbytes: int = 0) -> Compute[Any]:
        return Compute(self.works.scores, partial(function, self.scores))

    def squares(self) -> Compute[Array]:
        def run() -> Array:
            return np.array([v @ v for v in (self.grads[:-TAIL], self.params[:-TAIL], self.velocity)])

        return Compute(self.works.squares, run)

    def snapshot(self) -> dict[str, Array]:
        scores = {f"scores.{name}": array for name, array in self.scores.snapshot().items()}
        return {"params": self.params.copy(), "velocity": self.velocity.copy(), **scores}

    def restore(self, arrays: dict[str, Array]) -> None:
        self.params[:], self.velocity[:] = arrays["params"], arrays["velocity"]
        self.scores.restore({k.removeprefix("scores."): v for k, v in arrays.items() if k.startswith("scores.")})
