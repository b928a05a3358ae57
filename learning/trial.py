"""A forward pass before the run begins. It finds what no table says: the activations, and a user's kind of loss."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

from ..program.effects import Array
from . import user_code
from .dataset import Dataset
from .losses import is_mean
from .passes import Passes
from .unit_passes import UnitPasses


class Trial(NamedTuple):
    """What was found."""

    activations: int = 0  # bytes that a step keeps for backward; 0 where nothing was tried
    loss_is_mean: bool | None = True  # whether a user's loss may be cut in parts; see losses.is_mean


def try_forward(passes: Passes, units: UnitPasses, data: Dataset, indices: Array, most: int) -> Trial:
    """Forward passes of the first `most` of the examples at `indices`, a batch."""
    passes.doing = "reading the data"
    inputs = passes.inputs(indices)[:most]
    activations, outputs = units.activations(inputs)
    if not user_code.named(passes.loss_name):
        return Trial(activations)
    passes.doing = "the loss"
    y = torch.from_numpy(data.train_y[indices[: len(inputs)]]).to(inputs.device)
    with torch.no_grad():
        return Trial(activations, is_mean(passes.evaluation_loss, outputs, y, np.unique(data.train_y)))
