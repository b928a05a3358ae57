"""Losses: what a batch is trained on and what an evaluation reports, each a sum and how much counts.

The gradient of a batch is that of the sum over all that counts in it, divided by how much that is. A batch may be cut
in micro-batches, or be spread over workers: then no part knows the whole count. So each part divides its sum by what
would count if everything did, and notes what is missing. The rest is divided by later: see Passes and UnitSteps.settle.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils._pytree import tree_leaves, tree_map

from . import user_code
from .dataset import Dataset
from .loss_arguments import all_count, check_labels, check_loss
from .matching import by_class, by_element
from .recipe import Recipe

ROWS, SETS = 16, 64  # examples, and sets of targets, with which a user's mean is tried


class Found(NamedTuple):
    """The loss of some examples."""

    value: Tensor  # their sum, or, where nothing is said of what counts, the mean over the examples
    counted: float | None = None  # how much counts in the sum
    each: Tensor | None = None  # of each example, (batch,), where it was asked for


class Loss:
    """The loss of a recipe.

    full: what counts for each example where everything does. Any number would do as long as all workers have the same:
        it cancels. One that is right keeps the bits of a plain mean.
    """

    def __init__(self, recipe: Recipe, data: Dataset, full: float = 1.0) -> None:
        self.name, self._args, self.full = recipe.loss, check_loss(recipe.loss, recipe.loss_args), full
        self._own: Callable[..., Any] | None = None
        self._plain = True  # a mean over elements, of which every example has equally many
        self._weight: Tensor | None = None  # of each class
        self._options: dict[str, Any] = {}  # torch's arguments that differ from its defaults
        if user_code.named(self.name):
            self._own = user_code.load(self.name, "loss")
        elif self.name == "cross_entropy":
            weight, ignored = self._args["weight"], self._args["ignore_index"]
            self._plain = weight is None and all_count(data, ignored)
            self._options = {} if self._plain else {"ignore_index": ignored}
            self._weight = None if weight is None else torch.tensor(weight, dtype=torch.float64)
            self.full = math.prod(data.train_y.shape[1:]) * (1.0 if weight is None else sum(weight) / len(weight))
        smoothing = recipe.label_smoothing
        self._in_training = self._options | ({"label_smoothing": smoothing} if smoothing else {})

    def __call__(self, outputs: Any, y: Tensor, each: bool = False, training: bool = True) -> Found:
        """Of a batch. each: also of every example. training: with label smoothing.

        TypeError where a user's function returns something else than a loss, ValueError where shapes do not fit.
        """
        if self._own is not None:
            return _kind(self._own(outputs, y, **self._args), len(y), each)
        outputs, y = by_class(outputs, y) if self.name == "cross_entropy" else by_element(outputs, y)
        function, options = FUNCTIONS[self.name], self._in_training if training else self._options
        if self._plain and not each:
            return Found(function(outputs, y, **options))
        if self._weight is not None:
            options = options | {"weight": self._weight.to(outputs.device, outputs.dtype)}
        counted = None if self._plain else self._count(y, options)
        if not each:
            return Found(function(outputs, y, reduction="sum", **options), counted)
        values = function(outputs, y, reduction="none", **options)
        alone = values.detach().reshape(len(y), -1).mean(1)
        return Found(values.mean() if self._plain else values.sum(), counted, alone)

    def expect(self, counted: float) -> None:
        """Take what counts for an example of a trial as `full`, where that is a user's own."""
        if self._own is not None and counted:
            self.full *= counted

    def sums(self, outputs: Any, y: Tensor) -> tuple[float, float]:
        """(the sum, how much counts) of an evaluation: over batches both add up to what the test loss is made of."""
        found = self(outputs, y, training=False)
        if found.counted is not None:
            return found.value.item(), found.counted
        return found.value.item() * len(y), len(y)

    def gives_mean(self, outputs: Any, y: Tensor) -> bool:
        """Whether it is a user's function that returns a mean, which may be anything: parts need not make the whole."""
        return self._own is not None and self(outputs, y, training=False).counted is None

    def check(self, outputs: Any, y: Tensor, data: Dataset) -> None:
        """ValueError where the data have labels for which the model has no output."""
        if self.name == "cross_entropy" and not y.is_floating_point():
            outputs, _ = by_class(outputs, y)
            check_labels(data, self._args["ignore_index"], outputs=outputs.shape[1])

    def _count(self, y: Tensor, options: dict[str, Any]) -> float:
        """How much counts: targets, or their weights."""
        if y.is_floating_point():  # a probability for each class
            return y.numel() / y.shape[1]
        counted = y != options["ignore_index"]
        if "weight" not in options:
            return float(counted.sum().item())
        return float(options["weight"].double()[y[counted]].sum().item())


def _kind(found: Any, examples: int, each: bool) -> Found:
    """What a user's function has returned: the mean, a value for each example or element, or (sum, count)."""
    if isinstance(found, tuple | list) and len(found) == 2 and isinstance(found[0], Tensor) and found[0].numel() == 1:
        if each:
            raise TypeError("sampling by loss needs every example's own, and it gave a sum and a count")
        count = float(found[1])
        if not 0 <= count < math.inf:
            raise TypeError(f"it gave the count {count:g}; a loss that returns (sum, count) needs a count of 0 or more")
        return Found(found[0].reshape(()), count)
    if not isinstance(found, Tensor):
        raise TypeError(f"it gave a {type(found).__name__}; {WANTED}")
    if found.ndim == 0:
        if each:
            raise TypeError("sampling by loss needs every example's own, and it gave their mean")
        return Found(found)
    if (each and found.numel() % examples) or found.numel() == 1 < examples:
        raise TypeError(f"it gave a tensor of shape {tuple(found.shape)} for {examples} examples; {WANTED}")
    alone = found.detach().reshape(examples, -1).mean(1) if each else None
    return Found(found.sum(), found.numel(), alone)


WANTED = "a loss must return a tensor: the mean (of no dimension), a value for each example or element; or (sum, count)"


FUNCTIONS: dict[str, Callable[..., Tensor]] = {
    "cross_entropy": functional.cross_entropy,
    "mse": functional.mse_loss,
    "mae": functional.l1_loss,
    "binary_cross_entropy": functional.binary_cross_entropy_with_logits,
}


def is_mean(loss: Callable[[Any, Tensor], Tensor], outputs: Any, y: Tensor, kinds: Tensor) -> bool | None:
    """Whether the loss is the mean over a batch's examples of a term for each example. None: it cannot be told.

    Only a mean of this kind can be computed in micro-batches or on several workers and then averaged by numbers of
    examples. That of a weighted loss is not, nor one that ignores some labels, a sum, or one that compares examples.

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


def _adds_up(loss: Callable[[Any, Tensor], Tensor], outputs: Any, y: Tensor, whole: float) -> bool:
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
