"""Torch Datasets as users write them, named by import path: `kit.datasets:points`."""

from __future__ import annotations

import threading

import numpy as np
import torch
from torch.utils.data import Dataset, IterableDataset, Subset, TensorDataset

from .users import points as arrays


class Points(Dataset):
    """The points of kit.users, one by one. how: what goes wrong, or is special; at: in which example."""

    classes = ("first", "second", "third")

    def __init__(self, x, y, how: str = "", at: int = 5) -> None:
        self.x, self.y, self.how, self.at = x, y, how, at
        self.reads: list[tuple[int, str]] = []  # (index, thread)

    def __len__(self):
        return {"empty": 0, "negative": -1}.get(self.how, len(self.y))

    def __getitem__(self, index):
        if not 0 <= index < len(self.y):
            raise IndexError(index)
        self.reads.append((index, threading.current_thread().name))
        x, y = torch.from_numpy(self.x[index]), int(self.y[index])
        if self.how == "random":
            x = x + 0.1 * torch.rand(len(x))
        if self.how == "numpy":
            x = x * np.random.rand()
        if self.how == "tuple":
            return (x[:2], x[2:].double()), y
        if self.how == "dict":
            return {"left": x[:2], "right": x[2:].numpy()}, np.int32(y)
        if self.how == "real":
            return x, x.sum()
        if index == self.at:
            if self.how == "raises":
                raise RuntimeError("it is\nill")
            if self.how == "shape":
                return x[:4], y
            if self.how == "type":
                return x, 0.5
            if self.how == "single":
                return x
            if self.how == "text":
                return x, "a label"
        return x, y


class Stream(IterableDataset):
    """Has no order."""

    def __iter__(self):
        return iter([(torch.zeros(2), 0)])


class Endless(Dataset):
    """Has no length."""

    def __getitem__(self, index):
        return torch.zeros(2), 0


def points(how: str = "", at: int = 5, tested: str | None = None):
    """tested: how the test set is, if not like the training set."""
    x, y, test_x, test_y = arrays()
    return Points(x, y, how, at), Points(test_x, test_y, how if tested is None else tested, at)


def stream():
    return Stream(), Stream()


def endless():
    return Endless(), Endless()


def tensors():
    """No names of classes are known."""
    x, y, test_x, test_y = map(torch.from_numpy, arrays())
    return Subset(TensorDataset(x, y), range(30)), TensorDataset(test_x, test_y)


def classed(classes: int = 3):
    """Takes the argument `classes` itself."""
    train, test = points()
    train.classes = test.classes = tuple(range(classes))
    return [train, test]


def two_inputs(input_shape, classes, named: bool):
    return Named(classes) if named else Both(classes)


class Both(torch.nn.Module):
    def __init__(self, classes: int) -> None:
        super().__init__()
        self.left, self.right = torch.nn.Linear(2, classes), torch.nn.Linear(4, classes)

    def forward(self, one, other):
        return self.left(one) + self.right(other)


class Named(Both):
    def forward(self, *, left, right):
        return super().forward(left, right)


def pair():
    """Two arrays, which are not Datasets."""
    return arrays()[:2]
