"""The types in which values travel: as they are, or fp32 rounded to bf16 or fp16, which halves the bytes.

Rule: every interpreter rounds at the same places, so that losses agree to the last bit. A member's value is rounded
once, when it is sent; its own copy, too, so that all members fold the same numbers. The fold is in fp32. The result of
an all-reduce is rounded once more, however it travels; a reduce-scatter's part stays fp32. Rounding is to nearest, ties
to even, as in hardware.
"""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np

from .cast import convert
from .effects import Array, Phantom, Value, Wire
from .fold import PIECE

DTYPES: dict[Wire, np.dtype[Any]] = {
    "fp32": np.dtype(np.float32),
    "bf16": np.dtype(ml_dtypes.bfloat16),
    "fp16": np.dtype(np.float16),
}


def wire_bytes(nbytes: int, wire: Wire) -> int:
    """Bytes that travel for a value of `nbytes` bytes."""
    return nbytes if wire == "fp32" else nbytes * DTYPES[wire].itemsize // 4


def objection(value: Value, wire: Wire) -> str | None:
    """Why `value` cannot travel as `wire`; None if it can."""
    if wire not in DTYPES:
        return f"wire is {wire!r}; write one of {', '.join(DTYPES)}"
    if wire == "fp32" or isinstance(value, Phantom) or value.dtype == np.float32:
        return None
    return (
        f"only float32 values travel as {wire}, not {value.dtype}; leave wire at fp32, which sends values as they are"
    )


def narrow(value: Array, out: Array) -> Array:
    """Round fp32 `value` to the type of `out`, a wire's; returns out.

    Numbers beyond the type's range become infinite (in fp16 beyond 65,504; bf16's range is almost fp32's); NaN stays
    NaN.
    """
    return convert(value, out)


def narrowed(value: Array, wire: Wire) -> Array:
    """`value` as it travels: rounded to the wire's type, in a fresh array; for "fp32" the value itself."""
    return value if wire == "fp32" else narrow(value, np.empty(value.shape, DTYPES[wire]))


def round_trip(value: Array, wire: Wire) -> Array:
    """Round fp32 `value` in place to what arrives when it travels as `wire`; returns it."""
    if wire != "fp32":
        piece = np.empty(min(PIECE, value.size), DTYPES[wire])
        for start in range(0, value.size, PIECE):
            part = value[start : start + PIECE]
            convert(narrow(part, piece[: part.size]), part)
    return value
