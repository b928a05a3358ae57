"""The rank-ordered fold: one sum, in one order, for every interpreter, so that losses agree to the last bit.

The order is by rank and element by element, so it does not matter how a vector is cut into pieces:
the lockstep and SimPy interpreters fold whole vectors, the MPI interpreter each rank its own part.
Floating-point addition is not associative; a native all-reduce adds in whatever order suits the network.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from .effects import Array, Op

PIECE = 32_768  # elements folded at a time: three fp32 pieces of 128 KB stay in a core's L2 cache


def coefficients(weights: Sequence[float], op: Op) -> tuple[list[float] | None, float]:
    """(per-worker factors or None for all ones, factor of the finished sum).

    Equal weights need one multiplication at the end instead of one per worker. Raises ValueError where a
    mean's weights do not sum to a positive number.
    """
    first = weights[0]
    equal = all(w == first for w in weights)
    if op == "sum":
        return (None, float(first)) if equal else ([float(w) for w in weights], 1.0)
    total = float(sum(weights))
    if not total > 0.0:
        raise ValueError(f"weights {list(weights)} sum to {total:g}; a mean needs a positive sum")
    if equal:
        return None, 1.0 / len(weights)
    return [w / total for w in weights], 1.0


def fold(values: Sequence[Array], weights: Sequence[float], op: Op = "mean", out: Array | None = None) -> Array:
    """Reduce `values` (same shape and float dtype, 1-D, one per worker in rank order) into `out`.

    out: may be one of the values; a fresh array by default. Arithmetic is in the values' own dtype. Returns out.
    """
    factors, last = coefficients(weights, op)
    size = values[0].size
    result = np.empty_like(values[0]) if out is None else out
    if size == 0:
        return result
    dtype = values[0].dtype.type
    scale = None if last == 1.0 else dtype(last)
    cast = None if factors is None else [dtype(f) for f in factors]
    width = min(PIECE, size)
    total = np.empty(width, dtype)
    scaled = np.empty(width if cast is not None else 0, dtype)
    for start in range(0, size, PIECE):
        stop = min(start + PIECE, size)
        acc = total[: stop - start]
        if cast is None:
            if len(values) == 1:
                np.copyto(acc, values[0][start:stop])
            else:
                np.add(values[0][start:stop], values[1][start:stop], out=acc)
                for value in values[2:]:
                    acc += value[start:stop]
        else:
            np.multiply(values[0][start:stop], cast[0], out=acc)
            term = scaled[: stop - start]
            for value, factor in zip(values[1:], cast[1:], strict=True):
                acc += np.multiply(value[start:stop], factor, out=term)
        if scale is None:
            result[start:stop] = acc
        else:
            np.multiply(acc, scale, out=result[start:stop])
    return result


def parts(size: int, members: int) -> list[tuple[int, int]]:
    """(start, stop) of each member's part of `size` elements: the first `size % members` are one longer."""
    base, extra = divmod(size, members)
    edges = [r * base + min(r, extra) for r in range(members + 1)]
    return list(pairwise(edges))
