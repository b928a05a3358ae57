"""The four collectives as one rank performs them over MPI, and what each call needs prepared once.

Rules of this file: a `Collectives` belongs to one thread and has a communicator of its own; groups get communicators
of theirs, made by their members alone on first use. Phantoms really travel, as zeros.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import replace
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import numpy as np

from ..program.effects import (
    AllGather,
    AllReduce,
    Array,
    Broadcast,
    Group,
    Phantom,
    ReduceScatter,
    Value,
    Wire,
    gather_sizes,
)
from ..program.errors import ProtocolError
from ..program.fold import parts
from ..program.traffic import traffic
from ..program.wire import DTYPES, narrow, objection, wire_bytes
from .exchange import exchange
from .headers import Members, misfit, mpi_error
from .reduction import Pool, Reduction, element_type

if TYPE_CHECKING:
    from mpi4py import MPI

ENDED = "has ended"
KINDS = frozenset((AllReduce, ReduceScatter, AllGather, Broadcast))


class Collectives:
    """One rank's collectives on `comm`, which it keeps to itself (its `close` frees only what it made).

    stop: asked once per reduction of all workers; debug: compare beforehand what the members take part in.
    After `perform`: sent, the payload bytes that a member sent in it; halt, whether any worker was asked to stop,
    equal for all of them; told, whether any reduction of all workers carried that since somebody reset it.
    """

    def __init__(
        self, comm: MPI.Intracomm, stop: Callable[[], bool] = lambda: False, fast: bool = False, debug: bool = False
    ) -> None:
        self.rank, self.size = comm.rank, comm.size
        self.sent, self.halt, self.told = 0.0, False, False
        self._stop, self._fast, self._debug = stop, fast, debug
        self._world = Members(comm, tuple(range(comm.size)), comm.rank, True)
        self._groups: dict[tuple[int, ...], Members] = {self._world.workers: self._world}
        self._named: dict[Group, Members] = {None: self._world}
        self._reductions: dict[Any, Reduction] = {}
        self._last: tuple[Any, ...] = (
            self,
            None,
            None,
            None,
            None,
            None,
        )  # of the last reduction
        self._pool = Pool()
        self._zeros: dict[int, Array] = {}

    def perform(self, effect: Any) -> Any:
        """Take part in the collective; its answer. ProtocolError where it does not fit the other members' or MPI."""
        value, kind = effect.value, type(effect)
        # A training's reductions are mostly of the same array, time and again: no key to build for them.
        last = self._last
        if (
            value is last[0]
            and kind is last[1]
            and effect.op == last[2]
            and effect.group is last[3]
            and effect.wire == last[4]
        ):
            reduction = last[5]
        else:
            if self._debug:
                self._compare(self.members(effect.group, effect), describe(effect))
            if type(value) is Phantom:
                return self._phantom(effect, value.nbytes)
            if kind is not AllReduce and kind is not ReduceScatter:
                return self._gather(effect) if kind is AllGather else self._broadcast(effect)
            reduction = self._find(effect)
        out = effect.out
        if out is not None and out is not value:
            out = checked_out(effect, reduction.result_size)
        if not reduction.members.world:
            answer = reduction.perform(value, effect.weight, False, out)
        else:
            answer = reduction.perform(value, effect.weight, self._stop(), out)
            self.halt, self.told = reduction.headers.stop, True
        self.sent = reduction.sent
        return answer

    def agree(self) -> bool:
        """Whether any worker was asked to stop; all workers call it together (a barrier)."""
        self.perform(AllReduce(np.empty(0, np.float32)))
        return self.halt

    def end(self) -> None:
        """In debug mode: tell the others that this worker's program is at its end."""
        if self._debug:
            self._compare(self._world, ENDED)

    def members(self, group: Group, effect: Any) -> Members:
        """The members of a group, whose communicator they make together on first use."""
        if group not in self._named:
            self._named[group] = self._join(group_of(group, self.rank, self.size, effect))
        return self._named[group]

    def close(self) -> None:
        """Free requests and groups' communicators, in an order that is the same for all members."""
        for reduction in self._reductions.values():
            reduction.headers.close()
        for _, members in sorted(self._groups.items()):
            if not members.world:
                members.comm.Free()

    def _join(self, workers: tuple[int, ...]) -> Members:
        if workers not in self._groups:
            world = self._world.comm
            everyone = world.Get_group()
            group = everyone.Incl(list(workers))
            # Threads may make different groups on one communicator at a time: the tag keeps them apart.
            comm = world.Create_group(group, tag=zlib.crc32(repr(workers).encode()) & 0x7FFF)
            group.Free()
            everyone.Free()
            self._groups[workers] = Members(comm, workers, comm.rank, False)
        return self._groups[workers]

    def _find(self, effect: Any) -> Reduction:
        """The reduction prepared for such effects."""
        value, kind = effect.value, type(effect)
        try:
            reduction = self._reductions[kind, value.shape, value.dtype.char, effect.op, effect.group, effect.wire]
        except (KeyError, AttributeError):
            reduction = self._prepare(effect)
        if not self._debug:  # which compares each time
            self._last = value, kind, effect.op, effect.group, effect.wire, reduction
        return reduction

    def _prepare(self, effect: Any) -> Reduction:
        value, kind = effect.value, type(effect)
        _check_vector(effect, value)
        if value.dtype.kind != "f":
            raise ProtocolError(f"{describe(effect)}: a {kind.__name__} takes floats, not {value.dtype}")
        members = self.members(effect.group, effect)
        what = f"{describe(effect, phase=False)}"
        reduction = Reduction(
            members, kind, value.size, value.dtype, effect.op, effect.wire, what, self._pool, self._fast
        )
        self._reductions[kind, value.shape, value.dtype.char, effect.op, effect.group, effect.wire] = reduction
        return reduction

    def _gather(self, effect: AllGather) -> Array:
        value: Any = effect.value
        _check_vector(effect, value)
        members = self.members(effect.group, effect)
        sizes = gather_sizes(effect, members.count)
        if len(sizes) != members.count or sizes[members.rank] != value.size:
            raise ProtocolError(
                f"worker {self.rank}: {describe(effect)} of {value.size} elements, but sizes say "
                f"{sizes[members.rank] if len(sizes) == members.count else sizes}"
            )
        out = checked_out(effect, sum(sizes))
        result: Array = np.empty(sum(sizes), value.dtype) if out is None else out
        source, target = self._bits("outgoing", value, effect.wire), self._bits("gathered", result, effect.wire)
        if source is not value:
            narrow(value, source.view(DTYPES[effect.wire]))
        self.sent = traffic(AllGather, target.nbytes, members.count).sent
        ends = list(accumulate(sizes))
        pieces = [target[end - size : end] for size, end in zip(sizes, ends, strict=True)]
        pieces[members.rank][...] = source
        try:
            exchange(members.comm, [source] * members.count, pieces, element_type(source))
        except mpi_error() as error:
            raise misfit(describe(effect), error) from error
        return result if target is result else _widened(target, effect.wire, result)

    def _broadcast(self, effect: Broadcast) -> Array:
        value: Any = effect.value
        _check_vector(effect, value)
        members = self.members(effect.group, effect)
        if effect.root not in members.workers:
            raise ProtocolError(f"worker {self.rank}: {describe(effect)}, but its members are {members.workers}")
        out = checked_out(effect, value.size)
        result: Array = np.empty_like(value) if out is None else out
        target = self._bits("outgoing", result, effect.wire)
        if effect.root == self.rank and target is not result:
            narrow(value, target.view(DTYPES[effect.wire]))
        elif effect.root == self.rank and result is not value:
            result[...] = value
        self.sent = traffic(Broadcast, target.nbytes, members.count).sent
        try:
            members.comm.Bcast([target, target.size, element_type(target)], members.workers.index(effect.root))
        except mpi_error() as error:
            raise misfit(describe(effect), error) from error
        return result if target is result else _widened(target, effect.wire, result)

    def _bits(self, purpose: str, value: Array, wire: Wire) -> Array:
        """From or into where `value` travels: itself, or a buffer of 16-bit words for what is rounded."""
        return value if wire == "fp32" else self._pool.take(purpose, value.size, np.dtype(np.uint16))

    def _phantom(self, effect: Any, nbytes: int) -> Phantom:
        """Send zeros: as fp32 where they are folded (up to 3 bytes more), else as bytes."""
        kind, members = type(effect), self.members(effect.group, effect)
        if kind is AllReduce or kind is ReduceScatter:
            elements = -(-nbytes // 4)
            value = self._zero(4 * elements).view(np.float32)
            answer = nbytes
            if kind is ReduceScatter:
                start, stop = parts(nbytes // 4, members.count)[members.rank]
                answer = 4 * (stop - start)
            self.perform_silently(replace(effect, value=value, out=value if kind is AllReduce else None))
            self.sent = traffic(kind, wire_bytes(nbytes, effect.wire), members.count).sent
            return Phantom(answer)
        travels = {"value": self._zero(wire_bytes(nbytes, effect.wire)), "wire": "fp32"}
        if kind is Broadcast:
            self.perform_silently(replace(effect, **travels, out=travels["value"]))
            return Phantom(nbytes)
        sizes = gather_sizes(effect, members.count)
        travelling = tuple(wire_bytes(size, effect.wire) for size in sizes)
        self.perform_silently(replace(effect, **travels, out=None, sizes=travelling))
        self.sent = traffic(kind, wire_bytes(sum(sizes), effect.wire), members.count).sent
        return Phantom(sum(sizes))

    def perform_silently(self, effect: Any) -> Any:
        """`perform` without the debug mode's comparison, which was done for the phantom that this stands for."""
        debug, self._debug = self._debug, False
        try:
            return self.perform(effect)
        finally:
            self._debug = debug

    def _zero(self, nbytes: int) -> Array:
        if nbytes not in self._zeros:
            self._zeros[nbytes] = np.zeros(nbytes, np.uint8)
        return self._zeros[nbytes]

    def _compare(self, members: Members, text: str) -> None:
        """Tell the members what this one takes part in; ProtocolError, for all of them, where that differs."""
        own = np.array([zlib.crc32(text.encode())], np.uint32)
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
        raise ProtocolError(
            "; ".join(
                f"worker {w} {what if what == ENDED else f'waits in {what}'}"
                for w, what in zip(members.workers, said, strict=True)
            )
        )


def group_of(group: Group, rank: int, size: int, effect: Any) -> tuple[int, ...]:
    """A group's workers in rank order; ProtocolError where it has strangers, or this worker is none of them."""
    workers = tuple(range(size)) if group is None else tuple(sorted(set(group)))
    strangers = [w for w in workers if not 0 <= w < size]
    if strangers:
        raise ProtocolError(f"worker {rank}: {describe(effect)} in group {group}: there is no worker {strangers[0]}")
    if rank not in workers:
        raise ProtocolError(f"worker {rank} yielded {describe(effect)} in group {group}, to which it does not belong")
    return workers


def checked_out(effect: Any, size: int) -> Any:
    """The effect's out buffer, None without one. ProtocolError where `size` elements of the value's type do not fit."""
    out: Value | None = effect.out
    if out is None or isinstance(out, Phantom):
        return None
    if out.shape != (size,) or out.dtype != effect.value.dtype:
        raise ProtocolError(
            f"{describe(effect)}: out must have shape ({size},) and type {effect.value.dtype}, "
            f"not {out.shape} and {out.dtype}"
        )
    return out


def describe(effect: Any, phase: bool = True) -> str:
    """An effect as errors name it, e.g. "AllReduce of 4 KB (parameters), float32, mean"."""
    name = type(effect).__name__
    value = getattr(effect, "value", None)
    if not isinstance(value, Phantom | np.ndarray):
        return name
    text = f"{name} of {_size(value.nbytes)}"
    if isinstance(effect, AllGather) and effect.sizes is not None:
        text = f"{name} with sizes {effect.sizes}"
    if phase:
        text += f" ({getattr(effect, 'phase', 'move')})"
    text += ", phantom" if isinstance(value, Phantom) else f", {value.dtype}"
    wire = getattr(effect, "wire", "fp32")
    text += "" if wire == "fp32" else f" as {wire}"
    if isinstance(effect, AllReduce | ReduceScatter):
        text += f", {effect.op}"
    return text + (f", root {effect.root}" if isinstance(effect, Broadcast) else "")


def _size(nbytes: int) -> str:
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("KB", 1e3)):
        if nbytes >= factor:
            return f"{nbytes / factor:.10g} {unit}"
    return f"{nbytes} B"


def _check_vector(effect: Any, value: Any) -> None:
    if not isinstance(value, np.ndarray) or value.ndim != 1:
        shape = getattr(value, "shape", type(value).__name__)
        raise ProtocolError(f"{describe(effect)}: takes vectors, not {shape}")
    if why := objection(value, effect.wire):
        raise ProtocolError(f"{describe(effect)}: {why}")


def _widened(bits: Array, wire: Wire, out: Array) -> Array:
    """What arrived as `wire`, as fp32 in `out`; returns out."""
    np.copyto(out, bits.view(DTYPES[wire]))
    return out
