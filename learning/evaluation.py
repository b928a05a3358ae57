"""A worker's evaluation on its part of the test set, with buffers that are lent to its model meanwhile."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from ..algorithms.worker import EVALUATION_BATCH, evaluation_blocks, share
from ..program.effects import Array, Value
from ..program.fold import parts
from . import heap
from .buffers import Buffers
from .dataset import Dataset
from .guard import Guard
from .passes import Passes
from .sources import Inputs, Source
from .trees import Tree, mapped
from .unit_passes import UnitPasses

PIECE = 64  # examples of a forward pass on a CPU: what convolutions write for more of them leaves its caches


class Evaluation:
    """The evaluation of worker `index`.

    tests: the places of its examples in the test set.
    blocks: the number of parts in which they are evaluated unit by unit.
    """

    def __init__(
        self, index: int, workers: int, data: Dataset, passes: Passes, units: UnitPasses, buffers: Buffers, guard: Guard
    ) -> None:
        start, stop = share(len(data.test_y), index, workers)
        self.tests, self.blocks = np.arange(start, stop), evaluation_blocks(len(data.test_y), workers)
        self._x, self._y = Inputs(data.test_x, passes.ahead.threads, stop), Source(data.test_y, target=True)
        self._passes, self._units, self._buffers, self._guard = passes, units, buffers, guard
        self._sums = np.zeros(3)

    def whole(self, buffers: Value, examples: int) -> Array:
        """[sum of losses, correct, count] over the first `examples` of the worker's part, float64 (3,)."""
        self._passes.doing = "the evaluation"
        self._begin(examples)
        sums = np.zeros(3)
        self._passes.model.eval()
        with self._buffers.lent(buffers), torch.no_grad():
            for start in range(0, examples, EVALUATION_BATCH):
                chosen = self.tests[start : min(start + EVALUATION_BATCH, examples)]
                sums += self._judge(self._outputs(chosen), chosen)
        self._passes.model.train()
        return sums

    def unit(self, buffers: Value, block: int, unit: int) -> Array:
        """One unit's forward pass on a block of the worker's part; the same sums, over the blocks so far."""
        start, stop = parts(len(self.tests), self.blocks)[block]
        chosen = self.tests[start:stop]
        if block == unit == 0:
            self._begin(len(self.tests))
            self._sums = np.zeros(3)
        if len(chosen):
            with self._buffers.lent(buffers):
                outputs = self._units.evaluate(unit, self._inputs(chosen) if unit == 0 else None)
            if unit == len(self._units) - 1:
                self._sums += self._judge(outputs, chosen)
        return self._sums.copy()

    def _begin(self, examples: int) -> None:
        self._guard.check_parameters()
        if examples >= EVALUATION_BATCH:  # fewer take little memory, and many small workers may share a process
            heap.trim()

    def _outputs(self, chosen: Array) -> Any:
        """The model's outputs for the chosen test examples."""
        piece = PIECE if self._passes.device.type == "cpu" else EVALUATION_BATCH
        cuts = range(0, len(chosen), piece)
        made = [self._passes.forward(self._inputs(chosen[cut : cut + piece])) for cut in cuts]
        return tree_map(lambda *pieces: torch.cat(pieces), *made)

    def _inputs(self, chosen: Array) -> Tree[Tensor]:
        found: Tree[Tensor] = mapped(self._passes.placed, self._x.take(chosen))
        return found

    def _judge(self, outputs: Any, chosen: Array) -> Array:
        """[loss, correct, count] summed over the chosen test examples."""
        y = self._passes.placed(self._y.take(chosen))
        correct = int((outputs.argmax(1) == y).sum()) if y.dtype == torch.int64 and y.ndim == 1 else math.nan
        loss = self._passes.evaluation_loss(outputs, y).item()
        self._guard.check("the test loss", loss)
        return np.array([loss * len(y), correct, len(y)])
