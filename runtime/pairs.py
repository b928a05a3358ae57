"""Latency and bandwidth between every two hosts, for profiles. One rank of each host takes part, a pair at a time."""

from __future__ import annotations

import time
from dataclasses import dataclass
from itertools import combinations
from statistics import median
from typing import Any

import numpy as np

from .messages import every_text

TAG = 29_000
BUDGET = 6.0  # seconds for all pairs together
LONGEST, SHORTEST = 1.0, 0.02  # seconds for one pair: no more where there are few, no less where there are many
MESSAGE = 1_000_000  # bytes of a message that measures the bandwidth
MOST = 1000  # messages that are measured, however short they are
PAUSE = 0.001  # seconds between two looks of a rank that waits for its turn, so that it leaves its core to others


@dataclass(frozen=True)
class Pairs:
    """What was measured between hosts. Rows and columns are hosts; the diagonals are zero."""

    hosts: tuple[str, ...]  # their names, in the order of their first ranks
    places: tuple[int, ...]  # the host of each rank
    latency: tuple[tuple[float, ...], ...]  # seconds of a message without content
    bandwidth: tuple[tuple[float, ...], ...]  # bytes/s from the row's host to the column's, while both send


def measure_pairs(comm: Any) -> Pairs | None:
    """Latency and bandwidth between every two hosts of `comm`; None where there is only one. All ranks call it."""
    from mpi4py import MPI

    names = every_text(comm, MPI.Get_processor_name())
    hosts = list(dict.fromkeys(names))
    pairs = list(combinations(range(len(hosts)), 2))
    if not pairs:
        return None
    seconds = min(LONGEST, max(SHORTEST, BUDGET / len(pairs)))
    mine = hosts.index(names[comm.Get_rank()])
    speaks = names.index(hosts[mine]) == comm.Get_rank()
    latency, bandwidth = np.zeros((2, len(hosts), len(hosts)))
    for a, b in pairs:
        if speaks and mine in (a, b):
            other, first = a + b - mine, mine == a
            peer = names.index(hosts[other])
            latency[other, mine] = _latency(comm, peer, first, seconds / 4)
            bandwidth[other, mine] = _bandwidth(comm, peer, first, seconds / 2)
        _wait(comm.Ibarrier())
    for measured in (latency, bandwidth):
        comm.Allreduce(MPI.IN_PLACE, measured, MPI.SUM)  # each entry was measured by one rank, and is 0 on the others
    return Pairs(
        tuple(hosts), tuple(map(hosts.index, names)), *(tuple(map(tuple, m.tolist())) for m in (latency, bandwidth))
    )


def _latency(comm: Any, peer: int, first: bool, seconds: float) -> float:
    """Half the median time of a message to `peer` and back, over about `seconds`."""
    nothing = bytearray(1)

    def ping_pong() -> float:
        start = time.perf_counter()
        if first:
            comm.Send(nothing, peer, TAG)
        comm.Recv(nothing, peer, TAG)
        if not first:
            comm.Send(nothing, peer, TAG)
        return time.perf_counter() - start

    ping_pong()  # makes the connection
    count = _agreed(comm, peer, first, seconds / max(ping_pong(), 1e-7))
    return median(ping_pong() for _ in range(count)) / 2


def _bandwidth(comm: Any, peer: int, first: bool, seconds: float) -> float:
    """Bytes/s that come from `peer` while as many go to it, over about `seconds`."""
    sent, received = bytearray(MESSAGE), bytearray(MESSAGE)

    def swap(count: int) -> float:
        """Seconds until `count` messages have come, one after the other."""
        comm.Sendrecv(bytearray(1), peer, TAG, bytearray(1), peer, TAG)  # both begin now
        start = time.perf_counter()
        for _ in range(count):
            request = comm.Isend(sent, peer, TAG)
            comm.Recv(received, peer, TAG)
            arrived = time.perf_counter()
            request.Wait()
        return arrived - start

    count = _agreed(comm, peer, first, seconds / max(swap(1), 1e-7))
    return count * MESSAGE / swap(count)


def _agreed(comm: Any, peer: int, first: bool, count: float) -> int:
    """How often both of a pair measure: as often as the first one finds right."""
    number = np.array([min(MOST, max(1, int(count)))])
    if first:
        comm.Send(number, peer, TAG)
    else:
        comm.Recv(number, peer, TAG)
    return int(number[0])


def _wait(request: Any) -> None:
    while not request.Test():
        time.sleep(PAUSE)
