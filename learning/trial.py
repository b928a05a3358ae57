"""A forward pass before the run begins. It finds what no table says: the activations, and a user's kind of loss."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..program.effects import Array
from . import user_code
from .dataset import Dataset
from .losses import ROWS, SETS, is_mean
from .passes import Passes, part
from .unit_passes import UnitPasses


class Trial(NamedTuple):
    """What was found."""

    activations: int = 0  # bytes that a step keeps for backward; 0 where nothing was tried
    loss_is_mean: bool | None = True  # whether a user's loss may be cut in parts; see losses.is_mean


def try_forward(passes: Passes, units: UnitPasses, data: Dataset, indices: Array, most: int) -> Trial:
    """Forward passes of the first `most` of the examples at `indices`, a batch."""
    passes.doing = "reading the data"
    inputs = part(passes.inputs(indices), slice(most))
    activations, outputs = units.activations(inputs)
    if not user_code.named(passes.loss_name):
        return Trial(activations)
    passes.doing = "the loss"
    y = passes.targets(indices[:most])
    with torch.no_grad():
        return Trial(activations, is_mean(passes.evaluation_loss, outputs, y, _kinds(passes, data)))


def _kinds(passes: Passes, data: Dataset) -> Tensor:
    """Targets of all kinds: each label once, sorted; examples from everywhere where targets are something else."""
    if isinstance(data.train_y, np.ndarray) and data.train_y.ndim == 1 and data.train_y.dtype == np.int64:
        return torch.from_numpy(np.unique(data.train_y))
    count = min(passes.examples, ROWS * SETS)
    return passes.targets(np.arange(count) * passes.examples // count)
