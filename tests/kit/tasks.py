"""Tasks that are not the classification of images, as users write them: data, models and losses by import path."""

from __future__ import annotations

import numpy as np
from torch import nn
from torch.nn import functional

from paceline.learning.dataset import Dataset

VOCABULARY = 11


def split(x, y, test: int):
    return x[:-test], y[:-test], x[-test:], y[-test:]


def table(train: int = 60, test: int = 20):
    """Real numbers and real targets."""
    random = np.random.default_rng(0)
    x = random.standard_normal((train + test, 5)).astype(np.float32)
    y = (x @ random.standard_normal((5, 2)) + 0.1 * random.standard_normal((train + test, 2))).astype(np.float32)
    return split(x, y, test)


def text(train: int = 40, test: int = 12, length: int = 6):
    """Each token is the one before, plus one. Targets that are not counted are -100."""
    random = np.random.default_rng(1)
    whole = (random.integers(0, VOCABULARY, (train + test, 1)) + np.arange(length + 1)) % VOCABULARY
    x, y = whole[:, :-1].astype(np.uint16), whole[:, 1:].astype(np.int64)
    y[random.random(y.shape) < 0.3] = -100
    return split(x, y, test)


def masks(train: int = 24, test: int = 8, size: int = 8):
    """Images and the class of each pixel, in bytes."""
    x = np.random.default_rng(2).standard_normal((train + test, 2, size, size)).astype(np.float32)
    return split(x, (x[:, 0] > x[:, 1]).astype(np.uint8) + (x[:, 0] > 1), test)


def pairs(train: int = 60, test: int = 20):
    """Two inputs by place: a number and a token; the target is whether their sum is high."""
    random = np.random.default_rng(3)
    count = train + test
    numbers, tokens = random.standard_normal((count, 3)), random.integers(0, 4, (count, 2))
    y = numbers[:, 0] + tokens[:, 0] > 1.5
    return (numbers[:train], tokens[:train]), y[:train], (numbers[train:], tokens[train:]), y[train:]


def named(train: int = 60, test: int = 20):
    """The same by name, and as a Dataset."""
    train_x, train_y, test_x, test_y = pairs(train, test)
    dicts = [dict(zip(("numbers", "tokens"), x, strict=True)) for x in (train_x, test_x)]
    return Dataset(dicts[0], train_y, dicts[1], test_y, notes=("made up",))


def linear(input_shape, classes, outputs: int = 2):
    return nn.Linear(input_shape[0], outputs)


class Language(nn.Module):
    def __init__(self, classes: int, dropout: float) -> None:
        super().__init__()
        self.embedding, self.drop = nn.Embedding(classes, 8), nn.Dropout(dropout)
        self.head = nn.Linear(8, classes)

    def forward(self, tokens):
        return self.head(self.drop(self.embedding(tokens))).movedim(-1, 1)


def language(input_shape, classes, dropout: float = 0.1):
    return Language(classes, dropout)


def unet(input_shape, classes, norm: bool = True):
    """Not a U: as many classes for each pixel."""
    middle = [nn.BatchNorm2d(6)] if norm else []
    return nn.Sequential(nn.Conv2d(input_shape[0], 6, 3, padding=1), *middle, nn.ReLU(), nn.Conv2d(6, classes, 1))


class Pair(nn.Module):
    def __init__(self, numbers: int) -> None:
        super().__init__()
        self.numbers, self.tokens = nn.Linear(numbers, 1), nn.Embedding(4, 1)

    def forward(self, numbers, tokens):
        return (self.numbers(numbers) + self.tokens(tokens).sum(1)).squeeze(1)


def pair(input_shape, classes):
    numbers, tokens = input_shape.values() if isinstance(input_shape, dict) else input_shape
    assert (tokens, classes) == ((2,), None)
    return Pair(numbers[0])


def binary(outputs, targets):
    return functional.binary_cross_entropy_with_logits(outputs, targets.to(outputs.dtype))


def last():
    return np.zeros((6, 8, 8, 3)), np.arange(6), np.zeros((2, 8, 8, 3)), np.arange(2)


def negative():
    return np.zeros((6, 5)), np.arange(6) - 1, np.zeros((2, 5)), np.arange(2)


def uneven():
    return (np.zeros((6, 5)), np.zeros((5, 5))), np.arange(6), (np.zeros((2, 5)), np.zeros((2, 5))), np.arange(2)


def unlike():
    return {"a": np.zeros((6, 5))}, np.arange(6), {"b": np.zeros((2, 5))}, np.arange(2)


def tokens(train: int = 40, test: int = 12, length: int = 6):
    """All of them count."""
    random = np.random.default_rng(4)
    whole = random.integers(0, VOCABULARY, (train + test, length + 1))
    return split(whole[:, :-1], whole[:, 1:], test)


class LastLanguage(Language):
    """Classes in the last dimension, as language models have them."""

    def forward(self, tokens):
        return super().forward(tokens).movedim(1, -1)


def last_language(input_shape, classes, dropout: float = 0.1):
    return LastLanguage(classes, dropout)


def squares(outputs, targets):
    """A value for each example."""
    return ((outputs - targets) ** 2).sum(1)


def counted(outputs, targets):
    """(sum, count)."""
    return functional.cross_entropy(outputs, targets, reduction="sum"), (targets != -100).sum()


def some(outputs, targets):
    """A value for each element that counts, of which there are other numbers in other batches."""
    return functional.cross_entropy(outputs, targets, reduction="none")[targets != -100]
