"""Random changes of a batch of images."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from .dataset import Pixels
from .recipe import Augment


def augment(x: Tensor, how: Augment, random: np.random.Generator, pixels: Pixels | None = None) -> Tensor:
    """x: (batch, channels, height, breadth), normalised; the result is a new tensor of the same shape.

    pixels: how the values follow from bytes, for operations that are defined on these. The padding of crops is 0, so
    the mean colour of normalised images, where recipes that pad before normalising have black. A resized crop is made
    before, where the images are read; see sources.Source.pieces.
    """
    count, _, height, breadth = x.shape
    if how.crop:
        down, right = torch.from_numpy(random.integers(0, 2 * how.crop + 1, (2, count)))
        padded = torch.nn.functional.pad(x, (how.crop,) * 4)
        windows = padded.unfold(2, height, 1).unfold(3, breadth, 1)  # a view: every crop that there is
        x = windows[torch.arange(count), :, down, right]
    if how.flip:
        chosen = torch.from_numpy(random.integers(0, 2, count).astype(bool))
        x = torch.where(chosen[:, None, None, None], x.flip(3), x)
    if how.randaugment is not None and pixels is not None:
        from .rand_augment import rand_augment  # Pillow, which few runs need

        x = rand_augment(x, pixels, how.randaugment, random)
    return x
