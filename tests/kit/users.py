"""Models, data and losses as users write them, each with something that is easy to get wrong. Named by import path."""

from __future__ import annotations

import os

import numpy as np
import torch
from torch import nn
from torch.nn import functional

WIDTH, CLASSES = 6, 3


def points(train: int = 40, test: int = 20):
    """Few points of three classes that lines divide."""
    random = np.random.default_rng(0)
    x = random.standard_normal((train + test, WIDTH)).astype(np.float32)
    y = (x @ random.standard_normal((WIDTH, CLASSES))).argmax(1)
    return x[:train], y[:train], x[train:], y[train:]


def tokens(dtype: str = "uint8", highest: int = 199):
    x = np.arange(12 * 16).reshape(12, 16).astype(dtype)
    x[0, 0] = highest
    return x[:8], np.arange(8) % 3, x[8:], np.arange(4) % 3


def planes():
    x = np.full((6, 3, 4, 4), 200, np.uint8)
    return x, np.arange(6), x[:2], np.arange(2)


def leaving():
    raise SystemExit(0)


class Net(nn.Module):
    """A linear model with whatever `own` adds to it."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.layer = nn.Linear(width, classes)

    def forward(self, x):
        return self.layer(x)


class Spectral(Net):
    """Spectral norm keeps two unit vectors of each weight, whose mean over workers is not one."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__(width, classes)
        self.body = nn.utils.parametrizations.spectral_norm(nn.Linear(width, width))
        self.norm = nn.BatchNorm1d(width, momentum=None)

    def forward(self, x):
        return self.layer(self.norm(self.body(x)))


def spectral(input_shape, classes):
    return Spectral(input_shape[0], classes)


class Ema(Net):
    """A moving average that is given a new tensor in every step, a mask, and numbers of other types."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__(width, classes)
        self.register_buffer("ema", torch.zeros(width))
        self.register_buffer("mask", torch.full((2, 2), -torch.inf).triu(1), persistent=False)
        self.register_buffer("scale", torch.tensor(1.5, dtype=torch.bfloat16))
        self.register_buffer("phase", torch.zeros(2, dtype=torch.cfloat))
        self.register_buffer("none", torch.empty(0))
        self.register_buffer("seen", torch.tensor(0))
        self.register_buffer("flag", torch.tensor([False, True]))

    def forward(self, x):
        if self.training:
            self.ema = 0.9 * self.ema + 0.1 * x.detach().mean(0)
            self.seen += len(x)
            self.flag.logical_not_()
            self.phase += 1j
            self.scale *= 1.25
        return self.layer(x - self.ema)


class NamedEma(Ema):
    averaged_buffers = ("ema",)


def ema(input_shape, classes, named=False):
    return (NamedEma if named else Ema)(input_shape[0], classes)


class Tied(Net):
    """Two layers with one weight, a layer that is frozen, statistics, and a constant that is not in the state."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__(width, classes)
        self.body, self.back, self.still = nn.Linear(width, width), nn.Linear(width, width), nn.Linear(width, width)
        self.back.weight = self.body.weight
        self.still.requires_grad_(False)
        self.norm = nn.BatchNorm1d(width)
        self.register_buffer("two", torch.tensor(2.0), persistent=False)

    def forward(self, x):
        return self.layer(self.norm(self.back(self.body(self.still(x)).relu())) * self.two)


def tied(input_shape, classes):
    return Tied(input_shape[0], classes)


class Unused(Net):
    """A layer that no loss reaches, and one that is reached with inputs whose first value is above `edge`."""

    def __init__(self, width: int, classes: int, edge: float) -> None:
        super().__init__(width, classes)
        self.never, self.sometimes, self.edge = nn.Linear(width, 2), nn.Linear(width, classes), edge

    def forward(self, x):
        return self.layer(x) + (self.sometimes(x) if x[0, 0] > self.edge else 0.0)


def unused(input_shape, classes, edge=9e9):
    return Unused(input_shape[0], classes, edge)


