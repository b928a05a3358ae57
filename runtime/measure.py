"""Fits of measured exchanges, for profiles: what a message costs, what a byte costs, what adding up costs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.optimize import nnls


def fit(
    points: Sequence[tuple[tuple[float, float, float], float]], by_length: bool = True
) -> tuple[float, float, float]:
    """(latency, bandwidth, reduce_bandwidth) that explain measured collectives best: s, bytes/s, bytes/s.

    points: ((messages, bytes sent, bytes added up) of a member, seconds).
    The model is the simulator's on a star: messages * latency + sent / bandwidth + added / reduce_bandwidth. It is
    fitted by least squares with no part negative; a part of zero is an infinite bandwidth.
    by_length: weigh squares by 1 / seconds, so that neither short nor long exchanges are lost. (Relative errors would
    count all alike, although a shaped port lets short messages pass in a burst, and a run's time is made of long ones.)
    ValueError without a point in which anything is sent.
    """
    rows = [what for what, _ in points]
    if not any(sent for _, sent, _ in rows):
        raise ValueError(f"{len(points)} points, and nothing is sent in them; measure with 2 ranks or more")
    took = np.array([seconds for _, seconds in points])
    weights = took**-0.5 if by_length else np.ones(len(took))
    latency, per_byte, per_added = nnls(np.array(rows) * weights[:, None], took * weights)[0].tolist()
    return latency, _rate(per_byte), _rate(per_added)


def _rate(per_byte: float) -> float:
    """Bytes/s; infinite where a byte takes less than any memory does, which is what is left of rounding."""
    return 1 / per_byte if per_byte > 1e-15 else float("inf")
