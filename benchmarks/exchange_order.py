"""Which order of sending fills a 1 Gbit/s port: sends before receives, as here, or MPI's own collectives?

Ranks in network namespaces with shaped ports (runtime/star.py; skipped, with the reason, where these cannot be made)
exchange parts of a vector, all with all, and gather them again, as an ordered all-reduce does without its fold: several
times in a row, as the units of a model are reduced. The ways take turns in one mpirun:

- blocking: MPI's Alltoallv and Allgatherv; nonblocking: Ialltoallv and Iallgatherv, and a wait;
- receives first: Irecv from everyone, then Isend to everyone; sends first: runtime/exchange.py.

With TCP's congestion control Reno, and with BBR where the machine has it. The baseline is the ports' rate, so that a
ratio is the share of it at which the payload travelled. All ways must give the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from paceline.runtime.exchange import exchange
from paceline.runtime.headers import TAG
from paceline.runtime.star import Star

from .form import Row, compare
from .harness import Found, Run, Skipped
from .ranks import on_ranks

SECONDS = 120
RATE, BYTES, TURNS, ROW = 125e6, (1_000_000, 8_000_000), 9, 8
LINE = "the port's rate"
CONTROLS = Path("/proc/sys/net/ipv4/tcp_allowed_congestion_control")

Parts = list[np.ndarray[Any, Any]]
Way = Callable[[Parts, Parts], None]  # (what goes to each rank, what comes from each)


def ways(comm: Any) -> dict[str, tuple[Way, Way]]:
    """Each way's scattering and gathering."""
    from mpi4py import MPI

    rank, others = comm.rank, [r for r in range(comm.size) if r != comm.rank]

    def done(request: Any) -> None:
        if request is not None:  # a nonblocking call's
            request.Wait()

    def scattering(call: Callable[..., Any]) -> Way:
        def scatter(outgoing: Parts, incoming: Parts) -> None:
            counts = [0 if r == rank else part.size for r, part in enumerate(outgoing)]
            offsets = [part.size * r for r, part in enumerate(outgoing)]
            done(call([outgoing[0].base, counts, offsets, MPI.BYTE], [incoming[0].base, counts, offsets, MPI.BYTE]))

        return scatter

    def gathering(call: Callable[..., Any]) -> Way:
        def gather(outgoing: Parts, incoming: Parts) -> None:
            done(call(outgoing[rank], [incoming[0].base, [part.size for part in incoming], None, MPI.BYTE]))

        return gather

    def receives_first(outgoing: Parts, incoming: Parts) -> None:
        requests = [comm.Irecv(incoming[r], r, TAG) for r in others]
        MPI.Request.Waitall(requests + [comm.Isend(outgoing[r], r, TAG) for r in others])

    def sends_first(outgoing: Parts, incoming: Parts) -> None:
        exchange(comm, outgoing, incoming, MPI.BYTE)

    return {
        "blocking": (scattering(comm.Alltoallv), gathering(comm.Allgatherv)),
        "nonblocking": (scattering(comm.Ialltoallv), gathering(comm.Iallgatherv)),
        "receives first": (receives_first, receives_first),
        "sends first": (sends_first, sends_first),
    }


def on_rank(comm: Any, nbytes: int, run: Run) -> dict[str, list[float]]:
    """Milliseconds of an exchange by each way, and at the rate of the ports, turn by turn."""
    rank, size = comm.rank, comm.size
    own = np.random.Generator(np.random.PCG64(rank)).integers(0, 256, nbytes // size * size, np.uint8)
    arrived, gathered = np.zeros_like(own), np.zeros_like(own)
    parts = [
        [vector[r * own.size // size : (r + 1) * own.size // size] for r in range(size)]
        for vector in (own, arrived, gathered)
    ]
    calls = ways(comm)
    taken: dict[str, list[float]] = {name: [] for name in (*calls, LINE)}
    answers = {}
    for turn in run.turns(TURNS, comm):
        for name in reversed(list(calls)) if turn % 2 else calls:
            scatter, gather = calls[name]
            comm.Barrier()
            start = perf_counter()
            for _ in range(ROW):
                scatter(parts[0], parts[1])
                gather([parts[0][rank]] * size, parts[2])
            comm.Barrier()
            seconds = (perf_counter() - start) / ROW
            parts[1][rank][...], parts[2][rank][...] = parts[0][rank], parts[0][rank]
            answers[name] = arrived.tobytes() + gathered.tobytes()
            arrived[...] = gathered[...] = 0
            if turn >= 0:
                taken[name].append(seconds * 1e3)
    assert len(set(answers.values())) == 1
    taken[LINE] = [2 * (size - 1) / size * own.size / RATE * 1e3] * len(taken["sends first"])
    return taken


def laid(ranks: int, congestion: str = "reno") -> Star:
    """A node per rank, with ports of RATE bytes/s."""
    return Star(tuple(range(ranks)), (RATE,) * ranks, congestion)


def measure(run: Run) -> Found:
    if reason := laid(2).obstacle():
        raise Skipped(reason)
    controls = [name for name in ("reno", "bbr") if name in CONTROLS.read_text().split()]
    kinds = [("reno", 2, 100_000)] if run.small else list(product(controls, (2, 4), BYTES))
    rows: list[Row] = []
    for control, ranks, nbytes in kinds:
        taken = on_ranks(on_rank, ranks, nbytes, run.share(len(kinds)), star=laid(ranks, control))
        case = f"{control}, {ranks} ranks, {nbytes / 1e6:g} MB"
        rows += [compare(case, way, LINE, taken, limit=LINE, unit="ms") for way in taken if way != LINE]
    return Found(rows)
