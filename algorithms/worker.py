"""What a training program needs of a worker, and what a model's computations cost.

Two workers exist: `learning.TorchWorker` computes, `phantom.PhantomWorker` only says how much work there
is. Rule: all mutation of a worker happens inside `Compute.run` (or by an interpreter, into an `out=` buffer).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from .effects import Array, Compute, Value, Work

if TYPE_CHECKING:
    from .plan import Round
    from .scores import Scores


class Worker(Protocol):
    """One participant: a replica of the model on one device.

    params, grads: fp32 vectors of P + 1 elements: the model's parameters (their gradient) and, last, the mean
    training loss, so that the loss rides on the exchange. buffers: BatchNorm's running statistics (may be empty).
    """

    index: int
    params: Value
    grads: Value
    buffers: Value

    def step(self, round: Round, i: int) -> Compute[None]:
        """Local step i of the round: forward, backward and update."""

    def gradient(self, round: Round, i: int) -> Compute[None]:
        """Forward and backward of step i of the round, into `grads`."""

    def update(self, round: Round, i: int) -> Compute[None]:
        """Apply `grads` with the learning rate of step i of the round."""

    def evaluate(self, buffers: Value) -> Compute[Value]:
        """Sums over the worker's part of the test set, with these buffers: [loss, correct, count] as float64."""

    def transform(self, function: Callable[..., None], *names: str) -> Compute[None]:
        """Call `function(params[:-1], *vectors)`, which writes into them: elementwise arithmetic of a round.

        Each name is a vector of the worker's own, as long as the model's parameters, zeros at first use. It is saved
        in snapshots unless its name begins with "_".
        """

    @property
    def moments(self) -> tuple[Value, ...]:
        """The optimizer's vectors (momentum; Adam's two), as long as the parameters, to be exchanged in place."""

    def reset(self) -> Compute[None]:
        """Put the optimizer's state back to its beginning: zeros."""

    def estimate_buffers(self, seed_round: int, batches: int) -> Compute[Value]:
        """BatchNorm's statistics as the mean over `batches` batches of the worker's size, in an array of its own.

        The worker stays as it is. seed_round: the round, from which the batches are drawn.
        """

    def on_scores(self, function: Callable[[Scores], Any], nbytes: int = 0) -> Compute[Any]:
        """Answer function(the worker's scores), for biased sampling; nbytes: the size of that answer."""

    def squares(self) -> Compute[Value]:
        """Sums of squares, float64: of the last update's gradient (clipped), the parameters, each of `moments`."""

    def snapshot(self) -> dict[str, Array]:
        """All that the worker must get back to go on with the same bits."""

    def restore(self, arrays: dict[str, Array]) -> None:
        """Take a snapshot back. Parameters are worker 0's; the loop broadcasts them."""


@dataclass(frozen=True)
class ModelCost:
    """What a model costs, summed over its units.

    parameters, buffers: elements (fp32). flops: multiply-adds counted as two, of one sample's forward pass.
    activations: bytes of one sample's forward outputs, all units together.
    """

    parameters: int
    buffers: int
    flops: float
    activations: float


class Works:
    """The kinds of work of one worker, each made once, for the torch worker and the phantom alike."""

    def __init__(self, cost: ModelCost, batch: int, test_samples: int) -> None:
        forward, touched = cost.flops * batch, 4.0 * cost.parameters
        # Backward computes a gradient for the inputs and one for the weights: twice the forward's work.
        self.gradient = Work("gradient", batch, 3 * forward, 2 * touched + 2 * cost.activations * batch)
        self.update = Work("update", 0, 4.0 * cost.parameters, 5 * touched)
        self.step = Work(
            "step", batch, self.gradient.flops + self.update.flops, self.gradient.bytes + self.update.bytes
        )
        self.evaluate = Work(
            "evaluate", test_samples, cost.flops * test_samples, touched + cost.activations * test_samples
        )
        # Elementwise over the parameters and two vectors: read, combined, one written.
        self.transform = Work("transform", 0, 2.0 * cost.parameters, 3 * touched)
        self.scores = Work("scores")
        self._cost, self._batch = cost, batch
        self._estimates: dict[int, Work] = {}

    @property
    def squares(self) -> Work:
        """Norms for a report: an evaluation of no examples."""
        return self.estimate(0)

    def estimate(self, batches: int) -> Work:
        """Forward passes over `batches` batches of the worker's size."""
        if batches not in self._estimates:
            samples = batches * self._batch
            touched = 4.0 * self._cost.parameters * batches + self._cost.activations * samples
            self._estimates[batches] = Work("evaluate", samples, self._cost.flops * samples, touched)
        return self._estimates[batches]


def share(total: int, index: int, workers: int) -> tuple[int, int]:
    """(start, stop) of a worker's part of the test set: contiguous, sizes differ by one at most."""
    return index * total // workers, (index + 1) * total // workers


def last(value: Value) -> float:
    """The loss that rode on an exchanged vector; not a number for a phantom."""
    item: Any = getattr(value, "item", None)
    return float("nan") if item is None else float(item(-1))
