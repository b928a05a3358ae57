"""Data that users give as arrays: whether they fit together, and in which type they are kept."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, cast

import numpy as np

from ..program.effects import Array
from ..program.errors import brief
from .dataset import Dataset, Pixels, Shape, Stored, batch_kind
from .model_arguments import MOST
from .trees import Tree, leaves, mapped, names

KEYS = ("train_x", "train_y", "test_x", "test_y")
PIECE = 1 << 20  # values that are looked at in one go, so that no second array of the data's size is made

Given = Tree[Array | Stored]


@dataclass(frozen=True)
class Head:
    """What is known of an array without its values. Not a tuple, since a tree's tuples are several values."""

    shape: Shape
    dtype: np.dtype[Any]


def checked(arrays: dict[str, Given], what: str, classes: int | None = None) -> Dataset:
    """A Dataset of inputs and targets, in the order of KEYS, which are taken out of `arrays`.

    ValueError, which begins with `what`, where they do not fit together. They leave `arrays` one by one, so that what
    has been converted can be freed. classes: as Dataset has them.
    """
    heads = {key: mapped(lambda x: Head(x.shape, x.dtype), given) for key, given in arrays.items()}
    check_heads(heads, what)
    made: list[Any] = []
    for key in [*arrays]:
        if "y" in key:
            made.append(_kept(cast(Array | Stored, arrays.pop(key)), key, what, True))
        else:
            each = iter(names(arrays[key], key))
            made.append(mapped(lambda x, each=each: _kept(x, next(each), what), arrays.pop(key)))  # type: ignore[misc]
    return Dataset(*made, classes=classes)


def check_heads(heads: Mapping[str, Tree[Head]], what: str) -> None:
    """ValueError unless shapes and types of inputs and targets fit together, for training and for testing."""
    kinds, lengths = list(heads), dict[str, int]()
    for key, tree in heads.items():
        for name, head in zip(names(tree, key), leaves(tree), strict=True):
            if not head.shape or head.dtype.kind not in "fiub" or 0 in head.shape[1:]:
                shown = f"{head.dtype} {head.shape}"
                raise ValueError(f"{what}: {name} is {shown}; expected numbers, a row or a number for each example")
            lengths[name] = head.shape[0]
    for pair in (kinds[:2], kinds[2:]):
        each = [(name, lengths[name]) for key in pair for name in names(heads[key], key)]
        for (one, length), (other, found) in pairwise(each):
            if length != found:
                raise ValueError(f"{what}: {one} has {length} examples and {other} {found}; they must match")
    if not lengths[names(heads[kinds[0]], kinds[0])[0]]:
        raise ValueError(f"{what}: {kinds[0]} has no examples")
    for train, test in ((kinds[0], kinds[2]), (kinds[1], kinds[3])):
        _check_alike(train, heads[train], test, heads[test], what)


def _check_alike(train: str, one: Tree[Head], test: str, other: Tree[Head], what: str) -> None:
    """ValueError unless examples to train with and to test with have the same form."""
    first, second = names(one, train), names(other, test)
    if [n.removeprefix(train) for n in first] != [n.removeprefix(test) for n in second]:
        raise ValueError(f"{what}: {', '.join(first)} and {', '.join(second)}; training and testing need the same")
    for names_of, head, expected in zip(zip(first, second, strict=True), leaves(one), leaves(other), strict=True):
        forms = [[str(each.shape[1:]), str(batch_kind(each.dtype, "y" in train))] for each in (head, expected)]
        for a, b in zip(*forms, strict=True):
            if a != b:
                raise ValueError(f"{what}: examples are {a} in {names_of[0]} and {b} in {names_of[1]}")


def check_labels(y: Array, key: str, what: str) -> None:
    """ValueError where a whole number is larger than a label can be.

    Which ones are classes depends on the loss, which leaves some out: see recipe.check_data.
    """
    highest = int(y.max(initial=-1)) if y.dtype.kind == "i" else int(y.max(initial=0))
    if highest >= MOST:
        raise ValueError(f"{what}: {key} holds the label {highest}; labels go from 0 to {MOST - 1}")


def kept_kind(head: Head, mapped_file: bool, target: bool = False) -> np.dtype[Any]:
    """The type in which an array is kept in memory.

    What takes fewer bytes than in a batch stays as it is, and so does what is mapped from a file: a copy could not be
    shared. One number for each example is converted once.
    """
    wanted = batch_kind(head.dtype, target)
    small = head.dtype.itemsize < wanted.itemsize and (len(head.shape) > 1 or not target)
    return head.dtype if mapped_file or small else wanted


def noted(data: Dataset, what: str, how: str) -> Dataset:
    """The data, with a note where bytes in the shape of images are taken as they are. how: what to do about it."""
    if not any(
        isinstance(x, np.ndarray) and x.dtype == np.uint8 and x.ndim == 4 and x.shape[1] in (1, 3)
        for x in leaves(data.train_x)
    ):
        return data
    note = f"{what}: bytes are taken as they are, 0 to 255; {how} if they are pixels"
    return replace(data, notes=(*data.notes, note), pixels=Pixels())


def checked_classes(found: Any, what: str) -> int | None:
    """The number of outputs that a scenario gives its data, if it does. ValueError unless it is 1 or more."""
    if found is None or (type(found) is int and found >= 1):
        return found
    raise ValueError(f"{what}: classes is {brief(found)}; write a whole number, 1 or more")


def _kept(x: Array | Stored, key: str, what: str, target: bool = False) -> Array | Stored:
    """The array as it is kept, once its values are known to be usable."""
    if not isinstance(x, np.ndarray):
        return x
    wanted = batch_kind(x.dtype, target)
    if wanted.kind == "i" and target:
        check_labels(x, key, what)
    elif wanted.kind == "f" and x.dtype.kind == "f":
        _check_finite(x, key, what)
    elif x.dtype == np.uint64 and int(x.max(initial=0)) > np.iinfo(np.int64).max:
        raise ValueError(f"{what}: {key} holds whole numbers beyond {np.iinfo(np.int64).max}, the largest int64")
    if isinstance(x, np.memmap):
        return x
    kept: Array = np.require(x, kept_kind(Head(x.shape, x.dtype), False, target), ["C", "W"])  # as it is where possible
    return kept


def _check_finite(x: Array, key: str, what: str) -> None:
    step = max(1, PIECE // math.prod(x.shape[1:]))
    for piece in (x[start : start + step] for start in range(0, len(x), step)):
        with np.errstate(over="ignore"):  # what is too large for float32 is refused here
            if not np.isfinite(piece.astype(np.float32, copy=False)).all():
                raise ValueError(f"{what}: {key} holds values that are not finite numbers in float32")
