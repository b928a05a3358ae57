"""Flat storage: many tensors as views of one contiguous vector, so that an exchange needs no packing.

Rule: everything is fp32, and NumPy sees the same memory: an all-reduce into the vector updates the model.
"""

from __future__ import annotations

import mmap
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import _get_current_dispatch_mode

HUGE = 1 << 21  # bytes of a huge page


def check(tensors: Mapping[str, Tensor], what: str, device: str = "cpu") -> None:
    """ValueError unless all are fp32 on the CPU. what: "parameter" or "buffer". device: "meta" without numbers."""
    for name, tensor in tensors.items():
        if tensor.dtype != torch.float32 or tensor.device.type != device:
            raise ValueError(
                f"the model's {what} {name} is {tensor.dtype} on {tensor.device}; make it torch.float32 on the CPU"
            )


def views(vector: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    """Consecutive views of the vector, in the shapes of `like`."""
    made, start = [], 0
    for tensor in like:
        made.append(vector[start : start + tensor.numel()].view(tensor.shape))
        start += tensor.numel()
    return made


def zeros(size: int, dtype: torch.dtype, device: torch.device, pinned: bool = False) -> Tensor:
    """A vector of zeros. pinned: for copies from and to a GPU.

    On the CPU, a large one lies in huge pages where the system has them: an all-reduce of 16 MB took half the processor
    time (measured; one rank reads another's memory page by page).
    """
    nbytes = size * dtype.itemsize
    metered = _get_current_dispatch_mode() is not None  # it sees only what torch makes: meter.Tensors
    if device.type != "cpu" or pinned or metered or nbytes < HUGE or not hasattr(mmap, "MADV_HUGEPAGE"):
        return torch.zeros(size, dtype=dtype, device=device, pin_memory=pinned)
    # What is not touched takes no memory.
    memory = mmap.mmap(-1, nbytes + HUGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.madvise(mmap.MADV_HUGEPAGE)
    found = np.frombuffer(memory, np.uint8)
    start = -found.ctypes.data % HUGE
    return torch.from_numpy(found[start : start + nbytes]).view(dtype)


def flatten(tensors: Sequence[Tensor]) -> Tensor:
    """A vector that holds the tensors, which become views of it."""
    like = tensors[0] if tensors else torch.empty(0)
    vector = torch.zeros(sum(t.numel() for t in tensors), dtype=like.dtype, device=like.device)
    for tensor, view in zip(tensors, views(vector, tensors), strict=True):
        view.copy_(tensor.detach())
        tensor.data = view
    return vector
