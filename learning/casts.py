"""PyTorch's conversions between fp32, fp16 and bf16, which use the processor's vector instructions."""

from __future__ import annotations

import numpy as np
import torch

from ..program.effects import Array


def convert(value: Array, out: Array) -> None:
    """Copy `value` into `out`, rounded to its type. Both are contiguous and can be written to."""
    _tensor(out).copy_(_tensor(value))


def _tensor(array: Array) -> torch.Tensor:
    if array.dtype.kind == "f":
        return torch.from_numpy(array)
    return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)  # which NumPy has from another library
