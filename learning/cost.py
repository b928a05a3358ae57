"""What a model without a table costs: one forward pass of two examples, counted. Needs torch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from ..algorithms.worker import ModelCost
from .imports import one_line
from .tables import Shape
from .units import float_buffers

EXAMPLES = 2  # BatchNorm in training refuses a single value per channel


class _Allocations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Bytes of the outputs that have storage of their own and one row per example (so no BatchNorm statistics)."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.nbytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        seen = {t.untyped_storage().data_ptr() for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)}
        for t in tree_leaves(out):
            if isinstance(t, Tensor) and t.ndim and t.shape[0] == EXAMPLES:
                own = t.untyped_storage().data_ptr() not in seen
                self.nbytes += t.numel() * t.element_size() if own else 0
        return out


def measured_cost(model: nn.Module, input_shape: Shape) -> ModelCost:
    """The cost of any model, in the terms of tables.UnitCost.

    FLOPs are those that torch.utils.flop_counter knows. The model is used up: BatchNorm's statistics move, and a copy
    would not do, since a user's model may hold closures over its own layers. ValueError where it cannot take such an
    input.
    """
    parameters = sum(p.numel() for p in model.parameters())
    buffers = sum(b.numel() for b in float_buffers(model).values())
    counter, allocations = FlopCounterMode(display=False), _Allocations()
    model.train()
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        batch = torch.rand(EXAMPLES, *input_shape)
        try:
            with counter, allocations:
                model(batch)
        except Exception as error:  # whatever a user's model does
            raise ValueError(f"the model fails on an input of {tuple(batch.shape)}: {one_line(error)}") from error
    flops = counter.get_total_flops() / EXAMPLES
    return ModelCost(parameters, buffers, float(flops), allocations.nbytes / EXAMPLES)
