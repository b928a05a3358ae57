"""How a rank ends its job: one of the ranks says why, and MPI ends them all.

Rule: what a rank says passes through mpirun before the end, and one of several ranks that fail in the same way says it.
"""

from __future__ import annotations

import sys
import time
from contextlib import suppress
from pathlib import Path

from . import job_signs, ulfm

GRACE = 5.0  # seconds that an mpirun has to end its ranks, before it is killed


def abort(rank: int, size: int, text: str, status: int, alone: bool = False) -> None:
    """Print what happened, unless a lower rank fails at the same time, and end the job.

    alone: end this rank alone where the others can go on without it.
    """
    from mpi4py import run

    run.set_abort_status(status)  # if anything keeps the abort below from happening, exiting aborts as well
    sys.stdout.flush()
    said = text if text and not _lower_rank_speaks(rank, size) else ""
    if alone and rank > 0 and ulfm.survives():
        _say_last(said)
        ulfm.leave()
    end_job(said, status)


def end_job(text: str, status: int = 1) -> None:
    """Print a line and end the job, from any thread of this rank, whatever its program waits for."""
    from mpi4py import MPI

    _say_last(text)
    _unlink_shared_memory()
    job_signs.ends(status)
    MPI.COMM_WORLD.Abort(status)


def _say_last(text: str) -> None:
    if text:
        print(text, file=sys.stderr, flush=True)
        time.sleep(0.1)  # so that the text passes through mpirun before it closes the pipes


def _unlink_shared_memory() -> None:
    """Remove the MPI's shared memory files that this process has mapped: MPICH's abort would leave them for good."""
    maps = Path("/proc/self/maps")
    lines = maps.read_text().splitlines() if maps.exists() else []
    for path in {line.split()[-1] for line in lines if "/dev/shm/mpich_shm" in line}:
        Path(path).unlink(missing_ok=True)


def _lower_rank_speaks(rank: int, size: int) -> bool:
    """Tell the higher ranks that this one fails, and look for a moment whether a lower one does, too."""
    from mpi4py import MPI

    comm, tag, nothing = MPI.COMM_WORLD, 29_999, bytearray()
    pending = []
    for other in range(rank + 1, size):
        with suppress(MPI.Exception):  # it is lost
            pending.append(comm.Isend([nothing, 0, MPI.BYTE], other, tag))
    until = time.monotonic() + 0.5
    while rank and time.monotonic() < until:
        for other in range(rank):  # not any source at once: that is an error where one of them is lost
            with suppress(MPI.Exception):
                if comm.Iprobe(other, tag):
                    time.sleep(GRACE)  # meanwhile the other rank's abort ends this process
                    return True
        time.sleep(0.01)
    with suppress(MPI.Exception):
        MPI.Request.Testall(pending)
    return False
