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

    out: may be one of the values; a fresh array of their dtype by default. Arithmetic is in out's dtype, to which
    narrower values are widened. Returns out.
    """
    factors, last = coefficients(weights, op)
    size = values[0].size
    result = np.empty_like(values[0]) if out is None else out
    if size == 0:
        return result
    dtype, last_value = result.dtype, len(values) - 1
    narrow = values[0].dtype != dtype
    # Arrays without dimension: numpy multiplies by them faster than by its own scalars.
    scale = None if last == 1.0 else np.asarray(last, dtype)
    cast = None if factors is None else [np.asarray(f, dtype) for f in factors]
    width = min(PIECE, size)
    total, scaled = np.empty(width, dtype), np.empty(width if narrow or cast is not None else 0, dtype)
    for start in range(0, size, PIECE):
        stop = min(start + PIECE, size)
        acc, term, target = total[: stop - start], scaled[: stop - start], result[start:stop]
        running = values[0][start:stop]
        if narrow:
            np.copyto(acc, running)
            running = acc
        if cast is not None:
            running = np.multiply(running, cast[0], out=acc)
        for i, value in enumerate(values[1:], 1):
            piece = value[start:stop]
            if narrow:
                np.copyto(term, piece)
                piece = term
            if cast is not None:
                piece = np.multiply(piece, cast[i], out=term)
            # `out` may be one of the values: it is written to once every value's piece has been read.
            running = np.add(running, piece, out=target if i == last_value else acc)
        if scale is not None:
            np.multiply(running, scale, out=target)
        elif last_value == 0:
            np.copyto(target, running)
    return result


def parts(size: int, members: int) -> list[tuple[int, int]]:
    """(start, stop) of each member's part of `size` elements: the first `size % members` are one longer."""
    base, extra = divmod(size, members)
    edges = [r * base + min(r, extra) for r in range(members + 1)]
    return list(pairwise(edges))


def phantom_parts(nbytes: int, members: int) -> list[int]:
    """Bytes of each member's part of a phantom: cut as the fp32 vector that it stands for, else by the byte."""
    item = 4 if nbytes % 4 == 0 else 1
    return [item * (stop - start) for start, stop in parts(nbytes // item, members)]
