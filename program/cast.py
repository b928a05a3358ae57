"""Copies between fp32 and the narrower types in which values travel.

NumPy converts fp16 number by number. What trains has PyTorch, which converts at the memory's speed, and hands its copy
in here. Both round to nearest, ties to even, so it makes no difference to the bits (except for those of a NaN).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .effects import Array

Cast = Callable[[Array, Array], None]  # (value, out)
SHORT = 4096  # elements up to which NumPy's call takes less time

_long: list[Cast] = []  # for longer vectors, if something better than NumPy is there


def use(cast: Cast) -> None:
    """Convert long vectors with `cast` from now on. They are contiguous, and it writes only to `out`."""
    _long[:] = [cast]


def convert(value: Array, out: Array) -> Array:
    """Copy `value` into `out`, rounding to its type; returns out. Beyond its range a number becomes infinite."""
    if _long and value.size > SHORT and value.flags.c_contiguous and value.flags.writeable and out.flags.c_contiguous:
        _long[0](value, out)
        return out
    with np.errstate(over="ignore"):
        np.copyto(out, value, casting="same_kind")
    return out
