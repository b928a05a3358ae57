"""BatchNorm's running statistics re-estimated: the plain mean of the batch statistics of fresh forward passes."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..program.effects import Array
from ..program.streams import stream, torch_seed
from .buffers import Buffers, unchanged
from .passes import Passes
from .trees import Tree


def estimate(model: nn.Module, batches: Iterable[Tree[Tensor]], forward: Callable[[Tree[Tensor]], object]) -> None:
    """Replace the statistics in the model's buffers by the mean of those of `batches`.

    forward: runs the model, which is in training mode. A norm in evaluation mode is frozen and keeps its statistics.
    The variance is the mean of the unbiased batch variances, as with PyTorch's momentum None. The caller puts back
    everything else that the passes may change.
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


def estimated_buffers(passes: Passes, buffers: Buffers, count: int, batch: int, *stream_name: int) -> Array:
    """The averaged buffers with statistics from `count` batches of `batch` examples, float32; the model stays as it is.

    stream_name: the run's seed, the round and the worker. The examples are drawn from the stream of that name, and so
    are their augmentation (QSR's code augments them, too) and dropout, while torch's own stream is put back.
    """
    seed, *place = stream_name
    chosen = stream(seed, "bn", *place).integers(0, passes.examples, (count, batch))
    devices = [passes.device] if passes.device.type == "cuda" else []
    with unchanged(passes.model), torch.random.fork_rng(devices=devices):
        torch.manual_seed(torch_seed(seed, "bn", *place))
        # In micro-batches, since these are what the statistics in training are of.
        random = stream(seed, "bn augment", *place)
        inputs = (passes.augmented(row[cut], random) for row in chosen for cut in passes.chunks(batch))
        estimate(passes.model, inputs, passes.forward)
        return buffers.vector.cpu().numpy().copy()
