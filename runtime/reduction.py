"""Reductions in rank order over MPI: the bits of fold.py's fold of whole vectors, at any number of ranks.

MPI's own all-reduce adds in whatever order suits the network, so its bits depend on the number of ranks and on the MPI.
Here every element is added up by one member, in rank order, in one of two ways (traffic.py says which):

- A small vector is gathered whole by every member, and every member folds all of it. That takes one message step.
- A large one is cut into as many chunks as there are members. Member r receives chunk r of every other member, folds
  these in rank order, and then all gather the folded chunks. The fold goes element by element, so where the vector is
  cut changes no bit, and each member sends 2(n-1)/n of the vector, as a ring all-reduce does.

A `Reduction` is prepared once for a kind of call (size, type, op, group) and keeps its buffers: the page faults of
fresh memory take longer than the fold. What travels as bf16 or fp16 (wire.py) is rounded into a buffer as long as the
vector and sent from there; the fold widens what arrives, piece by piece.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..program.cast import convert
from ..program.checks import bad_weights
from ..program.effects import Array, Op, ReduceScatter, Reducing, Wire
from ..program.errors import ProtocolError
from ..program.fold import coefficients, fold, parts
from ..program.traffic import gathers, traffic
from ..program.wire import DTYPES, narrow, round_trip, wire_bytes
from .exchange import exchange
from .headers import Headers, Members, make_headers


class Pool:
    """Buffers for what travels. All reductions share them, since only one runs at a time: the largest decides."""

    def __init__(self) -> None:
        self._buffers: dict[tuple[str, np.dtype[Any]], Array] = {}

    def take(self, purpose: str, size: int, dtype: np.dtype[Any]) -> Array:
        """`size` elements for a purpose, until the next call. What they hold is left over from earlier ones."""
        key = (purpose, dtype)
        found = self._buffers.get(key)
        if found is None or found.size < size:
            self._buffers.pop(key, None)  # so that the smaller one goes first
            del found
            found = self._buffers[key] = np.empty(size, dtype)
        return found[:size]


def element_type(array: Array) -> Any:
    """The MPI element type as which an array travels: bits of the same width, so that any dtype can."""
    from mpi4py import MPI

    types = {1: MPI.UINT8_T, 2: MPI.UINT16_T, 4: MPI.UINT32_T, 8: MPI.UINT64_T}
    if array.dtype.itemsize not in types:
        raise ProtocolError(f"values of type {array.dtype} cannot travel; convert them to one of 1, 2, 4 or 8 bytes")
    return types[array.dtype.itemsize]


class Reduction:
    """AllReduce or ReduceScatter of one size, type, wire and op among given members.

    what: the collective in words, for errors and the headers' fingerprint.
    fast: use MPI's own all-reduce if it can.
    """

    def __init__(
        self,
        members: Members,
        kind: type[Reducing],
        size: int,
        dtype: np.dtype[Any],
        op: Op,
        wire: Wire,
        what: str,
        pool: Pool,
        fast: bool,
    ) -> None:
        self.members, self.size, self.dtype, self.op, self.wire, self.what = members, size, dtype, op, wire, what
        self.world = members.world
        self.scatter, self._pool = kind is ReduceScatter, pool
        self.result_size = size
        nbytes, count = wire_bytes(size * dtype.itemsize, wire), members.count
        self.sent = traffic(kind, nbytes, count).sent  # payload bytes that a member sends each time
        self._parts = parts(size, count)
        self._ratios: list[float] | None = None
        self._factors: list[Array] | None = None
        self._scale: Array | None = None
        # perform(value, weight, stop, out): the reduced value (a ReduceScatter's own part) in `out`, which may be
        # `value`, or in a fresh array. Then headers.stop says whether any member was asked to stop. ProtocolError
        # where members or weights do not fit.
        self.perform: Callable[[Array, float, bool, Array | None], Array]
        rounds = wire != "fp32"
        if fast and not rounds and not self.scatter and dtype.char in "fd":
            self.headers: Headers = make_headers(members, 0, what)
            self.perform = self._native
        elif not self.scatter and gathers(nbytes, count):
            self.headers = make_headers(members, nbytes, what)
            self.perform = self._gathered_narrow if rounds else self._gathering()
        else:
            self.headers = make_headers(members, 0, what)
            self._prepare_exchange()
            self.perform = self._exchanged_narrow if rounds else self._exchanged

    def _gathering(self) -> Callable[[Array, float, bool, Array | None], Array]:
        """The reduction of a small vector, as a closure: attribute look-ups would be a tenth of its time."""
        headers, size, dtype = self.headers, self.size, self.dtype
        terms = [value.view(dtype) for value in headers.values]
        own, first = terms[self.members.rank], terms[0]
        second, later = (terms[1], terms[2:]) if len(terms) > 1 else (None, [])
        exchange, add, multiply, empty = headers.exchange, np.add, np.multiply, np.empty
        # Each member scales its own value before it is sent, by the factors of the last exchange: so only one value
        # is scaled here, not all. If the weights have changed, all members see it in the headers, and exchange again.
        factor = scale = None

        def perform(value: Array, weight: float, stop: bool, out: Array | None) -> Array:
            nonlocal factor, scale
            if factor is None:
                own[...] = value
            else:
                multiply(value, factor, own)
            if exchange(weight, stop):
                before = self._ratios
                self._weigh()
                factor = None if self._factors is None else self._factors[self.members.rank]
                scale = self._scale
                if self._ratios != before:
                    own[...] = value if factor is None else multiply(value, factor)
                    exchange(weight, stop)
            result = empty(size, dtype) if out is None else out
            if second is None:
                result[...] = first
            else:
                add(first, second, result)
                for term in later:
                    add(result, term, result)
            if scale is not None:
                multiply(result, scale, result)
            return result

        return perform

    def _exchanged(self, value: Array, weight: float, stop: bool, out: Array | None) -> Array:
        headers, rank = self.headers, self.members.rank
        start, end = self._parts[rank]
        result = np.empty(self.result_size, self.dtype) if out is None else out
        own = result if self.scatter else result[start:end]
        if self.members.count == 2 and not np.may_share_memory(own, value):
            incoming = [own, own]  # folded where it arrives: a third less memory traffic
        else:
            incoming = self._incoming()
        headers.begin(weight, stop)  # the headers travel at the same time as the parts, and add no latency
        self._send_parts(value, incoming)
        if headers.finish():
            self._weigh()
        incoming[rank] = value[start:end]
        fold(incoming, headers.weights, self.op, own)
        if not self.scatter:
            self._gather_parts(result)
        return result

    def _gathered_narrow(self, value: Array, weight: float, stop: bool, out: Array | None) -> Array:
        headers = self.headers
        terms = [sent.view(DTYPES[self.wire]) for sent in headers.values]
        narrow(value, terms[self.members.rank])
        headers.exchange(weight, stop)
        result = np.empty(self.size, self.dtype) if out is None else out
        return round_trip(self._fold(terms, result), self.wire)

    def _exchanged_narrow(self, value: Array, weight: float, stop: bool, out: Array | None) -> Array:
        headers, rank, dtype = self.headers, self.members.rank, DTYPES[self.wire]
        start, end = self._parts[rank]
        bits, incoming = self._pool.take("outgoing", self.size, self._travels), self._incoming()
        narrow(value, bits.view(dtype))
        headers.begin(weight, stop)
        self._send_parts(bits, incoming)
        headers.finish()
        result = np.empty(self.result_size, self.dtype) if out is None else out
        terms = [part.view(dtype) for part in incoming]
        terms[rank] = bits[start:end].view(dtype)
        own = self._fold(terms, result if self.scatter else result[start:end])
        if not self.scatter:
            narrow(own, terms[rank])
            self._gather_parts(bits)
            convert(bits.view(dtype), result)
        return result

    def _fold(self, terms: list[Array], out: Array) -> Array:
        try:
            return fold(terms, self.headers.weights, self.op, out)
        except ValueError as error:
            raise bad_weights(self.what, self.members.workers, error) from None

    def _native(self, value: Array, weight: float, stop: bool, out: Array | None) -> Array:
        """MPI's own all-reduce: in its own order, so without the bits of the fold."""
        from mpi4py import MPI

        if self.headers.exchange(weight, stop):
            self._weigh()
        result = np.empty(self.size, self.dtype) if out is None else out
        if self._factors is not None:
            np.multiply(value, self._factors[self.members.rank], result)
        source: Any = MPI.IN_PLACE if result is value or self._factors is not None else value
        self.members.comm.Allreduce(source, result)
        if self._scale is not None:
            np.multiply(result, self._scale, result)
        return result

    def _weigh(self) -> None:
        """The fold's factors for the current weights. NumPy multiplies fastest by arrays without dimension."""
        try:
            self._ratios, last = coefficients(self.headers.weights, self.op)
        except ValueError as error:
            raise bad_weights(self.what, self.members.workers, error) from None
        self._factors = None if self._ratios is None else [np.asarray(f, self.dtype) for f in self._ratios]
        self._scale = None if last == 1.0 else np.asarray(last, self.dtype)

    def _prepare_exchange(self) -> None:
        start, end = self._parts[self.members.rank]
        self._length = end - start
        self._travels = np.dtype(np.uint16) if self.wire != "fp32" else self.dtype  # bits: MPI takes no bf16 array
        self._element = element_type(np.empty(0, self._travels))
        if self.scatter:
            self.result_size = self._length

    def _incoming(self) -> list[Array]:
        """Where the others' pieces of this member's part arrive: one after another, without its own."""
        count, rank, length = self.members.count, self.members.rank, self._length
        buffer = self._pool.take("incoming", (count - 1) * length, self._travels)
        return [buffer[place * length : (place + 1) * length] for place in (r - (r > rank) for r in range(count))]

    def _send_parts(self, value: Array, incoming: list[Array]) -> None:
        outgoing = [value[start:end] for start, end in self._parts]
        exchange(self.members.comm, outgoing, incoming, self._element)

    def _gather_parts(self, result: Array) -> None:
        pieces = [result[start:end] for start, end in self._parts]
        exchange(self.members.comm, [pieces[self.members.rank]] * len(pieces), pieces, self._element)
