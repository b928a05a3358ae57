"""Waiting for messages beside a program that computes: a communicator that sleeps where MPI would spin.

MPI's blocking calls, and its Wait, look for messages without pause; in a thread beside the program they take the core
from the computation that they should overlap (benchmarks/overlap.py). Rule: a `PollingComm` communicator has the calls
that the collectives use, with the same arguments, and waits by looking and sleeping; MPI moves the bytes at each look.
"""

from __future__ import annotations

import os
import time
from typing import Any

SHORTEST, LONGEST = 50e-6, 200e-6  # seconds between looks: at first, and when nothing has come for long
TESTS = 8  # calls to a look: Open MPI reads and writes its TCP connections in one of eight (opal_progress)


class Polling:
    """How long a rank's background threads sleep between looks; hurried: the program itself waits, so do not sleep."""

    def __init__(self) -> None:
        self.hurried = False

    def wait(self, *requests: Any) -> None:
        """Until all requests are done."""
        pause = SHORTEST
        for request in requests:
            while not any(request.Test() for _ in range(TESTS)):
                if self.hurried:
                    os.sched_yield()
                    continue
                time.sleep(pause)
                pause = min(2 * pause, LONGEST)


class PollingRequest:
    """A request, which may be persistent, whose Wait is patient."""

    def __init__(self, request: Any, polling: Polling) -> None:
        self._request, self._polling = request, polling

    def Start(self) -> None:
        """Begin, if it is persistent."""
        self._request.Start()

    def Free(self) -> None:
        """Give it back to MPI."""
        self._request.Free()

    def Wait(self) -> None:
        """Until it is done."""
        self._polling.wait(self._request)


class PollingComm:
    """The communicator `comm`, with blocking calls that are patient.

    They hold their buffers until they are done, which mpi4py does not do for each nonblocking call.
    """

    def __init__(self, comm: Any, polling: Polling) -> None:
        self._comm, self._polling = comm, polling
        self.rank, self.size = comm.rank, comm.size
        self.Get_group, self.Free = comm.Get_group, comm.Free

    def Create_group(self, group: Any, tag: int) -> PollingComm:
        """The communicator of a group, as patient."""
        return PollingComm(self._comm.Create_group(group, tag=tag), self._polling)

    def Recv_init(self, *spec: Any) -> PollingRequest:
        """A persistent receive."""
        return PollingRequest(self._comm.Recv_init(*spec), self._polling)

    def Send_init(self, *spec: Any) -> PollingRequest:
        """A persistent send."""
        return PollingRequest(self._comm.Send_init(*spec), self._polling)

    def Isend(self, sent: Any, to: int, tag: int) -> PollingRequest:
        """A send, begun."""
        return PollingRequest(self._comm.Isend(sent, to, tag), self._polling)

    def Irecv(self, into: Any, source: int, tag: int) -> PollingRequest:
        """A receive, begun."""
        return PollingRequest(self._comm.Irecv(into, source, tag), self._polling)

    def Iallgather(self, sent: Any, into: Any) -> PollingRequest:
        """Every member's value to every member, begun."""
        return PollingRequest(self._comm.Iallgather(sent, into), self._polling)

    def Allgather(self, sent: Any, into: Any) -> None:
        """Every member's value to every member."""
        self._polling.wait(self._comm.Iallgather(sent, into))

    def Allreduce(self, sent: Any, into: Any) -> None:
        """MPI's own sum."""
        self._polling.wait(self._comm.Iallreduce(sent, into))

    def Bcast(self, value: Any, root: int) -> None:
        """The root's value to every member."""
        self._polling.wait(self._comm.Ibcast(value, root))
