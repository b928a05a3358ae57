"""Local SGD as the released code of such papers does it: plain PyTorch, one process per rank, averaging over MPI.

A DataLoader crops, flips and normalises image by image; each rank takes H local steps with momentum on its shuffled
share, and then every parameter is averaged by an all-reduce of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from mpi4py import MPI
from torch.utils.data import DataLoader, Dataset

MEAN, DEVIATION = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
PADDING = 4


class Images(Dataset[Any]):
    """Images as bytes, (count, 3, height, breadth), with labels; cropped, flipped and normalised one by one."""

    def __init__(self, images: np.ndarray[Any, Any], labels: np.ndarray[Any, Any]) -> None:
        self.images, self.labels = torch.from_numpy(images), torch.from_numpy(labels)
        self.mean, self.deviation = torch.tensor(MEAN)[:, None, None], torch.tensor(DEVIATION)[:, None, None]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        image = self.images[index]
        _, height, breadth = image.shape
        padded = torch.nn.functional.pad(image, (PADDING,) * 4)
        down, right, flip = (int(torch.randint(n, ())) for n in (2 * PADDING + 1, 2 * PADDING + 1, 2))
        cropped = padded[:, down : down + height, right : right + breadth]
        if flip:
            cropped = cropped.flip(2)
        return (cropped.float() / 255 - self.mean) / self.deviation, self.labels[index]


class LocalSgdLoop:
    """model: trained in place. H: local steps between two averagings. options: of torch.optim.SGD."""

    def __init__(
        self, model: torch.nn.Module, data: Images, batch: int, H: int, comm: Any, options: dict[str, Any]
    ) -> None:
        self.model, self.comm, self.H, self.taken = model, comm, H, 0
        share = torch.utils.data.Subset(data, range(comm.rank, len(data), comm.size))
        self.loader = DataLoader(share, batch, shuffle=True, drop_last=True)
        self.batches = self._endless()
        self.optimizer = torch.optim.SGD(model.parameters(), **options)

    def _endless(self) -> Iterator[Any]:
        while True:
            yield from self.loader

    def steps(self, count: int) -> None:
        """Train `count` steps."""
        for _ in range(count):
            x, y = next(self.batches)
            self.optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(self.model(x), y)
            loss.backward()  # type: ignore[no-untyped-call]
            self.optimizer.step()
            loss.item()
            self.taken += 1
            if self.taken % self.H == 0:
                self.average()

    def average(self) -> None:
        """The mean of all ranks' parameters."""
        for p in self.model.parameters():
            vector = p.data.numpy()
            self.comm.Allreduce(MPI.IN_PLACE, vector)
            vector /= self.comm.size
