"""A training step unit by unit: batches in micro-batches, each through the units forward and backward.

Rule: as everywhere in the worker, all mutation happens inside `Compute.run` or `Move.copy`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from ..algorithms.costs import TAIL
from ..algorithms.rounds import Round
from ..program.effects import Array
from ..program.fold import parts
from .batches import Batches
from .guard import Guard
from .parameter_memory import Memory
from .passes import Passes, by_rest, part
from .trees import Tree
from .unit_passes import UnitPasses


class UnitSteps:
    """Performs the steps of one worker.

    loss: what of the batch does not count, and its loss as if everything did: two elements. Where parameters are
    sharded, they are exchanged by themselves; elsewhere they lie behind the gradient in `memory` and travel with that.
    """

    def __init__(self, passes: Passes, units: UnitPasses, memory: Memory, batches: Batches, guard: Guard) -> None:
        self._passes, self._units, self._memory, self._batches, self._guard = passes, units, memory, batches, guard
        self._adds_up = not (memory.held.host or memory.held.staged)  # elsewhere Memory.unload adds chunk to chunk
        self._batch: tuple[Tree[Tensor], Tree[Tensor]] | None = None
        self._indices: Array = np.empty(0, np.int64)
        self._loss_so_far = 0.0
        alone = memory.held.parts > 1
        self.loss = np.zeros(TAIL, memory.host_params.dtype) if alone else memory.host_grads[-TAIL:]

    def forward(self, round: Round, i: int, chunk: int, chunks: int, unit: int) -> None:
        """The unit's forward pass on micro-batch `chunk` of `chunks`; the last unit's leaves the loss for backward."""
        if chunk == unit == 0:
            self._indices, position = self._batches.next(round, i)
            self._batch = self._passes.prepare(self._indices, position)
        assert self._batch is not None
        whole = len(self._indices)
        cut = slice(*parts(whole, chunks)[chunk])
        self._units.forward(unit, part(self._batch[0], cut) if unit == 0 else None)
        if unit < len(self._units) - 1:
            return
        loss = self._units.loss(part(self._batch[1], cut), whole)
        self._guard.check("the training loss", loss)
        self._loss_so_far = loss + (self._loss_so_far if chunk else 0.0)
        self.note(self._loss_so_far)
        if chunk == chunks - 1:
            self._batch = None
            self._batches.score(round, i, self._indices, self._loss_so_far)

    def backward(self, chunk: int, unit: int) -> None:
        """The unit's gradient, added to those of the micro-batches before where these are on the device."""
        self._units.backward(unit, chunk > 0 and self._adds_up)

    def forget(self) -> None:
        """Drop what a step that was broken off has left."""
        self._batch = None
        self._units.forget()

    def warm_up(self, indices: Array, chunks: Sequence[int]) -> None:
        """Passes through all units on whatever their memory holds, with micro-batches of each of these sizes."""
        x, y = self._passes.prepare(indices, 0)
        for size in sorted(set(chunks)):
            for unit in range(len(self._units)):
                self._units.forward(unit, part(x, slice(size)) if unit == 0 else None)
            self._units.loss(part(y, slice(size)), size)
            for unit in reversed(range(len(self._units))):
                self._units.backward(unit, False)

    def note(self, loss: float) -> None:
        """The loss of the batch so far, and what of it does not count, where the exchange finds them."""
        self.loss[:] = self._passes.missing, loss

    def settle(self) -> None:
        """Divide the exchanged gradient and loss, which are means as if everything counted, by what does count."""
        missing, loss = self.loss.tolist()
        if missing:
            self._memory.grads[: len(self._memory.parameters)].mul_(by_rest(missing))
            self.loss[:] = 0.0, loss * by_rest(missing)
            self._guard.check("the training loss", self.loss.item(-1))
