"""The phantom worker: the same program, the same messages, no numbers. Used by timing-only runs."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from .effects import Array, Compute, Phantom, Value, nothing
from .worker import Works

if TYPE_CHECKING:
    from .plan import Round
    from .scores import Scores


def _sums() -> Phantom:
    return Phantom(24)  # three float64: loss, correct, count


class PhantomWorker:
    """A worker of which only the work and the bytes are known. moments: vectors of the optimizer's state."""

    def __init__(self, index: int, works: Works, parameters: int, buffers: int, moments: int = 0) -> None:
        self.index = index
        self.works = works
        self.params: Value = Phantom(4 * (parameters + 1))
        self.grads: Value = Phantom(4 * (parameters + 1))
        self.buffers: Value = Phantom(4 * buffers)
        self.moments: tuple[Value, ...] = tuple(Phantom(4 * parameters) for _ in range(moments))
        self._estimate = partial(Phantom, 4 * buffers)
        self._squares = partial(Phantom, 8 * (2 + moments))

    def step(self, round: Round, i: int) -> Compute[None]:
        return Compute(self.works.step, nothing)

    def gradient(self, round: Round, i: int) -> Compute[None]:
        return Compute(self.works.gradient, nothing)

    def update(self, round: Round, i: int) -> Compute[None]:
        return Compute(self.works.update, nothing)

    def evaluate(self, buffers: Value) -> Compute[Value]:
        return Compute(self.works.evaluate, _sums)

    def transform(self, function: Callable[..., None], *names: str) -> Compute[None]:
        return Compute(self.works.transform, nothing)

    def reset(self) -> Compute[None]:
        return Compute(self.works.transform, nothing)

    def estimate_buffers(self, seed_round: int, batches: int) -> Compute[Value]:
        return Compute(self.works.estimate(batches), self._estimate)

    def on_scores(self, function: Callable[[Scores], Any], nbytes: int = 0) -> Compute[Any]:
        return Compute(self.works.scores, partial(Phantom, nbytes), on="host")

    def squares(self) -> Compute[Value]:
        return Compute(self.works.squares, self._squares)

    def snapshot(self) -> dict[str, Array]:
        return {}

    def restore(self, arrays: dict[str, Array]) -> None:
        pass
