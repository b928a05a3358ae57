"""The conformance suite: small programs and what every interpreter must make of them.

Rules of this file: a plain module (no pytest), so that an interpreter that needs a process per worker can run the
same list; programs of one case share no objects; all expected numbers are written down or folded here by hand, never
taken from an interpreter. Run each of CASES so:

    record = Record(case.stop_after)
    results = interpreter([case.make(i) for i in range(case.workers)], record.hooks(), debug=case.debug)
    case.verify(results, record)

or, where `case.raises` is set, expect that error with every string of `case.says` in its text. Cases with `overview`
can be told only by an interpreter that sees all programs at once; the others may skip them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from paceline.algorithms.effects import (
    AllGather,
    AllReduce,
    Array,
    Broadcast,
    Checkpoint,
    Compute,
    Effect,
    Group,
    Log,
    Move,
    Phantom,
    Program,
    ReduceScatter,
    Start,
    Wait,
    Work,
    barrier,
)
from paceline.algorithms.errors import BorrowError, ProtocolError
from paceline.records.outcome import Hooks

STEP = Work("step", 8, 1e6, 1e4)


@dataclass
class Record:
    """What the programs reported. stop_after: how many world collectives complete before a stop is asked for.

    Across workers the order of entries is the interpreter's own; for one worker it is the program's.
    """

    stop_after: int | None = None
    logs: list[tuple[int, dict[str, Any]]] = field(default_factory=list)
    checkpoints: list[tuple[int, Any, dict[str, Array]]] = field(default_factory=list)
    asked: int = 0

    def hooks(self) -> Hooks:
        def log(worker: int, seconds: float, fields: dict[str, Any]) -> None:
            self.logs.append((worker, fields))

        def checkpoint(worker: int, seconds: float, state: Any, arrays: dict[str, Array]) -> None:
            self.checkpoints.append((worker, state, arrays))

        return Hooks(log, checkpoint, self._stop)

    def _stop(self) -> bool:
        self.asked += 1
        return self.stop_after is not None and self.asked >= self.stop_after


@dataclass(frozen=True)
class Case:
    """One scenario. check: takes the workers' results, asserts; observe: takes the Record, asserts."""

    name: str
    workers: int
    make: Callable[[int], Program[Any]]
    check: Callable[[list[Any]], None] = lambda results: None
    observe: Callable[[Record], None] = lambda record: None
    raises: type[Exception] | None = None
    says: tuple[str, ...] = ()
    debug: bool = False
    stop_after: int | None = None
    overview: bool = False

    def verify(self, results: list[Any], record: Record) -> None:
        assert len(results) == self.workers
        self.check(results)
        self.observe(record)


def vector(worker: int, size: int, dtype: Any = np.float32, salt: int = 0) -> Array:
    """A worker's values: awkward ones, whose sum depends on the order in which they are added."""
    draws = np.random.Generator(np.random.PCG64([worker, size, salt])).standard_normal(size)
    return (draws * 10.0 ** (draws * 3 % 5)).astype(dtype)


def by_hand(values: Sequence[Array], weights: Sequence[float], op: str) -> Array:
    """The reduction as algorithms.fold defines it, whole vectors at a time."""
    kind = values[0].dtype.type
    same = all(w == weights[0] for w in weights)
    total = float(sum(weights))
    if same:
        terms, last = list(values), kind(1.0 / len(values) if op == "mean" else weights[0])
    else:
        terms = [v * kind(w / total if op == "mean" else w) for v, w in zip(values, weights)]
        last = kind(1.0)
    result = terms[0].copy()
    for term in terms[1:]:
        result = result + term
    return result * last


def same(found: Any, expected: Array) -> None:
    """Equal to the last bit, and of the same type."""
    assert isinstance(found, np.ndarray), f"{found!r} is no array"
    assert found.dtype == expected.dtype and found.shape == expected.shape
    assert found.tobytes() == expected.tobytes()


def each(expected: Callable[[int], Array]) -> Callable[[list[Any]], None]:
    """A check: worker i's result is expected(i)."""

    def check(results: list[Any]) -> None:
        for i, found in enumerate(results):
            same(found, expected(i))

    return check


def equals(expected: list[Any]) -> Callable[[list[Any]], None]:
    """A check: the results are these plain values."""

    def check(results: list[Any]) -> None:
        assert results == expected, f"{results} instead of {expected}"

    return check


def one(effect: Callable[[int], Effect[Any]]) -> Callable[[int], Program[Any]]:
    """Programs of a single effect, whose answer they return."""

    def make(worker: int) -> Program[Any]:
        return (yield from effect(worker))

    return make


CASES: list[Case] = []


def case(name: str, workers: int, make: Callable[[int], Program[Any]], **more: Any) -> None:
    CASES.append(Case(name, workers, make, **more))


