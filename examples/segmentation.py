"""Segmentation: which pixels of a noisy picture belong to a digit?"""

import numpy as np
import torch
from torch import nn


def data(train=512, test=128, size=16):
    """Digits anywhere on a larger picture. Each pixel has a label: 0 for the ground, 1 for the digit."""
    from sklearn.datasets import load_digits

    digits, random = load_digits(), np.random.default_rng(0)
    x = random.normal(0, 0.2, (train + test, 1, size, size)).astype(np.float32)
    y = np.zeros((train + test, size, size), np.int64)
    for i, (down, right) in enumerate(random.integers(0, size - 8, (train + test, 2))):
        place = np.s_[down : down + 8, right : right + 8]
        x[i, 0][place] += digits.images[i] / 16
        y[i][place] = digits.images[i] > 4
    y[:, [0, -1]] = y[:, :, [0, -1]] = -100  # the border does not count: cross_entropy ignores this label
    return x[:train], y[:train], x[train:], y[train:]


class UNet(nn.Module):
    """Down, up, and across."""

    def __init__(self, input_shape, classes, width=8, dropout=0.1):
        super().__init__()
        self.down = nn.Sequential(nn.Conv2d(input_shape[0], width, 3, padding=1), nn.ReLU())
        self.middle = nn.Sequential(nn.MaxPool2d(2), nn.Conv2d(width, 2 * width, 3, padding=1), nn.ReLU())
        self.deep = nn.Sequential(nn.Conv2d(2 * width, 2 * width, 3, padding=1), nn.ReLU(), nn.Dropout2d(dropout))
        self.up = nn.ConvTranspose2d(2 * width, width, 2, stride=2)
        self.head = nn.Conv2d(2 * width, classes, 3, padding=1)

    def forward(self, x):
        """x: (batch, channels, height, breadth); returns the same with a score for each class of each pixel."""
        across = self.down(x)
        return self.head(torch.cat([across, self.up(self.deep(self.middle(across)))], dim=1))
