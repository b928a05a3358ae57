"""What a training program needs of a worker.

There are two workers: `learning.TorchWorker` computes, `phantom.PhantomWorker` only says how much work there is.
Rule: a worker changes only inside `Compute.run` and `Move.copy`, or when an interpreter writes into an `out=` buffer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from ..program.effects import Array, Compute, Move, Phantom, Value
from .costs import Works
from .metrics import Metric
from .rounds import Round
from .scores import Scores

EVALUATION_BATCH = 256  # examples per forward pass of an evaluation: fixed, so that its bits are
LARGE_BATCH = 16  # the same, unit by unit, of examples with many targets each, whose outputs may be large


Whole = Literal["parameters", "gradients"]


@dataclass(slots=True, eq=False)
class UnitValues:
    """One unit of the model as it is exchanged."""

    kept: Value  # the parameters that this worker keeps: all, or one of n equal parts, padded, where they are sharded
    gathered: Value  # all of the unit's parameters
    gradient: Value  # the worker's own, of the whole unit
    reduced: Value  # what it gets of the workers' mean gradient; the same memory as `gradient` where it gets all


class Worker(Protocol):
    """One participant: a replica of the model on one device."""

    index: int
    works: Works
    # fp32 vectors of P + TAIL elements: the model's parameters (their gradient) and behind them two numbers that travel
    # along: the share of the batch that does not count (0 behind the parameters), and last the mean training loss. Up
    # to its update, gradient and loss are as if everything counted. Of a sharded worker: its parts of the units, one
    # after the other, without these numbers.
    params: Value
    grads: Value
    buffers: Value  # those that are averaged for an evaluation, like BatchNorm's running statistics; may be empty
    loss: Value  # these two numbers of the batch
    step_losses: Sequence[float]  # the mean training loss of its own batch in each step of the last round
    grads_squared: Value  # of the whole gradient's norm; the program sets it where the worker has a part only
    clips: bool  # whether the optimizer needs that norm
    evaluation_blocks: int  # parts in which the test set is evaluated unit by unit
    metrics: tuple[Metric, ...]  # what an evaluation sums up: TEST_LOSS, then the scenario's metrics

    @property
    def units(self) -> Sequence[UnitValues]:
        """What is exchanged of each unit, in the order of the forward pass."""

    @property
    def chunks(self) -> int:
        """Micro-batches of a step."""

    @property
    def staged(self) -> bool:
        """Whether the device has memory of its own. `params` and `grads` are then copies on the host."""

    def steps(self, round: Round, start: int = 0) -> Compute[None]:
        """The worker's local steps of the round from step `start` on: forward, backward and update."""

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
        """Sums over the worker's part of the test set, with these buffers: float64, as metrics.values reads them."""

    def transform(self, function: Callable[..., None], *names: str) -> Compute[None]:
        """Call `function(params[:-TAIL], *vectors)`, which writes into them: elementwise arithmetic of a round.

        Each name is a vector of the worker's own, as long as the model's parameters, zeros at first use. It is saved
        in snapshots unless its name begins with "_".
        """

    @property
    def moments(self) -> Mapping[str, Value]:
        """The optimizer's vectors by name (momentum; Adam's two), as long as the parameters, exchanged in place."""

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
        """All that the worker must get back to go on with the same bits, for use before it goes on: large arrays are
        its own memory. NotFinite where its parameters are not."""

    def restore(self, arrays: dict[str, Array]) -> None:
        """Take a snapshot back. Parameters are worker 0's; the loop broadcasts them."""


def evaluation_blocks(test_samples: int, workers: int, targets: int = 1) -> int:
    """In how many blocks each worker evaluates its part unit by unit: the same for all, since they fetch together.

    targets: of an example.
    """
    largest = math.ceil(test_samples / workers)
    return max(1, math.ceil(largest / (EVALUATION_BATCH if targets <= 1 else LARGE_BATCH)))


def share(total: int, index: int, workers: int) -> tuple[int, int]:
    """(start, stop) of a worker's part of the test set: contiguous, sizes differ by one at most."""
    return index * total // workers, (index + 1) * total // workers


def last(value: Value) -> float:
    """The loss that travelled with an exchanged vector; NaN for a phantom."""
    return math.nan if isinstance(value, Phantom) else float(value.item(-1))
