"""Mixup: a step trains on weighted means of two examples each (Zhang et al., arXiv 1710.09412).

The weight lambda is drawn from Beta(alpha, alpha), one for each micro-batch, as QSR's code does. 1 - lambda is as
likely, and the larger of the two belongs to the example itself. The loss is lambda l(outputs, y) + (1 - lambda)
l(outputs, y'), with the targets y of the example and y' of the other one, so it may be any loss.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_map

Targets = tuple[Tensor, Tensor, Tensor]  # of the examples, of those that are mixed in, and lambda for each


def mixed(
    x: Tensor, y: Tensor, alpha: float, chunks: Sequence[slice], random: np.random.Generator
) -> tuple[Tensor, Targets]:
    """The batch's inputs, mixed within each of the micro-batches `chunks`, and its targets."""
    partners, weights = np.arange(len(x)), np.empty(len(x), np.float32)
    for cut in chunks:
        share = random.beta(alpha, alpha)
        weights[cut] = max(share, 1 - share)
        partners[cut] = random.permutation(partners[cut])
    others, weight = torch.from_numpy(partners), torch.from_numpy(weights)
    each = weight.view(-1, *(1,) * (x.ndim - 1))
    return x * each + x.index_select(0, others) * (1 - each), (y, y.index_select(0, others), weight)


def mixed_loss(loss: Callable[..., Any]) -> Callable[..., Any]:
    """The loss of a micro-batch with such targets: a tensor or several values, as `loss` returns them."""

    def found(outputs: Any, targets: Targets, *others: Any) -> Any:
        first, second, weights = targets
        share = weights[0]

        def mean(a: Any, b: Any) -> Any:
            return None if a is None else share * a + (1 - share) * b

        return tree_map(mean, loss(outputs, first, *others), loss(outputs, second, *others))

    return found
