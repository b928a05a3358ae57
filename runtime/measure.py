"""Fits of measured exchanges, for profiles: what a message costs, what a byte costs, what adding up costs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.optimize import nnls

from ..program.traffic import Traffic


def fit(points: Sequence[tuple[Traffic, float]]) -> tuple[float, float, float]:
    """(latency, bandwidth, reduce_bandwidth) that explain measured collectives best: s, bytes/s, bytes/s.

    points: (what a member sends and adds up, seconds).
    The model is the simulator's on a star: messages * latency + sent / bandwidth + added / reduce_bandwidth. It is
    fitted by least squares of the relative error, with no part negative; a part of zero is an infinite bandwidth.
    ValueError without a point in which anything is sent.
    """
    rows = [(what.messages, what.sent, what.added) for what, _ in points]
    if not any(sent for _, sent, _ in rows):
        raise ValueError(f"{len(points)} points, and nothing is sent in them; measure with 2 ranks or more")
    took = np.array([seconds for _, seconds in points])
    latency, per_byte, per_added = nnls(np.array(rows) / took[:, None], np.ones(len(rows)))[0].tolist()
    return latency, 1 / per_byte if per_byte else float("inf"), 1 / per_added if per_added else float("inf")