class Sizes(Net):
    """Parameters of no element, and of no dimension."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__(width, classes)
        self.empty, self.scale = nn.Parameter(torch.empty(0, 4)), nn.Parameter(torch.tensor(2.0))

    def forward(self, x):
        return self.layer(x) * self.scale


def sizes(input_shape, classes):
    return Sizes(input_shape[0], classes)


def only_empty(input_shape, classes):
    return nn.Sequential(nn.Linear(input_shape[0], classes).requires_grad_(False), nn.ParameterList([torch.empty(0)]))


def normed(input_shape, classes):
    return nn.Sequential(nn.Linear(input_shape[0], 4), nn.BatchNorm1d(4), nn.Linear(4, classes))


def half(input_shape, classes):
    return nn.Sequential(nn.Linear(input_shape[0], 4), nn.Linear(4, classes).bfloat16())


class Frozen(Net):
    """A norm that is held in evaluation mode, as in fine-tuning."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__(width, classes)
        self.norm = nn.BatchNorm1d(width)
        self.norm.running_mean.fill_(5.0)

    def train(self, mode=True):
        super().train(mode)
        self.norm.eval()
        return self

    def forward(self, x):
        return self.layer(self.norm(x))


def frozen(input_shape, classes):
    return Frozen(input_shape[0], classes)


class Failing(Net):
    """Goes wrong in its forward pass number `at`, in the way of `how`."""

    def __init__(self, width: int, classes: int, how: str, at: int, rank: str | None) -> None:
        super().__init__(width, classes)
        self.how, self.at, self.rank, self.calls = how, at, rank, 0

    def forward(self, x):
        out = self.layer(x)
        self.calls += self.training
        if self.calls < self.at or (self.rank and os.environ.get("OMPI_COMM_WORLD_RANK") != self.rank):
            return out
        if self.how == "raise" or (self.how == "evaluation" and not self.training):
            raise RuntimeError("it is\nill")
        if self.how == "exit":
            raise SystemExit(0)
        if self.how == "memory":
            raise MemoryError("no room")
        if self.how == "backward":
            return Backward.apply(out)
        if self.how == "infinite":
            return out * torch.inf
        if self.how == "drift":
            with torch.no_grad():
                self.layer.bias += x.mean()
        return out


class Backward(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        raise RuntimeError("it is ill")


def failing(input_shape, classes, how="raise", at=8, rank=None):
    return Failing(input_shape[0], classes, how, at, rank)


def weighted(outputs, y):
    return functional.cross_entropy(outputs, y, weight=torch.tensor([1.0, 5.0, 25.0]))


def ignoring(outputs, y):
    return functional.cross_entropy(outputs, y, ignore_index=0)


def total(outputs, y):
    return functional.cross_entropy(outputs, y, reduction="sum")


def contrasting(outputs, y):
    return functional.cross_entropy(outputs @ outputs.T, torch.arange(len(y)))


def spread(outputs, y):
    return functional.cross_entropy(outputs, y) + outputs.var(0).mean()


def smoothed(outputs, y):
    return functional.cross_entropy(outputs, y, label_smoothing=0.2)


def two_heads(outputs, y):
    return functional.cross_entropy(outputs[0], y) + 0.3 * functional.cross_entropy(outputs[1], y)


def likelihood(outputs, y):
    return functional.nll_loss(outputs.softmax(1).log(), y)


def binary(outputs, y):
    return functional.binary_cross_entropy(outputs[:, 0], (y > 0).float())


def nothing(outputs, y):
    return None


def owing(outputs, y):
    return functional.cross_entropy(outputs, y, reduction="sum"), -len(y)


def short():
    """In a type that NumPy does not have."""
    x, y = torch.zeros(8, 3, dtype=torch.bfloat16), torch.zeros(8, dtype=torch.int64)
    return x, y, x, y


def for_each(outputs, y):
    return functional.cross_entropy(outputs, y, reduction="none")


def one_row(outputs, y):
    return functional.cross_entropy(outputs, y).reshape(1)


def ill(outputs, y):
    raise RuntimeError("it is ill")


class Sharing(nn.Module):
    """Uses another layer's weight: as it is, or the other way round."""

    def __init__(self, layer: nn.Linear, back: bool) -> None:
        super().__init__()
        self.weight, self.back = layer.weight, back
        self.bias = nn.Parameter(torch.zeros(layer.in_features if back else layer.out_features))

    def forward(self, x):
        return functional.linear(x, self.weight.T if self.back else self.weight, self.bias).tanh()


def shared(input_shape, classes, dropout=0.3):
    """Members one after the other, of which three have one weight."""
    width = torch.Size(input_shape).numel()
    first = nn.Linear(width, 48)
    return nn.Sequential(
        nn.Sequential(nn.Flatten(), first),
        nn.Linear(48, 48),
        nn.Dropout(dropout),
        Sharing(first, back=True),
        nn.LayerNorm(width),
        Sharing(first, back=False),
        nn.Linear(48, classes),
    )
