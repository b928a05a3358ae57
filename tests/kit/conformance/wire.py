"""Conformance: fp32 values that travel as bf16 or fp16, and how wrong uses of that fail."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from kit.programs import by_hand, case, each, equals, on_wire, one, same, vector, wrong
from paceline.program.effects import (
    AllGather,
    AllReduce,
    Array,
    Broadcast,
    Phantom,
    Program,
    ReduceScatter,
    Start,
    Wait,
    Wire,
)


def values(worker: int, size: int) -> Array:
    """A worker's values, small enough for fp16."""
    return vector(worker, size) * np.float32(2**-5)


WIRES: tuple[Wire, ...] = ("bf16", "fp16")


def _folded(size: int, weights: Sequence[float], op: str, wire: Wire) -> Array:
    """The reduction of what arrives, in fp32."""
    return by_hand([on_wire(values(r, size), wire) for r in range(len(weights))], weights, op)


def _reductions(wire: Wire) -> None:
    for size, weights, op in (
        (1, (1.0, 1.0), "mean"),
        (1000, (1.0, 1.0), "sum"),
        (1001, (3.0, 1.0), "mean"),
        (70_001, (1.0, 2.0), "mean"),
        (3, (1.0, 1.0, 1.0, 1.0), "mean"),
        (1000, (3.0, 1.0, 2.0, 0.5), "sum"),
        (70_001, (1.0, 1.0, 1.0, 1.0), "mean"),
        (70_001, (3.0, 1.0, 0.0, 0.5), "mean"),
    ):
        n, whole = len(weights), _folded(size, weights, op, wire)
        edges = [r * (size // n) + min(r, size % n) for r in range(n + 1)]
        about = f"of {size} as {wire}, {op} with weights {weights}"
        case(
            f"all-reduce {about}",
            n,
            one(lambda r, s=size, w=weights, o=op: AllReduce(values(r, s), w[r], o, wire=wire)),
            check=each(lambda r, whole=whole: on_wire(whole, wire)),
        )
        case(
            f"reduce-scatter {about}",
            n,
            one(lambda r, s=size, w=weights, o=op: ReduceScatter(values(r, s), w[r], o, wire=wire)),
            check=each(lambda r, whole=whole, edges=edges: whole[edges[r] : edges[r + 1]]),
        )


def _gathers(wire: Wire) -> None:
    sizes = (0, 5, 40_000)
    case(
        f"all-gather as {wire}",
        3,
        one(lambda r: AllGather(values(r, sizes[r]), sizes=sizes, wire=wire)),
        check=each(lambda r: on_wire(np.concatenate([values(i, s) for i, s in enumerate(sizes)]), wire)),
    )
    case(
        f"broadcast as {wire}",
        3,
        one(lambda r: Broadcast(values(r, 999), root=1, wire=wire)),
        check=each(lambda r: on_wire(values(1, 999), wire)),
    )


def _outs(wire: Wire) -> None:
    def make(worker: int) -> Program[Any]:
        for size in (10, 70_001):
            value, out = values(worker, size), np.zeros(size, np.float32)
            kept = value.copy()
            expected = on_wire(_folded(size, (1.0, 2.0), "mean", wire), wire)
            assert (yield from AllReduce(value, 1.0 + worker, out=out, wire=wire)) is out
            same(out, expected)
            same(value, kept)
            part = yield from ReduceScatter(value, wire=wire)
            gathered = yield from AllGather(part, (size - size // 2, size // 2), wire=wire)
            same(gathered, on_wire(_folded(size, (1.0, 1.0), "mean", wire), wire))
            # A view, which is the same memory by another name, then the value itself.
            same((yield from AllReduce(value, 1.0 + worker, out=value[:], wire=wire)), expected)
            assert (yield from Broadcast(kept, root=1, out=kept, wire=wire)) is kept
            same(kept, on_wire(values(1, size), wire))
            assert (yield from AllReduce(kept, out=kept, wire=wire)) is kept
            same(kept, on_wire(values(1, size), wire))
            # The same array, as it is: what was prepared for one wire serves no other.
            same((yield from AllReduce(kept, op="sum")), kept * 2)
        return True

    for debug in (False, True):
        case(f"out buffers as {wire}, debug {debug}", 2, make, check=equals([True, True]), debug=debug)


def _started(worker: int) -> Program[Any]:
    handles = []
    for wire in ("fp32", *WIRES):
        handles.append((yield from Start(AllReduce(values(worker, 100), wire=wire))))
    answers = []
    for handle in handles:
        answers.append((yield from Wait(handle)))
    return np.concatenate(answers)


def _alone(worker: int) -> Program[Any]:
    value = values(0, 6)
    for wire in WIRES:
        for effect in (
            AllReduce(value, 3.0, wire=wire),
            AllGather(value, wire=wire),
            ReduceScatter(value, wire=wire),
            Broadcast(value, wire=wire),
        ):
            same((yield from effect), on_wire(value, wire))
    return True


def _phantoms(worker: int) -> Program[Any]:
    sizes = []
    for wire in WIRES:
        for effect in (
            AllReduce(Phantom(40), wire=wire),
            Broadcast(Phantom(40), wire=wire),
            AllGather(Phantom(8 * worker), sizes=(0, 8), wire=wire),
            ReduceScatter(Phantom(20), wire=wire),
        ):
            sizes.append((yield from effect).nbytes)
    return sizes


for _wire in WIRES:
    _reductions(_wire)
    _gathers(_wire)
    _outs(_wire)
case(
    "started as each type",
    2,
    _started,
    check=each(lambda r: np.concatenate([on_wire(_folded(100, (1.0, 1.0), "mean", w), w) for w in ("fp32", *WIRES)])),
)
case("one worker alone, as each type", 1, _alone, check=equals([True]))
case("phantoms as each type", 2, _phantoms, check=equals([[40, 40, 8, 12] * 2, [40, 40, 8, 8] * 2]))

# Written down: ties go to the even neighbour, what is too large for fp16 becomes infinite, NaN stays.
AWKWARD = [65_504, 65_520, -(2.0**100), np.inf, 1 + 2**-8, 1 + 3 * 2**-8, 1 + 2**-11, 2**-25, np.nan]
ARRIVES: dict[Wire, list[float]] = {
    "bf16": [65_536, 65_536, -(2.0**100), np.inf, 1, 1 + 2**-6, 1, 2**-25, np.nan],
    "fp16": [65_504, np.inf, -np.inf, np.inf, 1 + 2**-8, 1 + 3 * 2**-8, 1, 0, np.nan],
}
for _wire, _arrives in ARRIVES.items():
    for _make in (AllReduce, AllGather, Broadcast, ReduceScatter):
        case(
            f"awkward numbers as {_wire}: {_make.__name__}",
            1,
            one(lambda r, make=_make, wire=_wire: make(np.array(AWKWARD, np.float32), wire=wire)),
            check=each(lambda r, arrives=_arrives: np.array(arrives, np.float32)),
        )
case(
    "a sum beyond fp16",
    2,
    one(lambda r: AllReduce(np.array([60_000, -60_000, 1], np.float32), op="sum", wire="fp16")),
    check=each(lambda r: np.array([np.inf, -np.inf, 2], np.float32)),
)
case(
    "a part of a sum beyond fp16",
    2,
    one(lambda r: ReduceScatter(np.array([60_000, -60_000], np.float32), op="sum", wire="fp16")),
    check=each(lambda r: np.array([(120_000, -120_000)[r]], np.float32)),
)

for _kind in (AllReduce, ReduceScatter, AllGather, Broadcast):
    wrong(
        f"different wires: {_kind.__name__}",
        2,
        one(lambda r, kind=_kind: kind(values(r, 5), wire=("bf16", "fp16")[r])),
        "as bf16",
        "as fp16",
        overview=True,
    )
    wrong(
        f"float64 as bf16: {_kind.__name__}",
        2,
        one(lambda r, kind=_kind: kind(np.zeros(3), wire="bf16")),
        _kind.__name__,
        "bf16",
        "float32",
    )
wrong(
    "phantoms of different wires",
    2,
    one(lambda r: AllReduce(Phantom(8), wire=("fp32", "fp16")[r])),
    "as fp16",
    overview=True,
)
wrong("a wire that is none", 2, one(lambda r: AllReduce(values(r, 3), wire="fp8")), "AllReduce", "fp8")  # type: ignore[arg-type]
