"""The SimPy interpreter on random programs: the same answers as lockstep, the same in each run; how failures show."""

from __future__ import annotations

import gc
import traceback
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kit.programs import Record, by_hand, same, vector
from paceline.config.timing import Device, Network, Noise, Timing
from paceline.program.effects import (
    AllGather,
    AllReduce,
    Broadcast,
    Checkpoint,
    Compute,
    Log,
    Phantom,
    Program,
    ReduceScatter,
    Start,
    Wait,
    Work,
    barrier,
    nothing,
)
from paceline.program.errors import BorrowError, ProtocolError, ScenarioError
from paceline.program.fold import fold, parts
from paceline.program.lockstep import lockstep
from paceline.program.outcome import Hooks
from paceline.program.texts import size
from paceline.sim.engine import simulate

QUIET = Hooks()
STEP = Work("step", 8)


def cluster(workers: int, **more: Any) -> Timing:
    """Workers of unequal speed."""
    return Timing(tuple(Device(f"device {i}", speed=100.0 / (1 + i)) for i in range(workers)), **more)


# --- the fold ---------------------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_folding_pieces_is_folding_the_whole(data: st.DataObject) -> None:
    n = data.draw(st.integers(1, 5), "workers")
    length = data.draw(st.one_of(st.integers(0, 300), st.sampled_from([32_767, 32_768, 70_001])), "size")
    dtype = data.draw(st.sampled_from([np.float32, np.float64]), "dtype")
    op: Any = data.draw(st.sampled_from(["mean", "sum"]), "op")
    equal = data.draw(st.booleans(), "equal weights")
    weights = [1.5] * n if equal else data.draw(st.lists(st.floats(0.1, 9), min_size=n, max_size=n), "weights")
    values = [vector(r, length, dtype) for r in range(n)]
    whole = fold(values, weights, op)
    same(whole, by_hand(values, weights, op))
    cuts = sorted(data.draw(st.lists(st.integers(0, length), max_size=4), "cuts"))
    for edges in ([*zip([0, *cuts], [*cuts, length], strict=True)], parts(length, n)):
        pieces = [fold([v[start:stop] for v in values], weights, op) for start, stop in edges]
        same(np.concatenate(pieces), whole)
    values[0] = values[0].copy()
    same(fold(values, weights, op, out=values[0]), whole)


# --- random programs --------------------------------------------------------------------------------------------------

ACTS = ["compute", "mean", "sum", "in place", "scatter", "gather", "broadcast", "start", "wait", "checkpoint", "group"]


def acting(worker: int, workers: int, acts: list[tuple[str, int]]) -> Program[list[bytes]]:
    """A program that does what it is told and returns all that it was answered; the same acts for every worker."""
    value, handles, seen = vector(worker, 37), [], []
    half = workers // 2
    group = tuple(range(half)) if worker < half else tuple(range(half, workers))
    for act, number in acts:
        weight = 1.0 + (worker * number) % 3
        if act == "compute":
            for _ in range((worker * number) % 4):
                yield from Compute(STEP, lambda v=value: np.multiply(v, np.float32(0.5), out=v))
        elif act in ("mean", "sum"):
            seen.append((yield from AllReduce(value, weight, "mean" if act == "mean" else "sum")).tobytes())
        elif act == "in place":
            value = yield from AllReduce(value, weight, out=value)
        elif act == "scatter":
            seen.append((yield from ReduceScatter(value, weight)).tobytes())
        elif act == "gather":
            sizes = tuple((w + number) % 5 for w in range(workers))
            seen.append((yield from AllGather(value[: sizes[worker]], sizes=sizes)).tobytes())
        elif act == "broadcast":
            seen.append((yield from Broadcast(value, root=number % workers)).tobytes())
        elif act == "start":
            handles.append((yield from Start(AllReduce(value.copy(), weight, group=group if number % 2 else None))))
        elif act == "wait" and handles:
            seen.append((yield from Wait(handles.pop(number % len(handles)))).tobytes())
        elif act == "checkpoint":
            seen.append(bytes([(yield from Checkpoint(number, dict, due=number % 2 == 0))]))
        elif act == "group":
            seen.append((yield from AllReduce(value, weight, group=group)).tobytes())
    for handle in handles:
        seen.append((yield from Wait(handle)).tobytes())
    return [*seen, value.tobytes()]


