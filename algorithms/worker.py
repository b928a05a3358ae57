"""What a training program needs of a worker, and what a model's computations cost.

Two workers exist: `learning.TorchWorker` computes, `phantom.PhantomWorker` only says how much work there
is. Rule: all mutation of a worker happens inside `Compute.run` (or by an interpreter, into an `out=` buffer).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

from ..program.effects import Array, Compute, Move, Value, Work
from ..program.fold import parts

if TYPE_CHECKING:
    from .plan import Round
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


@dataclass(frozen=True)
class ModelCost:
    """What a model costs, summed over its units.

    parameters: elements (fp32). buffers: elements of those that are averaged for an evaluation. flops: multiply-adds
    counted as two, of one sample's forward pass. activations: bytes of one sample's forward outputs, all units
    together. units: the same of each unit; none means that the model is one.
    """

    parameters: int
    buffers: int
    flops: float
    activations: float
    units: tuple[ModelCost, ...] = ()


def together(units: Sequence[ModelCost]) -> ModelCost:
    """The cost of units that follow one another."""
    return ModelCost(
        parameters=sum(u.parameters for u in units),
        buffers=sum(u.buffers for u in units),
        flops=math.fsum(u.flops for u in units),
        activations=math.fsum(u.activations for u in units),
        units=tuple(units),
    )


@dataclass(frozen=True)
class Held:
    """How a worker holds its model.

    parts: it keeps 1 of so many equal parts (1: all). host: in host memory. staged: the device has memory of its own,
    which exchanges cannot reach. prefetch: units that are fetched ahead. item: bytes of a parameter.
    """

    parts: int = 1
    host: bool = False
    staged: bool = False
    prefetch: int = 1
    item: int = 4

    @property
    def fetched(self) -> bool:
        """Whether a unit's parameters are brought to the device before each use."""
        return self.parts > 1 or self.host


class Works:
    """The kinds of work of one worker, each made once, for the torch worker and the phantom alike.

    cost: with the units that are exchanged one by one. chunks: micro-batches of a step. alone: whether its steps are
    local ones, of which nothing is exchanged.

    Rule: what a step is done in adds up to the step. So each piece names the whole that it is a part of (Work.whole),
    and a device prices the whole.
    """

    def __init__(
        self,
        cost: ModelCost,
        batch: int,
        test_samples: int,
        chunks: int = 1,
        held: Held | None = None,
        alone: bool = False,
    ) -> None:
        self.cost, self.held = cost, held or Held()
        self.units = cost.units or (cost,)
        self.sizes = unit_sizes(self.units, self.held)
        self.chunks = [stop - start for start, stop in parts(batch, chunks)]
        forward, touched = cost.flops * batch, 4.0 * cost.parameters
        # Backward computes a gradient for the inputs and one for the weights: twice the forward's work.
        gradient = 3 * forward, 2 * touched + 2 * cost.activations * batch
        update = 4.0 * cost.parameters, 5 * touched
        both = gradient[0] + update[0], gradient[1] + update[1]
        self.step = Work("step", batch, *both)
        # A gradient that follows an exchange may have been measured, and takes longer than one within a local step.
        pieces = self.step if alone else Work("synchronous step", batch, *both)
        self.gradient = Work("gradient", batch, *gradient, whole=pieces)
        self._updated = Work("update", 0, *update, whole=pieces)
        self.update = self._own_part("host update" if self.held.host else "update", update, self._updated)
        # Elementwise over the parameters and two vectors: read, combined, one written.
        self.transform = Work("transform", 0, 2.0 * cost.parameters, 3 * touched)
        self.norm = self._own_part("norm", (2.0 * cost.parameters, touched), pieces)
        self.evaluate = Work(
            "evaluate", test_samples, cost.flops * test_samples, touched + cost.activations * test_samples
        )
        self.scores = Work("scores")
        self._batch = batch
        self._others: dict[tuple[str, int, int], Work] = {}

    def _own_part(self, phase: str, cost: tuple[float, float], whole: Work) -> Work:
        """What a worker does with the parameters that it keeps. cost: flops and bytes of all of them."""
        part = 1 / self.held.parts
        return Work(phase, 0, cost[0] * part, cost[1] * part, fraction=part, whole=whole)

    def unit(self, phase: str, unit: int, samples: int) -> Work:
        """A unit's "forward" or "backward" on so many samples of the batch, or its "evaluate" on those of a block."""
        key = (phase, unit, samples)
        if key not in self._others:
            own, times = self.units[unit], 2 if phase == "backward" else 1
            whole = self.evaluate if phase == "evaluate" else self.gradient
            fraction = own.flops / self.cost.flops if self.cost.flops else 1 / len(self.units)
            fraction *= samples / whole.samples if whole.samples else 1.0
            touched = 4.0 * own.parameters + own.activations * samples
            self._others[key] = Work(phase, samples, times * own.flops * samples, touched, unit, fraction, whole)
        return self._others[key]

    @property
    def squares(self) -> Work:
        """Norms for a report: an evaluation of no examples."""
        return self.estimate(0)

    def estimate(self, batches: int) -> Work:
        """Forward passes over `batches` batches of the worker's size: so many times the price of one."""
        key = ("estimate", 0, batches)
        if key not in self._others:
            cost, batch = self.cost, self._batch
            one = Work("evaluate", batch, cost.flops * batch, 4.0 * cost.parameters + cost.activations * batch)
            all_of_them = batches * batch, batches * one.flops, batches * one.bytes
            self._others[key] = Work("evaluate", *all_of_them, fraction=batches, whole=one)
        return self._others[key]


def unit_sizes(units: Sequence[ModelCost], held: Held) -> list[tuple[int, int]]:
    """(elements kept, elements of the whole) of each unit: padded to equal parts where sharded; else the last unit's
    gradient carries the loss, so it has one element more."""
    if held.parts == 1:
        return [(u.parameters + (i == len(units) - 1),) * 2 for i, u in enumerate(units)]
    kept = [-(-u.parameters // held.parts) for u in units]
    return [(size, size * held.parts) for size in kept]


def slot_sizes(sizes: Sequence[int], count: int) -> list[int]:
    """Elements of each of `count` buffers that units of these sizes take in turn, unit u the buffer u mod count."""
    count = min(count, len(sizes))
    return [max(sizes[first::count]) for first in range(count)]


def evaluation_blocks(test_samples: int, workers: int) -> int:
    """In how many blocks each worker evaluates its part unit by unit: the same for all, who fetch units together."""
    largest = math.ceil(test_samples / workers)
    return max(1, math.ceil(largest / EVALUATION_BATCH))


def share(total: int, index: int, workers: int) -> tuple[int, int]:
    """(start, stop) of a worker's part of the test set: contiguous, sizes differ by one at most."""
    return index * total // workers, (index + 1) * total // workers


def last(value: Value) -> float:
    """The loss that rode on an exchanged vector; not a number for a phantom."""
    item: Any = getattr(value, "item", None)
    return float("nan") if item is None else float(item(-1))
