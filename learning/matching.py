"""How a model's outputs and their targets belong to each other, for losses and for metrics."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves


def by_class(outputs: Any, y: Tensor) -> tuple[Tensor, Tensor]:
    """Outputs and targets as torch's cross_entropy takes them: classes in dimension 1.

    That is dimension 1 of the outputs, as torch has it, or their last dimension, as in language models, wherever the
    others have the shape of the labels. Where both do, it is the last one for sequences and dimension 1 for images.
    Targets in the shape of the outputs are the classes' probabilities. ValueError where none of this fits.
    """
    if isinstance(outputs, Tensor) and outputs.ndim > 1:
        if y.is_floating_point():
            if outputs.shape == y.shape:
                return outputs, y
        elif y.dtype != torch.bool:
            last = outputs.shape[:-1] == y.shape
            if last and y.ndim == 1:
                return outputs, y
            second = outputs.shape[:1] + outputs.shape[2:] == y.shape
            if last and (y.ndim == 2 or not second):
                return outputs.flatten(0, -2), y.flatten()
            if second:
                return outputs, y
    raise ValueError(
        f"the model's outputs are {shown(outputs)}, and the targets {shown(y)} of {_kind(y)}; there must be a value "
        "for each class in the last dimension of the outputs, or in dimension 1, and a label for each place of the "
        "others"
    )


def by_element(outputs: Any, y: Tensor) -> tuple[Tensor, Tensor]:
    """Outputs and targets of one shape and type, where they differ in dimensions of one element at most. Otherwise
    ValueError."""
    if isinstance(outputs, Tensor) and [n for n in outputs.shape if n > 1] == [n for n in y.shape if n > 1]:
        return outputs.reshape(y.shape), y.to(outputs.dtype)
    raise ValueError(
        f"the model's outputs are {shown(outputs)}, and the targets {shown(y)} of {_kind(y)}; they must have one shape"
    )


def shown(values: Any) -> str:
    """The shape of a tensor, or of each of several, for errors."""
    shapes = [str(tuple(leaf.shape)) for leaf in tree_leaves(values) if isinstance(leaf, Tensor)]
    return " and ".join(shapes) or f"a {type(values).__name__}"


def _kind(y: Tensor) -> str:
    return str(y.dtype).removeprefix("torch.")