@settings(max_examples=60, deadline=None)
@given(
    workers=st.integers(1, 4),
    acts=st.lists(st.tuples(st.sampled_from(ACTS), st.integers(0, 9)), max_size=20),
    network=st.builds(Network, st.sampled_from(["star", "bus"]), st.floats(1e2, 1e9), st.floats(0, 1)),
    sigma=st.sampled_from([0.0, 0.6]),
)
def test_answers_do_not_depend_on_the_clock(workers: int, acts: Any, network: Network, sigma: float) -> None:
    expected, found = Record(), Record()
    results = lockstep([acting(i, workers, acts) for i in range(workers)], expected.hooks(), debug=True)
    timing = cluster(workers, network=network, noise=Noise(sigma, 1))
    outcomes = simulate([acting(i, workers, acts) for i in range(workers)], timing, found.hooks(), debug=True)
    assert [o.result for o in outcomes] == results
    assert found.asked == expected.asked
    assert sorted(found.checkpoints, key=lambda c: c[0]) == sorted(expected.checkpoints, key=lambda c: c[0])


def test_garbage_is_collected_less_often_only_while_a_run_lasts() -> None:
    before, seen = gc.get_threshold(), []

    def program() -> Program[None]:
        yield from Compute(STEP, lambda: seen.append(gc.get_threshold()))

    simulate([program() for _ in range(20)], cluster(20), QUIET)
    assert all(young >= 64 * 20 and older == list(before[1:]) for young, *older in seen)
    with pytest.raises(ZeroDivisionError):
        simulate([one_over(0)], cluster(1), QUIET)
    assert gc.get_threshold() == before


def one_over(number: int) -> Program[float]:
    yield from Compute(STEP, nothing)
    return 1 / number


def test_a_run_is_deterministic() -> None:
    acts = [(act, number) for number in range(7) for act in ACTS]

    def once() -> tuple[list[Any], list[Any]]:
        events: list[Any] = []
        hooks = Hooks(lambda *line: events.append(line), lambda *args: events.append(args[:2]))
        timing = Timing((Device("a", speed=10.0),) * 4, Network("bus", 1e5, 1e-4), Noise(0.3, 5))
        outcomes = simulate([acting(i, 4, acts) for i in range(4)], timing, hooks, trace=True)
        return [(o.seconds, o.computing, o.lanes, o.sent, o.syncs, o.result) for o in outcomes], events

    assert once() == once()


# --- failures ---------------------------------------------------------------------------------------------------------


def failure(error: type[Exception], *programs: Program[Any], **options: Any) -> Any:
    timing = options.pop("timing", None) or cluster(len(programs))
    with pytest.raises(error) as caught:
        simulate(list(programs), timing, options.pop("hooks", QUIET), **options)
    return caught.value


def test_programs_that_do_not_fit_are_told_apart() -> None:
    def program(worker: int) -> Program[None]:
        value = Phantom(4000)
        yield from (Broadcast(value, phase="begin") if worker == 1 else AllReduce(value, phase="parameters"))

    assert str(failure(ProtocolError, *map(program, range(4)))) == (
        "collective 1 of all workers must be the same for all its members: "
        "worker 0 waits in AllReduce of 4 KB (parameters), 4000 bytes, phantom, mean; "
        "worker 1 waits in Broadcast of 4 KB (begin), 4000 bytes, phantom, root 0"
    )


def test_deadlock_says_where_everyone_is() -> None:
    def program(worker: int) -> Program[None]:
        yield from Compute(STEP, nothing)
        if worker == 1:
            return
        handle = yield from Start(AllReduce(Phantom(4000), phase="gradients"))
        yield from Wait(handle) if worker == 3 else barrier((0, 2, 3))

    assert str(failure(ProtocolError, *map(program, range(4)))) == (
        "the programs do not fit together, nothing can go on: "
        "each of workers 0, 2 waits in AllReduce of 0 B (sync) in group (0, 2, 3), 0 bytes, float32, mean; "
        "worker 1 has ended; "
        "worker 3 waits for the started AllReduce of 4 KB (gradients), 4000 bytes, phantom, mean"
    )


