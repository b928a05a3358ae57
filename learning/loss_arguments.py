"""The names of built-in losses and their arguments, checked without torch; see losses for what they compute."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ..program.effects import Array
from ..program.errors import brief, nearest
from . import user_code
from .dataset import Dataset

IGNORED = -100  # the label that is not counted, as torch has it


def cross_entropy(*, ignore_index: int = IGNORED, weight: Sequence[float] | None = None) -> None:
    """ignore_index: the label that is not counted. weight: of each class; None: all count alike."""
    if isinstance(ignore_index, bool) or not isinstance(ignore_index, int):
        raise ValueError(f"ignore_index is {brief(ignore_index)}; write a whole number, like {IGNORED}")
    if weight is None:
        return
    every = weight if isinstance(weight, list | tuple) else []
    if not every or any(isinstance(w, bool) or not isinstance(w, int | float) or not 0 <= w < 1e30 for w in every):
        raise ValueError(f"weight is {brief(weight)}; write a number for each class, 0 or more, like [1, 5, 25]")
    if not any(every):
        raise ValueError("weight is 0 for every class, so that nothing counts; write one above 0")


def of_elements() -> None:
    """mse, mae, binary_cross_entropy: a term for each element, no arguments."""


LOSSES: dict[str, Callable[..., None]] = {
    "cross_entropy": cross_entropy,
    **dict.fromkeys(("mse", "mae", "binary_cross_entropy"), of_elements),
}


def check_loss(name: str, args: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The arguments of the loss with the defaults filled in. ValueError unless it is built in, or an import path."""
    if user_code.named(name):
        return dict(args or {})
    if name not in LOSSES:
        raise ValueError(
            f"no loss {name!r}{nearest(name, LOSSES)}; "
            f"write {', '.join(LOSSES)} or an import path package.module:function"
        )
    found = user_code.options(LOSSES[name], args or {}, f"loss {name}")
    try:
        LOSSES[name](**found)
    except ValueError as error:
        raise ValueError(f"loss {name}: {error}") from None
    return found


def check_labels(
    data: Dataset,
    ignored: int,
    weights: int | None = None,
    outputs: int | None = None,
    classes: int | None = None,
) -> None:
    """ValueError where the data hold a label that cross_entropy does not know.

    ignored: the label that is not counted. weights: the number of the classes' weights. outputs: the number of the
    model's outputs. classes: of the data, where they are said. None: not known.
    """
    for key, y in (("train_y", data.train_y), ("test_y", data.test_y)):
        if not isinstance(y, np.ndarray) or y.dtype.kind not in "iuf" or not y.size:
            continue
        if y.dtype.kind == "f":
            _check_probabilities(y, key)
            continue
        unknown = y[(y < 0) & (y != ignored)]
        if unknown.size:
            raise ValueError(
                f"{key} holds the label {unknown[0]}; labels count from 0, and {ignored} marks what cross_entropy "
                "leaves out"
            )
        highest = int(y[y != ignored].max(initial=0))
        for most, what in (
            (weights, "weights of the loss"),
            (outputs, "outputs of the model"),
            (classes, "classes of the data"),
        ):
            if most is not None and highest >= most:
                raise ValueError(
                    f"{key} holds the label {highest}, and with {most} {what} labels go from 0 to {most - 1}; "
                    f"only {ignored} is left out, the ignore_index"
                )


def _check_probabilities(y: Array, key: str) -> None:
    """Torch takes any real numbers, and cross_entropy of what is to be estimated is a loss that means nothing."""
    wrong = [value for value in (y.min(), y.max()) if not 0 <= value <= 1]
    if wrong or y.ndim < 2 or y.shape[1] < 2:
        shown = f"the number {wrong[0]:.6g}" if wrong else f"real numbers in the shape {y.shape}"
        raise ValueError(
            f"{key} holds {shown}; with cross_entropy real numbers are a probability for each of two or more classes. "
            "For a regression write loss: mse"
        )


def all_count(data: Dataset, ignored: int) -> bool:
    """Whether it is known that no target of the data is one that is not counted."""
    known = [y for y in (data.train_y, data.test_y) if isinstance(y, np.ndarray)]
    return len(known) == 2 and not any((y == ignored).any() for y in known)
