"""A user's torch Datasets: examples that are read one by one, when a batch needs them.

Rule: an example depends on its number alone, so that its bits are the same in each epoch, on each worker and with any
number of loader threads. A Dataset that draws from the global random numbers of torch, NumPy or Python is refused.
"""

from __future__ import annotations

import random
import threading
from collections import OrderedDict
from collections.abc import Sequence, Sized
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch.utils.data import Dataset as TorchDataset
from torch.utils.data import IterableDataset

from ..program.effects import Array
from . import trees, user_code
from .dataset import Dataset, Kind, Shape, Stored, batch_kind
from .model_arguments import MOST
from .trees import Tree

PARTS = ("training", "test")
KEPT = 4096  # targets that were read with their inputs and not yet taken
PAIR = "(x, y): x a tensor, an array or a number, or a tuple or dict of them, and y one of them"


@runtime_checkable
class Classed(Protocol):
    """A Dataset that lists the names of its classes, as torchvision's do."""

    classes: Sized


class _Last(threading.local):
    """What a thread has read last: the indices, their examples, and the inputs that were not yet taken of them."""

    indices: Array | None = None
    examples: Sequence[list[Array]] = ()
    left: frozenset[int] = frozenset()


class Reader:
    """One of the two Datasets, whose inputs and targets come from one call of __getitem__. what: how errors call it.

    A model's inputs are taken by one thread, one after the other, so a thread keeps the examples of its batch until all
    are taken. Targets may be taken by another thread, and later: the most recent ones are kept until then. What is not
    there any more is read again.
    """

    def __init__(self, dataset: TorchDataset[Any], what: str) -> None:
        self._dataset, self._what = dataset, what
        self._last, self._targets, self._lock = _Last(), OrderedDict[int, Array](), threading.Lock()
        count = _length(dataset, what)
        before = _random_state()
        x, y = self._pair(0)
        if _random_state() != before:
            raise ValueError(
                f"{what}: reading example 0 drew from the global random numbers of torch, NumPy or Python, so that a "
                "batch would differ with every run; draw from a generator that is seeded with the index, or write "
                "workload.augment"
            )
        first = [self._array(0, value) for value in [*trees.leaves(x), y]]
        self._expected, self._inputs = self._form(x, first), len(first) - 1
        self._kinds = [batch_kind(value.dtype, place == self._inputs) for place, value in enumerate(first)]
        columns = (Column(self, place, (count, *value.shape), self._kinds[place]) for place, value in enumerate(first))
        self.x: Tree[Array | Stored] = trees.mapped(lambda _: next(columns), x)
        self.y = next(columns)

    def values(self, indices: Array, place: int) -> list[Array]:
        """The values at this place of the examples at the indices: of the inputs in order, and then of the target."""
        if place == self._inputs:
            return [self._target(index) for index in indices.tolist()]
        last = self._last
        if place not in last.left or not np.array_equal(last.indices, indices):  # type: ignore[arg-type]
            last.indices, last.left = indices.copy(), frozenset(range(self._inputs))
            last.examples = [self._example(index, keep=True) for index in indices.tolist()]
        found = [example[place] for example in last.examples]
        last.left -= {place}
        if not last.left:
            last.examples = ()
        return found

    def _target(self, index: int) -> Array:
        with self._lock:
            kept = self._targets.pop(index, None)
        return self._example(index)[-1] if kept is None else kept

    @staticmethod
    def _form(x: Tree[Any], values: Sequence[Array]) -> str:
        """How an example is made up: the shape of each input by its name, and of the target."""
        return ", ".join(
            f"{name} {value.shape}" for name, value in zip([*trees.names(x, "x"), "y"], values, strict=True)
        )

    def _example(self, index: int, keep: bool = False) -> list[Array]:
        """The example's inputs and target. keep: the target is going to be asked for later."""
        x, y = self._pair(index)
        made = [self._array(index, value) for value in [*trees.leaves(x), y]]
        form = self._form(x, made)
        if form != self._expected:
            raise ValueError(f"{self._what}: example {index} is {form}, and example 0 {self._expected}")
        for value, kind in zip(made, self._kinds, strict=True):
            if not np.can_cast(value.dtype, kind, "same_kind"):
                raise ValueError(f"{self._what}: example {index} holds {value.dtype} where example 0 holds {kind}")
        if keep:
            with self._lock:
                self._targets[index] = made[-1]
                if len(self._targets) > KEPT:
                    self._targets.popitem(last=False)
        return made

    def _pair(self, index: int) -> tuple[Tree[Any], Any]:
        found = user_code.call(self._dataset.__getitem__, f"{self._what}: reading example {index}", index)
        if not isinstance(found, tuple | list) or len(found) != 2:
            raise ValueError(f"{self._what}: example {index} is a {type(found).__name__}; expected {PAIR}")
        x, y = found
        if isinstance(x, dict):  # in one order, whichever the Dataset has put them in
            return {str(name): x[name] for name in sorted(x, key=str)}, y
        return (tuple(x) if isinstance(x, list) else x), y

    def _array(self, index: int, value: Any) -> Array:
        """One value as NumPy's. ValueError unless it holds numbers or truth values."""
        if isinstance(value, torch.Tensor):
            value = value.detach().cpu()
            value = (value.float() if value.dtype == torch.bfloat16 else value).numpy()
        if isinstance(value, np.ndarray | np.generic | int | float) and np.asarray(value).dtype.kind in "biuf":
            return np.asarray(value)
        kind = value.dtype if isinstance(value, np.ndarray) else type(value).__name__
        raise ValueError(f"{self._what}: example {index} holds a {kind}; expected {PAIR}")


