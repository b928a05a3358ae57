"""A forward pass before the run begins. It finds what no table says: the activations, and a user's kind of loss."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..program.effects import Array
from .dataset import Dataset
from .losses import ROWS, SETS, is_mean
from .passes import Passes, part
from .unit_passes import UnitPasses


class Trial(NamedTuple):
    """What was found."""

    activations: int = 0  # bytes that a step keeps for backward; 0 where nothing was tried
    loss_is_mean: bool | None = True  # whether a user's mean may be made of those of parts; see losses.is_mean

    def check(self, loss: str, chunks: int) -> None:
        """ValueError where a step is cut in micro-batches and the loss may not be."""
        if chunks > 1 and self.loss_is_mean is False:
            raise ValueError(
                f"loss {loss} is not the mean over a batch's examples of what depends on one example each, so in "
                "micro-batches the gradient would be another; leave out micro_batch, or let it return a value for each "
                "example, or (sum, count)"
            )


def try_forward(passes: Passes, units: UnitPasses, data: Dataset, indices: Array, most: int) -> Trial:
    """Forward passes of the first `most` of the examples at `indices`, a batch."""
    passes.doing = "reading the data"
    inputs = part(passes.inputs(indices), slice(most))
    activations, outputs = units.activations(inputs)
    passes.doing = "the loss"
    y, loss = passes.targets(indices[:most]), passes.criterion
    with torch.no_grad():
        passes.loss(outputs, y, len(y))
        loss.check(outputs, y, data)
        if not loss.gives_mean(outputs, y):
            return Trial(activations)
        return Trial(activations, is_mean(lambda *batch: loss(*batch).value, outputs, y, _kinds(passes, data)))


def _kinds(passes: Passes, data: Dataset) -> Tensor:
    """Targets of all kinds: each label once, sorted; examples from everywhere where targets are something else."""
    if isinstance(data.train_y, np.ndarray) and data.train_y.ndim == 1 and data.train_y.dtype == np.int64:
        return torch.from_numpy(np.unique(data.train_y))
    count = min(passes.examples, ROWS * SETS)
    return passes.targets(np.arange(count) * passes.examples // count)
