"""Synchronous SGD as a careful user of torch and mpi4py writes it: one vector of gradients, reduced in place."""

from __future__ import annotations

from typing import Any

import torch
from mpi4py import MPI


class HandWritten:
    """model: trained in place. batches: has `next()`, which gives (inputs, targets). options: of torch.optim.SGD."""

    def __init__(self, model: torch.nn.Module, batches: Any, comm: Any, options: dict[str, Any]) -> None:
        self.comm, self.model, self.batches = comm, model, batches
        self.parameters = parameters = list(model.parameters())
        self.flat = torch.zeros(sum(p.numel() for p in parameters))
        self.views = []
        start = 0
        for p in parameters:
            self.views.append(self.flat[start : start + p.numel()].view(p.shape))
            start += p.numel()
        self.optimizer = torch.optim.SGD(parameters, **options, fused=True)

    def steps(self, count: int) -> None:
        """Train `count` steps."""
        vector, size = self.flat.numpy(), self.comm.Get_size()
        for _ in range(count):
            x, y = self.batches.next()
            for p in self.parameters:
                p.grad = None  # fresh gradients, packed afterwards, are faster than adding into flat ones
            loss = torch.nn.functional.cross_entropy(self.model(x), y)
            loss.backward()  # type: ignore[no-untyped-call]
            torch.cat([p.grad.view(-1) for p in self.parameters if p.grad is not None], out=self.flat)
            self.comm.Allreduce(MPI.IN_PLACE, vector)
            self.flat /= size
            for p, view in zip(self.parameters, self.views, strict=True):
                p.grad = view
            self.optimizer.step()
            loss.item()
