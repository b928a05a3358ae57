"""Losses: what a batch is trained on and what an evaluation reports."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import Tensor, nn

from . import imports, tables

Loss = Callable[[Tensor, Tensor], Tensor]


def resolve_loss(name: str) -> Loss:
    """cross_entropy, or the function at an import path: (outputs, targets) -> their mean loss, a scalar tensor."""
    tables.check_loss(name)
    return imports.load(name, "loss") if imports.named(name) else nn.functional.cross_entropy


def training_loss(name: str, label_smoothing: float = 0.0, each: bool = False) -> Loss:
    """The loss to train with. each: of every example, (batch,), instead of their mean.

    label_smoothing: the share of a label's weight that is spread over all classes (Szegedy et al., arXiv 1512.00567).
    ValueError where the losses of single examples are asked of a user's loss, which gives their mean.
    """
    if each and imports.named(name):
        raise ValueError(f"sampling by loss needs every example's own; {name} gives their mean: write cross_entropy")
    function: Callable[..., Tensor] = resolve_loss(name)
    options: dict[str, Any] = {"label_smoothing": label_smoothing} if label_smoothing else {}
    return partial(function, reduction="none", **options) if each else partial(function, **options)
