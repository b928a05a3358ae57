"""Waiting for messages while the program computes: a communicator that sleeps where MPI would spin.

MPI's blocking calls, and its Wait, look for messages without pause. In a thread next to the program they would take the
core from the very computation that they are to overlap (benchmarks/overlap.py). So a `PollingComm`, which has the calls
that the collectives use, with the same arguments, waits by looking and sleeping in turn. MPI moves bytes only when it
is called, so the sleeps are short at first, and when the program itself waits there are none.
"""

from __future__ import annotations

import os
import time
from typing import Any

# Seconds between looks: at first, and when nothing has come for a while. A look takes some 30 us from the computation.
# Between two looks the kernel's buffers take what arrives and send what was handed to them.
SHORTEST, LONGEST = 100e-6, 400e-6
TESTS = 8  # calls in one look: Open MPI reads and writes its TCP connections in one of eight (opal_progress)


class Polling:
    """How the threads of a rank's started effects wait."""

    def __init__(self) -> None:
        self.hurried = False  # whether the program itself waits: then they do not sleep

    def wait(self, *requests: Any) -> None:
        """Return when all requests are done."""
        pause = SHORTEST
        for request in requests:
            while not any(request.Test() for _ in range(TESTS)):
                if self.hurried:
                    os.sched_yield()
                    continue
                time.sleep(pause)
                pause = min(2 * pause, LONGEST)


class PollingRequest:
    """An MPI request, perhaps a persistent one, whose Wait polls."""

    def __init__(self, request: Any, polling: Polling) -> None:
        self._request, self._polling = request, polling

    def Start(self) -> None:
        """Begin a persistent request."""
        self._request.Start()

    def Free(self) -> None:
        """Give it back to MPI."""
        self._request.Free()

    def Wait(self) -> None:
        """Return when it is done."""
        self._polling.wait(self._request)


class PollingComm:
    """The communicator `comm`, with blocking calls that poll.

    They hold their buffers until they are done, which mpi4py does not do for every nonblocking call.
    """

    def __init__(self, comm: Any, polling: Polling) -> None:
        self._comm, self._polling = comm, polling
        self.rank, self.size = comm.rank, comm.size
        self.Get_group, self.Free, self.Revoke = comm.Get_group, comm.Free, comm.Revoke

    def Create_group(self, group: Any, tag: int) -> PollingComm:
        """The communicator of a group, which polls, too."""
        return PollingComm(self._comm.Create_group(group, tag=tag), self._polling)

    def Recv_init(self, *spec: Any) -> PollingRequest:
        """A persistent receive."""
        return PollingRequest(self._comm.Recv_init(*spec), self._polling)

    def Send_init(self, *spec: Any) -> PollingRequest:
        """A persistent send."""
        return PollingRequest(self._comm.Send_init(*spec), self._polling)

    def Isend(self, sent: Any, to: int, tag: int) -> PollingRequest:
        """Begin a send."""
        return PollingRequest(self._comm.Isend(sent, to, tag), self._polling)

    def Irecv(self, into: Any, source: int, tag: int) -> PollingRequest:
        """Begin a receive."""
        return PollingRequest(self._comm.Irecv(into, source, tag), self._polling)

    def Iallgather(self, sent: Any, into: Any) -> PollingRequest:
        """Begin to send every member's value to every member."""
        return PollingRequest(self._comm.Iallgather(sent, into), self._polling)

    def Allgather(self, sent: Any, into: Any) -> None:
        """Send every member's value to every member."""
        self._polling.wait(self._comm.Iallgather(sent, into))

    def Allreduce(self, sent: Any, into: Any) -> None:
        """Sum by MPI itself."""
        self._polling.wait(self._comm.Iallreduce(sent, into))

    def Bcast(self, value: Any, root: int) -> None:
        """Send the root's value to every member."""
        self._polling.wait(self._comm.Ibcast(value, root))
