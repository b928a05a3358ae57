"""The four collectives as one rank performs them over MPI.

Rules of this file: a `Collectives` belongs to one thread and to one communicator. A group gets a communicator of its
own on first use, made by its members alone. What a kind of reduction needs is prepared on first use and kept
(reduction.py). Phantoms really travel, as zeros, so that a run without numbers has the messages of a run with them.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import replace
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import numpy as np

from ..program.cast import convert
from ..program.checks import check_out, check_part, group_members, not_the_same
from ..program.effects import (
    AllGather,
    AllReduce,
    Array,
    Broadcast,
    Collective,
    Group,
    Phantom,
    ReduceScatter,
    Reducing,
    Value,
    Wire,
)
from ..program.errors import ProtocolError, WorkerLost
from ..program.fold import phantom_parts
from ..program.loans import deliver
from ..program.texts import ENDED, agreed, doing
from ..program.traffic import carried, traffic
from ..program.wire import DTYPES, narrow, wire_bytes
from .exchange import exchange
from .headers import Members
from .reduction import Pool, Reduction, element_type
from .ulfm import revoke

if TYPE_CHECKING:
    from mpi4py import MPI


class Collectives:
    """One rank's collectives on `comm`, which no one else may use meanwhile. `close` leaves `comm` itself open.

    stop: asked once per reduction of all workers.
    fast: reduce by MPI's own all-reduce where that is possible.
    debug: compare before each collective what the members take part in.
    """

    def __init__(
        self, comm: MPI.Intracomm, stop: Callable[[], bool] = lambda: False, fast: bool = False, debug: bool = False
    ) -> None:
        self.rank, self.size = comm.rank, comm.size
        self.sent = 0.0  # payload bytes that a member sent in the last collective
        self.halt = False  # whether any worker was asked to stop; the same for all workers
        self.told = False  # whether a reduction of all workers has carried that; the engine resets it
        self._stop, self._fast, self._debug = stop, fast, debug
        self._world = Members(comm, tuple(range(comm.size)), comm.rank, True)
        self._groups: dict[tuple[int, ...], Members] = {self._world.workers: self._world}
        self._named: dict[Group, Members] = {None: self._world}
        self._reductions: dict[Any, Reduction] = {}
        # The last reduction's value, out, kind, op, group and wire, and itself. At first a value that no effect has.
        self._last: tuple[Any, ...] = (self, None, None, None, None, None, None)
        self._pool = Pool()
        self._zeros: dict[int, Array] = {}

    def perform(self, effect: Any) -> Any:
        """Take part in the collective; its answer.

        ProtocolError where this worker's part is wrong or does not fit the other members', WorkerLost where one is
        gone.
        """
        try:
            value, out, kind = effect.value, effect.out, type(effect)
            # Training mostly reduces the same array again and again: that needs no look-up.
            last_value, last_out, last_kind, op, group, wire, reduction = self._last
            if not (
                value is last_value
                and out is last_out
                and kind is last_kind
                and effect.op == op
                and effect.group is group
                and effect.wire == wire
            ):
                if self._debug:
                    self._compare(self._members(effect), _what(effect), doing(effect))
                if type(value) is Phantom:
                    return self._phantom(effect)
                if kind is not AllReduce and kind is not ReduceScatter:
                    return self._gather(effect) if kind is AllGather else self._broadcast(effect)
                reduction = self._find(effect)
            if not reduction.world:
                answer = reduction.perform(value, effect.weight, False, out)
            else:
                answer = reduction.perform(value, effect.weight, self._stop(), out)
                self.halt, self.told = reduction.headers.stop, True
            self.sent = reduction.sent
            return answer
        except mpi_error() as error:
            raise misfit(_what(effect), error) from error

    def agree(self) -> bool:
        """Whether any worker was asked to stop. All workers call it together: it is a barrier."""
        self.perform(AllReduce(np.empty(0, np.float32)))
        return self.halt

    def end(self) -> None:
        """This worker's program has ended: in debug mode, say so to the others, which may be in a collective."""
        if self._debug:
            self._compare(self._world, ENDED, ENDED)

    def close(self) -> None:
        """Free requests and groups' communicators, in an order that is the same for all members."""
        for reduction in self._reductions.values():
            reduction.headers.close()
        for _, members in sorted(self._groups.items()):
            if not members.world:
                members.comm.Free()

    def revoke(self) -> None:
        """Let every member of a group come out of what it waits for, after a worker was lost."""
        revoke([members.comm for members in [*self._groups.values()] if not members.world])

    def _members(self, effect: Collective) -> Members:
        """The members of the effect's group, whose communicator they make together on first use.

        ProtocolError where this worker's part in the effect cannot be right.
        """
        members = self._named.get(effect.group)
        if members is None:
            members = self._named[effect.group] = self._join(group_members(effect, self.rank, self.size))
        check_part(effect, self.rank, members.workers)
        return members

    def _join(self, workers: tuple[int, ...]) -> Members:
        if workers not in self._groups:
            world = self._world.comm
            everyone = world.Get_group()
            group = everyone.Incl(list(workers))
            # Several threads may make groups on one communicator at the same time: the tag keeps them apart.
            comm = world.Create_group(group, tag=zlib.crc32(repr(workers).encode()) & 0x7FFF)
            group.Free()
            everyone.Free()
            self._groups[workers] = Members(comm, workers, comm.rank, False)
        return self._groups[workers]

    def _find(self, effect: Reducing) -> Reduction:
        """The reduction prepared for effects like this one."""
        value: Any = effect.value
        kind = type(effect)
        try:
            reduction = self._reductions[kind, value.shape, value.dtype.char, effect.op, effect.group, effect.wire]
        except (KeyError, AttributeError):
            reduction = self._prepare(effect)
        out = effect.out
        if out is not None and (out is not value or kind is ReduceScatter):
            check_out(effect, self.rank, reduction.result_size)
        if not self._debug:  # there, every effect is compared first
            self._last = value, out, kind, effect.op, effect.group, effect.wire, reduction
        return reduction

    def _prepare(self, effect: Reducing) -> Reduction:
        members, kind = self._members(effect), type(effect)
        value: Any = effect.value
        reduction = Reduction(
            members, kind, value.size, value.dtype, effect.op, effect.wire, _what(effect), self._pool, self._fast
        )
        self._reductions[kind, value.shape, value.dtype.char, effect.op, effect.group, effect.wire] = reduction
        return reduction

    def _gather(self, effect: AllGather) -> Array:
        members = self._members(effect)
        value: Any = effect.value
        out: Any = effect.out
        sizes = effect.counts(members.count)
        check_out(effect, self.rank, sum(sizes))
        result: Array = np.empty(sum(sizes), value.dtype) if out is None else out
        source, target = self._bits("outgoing", value, effect.wire), self._bits("gathered", result, effect.wire)
        if source is not value:
            narrow(value, source.view(DTYPES[effect.wire]))
        self.sent = traffic(AllGather, target.nbytes, members.count).sent
        ends = list(accumulate(sizes))
        pieces = [target[end - size : end] for size, end in zip(sizes, ends, strict=True)]
        pieces[members.rank][...] = source
        exchange(members.comm, [source] * members.count, pieces, element_type(source))
        return result if target is result else _widened(target, effect.wire, result)

    def _broadcast(self, effect: Broadcast) -> Array:
        members = self._members(effect)
        value: Any = effect.value
        out: Any = effect.out
        check_out(effect, self.rank, value.size)
        result: Array = np.empty_like(value) if out is None else out
        target = self._bits("outgoing", result, effect.wire)
        if effect.root == self.rank and target is not result:
            narrow(value, target.view(DTYPES[effect.wire]))
        elif effect.root == self.rank and result is not value:
            result[...] = value
        self.sent = traffic(Broadcast, target.nbytes, members.count).sent
        members.comm.Bcast([target, target.size, element_type(target)], members.workers.index(effect.root))
        return result if target is result else _widened(target, effect.wire, result)

    def _bits(self, purpose: str, value: Array, wire: Wire) -> Array:
        """The array from which, or into which, `value` travels: itself, or a buffer of 16-bit words if rounded."""
        return value if wire == "fp32" else self._pool.take(purpose, value.size, np.dtype(np.uint16))

    def _phantom(self, effect: Collective) -> Value:
        """Send zeros instead of a phantom: as fp32 where they are folded (up to 3 bytes more), else as bytes."""
        members, kind, nbytes, wire = self._members(effect), type(effect), effect.value.nbytes, effect.wire
        if kind is AllReduce or kind is ReduceScatter:
            zeros = self._zero(4 * -(-nbytes // 4)).view(np.float32)
            self._perform_silently(replace(effect, value=zeros, out=zeros if kind is AllReduce else None))
            answer = nbytes if kind is AllReduce else phantom_parts(nbytes, members.count)[members.rank]
        elif isinstance(effect, AllGather):
            sizes = effect.counts(members.count)
            zeros, travels = self._zero(wire_bytes(nbytes, wire)), tuple(wire_bytes(size, wire) for size in sizes)
            self._perform_silently(replace(effect, value=zeros, out=None, wire="fp32", sizes=travels))
            answer = sum(sizes)
        else:
            zeros = self._zero(wire_bytes(nbytes, wire))
            self._perform_silently(replace(effect, value=zeros, out=zeros, wire="fp32"))
            answer = nbytes
        self.sent = traffic(kind, carried(effect, members.count), members.count).sent
        return deliver(effect, self.rank, Phantom(answer))

    def _perform_silently(self, effect: Collective) -> Any:
        """`perform` without the debug mode's comparison, which was done for the phantom."""
        debug, self._debug = self._debug, False
        try:
            return self.perform(effect)
        finally:
            self._debug = debug

    def _zero(self, nbytes: int) -> Array:
        if nbytes not in self._zeros:
            self._zeros[nbytes] = np.zeros(nbytes, np.uint8)
        return self._zeros[nbytes]

    def _compare(self, members: Members, terms: str, text: str) -> None:
        """Compare terms among the members; ProtocolError, for all of them, where they differ.

        terms: of what this worker takes part in.
        text: what it does, for that error.
        """
        own = np.array([zlib.crc32(terms.encode())], np.uint32)
        everyone = np.empty(members.count, np.uint32)
        members.comm.Allgather(own, everyone)
        if (everyone == own).all():
            return
        words = np.zeros(256, np.uint8)
        encoded = np.frombuffer(text.encode()[:256], np.uint8)
        words[: encoded.size] = encoded
        texts = np.empty((members.count, 256), np.uint8)
        members.comm.Allgather(words, texts)
        said = [row.tobytes().rstrip(b"\0").decode(errors="replace") for row in texts]
        raise not_the_same(
            f"the collective of workers {members.workers}", dict(zip(members.workers, said, strict=True))
        )


def _what(effect: Collective) -> str:
    """What all members must take part in, e.g. "AllReduce of 4000 bytes, float32, mean"."""
    return f"{type(effect).__name__} of {agreed(effect)}"


def _widened(bits: Array, wire: Wire, out: Array) -> Array:
    """Widen what arrived as `wire` to fp32, in `out`; returns out."""
    return convert(bits.view(DTYPES[wire]), out)


def mpi_error() -> type[MPI.Exception]:
    """MPI's exception. An `except` clause evaluates this only when there is an error, so MPI is imported late."""
    from mpi4py import MPI

    return MPI.Exception


def misfit(what: str, error: MPI.Exception) -> Exception:
    """What an MPI error in a collective means."""
    from mpi4py import MPI

    if error.Get_error_class() == MPI.ERR_TRUNCATE:
        return ProtocolError(f"{what}: another worker sent more than fits; run with debug to see what it takes part in")
    return WorkerLost(f"{what}: {error.Get_error_string()}")
