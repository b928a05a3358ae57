"""What a training program needs of a worker.

Two workers exist: `learning.TorchWorker` computes, `phantom.PhantomWorker` only says how much work there
is. Rule: all mutation of a worker happens inside `Compute.run` (or by an interpreter, into an `out=` buffer).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from ..program.effects import Array, Compute, Move, Phantom, Value
from .costs import Works
from .rounds import Round
from .scores import Scores

EVALUATION_BATCH = 256  # examples per forward pass of an evaluation: fixed, so that its bits are


Whole = Literal["parameters", "gradients"]


@dataclass(slots=True, eq=False)
class UnitValues:
    """One unit of the model as it is exchanged.

    kept: the parameters that this worker keeps, a part of them where they are sharded (padded to n equal parts).
    gathered: all of the unit's parameters, brought together. gradient: the worker's own, of the whole unit.
    reduced: what it gets back of the workers' mean; the same memory as `gradient` where it gets all.
    """

    kept: Value
    gathered: Value
    gradient: Value
    reduced: Value


class Worker(Protocol):
    """One participant: a replica of the model on one device.

    params, grads: fp32 vectors of P + 1 elements: the model's parameters (their gradient) and, last, the mean
    training loss, so that the loss rides on the exchange; of a sharded worker its parts of the units, one behind the
    other, and no loss. buffers: those that are averaged for an evaluation, as BatchNorm's running statistics are (may
    be empty). loss: the batch's mean training loss, one element. units: what is exchanged of each unit, in the order of
    the forward pass. chunks: micro-batches of a step. clips: whether the optimizer needs the norm of the whole
    gradient; grads_squared: its square, set by the program where the worker has a part only. staged: whether the device
    has a memory of its own, of which `params` and `grads` are copies on the host. evaluation_blocks: parts in which the
    test set is evaluated unit by unit.
    """

    index: int
    works: Works
    params: Value
    grads: Value
    buffers: Value
    loss: Value
    grads_squared: Value
    clips: bool
    evaluation_blocks: int

    @property
    def units(self) -> Sequence[UnitValues]: ...

    @property
    def chunks(self) -> int: ...

    @property
    def staged(self) -> bool: ...

    def step(self, round: Round, i: int) -> Compute[None]:
        """Local step i of the round: forward, backward and update."""

    def gradient(self, round: Round, i: int) -> Compute[None]:
        """Forward and backward of step i of the round, into `grads`."""

    def update(self, round: Round, i: int) -> Compute[None]:
        """Apply `grads` with the learning rate of step i of the round."""

    def forward(self, round: Round, i: int, chunk: int, unit: int) -> Compute[None]:
        """The unit's forward pass on micro-batch `chunk` of step i; the last unit's gives the loss."""

    def backward(self, round: Round, i: int, chunk: int, unit: int) -> Compute[None]:
        """The unit's backward pass on micro-batch `chunk`; its gradient is added to those of chunks before."""

    def load(self, unit: int, phase: str) -> Move:
        """The unit's parameters from the host to the device."""

    def unload(self, unit: int, chunk: int) -> Move:
        """The unit's gradient from the device to the host, where it is added to those of chunks before."""

    def reload(self, unit: int) -> Move:
        """The unit's exchanged gradient from the host to the device."""

    def pull(self, what: Whole) -> Move:
        """All parameters, or the whole gradient, from the device to the host."""

    def push(self, what: Whole) -> Move:
        """The same from the host to the device."""

    def squared_norm(self) -> Compute[Value]:
        """The sum of the squares of this worker's part of the gradient: float64 (1,)."""

    def evaluate_unit(self, buffers: Value, block: int, unit: int) -> Compute[Value]:
        """The unit's forward pass on a block of the worker's part of the test set; the last answers the sums so far."""

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
        """`buffers` with BatchNorm's statistics as the mean over `batches` batches of the worker's size: an array.

        The worker stays as it is. seed_round: the round, from which the batches are drawn.
        """

    def on_scores(self, function: Callable[[Scores], Any], nbytes: int = 0) -> Compute[Any]:
        """Answer function(the worker's scores), for biased sampling; nbytes: the size of that answer."""

    def squares(self) -> Compute[Value]:
        """Sums of squares, float64: of the last update's gradient (clipped), the parameters, each of `moments`."""

    def digest(self) -> str:
        """SHA-256 of the parameters that this worker keeps."""

    def snapshot(self) -> dict[str, Array]:
        """All that the worker must get back to go on with the same bits. NotFinite where its parameters are not."""

    def restore(self, arrays: dict[str, Array]) -> None:
        """Take a snapshot back. Parameters are worker 0's; the loop broadcasts them."""


def evaluation_blocks(test_samples: int, workers: int) -> int:
    """In how many blocks each worker evaluates its part unit by unit: the same for all, who fetch units together."""
    largest = math.ceil(test_samples / workers)
    return max(1, math.ceil(largest / EVALUATION_BATCH))


def share(total: int, index: int, workers: int) -> tuple[int, int]:
    """(start, stop) of a worker's part of the test set: contiguous, sizes differ by one at most."""
    return index * total // workers, (index + 1) * total // workers


def last(value: Value) -> float:
    """The loss that rode on an exchanged vector; not a number for a phantom."""
    return math.nan if isinstance(value, Phantom) else float(value.item(-1))
