"""Flat storage: many tensors as views of one contiguous vector, so that an exchange needs no packing.

Rule: everything is fp32, and NumPy sees the same memory: an all-reduce into the vector updates the model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor


def check(tensors: Mapping[str, Tensor], what: str) -> None:
    """ValueError unless all are fp32 on the CPU. what: "parameter" or "buffer"."""
    for name, tensor in tensors.items():
        if tensor.dtype != torch.float32 or tensor.device.type != "cpu":
            raise ValueError(
                f"the model's {what} {name} is {tensor.dtype} on {tensor.device}; make it torch.float32 on the CPU"
            )


def views(vector: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    """Views of the vector, one behind the other, in the shapes of `like`."""
    made, start = [], 0
    for tensor in like:
        made.append(vector[start : start + tensor.numel()].view(tensor.shape))
        start += tensor.numel()
    return made


def flatten(tensors: Sequence[Tensor]) -> Tensor:
    """A vector that holds the tensors, which become views of it."""
    like = tensors[0] if tensors else torch.empty(0)
    vector = torch.zeros(sum(t.numel() for t in tensors), dtype=like.dtype, device=like.device)
    for tensor, view in zip(tensors, views(vector, tensors), strict=True):
        view.copy_(tensor.detach())
        tensor.data = view
    return vector
