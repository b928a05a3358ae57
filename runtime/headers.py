"""Headers: what every reduction carries in addition to its value, without a message of its own.

A header holds the member's weight, a fingerprint of the collective that it takes part in, and whether it was asked to
stop. So every reduction finds out whether its members agree, and a stop needs no exchange of its own.

A small all-reduce is bound by the time from call to call, not by bytes. Therefore a header exchange is prepared once
for each kind of reduction (requests, buffers, bound methods) and used again, and a small value travels in the same
message, right behind the header. Its own header a member rewrites only when its weight or its wish to stop changes, and
what it receives it compares with the bytes of last time before it looks inside: both are almost always the same.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..program.effects import Array
from ..program.errors import ProtocolError

if TYPE_CHECKING:
    from mpi4py import MPI

HEADER = struct.Struct("<dII")  # weight, fingerprint, stop: 16 bytes, so that a float64 value behind it is aligned
TAG = 11  # the message tag of an exchange between two members


@dataclass(frozen=True)
class Members:
    """The members of a group."""

    comm: MPI.Intracomm  # the group's own communicator
    workers: tuple[int, ...]  # the members' numbers among all workers, in rank order
    rank: int  # this worker's place among them
    world: bool  # whether they are all workers

    @property
    def count(self) -> int:
        """How many members there are."""
        return len(self.workers)


class Headers:
    """The header exchange of one kind of reduction. This class itself serves a group of one; see `make_headers`.

    members: those that exchange.
    payload: bytes of each member's value that travel behind its header.
    what: the collective in words; its checksum is the fingerprint.
    """

    def __init__(self, members: Members, payload: int, what: str) -> None:
        self.members, self.what = members, what
        self.weights: tuple[float, ...] = ()  # the members', as the headers said
        self.stop = False  # whether any member was asked to stop
        self._print = zlib.crc32(what.encode())
        # This member's header and those that it received, as they were last time.
        self._weight, self._asked, self._seen, self._last = float("nan"), False, b"", b""
        # Each member's payload as bytes, in rank order, valid from `finish` (or `exchange`) until the next `begin`.
        # The caller writes this member's into values[rank] before it begins.
        self.values = self._prepare(payload)

    def begin(self, weight: float, stop: bool) -> None:
        """Send this member's header and payload."""
        self._write(weight, stop)
        self._start()

    def finish(self) -> bool:
        """Wait for all headers and payloads. True if any header differs from last time's.

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
        """Write this member's header, unless it is the same as last time."""
        if weight != self._weight or stop is not self._asked or not self._seen:
            self._weight, self._asked, self._seen, self._last = weight, stop, b"", b""
            HEADER.pack_into(self._own, 0, weight, self._print, stop)

    def _compare(self, seen: bytes) -> bool:
        """Read the headers (16 bytes of each member, in rank order), unless they are the same as last time."""
        if seen == self._seen:
            return False
        fields = list(HEADER.iter_unpack(seen))
        others = [w for w, f in zip(self.members.workers, fields, strict=True) if f[1] != self._print]
        if others:
            names = ", ".join(f"worker {w}" for w in others)
            me = self.members.workers[self.members.rank]
            raise ProtocolError(
                f"worker {me} takes part in {self.what}, but {names} in something else; run with debug to see in what"
            )
        self.weights = tuple(f[0] for f in fields)
        self.stop = any(f[2] for f in fields)
        self._seen = seen
        return True


class PairHeaders(Headers):
    """Between two members: persistent requests, which take half the time of an all-gather."""

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
        self._received()
        self._sent()
        return self._read()

    def exchange(self, weight: float, stop: bool) -> bool:
        # Small reductions spend their time here: what `begin` and `finish` do, without their calls.
        if weight != self._weight or stop is not self._asked:
            self._write(weight, stop)
        self._receive()
        self._send()
        self._received()
        self._sent()
        return self._read() if self._theirs() != self._last else False

    def _read(self) -> bool:
        mine, self._last = self._mine(), self._theirs()
        return self._compare(mine + self._last if self.members.rank == 0 else self._last + mine)

    def close(self) -> None:
        for request in self._kept[1:]:
            request.Free()


class GroupHeaders(Headers):
    """Among three or more members: one all-gather."""

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
        self._request.Wait()
        return self._heads()

    def exchange(self, weight: float, stop: bool) -> bool:
        # The blocking call is a few microseconds faster than the nonblocking one and its wait.
        self._write(weight, stop)
        self.members.comm.Allgather(*self._specs)
        return self._compare(self._heads())


def make_headers(members: Members, payload: int, what: str) -> Headers:
    """The header exchange for this number of members. payload: bytes behind each header."""
    kinds = {1: Headers, 2: PairHeaders}
    return kinds.get(members.count, GroupHeaders)(members, payload, what)
