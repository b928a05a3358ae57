"""How a model's outputs are judged in an evaluation: the test loss and the metrics, as sums and counts that add up.

A function that judges is called as function(outputs, targets). It returns a mean over the examples, or a value for
each example or element, or a pair (sum, count). The built-in metrics return pairs.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ..algorithms.metrics import Metric, numbers
from ..program.effects import Array
from . import user_code
from .dataset import DataShape
from .guard import Guard
from .loss_arguments import IGNORED
from .matching import by_class, by_element, shown
from .metrics import binary, described, named_by
from .passes import Passes
from .recipe import Recipe

Measure = Callable[[Any, Any], Any]


class Judge:
    """The loss of `passes` and the recipe's metrics.

    metrics: what `sums` answers.
    """

    def __init__(self, recipe: Recipe, shape: DataShape, passes: Passes, guard: Guard) -> None:
        self.metrics = described(recipe, shape)
        self._passes, self._guard = passes, guard
        found = named_by(recipe, shape)
        self._measures: list[tuple[Metric, Measure]] = [
            (metric, _measure(found[metric.name], metric, binary(recipe))) for metric in self.metrics[1:]
        ]
        self._of_users = [measure for metric, measure in self._measures if user_code.named(found[metric.name])]
        self._adds_up: bool | None = None  # not known yet
        self._ignored = recipe.loss_args.get("ignore_index", IGNORED) if recipe.loss == "cross_entropy" else IGNORED

    def adds_up(self, outputs: Any, y: Tensor) -> bool:
        """Whether sums over parts of the examples add up to those over all. A user's mean need not, so a user's loss
        and metrics are asked once whether they give a mean."""
        if self._adds_up is None:
            self._passes.doing = "the loss"
            mean = self._passes.criterion.gives_mean(outputs, y)
            self._passes.doing = "a metric"
            self._adds_up = not (mean or any(_is_mean(measure(outputs, y)) for measure in self._of_users))
        return self._adds_up

    def sums(self, outputs: Any, y: Tensor) -> Array:
        """float64: of each of `metrics` the sums and then the counts, over these examples."""
        self._passes.doing = "the loss"
        found, start = np.empty(numbers(self.metrics)), 2
        found[:2] = self._passes.criterion.sums(outputs, y)
        self._guard.check("the test loss", found[0])
        if self._ignored != IGNORED:
            y = y.masked_fill(y == self._ignored, IGNORED)
        for metric, measure in self._measures:
            self._passes.doing = f"the metric {metric.name}"
            for part in in_parts(measure(outputs, y), len(y), metric.entries)[: 1 + metric.counts]:
                found[start : start + metric.entries] = part
                start += metric.entries
        return found


def in_parts(answer: Any, examples: int, entries: int = 1) -> tuple[Array, Array]:
    """(sums, counts), float64 (entries,), of what a function that judges has returned for so many examples.

    TypeError or ValueError where it is not one of the three kinds of answers.
    """
    if isinstance(answer, tuple) and len(answer) == 2:
        sums, counts = (_numbers(part).reshape(-1) for part in answer)
        if not sums.size == counts.size == entries:
            raise ValueError(f"it gave a pair of {sums.size} and {counts.size} numbers; expected (sum, count)")
        if not (counts >= 0).all():  # nor may it be NaN
            raise ValueError(f"it gave the count {counts.min():g}; expected (sum, count) with a count of 0 or more")
        return sums, counts
    values = _numbers(answer)
    if values.size == 1:
        return values.reshape(1) * examples, np.array([float(examples)])
    if not values.size or values.size % examples:
        raise ValueError(
            f"it gave a tensor of shape {values.shape} for {examples} examples; "
            "expected their mean, a value for each example or element, or (sum, count)"
        )
    return np.array([values.sum()]), np.array([float(values.size)])


def _is_mean(answer: Any) -> bool:
    """Whether a function has returned one number for all examples."""
    return not isinstance(answer, tuple) and _numbers(answer).size == 1


def _numbers(part: Any) -> Array:
    """As float64."""
    if isinstance(part, Tensor):
        part = part.detach().cpu().numpy()
    if not isinstance(part, np.ndarray | np.number | np.bool_ | float | int):
        raise TypeError(
            f"it gave a {type(part).__name__}; expected a mean over the examples, a value for each, or (sum, count)"
        )
    return np.asarray(part, np.float64)


def _measure(of: str, metric: Metric, binary: bool) -> Measure:
    """The function of a metric, by its built-in name or import path. ValueError where it cannot be loaded."""
    if user_code.named(of):
        return user_code.load(of, "metric")
    if of == "iou":
        return _iou_of_yes if binary else partial(_iou, classes=metric.entries)
    if of == "accuracy" and binary:
        return _accuracy_of_yes
    return {"accuracy": _accuracy, "top5": _top5, "perplexity": _perplexity, "mse": _mse, "mae": _mae}[of]


def _accuracy(outputs: Any, y: Tensor) -> tuple[Tensor, int]:
    """The share of labels that have the largest output."""
    outputs, y = _labels(outputs, y)
    return (outputs.argmax(1) == y).sum(), _counted(y)


def _top5(outputs: Any, y: Tensor) -> tuple[Tensor, int]:
    """The share of labels that are among those of the five largest outputs."""
    outputs, y = _labels(outputs, y)
    if outputs.shape[1] <= 5:
        raise ValueError(f"it needs more than 5 classes; the model has {outputs.shape[1]} outputs")
    return (outputs.topk(5, dim=1).indices == y.unsqueeze(1)).sum(), _counted(y)


def _perplexity(outputs: Any, y: Tensor) -> tuple[Tensor, int]:
    """Cross-entropy; a report gives exp of its mean."""
    outputs, y = by_class(outputs, y)
    losses = functional.cross_entropy(outputs, y, reduction="none", ignore_index=IGNORED)
    return losses.sum(dtype=torch.float64), losses.numel() if y.is_floating_point() else _counted(y)


def _iou(outputs: Any, y: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """Intersection and union of each class, over all examples: what is predicted as the class and what is of it.

    A report gives the mean over the classes that occur in predictions or targets.
    """
    outputs, y = _labels(outputs, y)
    kept = y != IGNORED
    predicted, y = outputs.argmax(1)[kept], y[kept]
    # A model may have more outputs than the data have classes.
    found, there, both = (t.bincount(minlength=classes)[:classes] for t in (predicted, y, y[predicted == y]))
    return both, found + there - both


def _accuracy_of_yes(outputs: Any, y: Tensor) -> tuple[Tensor, int]:
    """The share of logits with the right sign."""
    outputs, y = by_element(outputs, y)
    return ((outputs > 0) == (y > 0.5)).sum(), y.numel()


def _iou_of_yes(outputs: Any, y: Tensor) -> tuple[Tensor, Tensor]:
    """Intersection and union of where a logit is above 0 and where the target is 1."""
    outputs, y = by_element(outputs, y)
    return ((outputs > 0) & (y > 0.5)).sum(), ((outputs > 0) | (y > 0.5)).sum()


def _mse(outputs: Any, y: Tensor) -> tuple[Tensor, int]:
    """Squares of the differences between outputs and targets."""
    return _differences(outputs, y).square().sum(), y.numel()


def _mae(outputs: Any, y: Tensor) -> tuple[Tensor, int]:
    """Absolute differences between outputs and targets."""
    return _differences(outputs, y).abs().sum(), y.numel()


def _differences(outputs: Any, y: Tensor) -> Tensor:
    found, y = by_element(outputs, y)
    return found.double() - y.double()


def _labels(outputs: Any, y: Tensor) -> tuple[Tensor, Tensor]:
    """Outputs with the classes in dimension 1, and labels: where targets are probabilities, the likeliest class."""
    outputs, y = by_class(outputs, y)
    if outputs.shape[1] == 1:
        raise ValueError(f"it needs an output for each of several classes; the model's outputs are {shown(outputs)}")
    return outputs, y.argmax(1) if y.is_floating_point() else y


def _counted(y: Tensor) -> int:
    """How many labels there are without those that are left out."""
    return int((y != IGNORED).sum())
