"""Conformance: programs that must fail, and how."""

from __future__ import annotations

from typing import Any

import numpy as np

from kit.conformance.worlds import overlap, phantoms, reversed_waits
from kit.programs import STEP, case, one, vector, wrong
from paceline.program.effects import (
    AllGather,
    AllReduce,
    Broadcast,
    Compute,
    Effect,
    Log,
    Move,
    Phantom,
    Program,
    Start,
    Wait,
    barrier,
)
from paceline.program.errors import BorrowError

# --- errors -----------------------------------------------------------------------------------------------------------


def _raises(worker: int) -> Program[Any]:
    yield from Compute(STEP, lambda: None)
    if worker == 1:
        raise ZeroDivisionError("in the program")
    yield from barrier()


def _run_raises(worker: int) -> Program[Any]:
    yield from Compute(STEP, lambda: {"key": 1}["missing key"] if worker == 1 else None)
    yield from barrier()


def _kinds(worker: int) -> Effect[Any]:
    x = np.zeros(1000, np.float32)
    return AllReduce(x, phase="parameters") if worker == 0 else Broadcast(x, phase="begin")


def _early(worker: int) -> Program[Any]:
    yield from barrier()
    if worker != 1:
        yield from AllReduce(np.zeros(1000, np.float32), phase="parameters")


def _ring_of_groups(worker: int) -> Program[Any]:
    first, then = [((0, 1), (2, 0)), ((1, 2), (0, 1)), ((2, 0), (1, 2))][worker]
    yield from barrier(first)
    yield from barrier(then)


def _no_effect(worker: int) -> Program[Any]:
    yield 3


def _without_from(worker: int) -> Program[Any]:
    yield _raises(worker)


def _wait_twice(worker: int) -> Program[Any]:
    handle = yield from Start(AllReduce(vector(worker, 3)))
    yield from Wait(handle)
    yield from Wait(handle)


def _never_waits(worker: int) -> Program[Any]:
    yield from Start(AllReduce(vector(worker, 3)))


wrong("a program raises", 2, _raises, "in the program", raises=ZeroDivisionError)
wrong("a run raises", 2, _run_raises, "missing key", raises=KeyError)
wrong(
    "different kinds",
    2,
    one(_kinds),
    "worker 0",
    "AllReduce of 4 KB (parameters)",
    "worker 1",
    "Broadcast of 4 KB (begin)",
    overview=True,
)
wrong(
    "different sizes",
    3,
    one(lambda r: AllReduce(vector(r, 1000 + 500 * (r == 2)))),
    "4 KB",
    "worker 2",
    "6 KB",
    overview=True,
)
wrong(
    "different sizes of phantoms",
    2,
    one(lambda r: AllReduce(Phantom(100 + r))),
    "worker 0",
    "100 B",
    "worker 1",
    "101 B",
    overview=True,
)
wrong(
    "different operations",
    2,
    one(lambda r: AllReduce(vector(r, 3), op="sum" if r else "mean")),
    "worker 0",
    "mean",
    "worker 1",
    "sum",
    overview=True,
)
wrong(
    "different types",
    2,
    one(lambda r: AllReduce(np.zeros(8 - 4 * r, (np.float32, np.float64)[r]))),
    "float32",
    "float64",
    overview=True,
)
wrong("different roots", 2, one(lambda r: Broadcast(vector(r, 3), root=r)), "root 0", "root 1", overview=True)
wrong(
    "a phantom among arrays",
    2,
    one(lambda r: AllReduce(Phantom(12) if r else vector(r, 3))),
    "worker 0",
    "worker 1",
    overview=True,
)
wrong(
    "one program ends early",
    3,
    _early,
    "AllReduce of 4 KB (parameters)",
    "worker 1",
    "ended",
    overview=True,
)
wrong("deadlock", 3, _ring_of_groups, "worker 0", "worker 1", "worker 2", "AllReduce", overview=True)
wrong("not in its group", 2, one(lambda r: barrier((0,))), "worker 1", "(0,)")
wrong("a group with a stranger", 2, one(lambda r: barrier((0, 1, 5))), "5")
wrong("weights of nothing", 2, one(lambda r: AllReduce(vector(r, 3), 0.0)), "weights", "positive")
wrong("out too small", 2, one(lambda r: AllReduce(vector(r, 3), out=np.zeros(2, np.float32))), "out", "AllReduce")
wrong("out of another type", 2, one(lambda r: AllReduce(vector(r, 3), out=np.zeros(3))), "out", "float64")
wrong(
    "all-gather: a size that is not as planned",
    2,
    one(lambda r: AllGather(vector(r, 3), sizes=(3, 4))),
    "worker 1",
    "3",
    "4",
)
wrong("a value with two dimensions", 2, one(lambda r: AllReduce(np.zeros((2, 2), np.float32))), "AllReduce", "(2, 2)")
wrong("a mean of integers", 2, one(lambda r: AllReduce(np.zeros(2, np.int64))), "AllReduce", "int64")
wrong("something that is not an effect", 1, _no_effect, "worker 0", "3")
wrong("a helper without its `from`", 1, _without_from, "worker 0 yielded", "is the `from` of a `yield from` missing?")
wrong("starting a log", 1, one(lambda r: Start(Log(x=1))), "worker 0", "Log")
wrong("waiting twice", 2, _wait_twice, "AllReduce", "twice")
wrong("never waiting", 2, _never_waits, "AllReduce", "Wait")


# --- borrowing (debug) ------------------------------------------------------------------------------------------------


def _writes_meanwhile(worker: int) -> Program[Any]:
    value = vector(worker, 100)
    handle = yield from Start(AllReduce(value, phase="gradients"))
    if worker == 1:
        value[3] += 1
    yield from Wait(handle)


def _run_writes_meanwhile(worker: int) -> Program[Any]:
    value = vector(worker, 100)
    handle = yield from Start(AllReduce(value, out=value, phase="gradients"))
    yield from Compute(STEP, lambda: value.__setitem__(3, 0.0) if worker == 1 else None)
    yield from Wait(handle)


def _writes_to_out(worker: int) -> Program[Any]:
    out = np.zeros(100, np.float32)
    handle = yield from Start(AllReduce(vector(worker, 100), out=out, phase="gradients"))
    if worker == 1:
        out[0] = 1
    yield from Wait(handle)


def _writes_while_moving(worker: int) -> Program[Any]:
    value = vector(worker, 100)
    handle = yield from Start(Move(value, "host"))
    value[0] = 1
    yield from Wait(handle)


def _moves_into_its_value(worker: int) -> Program[Any]:
    value = vector(worker, 100)
    yield from Wait((yield from Start(Move(value, "host", copy=lambda: value.fill(7)))))


for _name, _make in (
    ("the program writes", _writes_meanwhile),
    ("a run writes", _run_writes_meanwhile),
    ("the program writes to out", _writes_to_out),
):
    wrong(f"borrowed: {_name}", 2, _make, "worker 1", "AllReduce of 400 B (gradients)", raises=BorrowError, debug=True)
wrong("borrowed: written while it moves", 1, _writes_while_moving, "worker 0", "Move", raises=BorrowError, debug=True)
for _name, _make in (
    ("overlap", overlap),
    ("waits in reverse order", reversed_waits),
    ("phantoms", phantoms),
    ("a worker's copy fills its value", _moves_into_its_value),
):
    _n = 4 if _make is phantoms else 2
    case(f"well-behaved in debug mode: {_name}", _n, _make, debug=True)
