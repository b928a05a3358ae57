"""What the members of a collective get, once all are there. The clock is elsewhere: this holds for any engine.

Rule: results are made from all members' values before anyone is answered, and belong to nobody, so a member that goes
on and writes to its value cannot change what another receives.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from typing import Any

import numpy as np

from ..program.effects import AllGather, AllReduce, Broadcast, Effect, Phantom, ReduceScatter, Value, gather_sizes
from ..program.errors import BorrowError, ProtocolError
from ..program.fold import coefficients, fold, parts
from ..program.texts import describe
from ..program.wire import narrowed, objection, round_trip, wire_bytes

PHANTOM_ITEM = 4  # bytes of an element that a phantom stands for: parameters and gradients are fp32


def terms(effect: Any) -> tuple[Any, ...]:
    """What all members of a collective must agree on."""
    kind, value = type(effect), effect.value
    dtype = None if type(value) is Phantom else value.dtype
    if kind is AllReduce or kind is ReduceScatter:
        return kind, value.nbytes, dtype, effect.wire, effect.op
    if kind is Broadcast:
        return kind, value.nbytes, dtype, effect.wire, effect.root
    return kind, value.nbytes if effect.sizes is None else effect.sizes, dtype, effect.wire


def check(effect: Any, worker: int, members: Sequence[int]) -> None:
    """ProtocolError where a worker's own part of a collective cannot be right, whatever the others do."""
    value = effect.value
    if type(value) is not Phantom:
        if value.ndim != 1:
            raise ProtocolError(f"worker {worker}: {describe(effect)} takes vectors, not shape {value.shape}; ravel it")
        if type(effect) in (AllReduce, ReduceScatter) and value.dtype.kind != "f":
            raise ProtocolError(f"worker {worker}: {describe(effect)} reduces floats, not {value.dtype}")
    if effect.wire != "fp32" and (why := objection(value, effect.wire)):
        raise ProtocolError(f"worker {worker}: {describe(effect)}: {why}")
    if type(effect) is Broadcast and effect.root not in members:
        raise ProtocolError(f"worker {worker}: root {effect.root} of {describe(effect)} is none of workers {members}")
    if type(effect) is AllGather and effect.sizes is not None:
        own = value.nbytes if type(value) is Phantom else value.size
        sizes = effect.sizes
        if len(sizes) != len(members) or sizes[members.index(worker)] != own:
            raise ProtocolError(
                f"worker {worker}: {describe(effect)} holds {own} of sizes {sizes} for workers {members}; "
                "sizes lists each member's elements (a phantom's bytes)"
            )


def carried(effect: Any, members: int) -> int:
    """Bytes by which a collective is priced: those of the whole vector (see `whole_bytes`) as it travels."""
    return wire_bytes(whole_bytes(effect, members), effect.wire)


def whole_bytes(effect: Any, members: int) -> int:
    """Bytes of the whole vector, an AllGather's of all members together."""
    value: Value = effect.value
    if type(effect) is not AllGather:
        return value.nbytes
    item = 1 if isinstance(value, Phantom) else value.itemsize
    return item * sum(gather_sizes(effect, members))


def results(effects: Sequence[Any], members: tuple[int, ...]) -> Sequence[Value]:
    """Each member's answer before it is handed over (see `deliver`); effects: in the members' order, and in agreement.

    ProtocolError where the weights of a mean do not sum to a positive number.
    """
    first, n = effects[0], len(effects)
    kind, value = type(first), first.value
    if kind is Broadcast:
        value = effects[members.index(first.root)].value
        return [value if isinstance(value, Phantom) else round_trip(value.copy(), first.wire)] * n
    if kind is AllGather:
        if isinstance(value, Phantom):
            return [Phantom(whole_bytes(first, n))] * n
        return [round_trip(np.concatenate([effect.value for effect in effects]), first.wire)] * n
    try:
        if isinstance(value, Phantom):
            coefficients([effect.weight for effect in effects], first.op)  # the same complaint as with numbers
            return [value] * n if kind is AllReduce else _phantom_parts(value, n)
        values = [narrowed(effect.value, first.wire) for effect in effects]
        whole = fold(values, [effect.weight for effect in effects], first.op, np.empty_like(value))
    except ValueError as error:
        raise ProtocolError(f"{describe(first)} of workers {members}: {error}") from error
    if kind is AllReduce:
        return [round_trip(whole, first.wire)] * n
    return [whole[start:stop] for start, stop in parts(whole.size, n)]


def _phantom_parts(value: Phantom, members: int) -> list[Phantom]:
    """Cut where the fp32 vector would be cut, or by the byte where it can be none."""
    item = PHANTOM_ITEM if value.nbytes % PHANTOM_ITEM == 0 else 1
    return [Phantom(item * (stop - start)) for start, stop in parts(value.nbytes // item, members)]


def deliver(effect: Any, worker: int, result: Value) -> Value:
    """The answer to one member: its `out`, filled, or a copy of its own."""
    out: Value | None = effect.out
    if isinstance(result, Phantom):
        if out is None:
            return Phantom(result.nbytes)
        if not isinstance(out, Phantom) or out.nbytes != result.nbytes:
            raise ProtocolError(
                f"worker {worker}: out of {describe(effect)} must be a Phantom of {result.nbytes} bytes"
            )
        return out
    if out is None:
        return result.copy()
    if isinstance(out, Phantom) or out.shape != result.shape or out.dtype != result.dtype:
        found = "a Phantom" if isinstance(out, Phantom) else f"{out.dtype} of shape {out.shape}"
        raise ProtocolError(
            f"worker {worker}: out of {describe(effect)} is {found}, the answer {result.dtype} of shape {result.shape}"
        )
    np.copyto(out, result)
    return out


class Loan:
    """The arrays that an effect borrows, as they were when it was yielded (debug mode)."""

    __slots__ = ("_effect", "_hashes", "_worker")

    def __init__(self, effect: Effect[Any], worker: int) -> None:
        self._effect, self._worker = effect, worker
        self._hashes = self._read()

    def _read(self) -> list[bytes]:
        arrays = (getattr(self._effect, "value", None), getattr(self._effect, "out", None))
        return [blake2b(a.tobytes(), digest_size=16).digest() for a in arrays if isinstance(a, np.ndarray)]

    def check(self) -> None:
        """BorrowError if anyone wrote to them since."""
        if self._read() != self._hashes:
            raise BorrowError(
                f"worker {self._worker}: a value was written to while {describe(self._effect)} had borrowed it; "
                "write to it after the answer, or give the effect a copy"
            )
