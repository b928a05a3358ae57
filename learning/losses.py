"""Losses: what a batch is trained on and what an evaluation reports."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from . import cost_tables, user_code

Loss = Callable[[Tensor, Tensor], Tensor]
ROWS, SETS = 16, 64  # examples, and sets of labels, with which a user's loss is tried


def resolve_loss(name: str) -> Loss:
    """cross_entropy, or the function at an import path: (outputs, targets) -> their mean loss, a scalar tensor."""
    cost_tables.check_loss(name)
    return user_code.load(name, "loss") if user_code.named(name) else nn.functional.cross_entropy


def training_loss(name: str, label_smoothing: float = 0.0, each: bool = False) -> Loss:
    """The loss to train with. each: of every example, (batch,), instead of their mean.

    label_smoothing: the share of a label's weight that is spread over all classes (Szegedy et al., arXiv 1512.00567).
    ValueError where the losses of single examples are asked of a user's loss, which gives their mean.
    """
    if each and user_code.named(name):
        raise ValueError(f"sampling by loss needs every example's own; {name} gives their mean: write cross_entropy")
    function: Callable[..., Tensor] = resolve_loss(name)
    options: dict[str, Any] = {"label_smoothing": label_smoothing} if label_smoothing else {}
    return partial(function, reduction="none", **options) if each else partial(function, **options)


def is_mean(loss: Loss, outputs: Any, y: Tensor, kinds: Tensor) -> bool | None:
    """Whether the loss is the mean over a batch's examples of a term for each example. None: it cannot be told.

    Only such a loss can be computed in micro-batches or on several workers and then averaged by numbers of examples. A
    weighted loss is not of this kind, nor one that ignores some labels, a sum, or one that compares examples.

    It is tried: is the loss of 16 examples the weighted mean of the losses of 5 and of 11 of them? The examples are the
    model's `outputs` with their targets `y`, and these outputs, changed at random, with targets of all kinds.

    kinds: targets of all kinds; labels are sorted.
    """
    verdict = None
    for some, targets in _trials(outputs, y, kinds):
        try:
            whole = loss(some, targets).item()
        except user_code.FAILURES:  # whatever a user's loss does with outputs that its model did not make
            continue
        if not math.isfinite(whole):
            continue
        verdict = _adds_up(loss, some, targets, whole)
        if not verdict:
            break
    return verdict


def _trials(outputs: Any, y: Tensor, kinds: Tensor) -> Iterator[tuple[Any, Tensor]]:
    """(outputs, targets) of ROWS examples. Nothing where the outputs are not tensors: their rows are unknown."""
    leaves, count = tree_leaves(outputs), len(y)
    if not all(isinstance(leaf, Tensor) for leaf in leaves):
        return
    rows = torch.arange(ROWS, device=y.device) % count

    def picked(t: Tensor) -> Tensor:
        found = t.detach()[rows] if t.ndim and len(t) == count else t.detach()
        return found.float() if found.dtype in (torch.bfloat16, torch.float16) else found

    chosen = tree_map(picked, outputs)
    yield chosen, y[rows]
    random = np.random.default_rng(0)

    def changed(t: Tensor) -> Tensor:
        return t + torch.from_numpy(random.uniform(0, 1, t.shape)).to(t) if t.is_floating_point() else t

    some = tree_map(changed, chosen)
    sets = min(SETS, -(-len(kinds) // ROWS))
    for place in range(sets):
        spread = (np.arange(ROWS) * sets + place) * len(kinds) // (ROWS * sets)
        yield some, kinds[torch.from_numpy(spread)].to(y)


def _adds_up(loss: Loss, outputs: Any, y: Tensor, whole: float) -> bool:
    """Whether the loss of two parts, weighted by their examples, is that of both together."""
    total = scale = 0.0
    for cut in (slice(0, ROWS // 3), slice(ROWS // 3, ROWS)):
        part = tree_map(lambda t, cut=cut: t[cut] if t.ndim and len(t) == ROWS else t, outputs)
        try:
            value = loss(part, y[cut]).item() * len(y[cut]) / ROWS
        except user_code.FAILURES:  # it takes the whole, but not a part
            return False
        total, scale = total + value, scale + abs(value)
    return abs(total - whole) <= 1e-3 * max(scale, abs(whole)) + 1e-7
