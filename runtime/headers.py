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
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..program.effects import Array
from ..program.errors import ProtocolError, WorkerLost, are_lost
from .ulfm import soon_lost, survives

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
        # This member's header and all headers, as they were last time.
        self._weight, self._asked, self._seen = float("nan"), False, b""
        # Each member's payload as bytes, in rank order, valid from `finish` (or `exchange`) until the next `begin`.
        # The caller writes this member's into values[rank] before it begins.
        self.values = self._prepare(payload)
        # `begin` and `finish` in one: exchange(weight, stop).
        self.exchange: Callable[[float, bool], bool] = self._exchanging()

    def begin(self, weight: float, stop: bool) -> None:
        """Send this member's header and payload."""
        self._write(weight, stop)
        self._start()

    def finish(self) -> bool:
        """Wait for all headers and payloads. True if any header differs from last time's.

        ProtocolError where a member takes part in something else, WorkerLost where one is lost.
        """
        return self._compare(self._await())

    def close(self) -> None:
        """Give back what MPI holds."""

    def _prepare(self, payload: int) -> list[Array]:
        self._own: Any = np.zeros(HEADER.size + payload, np.uint8)
        return [self._own[HEADER.size :]]

    def _exchanging(self) -> Callable[[float, bool], bool]:
        def exchange(weight: float, stop: bool) -> bool:
            self.begin(weight, stop)
            return self.finish()

        return exchange

    def _start(self) -> None:
        pass

    def _await(self) -> bytes:
        return bytes(self._own[: HEADER.size])

    def _write(self, weight: float, stop: bool) -> None:
        """Write this member's header, unless it is the same as last time."""
        if weight != self._weight or stop is not self._asked or not self._seen:
            self._weight, self._asked, self._seen = weight, stop, b""
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
            # Where a rank is lost in the middle of an exchange over TCP, Open MPI 5.0.11 may end it here without an
            # error, and without all headers.
            if lost := soon_lost(self.members.comm):
                raise WorkerLost(f"{are_lost(lost)}: {self.what} has ended without {names}", lost)
            raise ProtocolError(
                f"worker {me} takes part in {self.what}, but {names} in something else; run with debug to see in what"
            )
        self.weights = tuple(f[0] for f in fields)
        self.stop = any(f[2] for f in fields)
        self._seen = seen
        return True


class PairHeaders(Headers):
    """Between two members: persistent requests, which take two thirds of the time of an all-gather or a Sendrecv."""

    def _prepare(self, payload: int) -> list[Array]:
        from mpi4py import MPI

        comm, rank = self.members.comm, self.members.rank
        own, other = super()._prepare(payload)[0], np.zeros(HEADER.size + payload, np.uint8)
        receive = comm.Recv_init([other, other.size, MPI.BYTE], 1 - rank, TAG)
        send = comm.Send_init([self._own, self._own.size, MPI.BYTE], 1 - rank, TAG)
        # A persistent request does not keep its buffer alive: `_kept` does.
        self._kept = (other, send, receive)
        theirs = other[HEADER.size :]
        return [own, theirs] if rank == 0 else [theirs, own]

    def _exchanging(self) -> Callable[[float, bool], bool]:
        # Small reductions spend their time here. Names of a closure are found faster than attributes.
        other, send, receive = self._kept
        start_receive, start_send, received, sent = receive.Start, send.Start, receive.Wait, send.Wait
        words = other.data[: HEADER.size].cast("q")
        own_weight, own_stop = float("nan"), False  # this member's header of last time
        first: int | None = None  # the other's, as two numbers; None: to be read whatever it says
        second: int | None = None

        def exchange(weight: float, stop: bool) -> bool:
            nonlocal own_weight, own_stop, first, second
            if weight != own_weight or stop is not own_stop:
                own_weight, own_stop, first = weight, stop, None
                self._write(weight, stop)
            start_receive()
            start_send()
            received()
            sent()
            if words[0] == first and words[1] == second:
                return False
            changed = self._compare(self._heads())
            first, second = words
            return changed

        return exchange

    def _start(self) -> None:
        _, send, receive = self._kept
        receive.Start()
        send.Start()

    def _await(self) -> bytes:
        _, send, receive = self._kept
        receive.Wait()
        send.Wait()
        return self._heads()

    def _heads(self) -> bytes:
        mine, theirs = bytes(self._own[: HEADER.size]), bytes(self._kept[0][: HEADER.size])
        return mine + theirs if self.members.rank == 0 else theirs + mine

    def close(self) -> None:
        for request in self._kept[1:]:
            request.Free()


class GroupHeaders(Headers):
    """Among three or more members: one all-gather."""

    def _prepare(self, payload: int) -> list[Array]:
        from mpi4py import MPI

        width = -(-(HEADER.size + payload) // 8) * 8  # whole words, so that every member's payload is aligned
        self._all = np.zeros((self.members.count, width), np.uint8)
        self._own = self._all[self.members.rank]
        self._specs: Any = (MPI.IN_PLACE, [self._all, width, MPI.BYTE])
        comm = self.members.comm
        self._gather: Callable[..., Any] = self._erasing(comm.Allgather) if survives() else comm.Allgather
        self._begin: Callable[..., Any] = self._erasing(comm.Iallgather) if survives() else comm.Iallgather
        self._request: Any = None
        self._heads = self._all[:, : HEADER.size].tobytes
        return [row[HEADER.size : HEADER.size + payload] for row in self._all]

    def _exchanging(self) -> Callable[[float, bool], bool]:
        # The blocking call is a few microseconds faster than the nonblocking one and its wait.
        gather, (own, everyone), write, compare, heads = (
            self._gather,
            self._specs,
            self._write,
            self._compare,
            self._heads,
        )

        def exchange(weight: float, stop: bool) -> bool:
            write(weight, stop)
            gather(own, everyone)
            return compare(heads())

        return exchange

    def _start(self) -> None:
        self._request = self._begin(*self._specs)

    def _erasing(self, gather: Callable[..., Any]) -> Callable[..., Any]:
        """An all-gather before which the others' headers are erased.

        Where a rank is lost, Open MPI 5.0.11 may end an all-gather without all rows and without an error. The header of
        last time would pass for a new one, and the payload behind it, too.
        """
        rank, heads = self.members.rank, self._all[:, : HEADER.size]
        others = (heads[:rank], heads[rank + 1 :])

        def erased(own: Any, everyone: Any) -> Any:
            for rows in others:
                rows.fill(0)
            return gather(own, everyone)

        return erased

    def _await(self) -> bytes:
        self._request.Wait()
        return self._heads()


def make_headers(members: Members, payload: int, what: str) -> Headers:
    """The header exchange for this number of members. payload: bytes behind each header."""
    kinds = {1: Headers, 2: PairHeaders}
    return kinds.get(members.count, GroupHeaders)(members, payload, what)
