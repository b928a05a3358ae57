"""A simulation of rounds as one would write it in NumPy: the same draws, sums and maxima as in Paceline, no more."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def rounds(step: NDArray[np.float64], H: int, count: int, sigma: float, exchange: float) -> float:
    """The clock after `count` rounds of H steps and an exchange.

    step: (workers,), seconds of a worker's step; exchange: seconds of a sync. sigma: of the lognormal noise on each
    step, whose mean is 1; 0 for none.
    """
    random, clock = np.random.default_rng(7), 0.0
    for _ in range(count):
        if sigma:
            factors = random.standard_normal((H, step.size))
            factors *= sigma
            factors -= sigma * sigma / 2
            np.exp(factors, out=factors)
            factors *= step
            taken = factors.sum(axis=0)
        else:
            taken = H * step
        clock = float((clock + taken).max()) + exchange
    return clock
