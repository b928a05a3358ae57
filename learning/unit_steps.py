"""The unit-by-unit half of the worker: what it does with one unit of its model at a time.

Rule: as everywhere in the worker, all mutation happens inside `Compute.run` or `Move.copy`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..algorithms.costs import Works
from ..algorithms.rounds import Round
from ..algorithms.worker import UnitValues, Whole
from ..program.effects import Array, Compute, Move, Value
from ..program.fold import parts
from .buffers import Buffers
from .parameter_memory import Memory
from .passes import Passes, squares
from .unit_passes import UnitPasses


class UnitWise:
    """Base of TorchWorker, which sets the attributes below; methods as algorithms.worker.Worker says."""

    works: Works
    evaluation_blocks: int
    _memory: Memory
    _chain: UnitPasses
    _passes: Passes
    _run: Callable[..., Any]
    _next_batch: Callable[[Round, int], tuple[Array, int]]
    _score: Callable[[Round, int, Array], None]
    _tests: Array
    _buffers: Buffers
    _set_buffers: Callable[[Value], None]
    _check: Callable[[str, float], None]
    _check_parameters: Callable[[], None]
    _test_inputs: Callable[[Array], Tensor]
    _judge: Callable[[Tensor, Array], Array]
    _loss_so_far: float = 0.0

    def _begin_units(self) -> None:
        self._batch: tuple[Tensor, Tensor] | None = None
        self._indices: Array = np.empty(0, np.int64)
        self._sums = np.zeros(3)
        self.loss: Value = np.zeros(1, self._memory.host_params.dtype)
        self.grads_squared: Any = np.zeros(1)

    @property
    def units(self) -> Sequence[UnitValues]:
        """What is exchanged of each unit: fp32 vectors."""
        return self._memory.values

    @property
    def chunks(self) -> int:
        """Micro-batches of a step."""
        return len(self.works.chunks)

    @property
    def staged(self) -> bool:
        """Whether the device has memory of its own."""
        return self._memory.held.staged

    def forward(self, round: Round, i: int, chunk: int, unit: int) -> Compute[None]:
        """The unit's forward pass; the last unit's leaves the loss for backward."""
        work = self.works.unit("forward", unit, self.works.chunks[chunk])
        return Compute(work, partial(self._run, self._forward, round, i, chunk, unit))

    def backward(self, round: Round, i: int, chunk: int, unit: int) -> Compute[None]:
        """The unit's gradient, added to those of chunks before where these are on the device."""
        work = self.works.unit("backward", unit, self.works.chunks[chunk])
        away = self._memory.held.host or self.staged
        return Compute(work, partial(self._run, self._chain.backward, unit, chunk > 0 and not away))

    def forget(self) -> None:
        """Drop what a step that was broken off has left: inputs, activations, autograd's gradients."""
        self._batch = None
        self._chain.forget()
        self._passes.forget()

    def load(self, unit: int, phase: str) -> Move:
        """The unit's parameters into its slot."""
        return Move(self.units[unit].gathered, "device", partial(self._memory.load, unit), phase)

    def unload(self, unit: int, chunk: int) -> Move:
        """The unit's gradient to the host."""
        return Move(self.units[unit].gradient, "host", partial(self._memory.unload, unit, chunk > 0))

    def reload(self, unit: int) -> Move:
        """The unit's exchanged gradient to the device."""
        return Move(self.units[unit].reduced, "device", partial(self._memory.reload, unit))

    def pull(self, what: Whole) -> Move:
        """All parameters, or the whole gradient, to the host."""
        value = self._memory.host_params if what == "parameters" else self._memory.host_grads
        return Move(value, "host", partial(self._memory.pull, what))

    def push(self, what: Whole) -> Move:
        """The same to the device."""
        value = self._memory.host_params if what == "parameters" else self._memory.host_grads
        return Move(value, "device", partial(self._memory.push, what))

    def squared_norm(self) -> Compute[Value]:
        """The sum of the squares of this worker's gradients: float64 (1,)."""
        return Compute(self.works.norm, self._squares, on="host" if self._memory.held.host else "device")

    def evaluate_unit(self, buffers: Value, block: int, unit: int) -> Compute[Value]:
        """The last unit answers [loss, correct, count] summed over the blocks so far, float64 (3,)."""
        start, stop = parts(self.works.evaluate.samples, self.evaluation_blocks)[block]  # as priced: see make_works
        work = self.works.unit("evaluate", unit, stop - start)
        return Compute(work, partial(self._run, self._evaluate_unit, buffers, block, unit))

    def _squares(self) -> Array:
        found = squares([self._memory.grads])
        self._check("the gradient's norm", found)
        return np.array([found])

    def _forward(self, round: Round, i: int, chunk: int, unit: int) -> None:
        x = None
        if chunk == unit == 0:
            self._indices, position = self._next_batch(round, i)
            self._batch = self._passes.prepare(self._indices, position)
        assert self._batch is not None
        cut = slice(*parts(len(self._indices), self.chunks)[chunk])
        if unit == 0:
            x = self._batch[0][cut]
        self._chain.forward(unit, x)
        if unit < len(self.units) - 1:
            return
        loss = self._chain.loss(self._batch[1][cut], len(self._indices) if self.chunks > 1 else None)
        self._check("the training loss", loss)
        self._note_loss(loss + (self._loss_so_far if chunk else 0.0))
        if chunk == self.chunks - 1:
            self._batch = None
            self._score(round, i, self._indices)

    def _note_loss(self, loss: float) -> None:
        """The batch's loss so far, where the exchange finds it."""
        self._loss_so_far = loss
        if self._memory.held.parts == 1:
            self._memory.host_grads[-1] = loss
        else:
            self.loss[0] = loss  # type: ignore[index]

    def _evaluate_unit(self, buffers: Value, block: int, unit: int) -> Array | None:
        start, stop = parts(len(self._tests), self.evaluation_blocks)[block]
        chosen = self._tests[start:stop]
        if block == unit == 0:
            self._check_parameters()
            self._sums = np.zeros(3)
        if not len(chosen):
            return self._sums.copy()
        own = self._buffers.vector.clone()
        self._set_buffers(buffers)
        outputs = self._chain.evaluate(unit, self._test_inputs(chosen) if unit == 0 else None)
        self._buffers.vector.copy_(own)
        if unit == len(self.units) - 1:
            self._sums += self._judge(outputs, chosen)
        return self._sums.copy()

    def _warm_units(self) -> None:
        """Passes through all units on whatever their memory holds: with micro-batches of each size, and a test."""
        indices = np.arange(self.works.step.samples) % self._passes.examples
        x, y = self._passes.prepare(indices, 0)
        for size in sorted(set(self.works.chunks)):
            for unit in range(len(self.units)):
                self._chain.forward(unit, x[:size] if unit == 0 else None)
            self._chain.loss(y[:size], None)
            for unit in reversed(range(len(self.units))):
                self._chain.backward(unit, False)
        for unit in range(len(self.units)):
            self._evaluate_unit(self._buffers.vector.cpu().numpy(), 0, unit)
        self._chain.forget()
        with torch.no_grad():
            self._memory.grads.zero_()
