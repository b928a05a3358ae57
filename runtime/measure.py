"""How long this machine's all-reduce takes, for profiles. Measured as an effect, so that all costs are in it."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import TYPE_CHECKING

import numpy as np

from ..program.effects import AllReduce, Program
from ..program.outcome import Hooks
from ..program.traffic import traffic
from .engine import run

if TYPE_CHECKING:
    from mpi4py import MPI

SIZES = (0, 1_000, 10_000, 100_000, 1_000_000, 10_000_000, 40_000_000)  # bytes
BLOCKS = 5  # measurements per size, after one to warm up; the median is taken


def measure_allreduce(
    comm: MPI.Intracomm, sizes: Sequence[int] = SIZES, budget: float = 0.1
) -> list[tuple[int, float]]:
    """(bytes, seconds) of the ordered all-reduce of fp32 vectors of about these sizes among the ranks of `comm`.

    All ranks call it together and get the same list, with the slowest rank's seconds. budget: seconds to spend per
    size and block.
    """
    points = []
    for nbytes in sizes:
        value = np.zeros(nbytes // 4, np.float32)
        one = _seconds(comm, value, 2)
        count = max(2, min(1000, int(budget / max(one, 1e-6))))
        seconds = median(_seconds(comm, value, count) for _ in range(BLOCKS))
        points.append((value.nbytes, seconds))
    return points


def _seconds(comm: MPI.Intracomm, value: np.ndarray, count: int) -> float:
    """Seconds per all-reduce, the mean of `count` after one to warm up; the same on all ranks."""
    from mpi4py import MPI

    def program() -> Program[None]:
        for _ in range(count + 1):
            yield from AllReduce(value, out=value, phase="measure")

    spans = run(program(), Hooks(), comm=comm, trace=True).lanes["network"]
    own = np.array([(spans[-1][2] - spans[0][2]) / count])
    comm.Allreduce(MPI.IN_PLACE, own, MPI.MAX)
    return float(own[0])


def fit(points: Sequence[tuple[int, float]], ranks: int) -> tuple[float, float]:
    """(latency in seconds per message step, bandwidth in bytes/s) that explain measured all-reduces best.

    The model is traffic.py's on a star: seconds = messages * latency + sent / bandwidth. It is fitted by least squares
    of the relative error, with neither part negative. ValueError with fewer than two ranks or without a point.
    """
    if ranks < 2 or not points:
        raise ValueError(f"{len(points)} points among {ranks} ranks say nothing of a network; measure with 2 or more")
    rows, seconds = [], []
    for nbytes, took in points:
        cost = traffic(AllReduce, nbytes, ranks)
        rows.append([cost.messages / took, cost.sent / took])
        seconds.append(1.0)
    matrix, target = np.array(rows), np.array(seconds)
    latency, per_byte = np.linalg.lstsq(matrix, target, rcond=None)[0]
    if latency < 0 or per_byte < 0:  # then one of them is zero in the best fit
        alone = [float(column @ target / (column @ column)) if column.any() else 0.0 for column in matrix.T]
        errors = [float(np.sum((matrix[:, i] * alone[i] - target) ** 2)) for i in (0, 1)]
        latency, per_byte = (alone[0], 0.0) if errors[0] <= errors[1] else (0.0, alone[1])
    return float(latency), float("inf") if per_byte == 0 else float(1 / per_byte)
