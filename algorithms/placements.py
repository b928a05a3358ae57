"""The placement axis: where do parameters live, and how are they exchanged?

Aggregation says when and with what weight; placement says how.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from .effects import AllReduce, Broadcast, Program, Wire
from .wire import DTYPES
from .worker import Worker, last

if TYPE_CHECKING:
    from .plan import Round


class Placement(Protocol):
    """How parameters are held, and how gradients and parameters travel."""

    def begin(self, w: Worker) -> Program[None]:
        """Give every worker worker 0's parameters."""

    def synchronous_step(self, w: Worker, round: Round, i: int, weight: float) -> Program[float]:
        """A step with the workers' weighted mean gradient; returns the mean training loss."""

    def average(self, w: Worker, weight: float) -> Program[float]:
        """Replace the parameters by the workers' weighted mean; returns the mean training loss."""


@dataclass(frozen=True)
class Replicated:
    """Every worker holds the whole model, and exchanges it as one vector.

    precision: the type in which gradients and parameters travel; they are folded in fp32 (see wire.py). The mean
    training loss rides along, and is rounded with them. The initial parameters travel as they are.
    """

    precision: Wire = "fp32"

    def __post_init__(self) -> None:
        if self.precision not in DTYPES:
            raise ValueError(f"precision is {self.precision!r}; write one of {', '.join(DTYPES)}")

    def begin(self, w: Worker) -> Program[None]:
        w.params = yield from Broadcast(w.params, out=w.params, phase="begin")

    def synchronous_step(self, w: Worker, round: Round, i: int, weight: float) -> Program[float]:
        yield from w.gradient(round, i)
        w.grads = yield from AllReduce(w.grads, weight, out=w.grads, phase="gradients", wire=self.precision)
        yield from w.update(round, i)
        return last(w.grads)

    def average(self, w: Worker, weight: float) -> Program[float]:
        w.params = yield from AllReduce(w.params, weight, out=w.params, phase="parameters", wire=self.precision)
        return last(w.params)