# --- device -----------------------------------------------------------------------------------------------------------


def _computes(worker: int) -> Program[Any]:
    seen: list[int] = []
    for i in range(3):
        answer = yield from Compute(STEP, lambda i=i: seen.append(i) or i * 10 + worker)
        assert answer == i * 10 + worker and seen == list(range(i + 1))
    last = yield from Compute(STEP, lambda: "host", on="host")
    return seen, last


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
    assert isinstance(phantom, Phantom) and phantom.nbytes == 12
    return (yield from Move(value, "device", copy=lambda: "copied"))


case("compute", 2, _computes, check=equals([([0, 1, 2], "host")] * 2))
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


def _overlap(worker: int) -> Program[Any]:
    value = vector(worker, 50)
    handle = yield from Start(AllReduce(value, out=value))
    product = yield from Compute(STEP, lambda: worker * 2)
    answer = yield from Wait(handle)
    assert answer is value
    return product, float(answer[0])


def _reversed_waits(worker: int) -> Program[Any]:
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
            yield from Compute(STEP, lambda: np.add(value, 1.0, out=value))
        value = yield from AllReduce(value, out=value)
    return float(value[0])


case(
    "overlap",
    2,
    _overlap,
    check=equals([(w * 2, float(by_hand([vector(i, 50) for i in range(2)], [1.0] * 2, "mean")[0])) for w in range(2)]),
)
case("waits in reverse order", 2, _reversed_waits, check=equals([[200.0, 41.0, 21.0, 1.0]] * 2))
case(
    "everything can be started",
    2,
    _started_everything,
    check=equals([[3, 1.0, [0.0, 2.0], 5, ["run"]], [3, 1.0, [4.0], 5, ["run"]]]),
)
case("started in two groups", 3, _started_in_groups, check=equals([[3.0, 4.0], [3.0, 4.0], [3.0]]))
case("unequal steps", 3, _uneven, check=equals([9.0] * 3))


# --- phantoms ---------------------------------------------------------------------------------------------------------


def _phantoms(worker: int) -> Program[Any]:
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


case("phantoms", 4, _phantoms, check=equals([[40, 40, 40, 160, 24, p, 40] for p in (12, 12, 8, 8)]))


# --- observing --------------------------------------------------------------------------------------------------------


def _logs(worker: int) -> Program[Any]:
    assert (yield from Log(line=0, who=worker)) is None
    yield from barrier()
    for i in (1, 2):
        yield from Log(line=i, who=worker)


def _logs_seen(record: Record) -> None:
    for worker in range(2):
        own = [fields for who, fields in record.logs if who == worker]
        assert own == [{"line": i, "who": worker} for i in range(3)], own


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
            own = [(state, arrays["x"].tolist()) for who, state, arrays in record.checkpoints if who == worker]
            assert own == [(i, [worker, i]) for i in rounds], own

    return observe


case("log", 2, _logs, observe=_logs_seen)
case("checkpoint when due", 3, _checkpoints, check=equals([("done", 1)] * 3), observe=_checkpoints_seen(1))
case("checkpoint and stop", 3, _checkpoints, check=equals([(3, 2)] * 3), observe=_checkpoints_seen(1, 3), stop_after=4)


# --- errors -----------------------------------------------------------------------------------------------------------


def wrong(name: str, workers: int, make: Callable[[int], Program[Any]], *says: str, **more: Any) -> None:
    """A case that must end in a ProtocolError, unless `raises` names another."""
    case(name, workers, make, says=says, **{"raises": ProtocolError, **more})


def _raises(worker: int) -> Program[Any]:
    yield from Compute(STEP, lambda: None)
    if worker == 1:
        raise ZeroDivisionError("in the program")
    yield from barrier()


def _run_raises(worker: int) -> Program[Any]:
    yield from Compute(STEP, lambda: {}["missing key"] if worker == 1 else None)
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
    yield 3  # type: ignore[misc]


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
wrong("something that is no effect", 1, _no_effect, "worker 0", "3")
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


for _name, _make in (
    ("the program writes", _writes_meanwhile),
    ("a run writes", _run_writes_meanwhile),
    ("the program writes to out", _writes_to_out),
):
    wrong(f"borrowed: {_name}", 2, _make, "worker 1", "AllReduce of 400 B (gradients)", raises=BorrowError, debug=True)
wrong("borrowed: written while it moves", 1, _writes_while_moving, "worker 0", "Move", raises=BorrowError, debug=True)
for _name, _make in (("overlap", _overlap), ("waits in reverse order", _reversed_waits), ("phantoms", _phantoms)):
    _n = 4 if _make is _phantoms else 2
    case(f"well-behaved in debug mode: {_name}", _n, _make, debug=True)
