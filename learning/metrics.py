"""Metrics by name or import path: what is known of them without torch. judge.py computes them.

Rule: torch is never imported here, since timing-only runs need the names and sizes alone.
"""

from __future__ import annotations

from ..algorithms.metrics import TEST_LOSS, Metric
from ..program.errors import nearest
from . import user_code
from .dataset import DataShape
from .recipe import Recipe

NAMES = ("accuracy", "top5", "perplexity", "mse", "mae", "iou")
OF_LABELS = ("accuracy", "top5", "perplexity")  # means over labels


def named_by(recipe: Recipe, shape: DataShape) -> dict[str, str]:
    """name in reports -> built-in name or import path, of the recipe's metrics.

    Without any, a cross_entropy on labels has accuracy, and other losses have none. ValueError for an unknown name.
    """
    if recipe.metrics is None:
        return {"accuracy": "accuracy"} if recipe.loss == "cross_entropy" and shape.classes else {}
    found = dict(recipe.metrics)
    for name in found.values():
        if name not in NAMES and not user_code.named(name):
            raise ValueError(
                f"no metric {name!r}{nearest(name, NAMES)}; "
                f"write {', '.join(NAMES)} or an import path package.module:function"
            )
    return found


def described(recipe: Recipe, shape: DataShape) -> tuple[Metric, ...]:
    """What an evaluation answers: the test loss, then the recipe's metrics. ValueError as named_by."""
    return TEST_LOSS, *(_described(name, of, recipe, shape) for name, of in named_by(recipe, shape).items())


def _described(name: str, of: str, recipe: Recipe, shape: DataShape) -> Metric:
    if of != "iou":
        # With one label for each example, what counts labels counts those that the loss counts.
        plain = recipe.loss == "cross_entropy" and not recipe.loss_args
        with_loss = plain and shape.target_shape == () and of in OF_LABELS
        return Metric(name, counts=not with_loss, exponential=of == "perplexity")
    if binary(recipe):
        return Metric(name)
    if not shape.classes:
        raise ValueError(
            "metric iou needs class labels as targets, and the data's `classes` where these are not arrays; or "
            "binary_cross_entropy as the loss"
        )
    return Metric(name, shape.classes)


def binary(recipe: Recipe) -> bool:
    """Whether outputs are logits of yes or no, as many as there are targets."""
    return recipe.loss == "binary_cross_entropy"