class Column:
    """One input, or the target, of all examples; see Stored."""

    stored_bytes = 0  # they stay where the Dataset has them

    def __init__(self, reader: Reader, place: int, shape: Shape, dtype: Kind) -> None:
        self._reader, self._place = reader, place
        self.shape, self.dtype = shape, dtype

    def __len__(self) -> int:
        return self.shape[0]

    def take(self, indices: Array, out: Array) -> None:
        """See Stored."""
        for row, value in enumerate(self._reader.values(indices, self._place)):
            out[row] = value


def lazily(train: Any, test: Any, classes: int | None, what: str) -> Dataset:
    """The data of two map-style Datasets. ValueError of one line where they are not such.

    classes: outputs that a model needs; None: as many as the training set's `classes` has, if it has any.
    """
    for part, found in zip(PARTS, (train, test), strict=True):
        if not isinstance(found, TorchDataset) or isinstance(found, IterableDataset):
            raise ValueError(
                f"{what}: its {part} set is a {type(found).__name__}; expected a map-style torch.utils.data.Dataset, "
                "with __len__ and __getitem__"
            )
    known, tried = (Reader(d, f"{what}, {part} set") for part, d in zip(PARTS, (train, test), strict=True))
    for name, one, other in (("x", known.x, tried.x), ("y", known.y, tried.y)):
        shapes = [trees.mapped(lambda leaf: (leaf.shape[1:], leaf.dtype.name), part) for part in (one, other)]
        if shapes[0] != shapes[1]:
            raise ValueError(f"{what}: {name} is {shapes[0]} in the training set and {shapes[1]} in the test set")
    if classes is None and isinstance(train, Classed):
        classes = len(train.classes)
    return Dataset(known.x, known.y, tried.x, tried.y, classes=classes)


def _length(dataset: TorchDataset[Any], what: str) -> int:
    if not isinstance(dataset, Sized):
        raise ValueError(f"{what} has no length; write __len__, which says how many examples there are")
    found: int = user_code.call(dataset.__len__, f"{what}: its length")
    if not 1 <= found <= MOST:
        raise ValueError(f"{what} has {found} examples; it needs one or more")
    return found


def _random_state() -> tuple[Any, ...]:
    """Where the global random numbers are."""
    words: Any
    _, words, *place = np.random.get_state()
    return torch.random.get_rng_state().numpy().tobytes(), random.getstate(), words.tobytes(), place
