"""Conformance: groups, started effects, phantoms, and what programs report."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from kit.programs import STEP, Record, by_hand, case, each, equals, one, same, vector
from paceline.program.effects import (
    AllGather,
    AllReduce,
    Array,
    Broadcast,
    Checkpoint,
    Compute,
    Group,
    Log,
    Move,
    Phantom,
    Program,
    ReduceScatter,
    Start,
    Wait,
    barrier,
)

# --- groups -----------------------------------------------------------------------------------------------------------


def _pairs(worker: int) -> Program[Any]:
    group = (0, 1) if worker < 2 else (2, 3)
    first = yield from AllReduce(np.array([worker], np.float64), op="sum", group=group)
    second = yield from AllReduce(first, op="sum", group=(0, 2) if worker % 2 == 0 else (1, 3))
    third = yield from AllReduce(second, op="sum")
    return float(first[0]), float(second[0]), float(third[0])


def _group_kinds(worker: int) -> Program[Any]:
    if worker == 1:
        yield from barrier()
        return None
    group, mine = (0, 2, 3), {0: 0, 2: 1, 3: 2}[worker]
    gathered = yield from AllGather(np.full(worker + 1, worker, np.float32), sizes=(1, 3, 4), group=group)
    same(gathered, np.array([0, 2, 2, 2, 3, 3, 3, 3], np.float32))
    part = yield from ReduceScatter(np.arange(7, dtype=np.float32), op="sum", group=group)
    same(part, 3 * np.arange(7, dtype=np.float32)[(0, 3, 5)[mine] : (3, 5, 7)[mine]])
    root = yield from Broadcast(np.array([worker], np.float32), root=2, group=group)
    yield from barrier()
    return float(root[0])


def _world_by_name(worker: int) -> Program[Any]:
    group: Group = None if worker == 0 else (0, 1, 2)
    return float((yield from AllReduce(np.array([worker], np.float32), op="sum", group=group))[0])


def _unsorted_group(worker: int) -> Program[Any]:
    # Rank order is the order of workers' numbers, however the group is written.
    group = (2, 0, 1) if worker else (0, 1, 2)
    return (yield from AllGather(np.array([worker], np.float32), group=group)).tolist()


case(
    "disjoint, then overlapping groups",
    4,
    _pairs,
    check=equals([(1.0, 6.0, 24.0), (1.0, 6.0, 24.0), (5.0, 6.0, 24.0), (5.0, 6.0, 24.0)]),
)
case("every collective in a group", 4, _group_kinds, check=equals([2.0, None, 2.0, 2.0]))
case("a group of one", 2, one(lambda r: AllReduce(vector(r, 3), group=(r,))), check=each(lambda r: vector(r, 3)))
case("the group of all is the world", 3, _world_by_name, check=equals([3.0] * 3))
case("a group in any order", 3, _unsorted_group, check=equals([[0.0, 1.0, 2.0]] * 3))


# --- concurrency ------------------------------------------------------------------------------------------------------


def overlap(worker: int) -> Program[Any]:
    value = vector(worker, 50)
    handle = yield from Start(AllReduce(value, out=value))
    product = yield from Compute(STEP, lambda: worker * 2)
    answer = yield from Wait(handle)
    assert answer is value
    return product, float(answer[0])


def reversed_waits(worker: int) -> Program[Any]:
    handles = []
    for i in range(3):
        handles.append((yield from Start(AllReduce(np.array([worker + 10 * i], np.float32), op="sum"))))
    direct = yield from AllReduce(np.array([100], np.float32), op="sum")  # fourth in order
    answers = []
    for handle in reversed(handles):
        answers.append(float((yield from Wait(handle))[0]))
    return [float(direct[0]), *answers]


def _started_everything(worker: int) -> Program[Any]:
    ran: list[str] = []
    compute = yield from Start(Compute(STEP, lambda: ran.append("run") or 5, on="host"))
    move = yield from Start(Move(np.ones(3, np.float32), "host"))
    gather = yield from Start(AllGather(np.full(worker + 1, 1.0, np.float32), sizes=(1, 2)))
    scatter = yield from Start(ReduceScatter(np.arange(3, dtype=np.float32), op="sum"))
    root = yield from Start(Broadcast(np.array([worker], np.float32), root=1))
    yield from Compute(STEP, lambda: None)
    answers = [len((yield from Wait(gather))), float((yield from Wait(root))[0])]
    answers += [(yield from Wait(scatter)).tolist(), (yield from Wait(compute))]
    same((yield from Wait(move)), np.ones(3, np.float32))
    return [*answers, ran]


def _started_large(worker: int) -> Program[Any]:
    # Beyond what a reduction gathers whole; a vector that three workers cannot cut evenly.
    value, group = vector(worker, 70_001), (0, 2)
    handles = [(yield from Start(AllReduce(value))), (yield from Start(ReduceScatter(value, op="sum")))]
    handles.append((yield from Start(AllGather(value[: 30_000 * worker], sizes=(0, 30_000, 60_000)))))
    handles.append((yield from Start(Broadcast(value, root=2))))
    handles.append((yield from Start(AllReduce(value[:9], 1.0 + worker))))
    if worker in group:
        handles.append((yield from Start(AllReduce(value, group=group))))
    answers = []
    for handle in handles:
        answers.append((yield from Wait(handle)))
    return answers


def _large(results: list[Any]) -> None:
    values = [vector(i, 70_001) for i in range(3)]
    mean, total = by_hand(values, [1.0] * 3, "mean"), by_hand(values, [1.0] * 3, "sum")
    for worker, found in enumerate(results):
        same(found[0], mean)
        same(found[1], total[(0, 23_334, 46_668)[worker] : (23_334, 46_668, 70_001)[worker]])
        same(found[2], np.concatenate([values[1][:30_000], values[2][:60_000]]))
        same(found[3], values[2])
        same(found[4], by_hand([value[:9] for value in values], [1.0, 2.0, 3.0], "mean"))
        if worker != 1:
            same(found[5], by_hand([values[0], values[2]], [1.0] * 2, "mean"))


def _started_in_groups(worker: int) -> Program[Any]:
    # Workers start the exchanges of two groups in different orders: groups are matched apart.
    groups: list[Group] = [None, (0, 1)]
    handles: dict[int, Any] = {}
    for i in (0, 1) if worker == 0 else (1, 0):
        if i == 0 or worker < 2:
            handles[i] = yield from Start(AllReduce(np.array([1 + i], np.float32), op="sum", group=groups[i]))
    answers = []
    for i in sorted(handles):
        answers.append(float((yield from Wait(handles[i]))[0]))
    return answers


def _uneven(worker: int) -> Program[Any]:
    # Local steps: workers take unequal numbers of steps between exchanges.
    value = np.array([float(worker)])
    for _ in range(4):
        for _ in range(worker + 1):
            yield from Compute(STEP, lambda v=value: np.add(v, 1.0, out=v))
        value = yield from AllReduce(value, out=value)
    return float(value[0])


case(
    "overlap",
    2,
    overlap,
    check=equals([(w * 2, float(by_hand([vector(i, 50) for i in range(2)], [1.0] * 2, "mean")[0])) for w in range(2)]),
)
case("waits in reverse order", 2, reversed_waits, check=equals([[200.0, 41.0, 21.0, 1.0]] * 2))
case(
    "everything can be started",
    2,
    _started_everything,
    check=equals([[3, 1.0, [0.0, 2.0], 5, ["run"]], [3, 1.0, [4.0], 5, ["run"]]]),
)
case("large ones started", 3, _started_large, check=_large)
case("started in two groups", 3, _started_in_groups, check=equals([[3.0, 4.0], [3.0, 4.0], [3.0]]))
case("unequal steps", 3, _uneven, check=equals([9.0] * 3))


# --- phantoms ---------------------------------------------------------------------------------------------------------


def phantoms(worker: int) -> Program[Any]:
    sizes = []
    own = Phantom(40)
    for effect in (
        AllReduce(own, out=own),
        AllReduce(Phantom(40), weight=2.0 + worker),
        Broadcast(own),
        AllGather(own),
        AllGather(Phantom(4 * worker), sizes=(0, 4, 8, 12)),
        ReduceScatter(own),  # cut as the fp32 vector that it stands for: 3, 3, 2 and 2 elements
    ):
        answer = yield from effect
        assert isinstance(answer, Phantom)
        sizes.append(answer.nbytes)
    handle = yield from Start(AllReduce(own))
    sizes.append((yield from Wait(handle)).nbytes)
    return sizes


case("phantoms", 4, phantoms, check=equals([[40, 40, 40, 160, 24, p, 40] for p in (12, 12, 8, 8)]))


# --- observing --------------------------------------------------------------------------------------------------------


def _logs(worker: int) -> Program[Any]:
    assert (yield from Log(line=0, worker=worker)) is None
    yield from barrier()
    for i in (1, 2):
        yield from Log(line=i, worker=worker)


def _logs_seen(record: Record) -> None:
    for worker in range(2):
        own = [fields for number, fields in record.logs if number == worker]
        assert own == [{"line": i, "worker": worker} for i in range(3)], own


def _checkpoints(worker: int) -> Program[Any]:
    def snapshot() -> dict[str, Array]:
        taken.append(1)
        return {"x": np.array([worker, i], np.float32)}

    taken: list[int] = []
    for i in range(6):
        yield from barrier()
        if (yield from Checkpoint(i, snapshot, due=i == 1)):
            return i, len(taken)
    return "done", len(taken)


def _checkpoints_seen(*rounds: int) -> Callable[[Record], None]:
    def observe(record: Record) -> None:
        for worker in range(3):
            own = [(state, arrays["x"].tolist()) for number, state, arrays in record.checkpoints if number == worker]
            assert own == [(i, [worker, i]) for i in rounds], own

    return observe


case("log", 2, _logs, observe=_logs_seen)
case("checkpoint when due", 3, _checkpoints, check=equals([("done", 1)] * 3), observe=_checkpoints_seen(1))
case("checkpoint and stop", 3, _checkpoints, check=equals([(3, 2)] * 3), observe=_checkpoints_seen(1, 3), stop_after=4)
