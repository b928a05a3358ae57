"""Headers: what every reduction carries besides its value, at no message of its own.

A header holds the member's weight, a fingerprint of what it takes part in, and whether it was asked to stop. Rules of
this file: a header exchange is prepared once per kind of reduction and reused, so a small reduction costs one message
step and a few microseconds; small values ride behind the header. Everything travels as raw bytes, never pickled.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..program.effects import Array
from ..program.errors import ProtocolError, WorkerLost

if TYPE_CHECKING:
    from mpi4py import MPI

HEADER = struct.Struct("<dII")  # weight, fingerprint, stop: 16 bytes, so that a float64 value behind it is aligned
TAG = 11  # of the two-member exchange


@dataclass(frozen=True)
class Members:
    """Who takes part: a communicator of its own, the workers' numbers in rank order, this one's place among them."""

    comm: MPI.Intracomm
    workers: tuple[int, ...]
    rank: int
    world: bool

    @property
    def count(self) -> int:
        """How many take part."""
        return len(self.workers)


class Headers:
    """The header exchange of one kind of reduction; on its own it serves a group of one.

    values: each member's payload as bytes, in rank order, valid from `finish` (or `exchange`) until the next `begin`;
    the caller writes its own into `values[rank]` before that. weights, stop: what the headers said.
    """

    def __init__(self, members: Members, payload: int, what: str) -> None:
        self.members, self.what = members, what
        self.weights: tuple[float, ...] = ()
        self.stop = False
        self._print = zlib.crc32(what.encode())
        self._weight, self._asked, self._seen, self._last = float("nan"), False, b"", b""
        self.values = self._prepare(payload)

    def begin(self, weight: float, stop: bool) -> None:
        """Send this member's header and payload."""
        self._write(weight, stop)
        self._start()

    def finish(self) -> bool:
        """Wait for everyone's header and payload; True if any header differs from last time's.

        ProtocolError where a member takes part in something else.
        """
        return self._compare(self._await())

    def exchange(self, weight: float, stop: bool) -> bool:
        """`begin` and `finish` in one."""
        self._write(weight, stop)
        self._start()
        return self._compare(self._await())

    def close(self) -> None:
        """Give back what MPI holds."""

    def _prepare(self, payload: int) -> list[Array]:
        self._own: Any = np.zeros(HEADER.size + payload, np.uint8)
        return [self._own[HEADER.size :]]

    def _start(self) -> None:
        pass

    def _await(self) -> bytes:
        return bytes(self._own[: HEADER.size])

    def _write(self, weight: float, stop: bool) -> None:
        """This member's header, which is the same as last time's almost always."""
        if weight != self._weight or stop is not self._asked or not self._seen:
            self._weight, self._asked, self._seen, self._last = weight, stop, b"", b""
            HEADER.pack_into(self._own, 0, weight, self._print, stop)

    def _compare(self, seen: bytes) -> bool:
        """Take in the headers, 16 bytes of each member in rank order, if they are new."""
        if seen == self._seen:
            return False
        fields = list(HEADER.iter_unpack(seen))
        strangers = [w for w, f in zip(self.members.workers, fields, strict=True) if f[1] != self._print]
        if strangers:
            names = ", ".join(f"worker {w}" for w in strangers)
            me = self.members.workers[self.members.rank]
            raise ProtocolError(
                f"worker {me} takes part in {self.what}, but {names} in something else; run with debug to see in what"
            )
        self.weights = tuple(f[0] for f in fields)
        self.stop = any(f[2] for f in fields)
        self._seen = seen
        return True


class PairHeaders(Headers):
    """Between two members: persistent requests, which cost half of what a gather costs."""

    def _prepare(self, payload: int) -> list[Array]:
        from mpi4py import MPI

        comm, rank = self.members.comm, self.members.rank
        own, other = super()._prepare(payload)[0], np.zeros(HEADER.size + payload, np.uint8)
        receive = comm.Recv_init([other, other.size, MPI.BYTE], 1 - rank, TAG)
        send = comm.Send_init([self._own, self._own.size, MPI.BYTE], 1 - rank, TAG)
        # A persistent request does not keep its buffer alive: `_kept` does.
        self._kept = (other, send, receive)
        self._receive, self._send = receive.Start, send.Start
        self._received, self._sent = receive.Wait, send.Wait
        self._mine, self._theirs = self._own[: HEADER.size].tobytes, other[: HEADER.size].tobytes
        theirs = other[HEADER.size :]
        return [own, theirs] if rank == 0 else [theirs, own]

    def begin(self, weight: float, stop: bool) -> None:
        self._write(weight, stop)
        self._receive()
        self._send()

    def finish(self) -> bool:
        try:
            self._received()
            self._sent()
        except mpi_error() as error:
            raise misfit(self.what, error) from error
        return self._read()

    def exchange(self, weight: float, stop: bool) -> bool:
        # The path of a small reduction: no call more than it needs.
        if weight != self._weight or stop is not self._asked:
            self._write(weight, stop)
        try:
            self._receive()
            self._send()
            self._received()
            self._sent()
        except mpi_error() as error:
            raise misfit(self.what, error) from error
        return self._read() if self._theirs() != self._last else False

    def _read(self) -> bool:
        mine, self._last = self._mine(), self._theirs()
        return self._compare(mine + self._last if self.members.rank == 0 else self._last + mine)

    def close(self) -> None:
        for request in self._kept[1:]:
            request.Free()


class GroupHeaders(Headers):
    """Among three or more: one all-gather."""

    def _prepare(self, payload: int) -> list[Array]:
        from mpi4py import MPI

        width = -(-(HEADER.size + payload) // 8) * 8  # whole words, so that every member's payload is aligned
        super()._prepare(width - HEADER.size)
        self._all = np.zeros((self.members.count, width), np.uint8)
        self._specs: Any = ([self._own, width, MPI.BYTE], [self._all, width, MPI.BYTE])
        self._request: Any = None
        self._heads = self._all[:, : HEADER.size].tobytes
        own = self._own[HEADER.size : HEADER.size + payload]
        return [
            own if r == self.members.rank else row[HEADER.size : HEADER.size + payload]
            for r, row in enumerate(self._all)
        ]

    def _start(self) -> None:
        self._request = self.members.comm.Iallgather(*self._specs)

    def _await(self) -> bytes:
        try:
            self._request.Wait()
        except mpi_error() as error:
            raise misfit(self.what, error) from error
        return self._heads()

    def exchange(self, weight: float, stop: bool) -> bool:
        # The blocking call is a few microseconds quicker than the nonblocking one and its wait.
        self._write(weight, stop)
        try:
            self.members.comm.Allgather(*self._specs)
        except mpi_error() as error:
            raise misfit(self.what, error) from error
        return self._compare(self._heads())


def make_headers(members: Members, payload: int, what: str) -> Headers:
    """The header exchange that suits the number of members. payload: bytes that ride behind each header."""
    kinds = {1: Headers, 2: PairHeaders}
    return kinds.get(members.count, GroupHeaders)(members, payload, what)


def mpi_error() -> type[MPI.Exception]:
    """MPI's exception, looked up only when one is under way."""
    from mpi4py import MPI

    return MPI.Exception


def misfit(what: str, error: MPI.Exception) -> Exception:
    """What an error of MPI during an exchange means."""
    from mpi4py import MPI

    if error.Get_error_class() == MPI.ERR_TRUNCATE:
        return ProtocolError(f"{what}: another worker sent more than fits; run with debug to see what it takes part in")
    return WorkerLost(f"{what}: {error.Get_error_string()}")
