"""Large exchanges over 1 Gbit/s: sends begun before receives (runtime/exchange.py) against MPI's own collectives.

    python benchmarks/exchange_order.py [--small]

Ranks in network namespaces with shaped ports (runtime/star.py; skipped, with the reason, where these cannot be made)
exchange parts of a vector, all with all, and gather them again, as an ordered all-reduce does without its fold: several
times in a row, as the units of a model are reduced. The ways take turns in one mpirun:

- blocking: MPI's Alltoallv and Allgatherv; nonblocking: Ialltoallv and Iallgatherv, and a wait;
- receives first: Irecv from everyone, then Isend to everyone; sends first: runtime/exchange.py.

With TCP's congestion control Reno, and with BBR where the machine has it. Reported: the share of the ports' rate at
which the payload travelled; median over rounds. All ways must give the same bytes.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
from collections.abc import Callable
from itertools import product
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from paceline.records.environment import environment
from paceline.runtime.exchange import exchange
from paceline.runtime.headers import TAG
from paceline.runtime.launcher import abort_on_error, launch, under_mpirun
from paceline.runtime.star import Star

RESULTS = Path(__file__).parent / "results" / "exchange_order.json"
RATE, BYTES, ROUNDS, ROW = 125e6, (1_000_000, 8_000_000), 9, 8
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


def measure(nbytes: int, rounds: int, path: Path) -> None:
    """On every rank; rank 0 writes each way's share of the rate."""
    from mpi4py import MPI

    comm = MPI.COMM_WORLD
    rank, size = comm.rank, comm.size
    own = np.random.Generator(np.random.PCG64(rank)).integers(0, 256, nbytes // size * size, np.uint8)
    arrived, gathered = np.zeros_like(own), np.zeros_like(own)
    parts = [
        [vector[r * own.size // size : (r + 1) * own.size // size] for r in range(size)]
        for vector in (own, arrived, gathered)
    ]
    shares: dict[str, list[float]] = {}
    answers, calls = {}, ways(comm)
    for _ in range(rounds + 1):
        for name, (scatter, gather) in calls.items():
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
            shares.setdefault(name, []).append(2 * (size - 1) / size * own.size / seconds / RATE)
    assert len(set(answers.values())) == 1
    if rank == 0:
        path.write_text(json.dumps({name: round(statistics.median(found[1:]), 3) for name, found in shares.items()}))


def laid(ranks: int, congestion: str = "reno") -> Star:
    """A node per rank, with ports of RATE bytes/s."""
    return Star(tuple(range(ranks)), (RATE,) * ranks, congestion)


def main() -> None:
    small = "--small" in sys.argv
    if under_mpirun():
        with abort_on_error():
            measure(int(sys.argv[-2]), 2 if small else ROUNDS, Path(sys.argv[-1]))
        return
    if reason := laid(2).obstacle():
        print(f"skipped: {reason}")
        return
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.json"
        controls = [name for name in ("reno", "bbr") if name in CONTROLS.read_text().split()]
        for control, ranks in [("reno", 2)] if small else product(controls, (2, 4)):
            for nbytes in (100_000,) if small else BYTES:
                arguments = [*sys.argv[1:], str(nbytes), str(path)]
                if launch(arguments, ranks, program=[__file__], star=laid(ranks, control)):
                    raise SystemExit(1)
                row = {"congestion": control, "ranks": ranks, "bytes": nbytes, "load_average": os.getloadavg()[0]}
                shares = json.loads(path.read_text())
                rows.append({**row, "share_of_rate": shares})
                print(f"{control:4} {ranks} ranks, {nbytes / 1e6:g} MB: {shares}", flush=True)
    if not small:
        RESULTS.write_text(json.dumps({"environment": environment(1), "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
