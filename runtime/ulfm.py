"""Going on without lost ranks, by Open MPI's ULFM (User-Level Failure Mitigation): `mpirun --with-ft ulfm`.

There, a call that needs a lost rank raises an error instead of waiting, and the remaining ranks can make a communicator
without it. Other MPIs end the whole job.

Rule: a communicator of which a rank is lost is revoked and then left alone, not freed, since its messages may still be
on their way.
"""

from __future__ import annotations

import ctypes
import os
import signal
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ..program.errors import WorkerLost, are_lost

NEWS = 2.0  # seconds in which the news of a loss comes
ENABLED = "OMPI_MCA_mpi_ft_enable"  # mpirun sets it for ranks that it starts with ULFM


def survives() -> bool:
    """Whether this rank's MPI goes on when another rank is lost."""
    return os.environ.get(ENABLED, "").lower() in ("1", "true", "yes")


def tells_of_loss(error: BaseException) -> bool:
    """Whether an error of MPI may say that a rank is lost, or that another rank has found that out.

    Where a connection breaks before MPI knows of the loss, it gives an error of no special kind.
    """
    from mpi4py import MPI

    ours = (MPI.ERR_TRUNCATE, MPI.ERR_TYPE, MPI.ERR_COUNT, MPI.ERR_BUFFER, MPI.ERR_TAG, MPI.ERR_RANK)
    return survives() and isinstance(error, MPI.Exception) and error.Get_error_class() not in ours


def revoke(comms: Iterable[Any]) -> None:
    """Let every rank come out of what it waits for in these communicators, with an error, now and later."""
    from mpi4py import MPI

    for comm in comms:
        with suppress(MPI.Exception):
            comm.Revoke()


@contextmanager
def noticing(comm: Any, *others: Any) -> Iterator[None]:
    """Around what waits for the ranks of `comm`. WorkerLost where one is lost; then the others do not wait any longer.

    others: further communicators of these ranks.
    """
    try:
        yield
    except Exception as error:
        if not tells_of_loss(error):
            raise
        revoke((comm, *others))
        lost = known_lost(comm)
        raise WorkerLost(f"{are_lost(lost)}: {error}", lost) from error


def settle(comm: Any, requests: Sequence[Any]) -> None:
    """After an error in one of these requests: return when MPI has let go of the memory of all of them."""
    from mpi4py import MPI

    if survives():
        revoke((comm,))  # otherwise a rank that has left would be waited for
        for request in requests:
            with suppress(MPI.Exception):
                request.Wait()


def known_lost(comm: Any) -> tuple[int, ...]:
    """The ranks of `comm` that this rank knows to be lost. Others may know of more."""
    from mpi4py import MPI

    with suppress(MPI.Exception):
        return _places(comm.Get_failed(), comm)
    return ()


def agreed(comm: Any, fine: bool) -> bool:
    """Whether all remaining ranks say so. All of them call it, and get the same answer; it works on what is revoked."""
    from mpi4py import MPI

    while True:
        with suppress(MPI.Exception):  # a loss that not all knew of: all get this error, and try again
            comm.Ack_failed()
            return bool(comm.Agree(int(fine)))


def soon_lost(comm: Any) -> tuple[int, ...]:
    """The lost ranks of `comm`, where the others go on. The news of a loss that has just been may take a moment."""
    from mpi4py import MPI

    until = time.monotonic() + NEWS
    while survives() and time.monotonic() < until:
        with suppress(MPI.Exception):
            comm.Iprobe()  # MPI looks for news only when it is called
        if lost := known_lost(comm):
            return lost
        time.sleep(0.01)
    return ()


def without_lost(comm: Any) -> tuple[Any, tuple[int, ...]]:
    """(a communicator of the remaining ranks of `comm`, in their order; the lost ones). All remaining ranks call it."""
    from mpi4py import MPI

    found = comm.Shrink()
    return found, _places(MPI.Group.Difference(comm.Get_group(), found.Get_group()), comm)


def remaining(comm: Any) -> Any:
    """Wait for all ranks that are left; a communicator of these."""
    if not survives():
        comm.Barrier()
        return comm
    agreed(comm, True)
    if agreed(comm, not known_lost(comm)):
        return comm
    _finalize_alone()
    return without_lost(comm)[0]


def _finalize_alone() -> None:
    """Let this rank finalize MPI without the others. Open MPI 5.0.11 waits for lost ranks there, at times for ever.

    Its switch for that is a variable of its library.
    """
    maps = Path("/proc/self/maps")
    lines = maps.read_text().splitlines() if maps.exists() else []
    for path in {line.split()[-1] for line in lines if "/libmpi.so" in line}:
        with suppress(ValueError):  # another version's, without this variable
            ctypes.c_bool.in_dll(ctypes.CDLL(path), "ompi_async_mpi_finalize").value = True


def _places(group: Any, comm: Any) -> tuple[int, ...]:
    """The ranks in `comm` of a group's processes."""
    from mpi4py import MPI

    found = MPI.Group.Translate_ranks(group, range(group.Get_size()), comm.Get_group())
    return tuple(sorted(found))


def leave() -> None:
    """End this process so that the others notice at once. (An exit status alone tells Open MPI's mpirun nothing.)"""
    os.kill(os.getpid(), signal.SIGKILL)
