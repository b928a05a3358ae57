"""Pieces of images, chosen at random and scaled to the size that the model takes.

As Inception's training does (Szegedy et al., arXiv 1409.4842), with torchvision's rules for what does not fit.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from .recipe import ResizedCrop

TRIES = 10  # shapes that are tried for a piece, before the largest one in the middle is taken


class Pieces:
    """A piece of each of `count` images.

    Which numbers are drawn does not depend on the images' sizes, so a stream goes on in the same way after any images.
    """

    def __init__(self, how: ResizedCrop, count: int, random: np.random.Generator) -> None:
        self._how, self._draws = how, random.random((count, TRIES, 4))

    def box(self, row: int, width: int, height: int) -> tuple[int, int, int, int]:
        """(left, top, right, bottom) of the piece of image `row`, which has this size."""
        (low, high), (narrow, broad) = self._how.scale, self._how.ratio
        for area, shape, across, down in self._draws[row]:
            pixels = (low + area * (high - low)) * width * height
            ratio = narrow * (broad / narrow) ** shape  # uniform in its logarithm
            w, h = round(math.sqrt(pixels * ratio)), round(math.sqrt(pixels / ratio))
            if 0 < w <= width and 0 < h <= height:
                left, top = int(across * (width - w + 1)), int(down * (height - h + 1))
                return left, top, left + w, top + h
        ratio = min(max(width / height, narrow), broad)
        w, h = min(width, max(1, round(height * ratio))), min(height, max(1, round(width / ratio)))
        left, top = (width - w) // 2, (height - h) // 2
        return left, top, left + w, top + h

    def cut(self, x: Tensor) -> Tensor:
        """The pieces of images in memory, (count, channels, height, width), at the size of the images."""
        made = torch.empty_like(x)
        height, width = x.shape[2:]
        for row in range(len(x)):
            left, top, right, bottom = self.box(row, width, height)
            piece = x[row : row + 1, :, top:bottom, left:right]
            made[row] = torch.nn.functional.interpolate(piece, (height, width), mode="bilinear", antialias=True)[0]
        return made
