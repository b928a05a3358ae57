"""BatchNorm's running statistics re-estimated: the plain mean of the batch statistics of fresh forward passes."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


def estimate(model: nn.Module, batches: Iterable[Tensor], forward: Callable[[Tensor], object]) -> None:
    """Replace the statistics in the model's buffers by the mean of those of `batches`.

    forward: runs the model, which is in training mode; a norm that it holds in evaluation mode is frozen and keeps its
    own. The variance is the mean of the unbiased batch variances, as PyTorch's momentum None has it. Everything else
    that the passes may change is the caller's to put back.
    """
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.track_running_stats and m.training]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
    try:
        with torch.no_grad():
            for batch in batches:
                forward(batch)
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
