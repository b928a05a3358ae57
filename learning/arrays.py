"""Data that users give as four arrays: whether they fit together, and in which type they are kept."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..program.effects import Array
from .dataset import Dataset
from .model_arguments import MOST

KEYS = ("train_x", "train_y", "test_x", "test_y")
EXACT = 1 << 24  # up to here float32 holds every whole number
PIECE = 1 << 20  # values that are looked at in one go, so that no second array of the data's size is made


def checked(arrays: dict[str, Array], what: str, classes: int | None = None) -> Dataset:
    """A Dataset from four arrays in the order of KEYS, which are taken out of `arrays`. ValueError begins with `what`.

    They leave `arrays` one by one, so that what has been converted can be freed. classes: as Dataset has them.
    """
    check_heads({key: (array.shape, array.dtype) for key, array in arrays.items()}, what)
    made = [
        _inputs(arrays.pop(key), key, what) if "x" in key else labels(arrays.pop(key), key, what, classes)
        for key in [*arrays]
    ]
    return Dataset(*made, classes=classes)


def check_heads(heads: Mapping[str, tuple[tuple[int, ...], np.dtype[Any]]], what: str) -> None:
    """ValueError unless the four shapes and dtypes fit together."""
    names = list(heads)
    for x, y in (names[:2], names[2:]):
        (shape, kind), (label_shape, label_kind) = heads[x], heads[y]
        if len(shape) < 2 or kind.kind not in "fiu" or 0 in shape[1:]:
            raise ValueError(f"{what}: {x} is {kind} {shape}; expected numbers, examples x channels x height x width")
        if len(shape) == 4 and shape[3] in (1, 3) and shape[1] not in (1, 3):
            raise ValueError(
                f"{what}: {x} is {shape}, channels last; transpose it to examples x channels x height x width"
            )
        if label_kind.kind not in "iu" or len(label_shape) != 1:
            raise ValueError(f"{what}: {y} is {label_kind} {label_shape}; expected one whole number per example")
        if label_shape[0] != shape[0]:
            raise ValueError(f"{what}: {x} has {shape[0]} examples and {y} {label_shape[0]}; they must match")
    if heads[names[0]][0][0] == 0:
        raise ValueError(f"{what}: {names[0]} has no examples")
    if heads[names[0]][0][1:] != heads[names[2]][0][1:]:
        raise ValueError(
            f"{what}: examples are {heads[names[0]][0][1:]} in {names[0]} and {heads[names[2]][0][1:]} in {names[2]}"
        )


def labels(array: Array, key: str, what: str, classes: int | None = None) -> NDArray[np.int64]:
    """The labels as int64. ValueError where one is negative, or not one of so many classes."""
    found = np.asarray(array)
    lowest, highest = (int(found.min()), int(found.max())) if found.size else (0, 0)
    if lowest < 0:
        raise ValueError(f"{what}: {key} holds the label {lowest}; labels count from 0")
    if highest >= (classes or MOST):
        limit = f"{classes} classes count from 0" if classes else f"labels go from 0 to {MOST - 1}"
        raise ValueError(f"{what}: {key} holds the label {highest}; {limit}")
    return found.astype(np.int64)


def kept_itemsize(kind: np.dtype[Any], mapped: bool) -> int:
    """Bytes of a value of inputs as they are kept.

    Types smaller than float32 stay as they are, and so does what is mapped from a file: a copy could not be shared.
    Others become float32.
    """
    return kind.itemsize if mapped or kind.itemsize < 4 else 4


def looks_like_pixels(data: Dataset) -> bool:
    """Whether the training inputs are bytes in the shape of images."""
    x = data.train_x
    return isinstance(x, np.ndarray) and x.dtype == np.uint8 and x.ndim == 4 and x.shape[1] in (1, 3)


def _inputs(x: Array, key: str, what: str) -> Array:
    """The inputs as they are kept, once all of their values are known to be finite in float32, whole numbers exact."""
    step = max(1, PIECE // math.prod(x.shape[1:]))
    for piece in (x[start : start + step] for start in range(0, len(x), step)):
        if x.dtype.kind in "iu":
            if x.itemsize > 2 and max(int(piece.max()), -int(piece.min())) > EXACT:
                raise ValueError(f"{what}: {key} holds whole numbers beyond {EXACT}, which float32 would round")
            continue
        with np.errstate(over="ignore"):  # what is too large for float32 is refused here
            if not np.isfinite(piece.astype(np.float32, copy=False)).all():
                raise ValueError(f"{what}: {key} holds values that are not finite numbers in float32")
    mapped = isinstance(x, np.memmap)
    if mapped:
        return x
    small = kept_itemsize(x.dtype, mapped) < 4
    return np.ascontiguousarray(x) if small else np.require(x, np.float32, ["C", "W"])  # as it is where possible
