"""A trained model, put together from what the workers of a run have saved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import nn

from ..algorithms.costs import Works
from ..program.effects import Array
from . import parameter_memory
from .buffers import Buffers
from .models import exchanged_units


def fill(
    model: nn.Module, works: Works, unit_bytes: int, kept: Sequence[Array], saved: Mapping[str, Array], averaged: Array
) -> None:
    """Give a new model what a run has learned, and put it into evaluation mode. ValueError where it does not fit.

    kept: the parameters that each worker keeps, or worker 0's where every worker keeps all.
    saved: worker 0's snapshot, for the buffers that are each worker's own; see Buffers.snapshot.
    averaged: the buffers that are averaged, as the evaluation uses them.
    """
    parameters = exchanged_units(model, works, unit_bytes).parameters
    if works.held.parts > 1 and list(saved["units"]) != parameter_memory.kept_sizes(parameters, works.held):
        raise ValueError("the checkpoint's model is cut into other units")
    buffers = Buffers(model)
    for name, own in buffers.snapshot().items():
        found = saved.get(name)
        if found is None or (found.shape, found.dtype) != (own.shape, own.dtype):
            what = "nothing" if found is None else f"{found.size} elements of {found.dtype}"
            raise ValueError(f"{name} holds {what}, expected {own.size} elements of {own.dtype}")
    with torch.no_grad():
        parameter_memory.fill(parameters, works.held, kept)
        buffers.restore(dict(saved))
        buffers.set(averaged)
    model.eval()
