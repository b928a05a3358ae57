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
        self.name, args = recipe.loss, check_loss(recipe.loss, recipe.loss_args)
        self._own: Callable[..., Any] | None = None
        self._args, self._smoothing = args, recipe.label_smoothing
        self.full = full
        if user_code.named(self.name):
            self._own = user_code.load(self.name, "loss")
            return
        shape = data.train_y.shape[1:]
        self._plain = True  # a mean over elements, of which every example has equally many
        if self.name == "cross_entropy":
            weight = args["weight"]
            self._weight = None if weight is None else torch.tensor(weight, dtype=torch.float64)
            self._plain = weight is None and all_count(data, args["ignore_index"])
            self.full = math.prod(shape) * (1.0 if weight is None else sum(weight) / len(weight))

    def __call__(self, outputs: Any, y: Tensor, each: bool = False, training: bool = True) -> Found:
        """Of a batch. each: also of every example. training: with label smoothing.

        TypeError where a user's function returns something else than a loss, ValueError where shapes do not fit.
        """
        if self._own is not None:
            return _kind(self._own(outputs, y, **self._args), len(y), each)
        options: dict[str, Any] = {}
        if self.name == "cross_entropy":
            outputs, y = _by_class(outputs, y)
            options = self._options(outputs, self._smoothing if training else 0.0)
        else:
            outputs, y = _by_element(outputs, y)
        function = FUNCTIONS[self.name]
        if each:
            values = function(outputs, y, reduction="none", **options)
            alone = values.detach().reshape(len(y), -1).mean(1)
            if self._plain:
                return Found(values.mean(), None, alone)
            return Found(values.sum(), self._count(y, options), alone)
        if self._plain:
            return Found(function(outputs, y, **options))
        return Found(function(outputs, y, reduction="sum", **options), self._count(y, options))

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

    def check(self, outputs: Any, y: Tensor, data: Dataset) -> None:
        """ValueError where the data have labels for which the model has no output."""
        if self.name == "cross_entropy" and not y.is_floating_point():
            outputs, _ = _by_class(outputs, y)
            check_labels(data, self._args["ignore_index"], outputs=outputs.shape[1])

    def _options(self, outputs: Tensor, smoothing: float) -> dict[str, Any]:
        """Torch's arguments of cross_entropy that differ from its defaults."""
        options: dict[str, Any] = {"label_smoothing": smoothing} if smoothing else {}
        if self._plain:
            return options
        if self._weight is not None:
            options["weight"] = self._weight.to(outputs.device, outputs.dtype)
        return options | {"ignore_index": self._args["ignore_index"]}

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
        return Found(found[0].reshape(()), float(found[1]))
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


def _by_class(outputs: Any, y: Tensor) -> tuple[Tensor, Tensor]:
    """Outputs and targets as torch's cross_entropy takes them: classes in dimension 1.

    That is dimension 1 of the outputs, as torch has it, or their last dimension, as in language models, wherever the
    others have the shape of the labels. Where both do, it is the last one for sequences and dimension 1 for images.
    """
    if isinstance(outputs, Tensor) and outputs.ndim > 1:
        if y.is_floating_point() and outputs.shape == y.shape:
            return outputs, y
        last = outputs.shape[:-1] == y.shape
        if last and y.ndim == 1:
            return outputs, y
        second = outputs.shape[:1] + outputs.shape[2:] == y.shape
        if last and (y.ndim == 2 or not second):
            return outputs.flatten(0, -2), y.flatten()
        if second:
            return outputs, y
    raise ValueError(
        f"the model's outputs are {shown(outputs)}, and the targets {shown(y)}; cross_entropy needs a value for each "
        "class in the last dimension, or in dimension 1, and a label for each place of the others"
    )


def _by_element(outputs: Any, y: Tensor) -> tuple[Tensor, Tensor]:
    """Outputs and targets of one shape and type; dimensions of one element are nothing to differ in."""
    if isinstance(outputs, Tensor) and [n for n in outputs.shape if n > 1] == [n for n in y.shape if n > 1]:
        return outputs.reshape(y.shape), y.to(outputs.dtype)
    raise ValueError(f"the model's outputs are {shown(outputs)}, and the targets {shown(y)}; they must have one shape")


def shown(values: Any) -> str:
    """The shape of a tensor, or of each of several, for errors."""
    shapes = [str(tuple(leaf.shape)) for leaf in tree_leaves(values) if isinstance(leaf, Tensor)]
    return " and ".join(shapes) or f"a {type(values).__name__}"


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
