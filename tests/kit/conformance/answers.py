"""Conformance: computations and collectives, and whose the answers are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from kit.programs import STEP, by_hand, case, each, equals, one, same, vector
from paceline.program.effects import (
    AllGather,
    AllReduce,
    Array,
    Broadcast,
    Compute,
    Move,
    Phantom,
    Program,
    ReduceScatter,
    Start,
    Wait,
    Work,
    barrier,
)

FIRST = Work("step", 12)

# --- device -----------------------------------------------------------------------------------------------------------


def _computes(worker: int) -> Program[Any]:
    seen: list[int] = []
    for i in range(3):
        answer = yield from Compute(STEP, lambda i=i: seen.append(i) or i * 10 + worker)
        assert answer == i * 10 + worker
        assert seen == list(range(i + 1))
    last = yield from Compute(STEP, lambda: "host", on="host")
    return seen, last


def _repeats(worker: int) -> Program[Any]:
    seen: list[int] = []

    def run() -> int:
        seen.append(len(seen) + 1)
        return len(seen)

    direct = yield from Compute(STEP, run, times=3, first=FIRST)
    handle = yield from Start(Compute(STEP, run, times=2))
    started = yield from Wait(handle)
    return seen, direct, started


def _inner(worker: int) -> Program[Any]:
    a = yield from Compute(STEP, lambda: worker + 1)
    total = yield from AllReduce(np.array([a], np.float32), op="sum")
    return float(total[0])


def _nested(worker: int) -> Program[Any]:
    first = yield from _inner(worker)
    second = yield from _inner(worker + 10)
    return first, second


def _silent(worker: int) -> Program[Any]:
    return worker
    yield  # makes it a generator


def _moves(worker: int) -> Program[Any]:
    value = vector(worker, 5)
    there = yield from Move(value, "host")
    same(there, value)
    assert there is not value
    phantom = yield from Move(Phantom(12), "device")
    assert isinstance(phantom, Phantom)
    assert phantom.nbytes == 12
    return (yield from Move(value, "device", copy=lambda: "copied"))


case("compute", 2, _computes, check=equals([([0, 1, 2], "host")] * 2))
case("compute several times", 2, _repeats, check=equals([([1, 2, 3, 4, 5], 3, 5)] * 2))
case("a program without effects", 2, _silent, check=equals([0, 1]))
case("nested programs", 3, _nested, check=equals([(6.0, 36.0)] * 3))
case("move", 2, _moves, check=equals(["copied"] * 2))


# --- collectives ------------------------------------------------------------------------------------------------------


def _reductions() -> None:
    for size in (1, 3, 1000, 70_001):
        for weights in ((1.0,) * 4, (3.0, 1.0, 2.0, 0.5), (2.0, 0.0, 1.0, 1.0)):
            for op in ("mean", "sum"):
                whole = by_hand([vector(r, size) for r in range(4)], weights, op)
                edges = [r * (size // 4) + min(r, size % 4) for r in range(5)]
                case(
                    f"all-reduce: {op} of {size} with weights {weights}",
                    4,
                    one(lambda r, s=size, w=weights, o=op: AllReduce(vector(r, s), w[r], o)),
                    check=each(lambda r, whole=whole: whole),
                )
                case(
                    f"reduce-scatter: {op} of {size} with weights {weights}",
                    4,
                    one(lambda r, s=size, w=weights, o=op: ReduceScatter(vector(r, s), w[r], o)),
                    check=each(lambda r, whole=whole, edges=edges: whole[edges[r] : edges[r + 1]]),
                )


_reductions()
for _n in (1, 2, 3):
    case(
        f"all-reduce: float64 among {_n}",
        _n,
        one(lambda r: AllReduce(vector(r, 300, np.float64), 1.0 + r)),
        check=each(
            lambda r, n=_n: by_hand([vector(i, 300, np.float64) for i in range(n)], [1.0 + i for i in range(n)], "mean")
        ),
    )
case(
    "all-reduce: equal weights other than 1, summed",
    3,
    one(lambda r: AllReduce(vector(r, 9), 0.1, "sum")),
    check=each(lambda r: by_hand([vector(i, 9) for i in range(3)], [0.1] * 3, "sum")),
)
case("barrier", 3, one(lambda r: barrier()), check=each(lambda r: np.empty(0, np.float32)))
case(
    "phases are each member's own",
    2,
    one(lambda r: AllReduce(vector(r, 3), phase=f"phase {r}")),
    check=each(lambda r: by_hand([vector(i, 3) for i in range(2)], [1.0] * 2, "mean")),
    debug=True,
)


def _gathered(sizes: Sequence[int]) -> Array:
    return np.concatenate([vector(r, s) for r, s in enumerate(sizes)])


for _sizes in ((4, 4, 4), (0, 5, 2), (30_000, 1, 0)):
    case(
        f"all-gather: sizes {_sizes}",
        3,
        one(lambda r, s=_sizes: AllGather(vector(r, s[r]), sizes=s)),
        check=each(lambda r, s=_sizes: _gathered(s)),
    )
case(
    "all-gather: sizes not given", 3, one(lambda r: AllGather(vector(r, 6))), check=each(lambda r: _gathered((6,) * 3))
)
case(
    "all-gather: integers",
    2,
    one(lambda r: AllGather(np.array([r, 7], np.int64))),
    check=each(lambda r: np.array([0, 7, 1, 7], np.int64)),
)
for _root in (0, 2):
    case(
        f"broadcast: root {_root}",
        4,
        one(lambda r, root=_root: Broadcast(vector(r, 5000), root=root)),
        check=each(lambda r, root=_root: vector(root, 5000)),
    )


def _alone(worker: int) -> Program[Any]:
    value = vector(0, 6)
    for effect in (AllReduce(value, 3.0), AllGather(value), ReduceScatter(value), Broadcast(value)):
        answer = yield from effect
        same(answer, value)
        assert answer is not value
    yield from barrier()
    doubled = yield from AllReduce(value, 2.0, "sum")
    return doubled


case("one worker alone", 1, _alone, check=each(lambda r: vector(0, 6) * np.float32(2)))


# --- answers belong to the caller -------------------------------------------------------------------------------------


def _own_copies(worker: int) -> Program[Any]:
    value = vector(worker, 8)
    for make in (
        lambda: AllReduce(value),
        lambda: Broadcast(value),
        lambda: AllGather(value),
        lambda: ReduceScatter(value),
    ):
        answer = yield from make()
        answer[:] = worker + 100.0  # must reach neither another worker's answer nor anyone's value
        yield from barrier()
        assert (answer == worker + 100.0).all()
        same(value, vector(worker, 8))
    return (yield from AllReduce(value))


def _outs(worker: int) -> Program[Any]:
    value, whole = vector(worker, 10), [vector(i, 10) for i in range(3)]
    kept = value.copy()
    for effect, expected in (
        (AllReduce(value, out=np.zeros(10, np.float32)), by_hand(whole, [1.0] * 3, "mean")),
        (AllGather(value, out=np.zeros(30, np.float32)), np.concatenate(whole)),
        (Broadcast(value, root=1, out=np.zeros(10, np.float32)), whole[1]),
        (
            ReduceScatter(value, out=np.zeros((4, 3, 3)[worker], np.float32)),
            by_hand(whole, [1.0] * 3, "mean")[(0, 4, 7)[worker] : (4, 7, 10)[worker]],
        ),
    ):
        answer = yield from effect
        assert answer is effect.out
        same(answer, expected)
        same(value, kept)
    return True


def _out_is_value(size: int) -> Callable[[int], Program[Any]]:
    def make(worker: int) -> Program[Any]:
        value = vector(worker, size)
        answer = yield from AllReduce(value, 1.0 + worker, out=value)
        assert answer is value
        value += np.float32(worker)
        answer = yield from Broadcast(value, root=2, out=value)
        assert answer is value
        return value

    return make


def _out_of_some(worker: int) -> Program[Any]:
    value = vector(worker, 7)
    return (yield from AllReduce(value, out=value if worker == 1 else None))


case(
    "each has its own copy",
    3,
    _own_copies,
    check=each(lambda r: by_hand([vector(i, 8) for i in range(3)], [1.0] * 3, "mean")),
)
for _debug in (False, True):
    case(f"out buffers, debug {_debug}", 3, _outs, check=equals([True] * 3), debug=_debug)
    for _size in (7, 70_001):
        case(
            f"out is the value, {_size}, debug {_debug}",
            3,
            _out_is_value(_size),
            check=each(
                lambda r, s=_size: by_hand([vector(i, s) for i in range(3)], [1.0, 2.0, 3.0], "mean") + np.float32(2)
            ),
            debug=_debug,
        )
case("out of some", 3, _out_of_some, check=each(lambda r: by_hand([vector(i, 7) for i in range(3)], [1.0] * 3, "mean")))
