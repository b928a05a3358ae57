"""A worker's evaluation on its part of the test set, with buffers that are lent to its model meanwhile."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from ..algorithms.costs import Works
from ..algorithms.metrics import numbers
from ..algorithms.worker import EVALUATION_BATCH, evaluation_blocks, share
from ..program.effects import Array, Value
from ..program.fold import parts
from . import heap
from .buffers import Buffers
from .dataset import Dataset
from .guard import Guard
from .judge import Judge
from .passes import Passes
from .recipe import Recipe
from .sources import InputsInOrder, Source
from .trees import Tree, mapped
from .unit_passes import UnitPasses

PIECE = 64  # examples of a forward pass on a CPU: what convolutions write for more of them leaves its caches


class Evaluation:
    """The evaluation of worker `index`.

    tests: the places of its examples in the test set.
    blocks: the number of parts in which they are evaluated unit by unit.
    judge: what it answers; see Judge.sums.
    """

    def __init__(
        self,
        index: int,
        workers: int,
        data: Dataset,
        recipe: Recipe,
        works: Works,
        passes: Passes,
        units: UnitPasses,
        buffers: Buffers,
        guard: Guard,
    ) -> None:
        start, stop = share(len(data.test_y), index, workers)
        shape = data.shape
        self.tests, self.blocks = np.arange(start, stop), evaluation_blocks(shape.test, workers, shape.targets)
        self.judge = Judge(recipe, shape, passes, guard)
        self._x, self._y = InputsInOrder(data.test_x, passes.ahead.threads, stop), Source(data.test_y, target=True)
        self._passes, self._units, self._buffers, self._guard = passes, units, buffers, guard
        self._sums = np.zeros(numbers(self.judge.metrics))
        # Examples with many targets each, like the words of a text, may have outputs that are too large for a block.
        self._large = shape.targets > 1
        self._most = max(works.chunks)  # examples that a training step has in memory at a time

    def whole(self, buffers: Value, examples: int) -> Array:
        """The judge's sums over the first `examples` of the worker's part."""
        self._passes.doing = "the evaluation"
        self._begin(examples)
        self._passes.model.eval()
        with self._buffers.lent(buffers), torch.no_grad():
            for start in range(0, examples, EVALUATION_BATCH):
                self._judge(self.tests[start : min(start + EVALUATION_BATCH, examples)])
        self._passes.model.train()
        return self._sums.copy()

    def unit(self, buffers: Value, block: int, unit: int) -> Array:
        """One unit's forward pass on a block of the worker's part; the same sums, over the blocks so far."""
        start, stop = parts(len(self.tests), self.blocks)[block]
        chosen = self.tests[start:stop]
        if block == unit == 0:
            self._begin(len(self.tests))
        if len(chosen):
            with self._buffers.lent(buffers), torch.no_grad():
                outputs = self._units.evaluate(unit, self._inputs(chosen) if unit == 0 else None)
                if unit == len(self._units) - 1:
                    self._add(outputs, chosen)
        return self._sums.copy()

    @property
    def _piece(self) -> int:
        """Examples of a forward pass of the whole model."""
        if self._large:
            return min(PIECE, self._most)
        return PIECE if self._passes.device.type == "cpu" else EVALUATION_BATCH

    def _begin(self, examples: int) -> None:
        self._guard.check_parameters()
        self._sums[:] = 0.0
        if examples >= EVALUATION_BATCH:  # fewer take little memory, and many small workers may share a process
            heap.trim()

    def _judge(self, chosen: Array) -> None:
        """Add the sums over a block of test examples.

        The block is judged at once, since that is what a mean is defined on and what its bits depend on. Where its
        outputs may be large, and all functions that judge them add up, each piece is judged as soon as it is there.
        """
        pieces = [chosen[start : start + self._piece] for start in range(0, len(chosen), self._piece)]
        outputs = self._outputs(pieces[0])
        if self._large and self.judge.adds_up(outputs, self._targets(pieces[0])):
            self._add(outputs, pieces[0])
            del outputs
            for piece in pieces[1:]:
                self._add(self._outputs(piece), piece)
        else:
            self._add(_joined([outputs, *map(self._outputs, pieces[1:])]), chosen)

    def _add(self, outputs: Any, chosen: Array) -> None:
        self._sums += self.judge.sums(outputs, self._targets(chosen))

    def _outputs(self, chosen: Array) -> Any:
        """The model's outputs for these test examples."""
        self._passes.doing = "the evaluation"
        return self._passes.forward(self._inputs(chosen))

    def _inputs(self, chosen: Array) -> Tree[Tensor]:
        found: Tree[Tensor] = mapped(self._passes.placed, self._x.take(chosen))
        return found

    def _targets(self, chosen: Array) -> Tensor:
        return self._passes.placed(self._y.take(chosen))


def _joined(pieces: list[Any]) -> Any:
    """The outputs of pieces one after the other."""
    if len(pieces) == 1:
        return pieces[0]
    if isinstance(pieces[0], Tensor) and pieces[0].ndim:  # what tree_map would do, at a tenth of its cost
        return torch.cat(pieces)
    return tree_map(lambda *each: torch.cat(each) if isinstance(each[0], Tensor) and each[0].ndim else each[0], *pieces)
