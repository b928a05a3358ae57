"""What is set once in a process that trains: torch's threads, and the conversions of what travels."""

from __future__ import annotations

import numpy as np
import torch

from ..program import cast
from ..program.effects import Array


def prepare(threads: int) -> None:
    """Let torch compute with so many threads, which the bits depend on, and convert between fp32, fp16 and bf16.

    Torch's conversions use the processor's vector instructions.
    """
    if torch.get_num_threads() != threads:
        torch.set_num_threads(threads)
    cast.use(convert)


def convert(value: Array, out: Array) -> None:
    """Copy `value` into `out`, rounded to its type. Both are contiguous and can be written to."""
    _tensor(out).copy_(_tensor(value))


def _tensor(array: Array) -> torch.Tensor:
    if array.dtype.kind == "f":
        return torch.from_numpy(array)
    # NumPy's bf16 is that of ml_dtypes, which torch does not know.
    return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
