"""The half of the worker that tries what it is going to do before the run begins, and leaves no trace of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from ..algorithms.costs import Works
from ..algorithms.worker import EVALUATION_BATCH
from ..program.effects import Array
from . import user_code
from .dataset import Dataset
from .losses import is_mean
from .optimizers import Optimizer
from .parameter_memory import Memory
from .passes import Passes
from .unit_passes import UnitPasses


class Trial:
    """Base of TorchWorker, which sets the attributes below.

    loss_is_mean: whether a user's loss may be cut in parts (see losses.is_mean), known once it was tried.
    """

    index: int
    works: Works
    chunks: Any
    buffers: Any
    loss_is_mean: bool | None = True
    _passes: Passes
    _memory: Memory
    _chain: UnitPasses
    _optimizer: Optimizer
    _activations: int
    _params: Array
    _tests: Array
    _state: Callable[[], dict[str, Array]]
    snapshot: Callable[[], dict[str, Array]]
    restore: Callable[[dict[str, Array]], None]
    _evaluate: Callable[[Any, int], Array]
    _warm_units: Callable[[], None]

    def _warm_up(self, data: Dataset) -> None:
        """One step and one batch of evaluation, whose effects are taken back."""
        saved, batch = self._state(), self.works.step.samples
        try:
            self._try_forward(np.arange(batch) % self._passes.examples, data)
            if self._memory.held.fetched:
                self._warm_units()
            else:
                self._passes.backward(np.arange(batch) % self._passes.examples, 0)
                self._optimizer.apply(self._passes.gradients(), 0.0)
                self._evaluate(self.buffers, min(EVALUATION_BATCH, len(self._tests)))
        except user_code.FAILURES as error:  # whatever a user's model or loss does
            raise ValueError(
                f"worker {self.index}: a training step of {batch} examples fails in {self._passes.doing}: "
                f"{user_code.in_words(error)}"
            ) from error
        if self.chunks > 1 and self.loss_is_mean is False:
            raise ValueError(
                f"loss {self._passes.loss_name} is not the mean over a batch's examples of what depends on one example "
                "each, so in micro-batches the gradient would be another; leave out micro_batch, or name such a loss"
            )
        self.restore({k: v for k, v in saved.items() if k != "params" or "params" in self.snapshot()})
        self._params[:] = saved["params"]
        self._memory.push()
        self._passes.forget()

    def _try_forward(self, indices: Array, data: Dataset) -> None:
        """Note what forward passes keep for backward, and whether a user's loss may be cut."""
        self._passes.doing = "reading the data"
        inputs = self._passes.inputs(indices)[: max(self.works.chunks)]
        self._activations, outputs = self._chain.activations(inputs)
        if user_code.named(self._passes.loss_name):
            self._passes.doing = "the loss"
            y = torch.from_numpy(data.train_y[indices[: len(inputs)]]).to(inputs.device)
            with torch.no_grad():
                self.loss_is_mean = is_mean(self._passes.evaluation_loss, outputs, y, np.unique(data.train_y))
