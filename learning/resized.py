"""Images at another size than that in which they are stored."""

from __future__ import annotations

import numpy as np
import torch

from ..program.effects import Array
from .dataset import REAL, Packed, Shape, Stored


class Resized:
    """Stored images, scaled to `size` x `size` pixels when they are taken. See Stored.

    Bilinear; each smaller pixel is a weighted mean of those that it covers ("antialias", as torchvision resizes). With
    it, an image's bits depend neither on the other images of its batch nor on the number of threads. Torch's bilinear
    scaling without it gave other bits with other numbers of threads.
    """

    dtype = REAL

    def __init__(self, x: Array | Stored, size: int) -> None:
        self._x: Stored = Packed([x]) if isinstance(x, np.ndarray) else x
        self.shape: Shape = (*x.shape[:2], size, size)
        self.stored_bytes = self._x.stored_bytes

    def __len__(self) -> int:
        return len(self._x)

    def take(self, indices: Array, out: Array) -> None:
        """Write the scaled images at these places into `out`."""
        small = np.empty((len(indices), *self._x.shape[1:]), np.float32)
        self._x.take(indices, small)
        made = torch.nn.functional.interpolate(torch.from_numpy(small), self.shape[2:], mode="bilinear", antialias=True)
        torch.from_numpy(out).copy_(made)
