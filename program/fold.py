"""The rank-ordered fold: every interpreter adds in the same order, so that losses agree to the last bit.

Floating-point addition is not associative: (a + b) + c and a + (b + c) may differ in the last bit. A native all-reduce
adds in whatever order suits the network. Here each element of the sum is ((v_0 + v_1) + v_2) + ..., by rank. It depends
on no other element, so it does not matter where a vector is cut: the simulator folds whole vectors, over MPI each rank
folds its own part, and `fold` itself goes in pieces that stay in the cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from .cast import convert
from .effects import Array, Op

PIECE = 32_768  # elements folded at a time: three fp32 pieces of 128 KB each stay in a core's L2 cache


def coefficients(weights: Sequence[float], op: Op) -> tuple[list[float] | None, float]:
    """(a factor for each worker's value, or None where all are 1; a factor for the finished sum).

    Equal weights need one multiplication at the end instead of one per worker. ValueError where a mean's weights do
    not sum to a positive number.
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
    """Reduce `values` (vectors of one size and float dtype, one per worker in rank order) into `out`; returns out.

    out: may be one of the values; None: a fresh array of their dtype. Arithmetic is in out's dtype, to which narrower
    values are widened. ValueError as `coefficients`.
    """
    factors, last = coefficients(weights, op)
    size = values[0].size
    result = np.empty_like(values[0]) if out is None else out
    if size == 0:
        return result
    dtype, last_value = result.dtype, len(values) - 1
    narrow = values[0].dtype != dtype
    # NumPy multiplies faster by arrays without dimension than by its own scalars.
    scale = None if last == 1.0 else np.asarray(last, dtype)
    cast = None if factors is None else [np.asarray(f, dtype) for f in factors]
    width = min(PIECE, size)
    total, scaled = np.empty(width, dtype), np.empty(width if narrow or cast is not None else 0, dtype)
    for start in range(0, size, PIECE):
        stop = min(start + PIECE, size)
        acc, term, target = total[: stop - start], scaled[: stop - start], result[start:stop]
        running = values[0][start:stop]
        if narrow:
            running = convert(running, acc)
        if cast is not None:
            running = np.multiply(running, cast[0], out=acc)
        for i, value in enumerate(values[1:], 1):
            piece = value[start:stop]
            if narrow:
                piece = convert(piece, term)
            if cast is not None:
                piece = np.multiply(piece, cast[i], out=term)
            # `out` may be one of the values, so it is written only when every value's piece has been read.
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