def test_the_limit_is_an_error_that_says_where_everyone_is() -> None:
    def program(worker: int) -> Program[None]:
        while True:
            yield from Compute(STEP, nothing)
            yield from barrier()

    error = failure(ProtocolError, program(0), program(1), limit=10.0)
    assert str(error) == "not finished after the limit of 10 s: each of workers 0, 1 is in Compute (step)"


def test_no_workers_are_no_outcomes() -> None:
    assert simulate([], cluster(0, noise=Noise(0.1)), QUIET) == []


def test_an_error_in_a_program_keeps_its_traceback_and_names_the_worker() -> None:
    class Unusual(Exception):
        def __init__(self, code: int, *, why: str) -> None:  # cannot be rebuilt from its args
            super().__init__(code)
            self.why = why

    unusual = Unusual(3, why="because")

    def deep() -> None:
        raise unusual

    def in_program(worker: int) -> Program[None]:
        yield from Compute(STEP, nothing)
        deep()

    def in_run(worker: int) -> Program[None]:
        yield from Compute(STEP, deep)

    def in_started_run(worker: int) -> Program[None]:
        yield from Wait((yield from Start(Compute(STEP, deep))))

    for make in (in_program, in_run, in_started_run):
        unusual.__notes__ = []
        error = failure(Unusual, make(0))
        assert error is unusual
        assert [frame.name for frame in traceback.extract_tb(error.__traceback__)][-1] == "deep"
        assert "worker 0" in error.__notes__[0]
        assert "0.08 s" in error.__notes__[0]


def test_an_error_in_a_hook_comes_through() -> None:
    def log(*line: Any) -> None:
        raise OSError("disk full")

    def program() -> Program[None]:
        yield from Log(x=1)

    assert str(failure(OSError, program(), hooks=Hooks(log, lambda *_: None))) == "disk full"


def test_a_shared_array_is_caught_in_debug_mode() -> None:
    shared = np.zeros(100, np.float32)

    def program(worker: int) -> Program[None]:
        if worker == 1:
            yield from Compute(STEP, lambda: shared.fill(1.0))
        yield from AllReduce(shared, phase="gradients")

    assert str(failure(BorrowError, program(0), program(1), debug=True)) == (
        "worker 0: a value was written to while AllReduce of 400 B (gradients) had borrowed it; "
        "write to it after the answer, or give the effect a copy"
    )
    simulate([program(0), program(1)], cluster(2), QUIET)


def test_a_handle_belongs_to_who_started_it() -> None:
    handles: list[Any] = []

    def program(worker: int) -> Program[None]:
        if worker == 0:
            handles.append((yield from Start(Compute(STEP, nothing))))
            yield from Wait(handles[0])
        else:
            yield from Compute(STEP, nothing)
            yield from Wait(handles[0])

    assert "worker 1 waits for Compute (step), which it did not start" in str(
        failure(ProtocolError, program(0), program(1))
    )


def test_what_cannot_be_simulated_is_refused() -> None:
    def program() -> Program[None]:
        yield from Compute(STEP, nothing)

    assert "network shape is 'donut'; write one of star, bus" in str(
        failure(ScenarioError, program(), timing=cluster(1, network=Network("donut")))
    )
    assert "1 programs for 2 devices" in str(failure(ValueError, program(), timing=cluster(2)))
    negative = Timing((Device("odd", tables={"step": ((8.0, 1.0),)}, slowdown=-1.0),))
    assert "device odd takes -1.0 s" in str(failure(ScenarioError, program(), timing=negative))


def test_sizes_are_for_people() -> None:
    assert [size(n) for n in (0, 999, 1000, 1_090_000, 25 * 10**8)] == ["0 B", "999 B", "1 KB", "1.09 MB", "2.5 GB"]
