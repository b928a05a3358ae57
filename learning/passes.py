"""Forward and backward passes: from the indices of a batch to its gradient.

Rule: a batch's bits depend on its indices, its position and torch's stream alone, not on who else computes here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..algorithms.effects import Array
from ..algorithms.fold import parts
from ..algorithms.streams import stream
from .ahead import Ahead
from .augment import augment
from .data import Dataset, Stored
from .losses import resolve_loss, training_loss
from .recipe import Recipe, check


class Source:
    """Examples by their places, from memory or from where they are stored."""

    def __init__(self, x: NDArray[np.float32] | Stored) -> None:
        self._tensor = torch.from_numpy(x) if isinstance(x, np.ndarray) else None
        self._x = x

    def take(self, indices: Array) -> Tensor:
        """A fresh tensor (len(indices), *input_shape).

        Torch aligns it, and a matrix product's bits may depend on where memory begins.
        """
        if self._tensor is not None:
            return self._tensor.index_select(0, torch.from_numpy(indices))
        return torch.from_numpy(self._x.take(indices)).clone()


class Passes:
    """A model and its training data. each: note the losses of single examples, in `losses`, float32 (batch,).
    loaders: threads that load batches ahead."""

    losses: Array

    def __init__(
        self,
        model: nn.Module,
        data: Dataset,
        recipe: Recipe,
        *,
        seed: int,
        worker: int,
        each: bool = False,
        loaders: int = 0,
    ) -> None:
        check(recipe, data.train_x.shape[1:])
        self.model = model
        self.trained = [p for p in model.parameters() if p.requires_grad]
        self.examples = len(data.train_y)
        self.evaluation_loss = resolve_loss(recipe.loss)
        self._loss = training_loss(recipe.loss, recipe.label_smoothing, each)
        self._x, self._y = Source(data.train_x), torch.from_numpy(data.train_y)
        self._recipe, self._seed, self._worker, self._each = recipe, seed, worker, each
        self.ahead = Ahead(self.load, loaders)

    def forward(self, x: Tensor) -> Any:
        """The model's outputs, in fp32 whatever the precision within."""
        if self._recipe.precision == "fp32":
            return self.model(x)
        with torch.autocast(x.device.type, torch.bfloat16):
            outputs = self.model(x)
        return outputs.float() if isinstance(outputs, Tensor) else outputs

    def inputs(self, indices: Array) -> Tensor:
        """Training examples as they are in the data."""
        return self._x.take(indices)

    def load(self, position: int, indices: Array) -> tuple[Tensor, Tensor]:
        """The batch (inputs, targets), augmented; a pure function of its arguments."""
        x, y = self._x.take(indices), self._y.index_select(0, torch.from_numpy(indices))
        if self._recipe.augment is not None:
            x = augment(x, self._recipe.augment, stream(self._seed, "augment", self._worker, position))
        return x, y

    def chunks(self, count: int) -> list[slice]:
        """A batch of `count` in micro-batches, as few as can be and of sizes that differ by one at most."""
        most = self._recipe.micro_batch or count
        return [slice(start, stop) for start, stop in parts(count, -(-count // most))]

    def backward(self, indices: Array, position: int) -> float:
        """Leave the gradient of the batch's mean loss in the parameters' .grad, and return that loss.

        Autograd makes new gradients: zeroing and adding into flat ones took 10 % longer.
        """
        x, y = self.ahead.get(position, indices)
        self.forget()
        chunks = self.chunks(len(y))
        seen = [self._chunk(x[cut], y[cut], len(y)) for cut in chunks] if len(chunks) > 1 else [self._chunk(x, y, None)]
        if self._each:
            self.losses = np.concatenate([losses for _, losses in seen])
        return sum(loss for loss, _ in seen)

    def _chunk(self, x: Tensor, y: Tensor, whole: int | None) -> tuple[float, Array]:
        """(the part of a micro-batch in the mean loss of `whole` examples, each example's); its gradient is added."""
        losses = self._loss(self.forward(x), y)
        loss = losses.mean() if self._each else losses
        if whole is not None:
            loss = loss * (len(y) / whole)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.item(), losses.detach().numpy().reshape(-1)

    def forget(self) -> None:
        """Drop the gradients."""
        for p in self.trained:
            p.grad = None

    def gradients(self) -> list[Tensor]:
        """The new gradients; zeros for parameters that the loss did not reach."""
        return [torch.zeros_like(p) if p.grad is None else p.grad for p in self.trained]


def squares(tensors: Sequence[Tensor]) -> float:
    """The sum of squares over all tensors, added up in float64."""
    return sum(float(torch.linalg.vector_norm(t.detach(), dtype=torch.float64)) ** 2 for t in tensors)
