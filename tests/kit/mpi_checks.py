"""Checks of the MPI runtime, many to one start of mpirun: python -m kit.mpi_checks [NAME OF A CONFORMANCE CASE].

tests/runtime/test_runtime.py runs them. With a name, only that case runs: it must end as it says on the ranks that say
it, and an abort then ends the job.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest

from kit.conformance import CASES, Case, Record
from kit.programs import STEP, by_hand, on_wire, same, vector
from paceline.program.effects import (
    AllGather,
    AllReduce,
    Array,
    Broadcast,
    Checkpoint,
    Compute,
    Effect,
    Move,
    Phantom,
    Program,
    ReduceScatter,
    Start,
    Wait,
    Work,
)
from paceline.program.errors import ProtocolError
from paceline.program.fold import fold, parts
from paceline.program.outcome import Hooks, Outcome
from paceline.program.traffic import GATHER_LIMIT, traffic
from paceline.runtime.engine import run
from paceline.runtime.launcher import abort_on_error
from paceline.trials import together

# Cases that fail on some ranks only, and leave the others waiting: each needs a job of its own.
ALONE = (
    "a program raises",
    "a run raises",
    "not in its group",
    "all-gather: a size that is not as planned",
    "borrowed",
)
# In debug mode ranks find errors that they cannot see alone, except when every rank waits for another.
BEYOND = ("deadlock",)
EVALUATE = Work("evaluate")


def hooks(stop: Callable[[], bool] = lambda: False) -> Hooks:
    return Hooks(stop=stop)


def plain(value: Any) -> Any:
    """A value as JSON can hold it."""
    if isinstance(value, np.ndarray):
        return {"array": value.tobytes().hex(), "dtype": value.dtype.str}
    if isinstance(value, tuple):
        return {"tuple": [plain(item) for item in value]}
    if isinstance(value, bytes):
        return {"bytes": value.hex()}
    if isinstance(value, dict):
        return {"dict": {key: plain(item) for key, item in value.items()}}
    return [plain(item) for item in value] if isinstance(value, list) else value


def valued(value: Any) -> Any:
    """The value that `plain` wrote."""
    if isinstance(value, list):
        return [valued(item) for item in value]
    if not isinstance(value, dict):
        return value
    if "array" in value:
        return np.frombuffer(bytes.fromhex(value["array"]), value["dtype"])
    if "tuple" in value:
        return tuple(valued(item) for item in value["tuple"])
    return bytes.fromhex(value["bytes"]) if "bytes" in value else {key: valued(v) for key, v in value["dict"].items()}


@dataclass
class Ranks:
    """The job: its communicator, and exchange of Python values for the checks themselves."""

    comm: Any

    @property
    def rank(self) -> int:
        return int(self.comm.rank)

    @property
    def size(self) -> int:
        return int(self.comm.size)

    def all(self, value: Any) -> list[Any]:
        """Every rank's value, on every rank. As text: nothing is unpickled here either."""
        own = np.frombuffer(json.dumps(plain(value)).encode(), np.uint8)
        sizes = np.empty(self.size, np.int64)
        self.comm.Allgather(np.array([own.size]), sizes)
        texts = np.empty(int(sizes.sum()), np.uint8)
        self.comm.Allgatherv(own, [texts, sizes.tolist()])
        return [valued(json.loads(part.tobytes())) for part in np.split(texts, np.cumsum(sizes)[:-1])]

    def run(self, program: Program[Any], **options: Any) -> Outcome:
        return run(program, options.pop("hooks", hooks()), comm=self.comm, **options)

    def answer(self, effect: Effect[Any], **options: Any) -> Any:
        return self.run(answering(effect), **options).result


def answering(effect: Effect[Any]) -> Program[Any]:
    return (yield from effect)


def check_conformance(ranks: Ranks) -> int:
    done = 0
    for case in CASES:
        if case.workers != ranks.size or case.name.startswith((*ALONE, *BEYOND)):
            continue
        record = Record(case.stop_after)
        if case.raises is not None:
            expect_error(case, ranks, debug=case.debug or case.overview)
        else:
            outcome = ranks.run(case.make(ranks.rank), hooks=record.hooks(), debug=case.debug)
            results = ranks.all(outcome.result)
            record.logs = [entry for entries in ranks.all(record.logs) for entry in entries]
            record.checkpoints = [entry for entries in ranks.all(record.checkpoints) for entry in entries]
            case.verify(results, record)
        done += 1
    return done


def expect_error(case: Case, ranks: Ranks, debug: bool) -> None:
    assert case.raises is not None
    with pytest.raises(case.raises) as caught:
        ranks.run(case.make(ranks.rank), debug=debug)
    for words in case.says:
        assert words in str(caught.value), f"{case.name}: {words!r} not in {str(caught.value)!r}"


def check_started_without_threads(ranks: Ranks) -> None:
    from mpi4py import MPI

    with patch.object(MPI, "Query_thread", lambda: MPI.THREAD_SERIALIZED):
        for case in CASES:
            if case.workers == ranks.size and case.name in (
                "overlap",
                "waits in reverse order",
                "everything can be started",
            ):
                case.check(ranks.all(ranks.run(case.make(ranks.rank)).result))


def check_reductions(ranks: Ranks) -> None:
    edge = GATHER_LIMIT // 4 // max(1, ranks.size - 1)
    members = range(ranks.size)
    for size in (0, 1, 2, 5, 1000, edge, edge + 1, 150_003):
        for dtype in (np.float16, np.float32, np.float64):
            for weights in ([1.0] * ranks.size, [0.3] * ranks.size, [1.5 + r for r in members]):
                with np.errstate(over="ignore", invalid="ignore"):  # a float16 has room for little
                    values = [vector(r, size, dtype) for r in members]
                    for op in ("mean", "sum"):
                        expected = fold(values, weights, op)
                        reductions(ranks, values[ranks.rank].copy(), weights[ranks.rank], op, expected)


def reductions(ranks: Ranks, value: Array, weight: float, op: Any, expected: Array) -> None:
    start, stop = parts(value.size, ranks.size)[ranks.rank]

    def program() -> Program[None]:
        kept, out = value.copy(), np.empty_like(value)
        same((yield from AllReduce(value, weight, op)), expected)
        assert (yield from AllReduce(value, weight, op, out=out)) is out
        same(out, expected)
        same((yield from ReduceScatter(value, weight, op)), expected[start:stop])
        view = kept[:]
        same((yield from AllReduce(kept, weight, op, out=view)), expected)  # the same memory by another name
        same((yield from AllReduce(value, weight, op, out=value)), expected)

    ranks.run(program())


def check_narrow_reductions(ranks: Ranks) -> None:
    """Around the edge between gathering whole and exchanging parts: the bytes that travel decide."""
    edge = GATHER_LIMIT // 2 // max(1, ranks.size - 1)
    for size in (0, 1, edge, edge + 1):
        weights = [1.0 + r for r in range(ranks.size)]
        for wire in ("bf16", "fp16"):
            values = [vector(r, size) * np.float32(2**-5) for r in range(ranks.size)]
            whole = by_hand([on_wire(value, wire) for value in values], weights, "mean")
            for fast in ("ordered", "fast"):
                effect = AllReduce(values[ranks.rank], weights[ranks.rank], wire=wire)
                outcome = ranks.run(answering(effect), reduction=fast)
                same(outcome.result, on_wire(whole, wire))
                assert outcome.sent["sync"] == traffic(AllReduce, 2 * size, ranks.size).sent
            start, stop = parts(size, ranks.size)[ranks.rank]
            same(ranks.answer(ReduceScatter(values[ranks.rank], weights[ranks.rank], wire=wire)), whole[start:stop])


def check_weights_that_change(ranks: Ranks) -> None:
    members = range(ranks.size)
    values = [vector(r, 300) for r in members]
    turns = [[1.0] * ranks.size, [1.0 + r for r in members], [2.0] * ranks.size, [3.0 - r / 2 for r in members]] * 2

    def program() -> Program[None]:
        for weights in turns:
            same((yield from AllReduce(values[ranks.rank], weights[ranks.rank])), by_hand(values, weights, "mean"))

    ranks.run(program())


def check_group_reductions(ranks: Ranks) -> None:
    if ranks.size < 3:
        return
    group = (0, ranks.size - 1)
    values = {r: vector(r, 40_000) for r in group}
    expected = by_hand(list(values.values()), [1.0, 2.0], "mean")

    def program() -> Program[None]:
        if ranks.rank in group:
            value = values[ranks.rank]
            same((yield from AllReduce(value, 1.0 + group.index(ranks.rank), group=group)), expected)
            same((yield from AllReduce(value[:9], 1.0 + group.index(ranks.rank), group=group)), expected[:9])

    ranks.run(program())


def check_fast(ranks: Ranks) -> None:
    members = range(ranks.size)
    for size in (3, 100_000):
        for weights in ([2.0] * ranks.size, [1.0 + r for r in members]):
            values = [np.random.Generator(np.random.PCG64(r)).random(size, np.float32) for r in members]
            for op in ("mean", "sum"):
                own = values[ranks.rank].copy()
                effect = AllReduce(own, weights[ranks.rank], op, out=own if size == 3 else None)
                expected = fold(values, weights, op)
                answer = ranks.answer(effect, reduction="fast")
                np.testing.assert_allclose(answer, expected, rtol=1e-5)
                assert len(set(ranks.all(answer.tobytes()))) == 1


def check_phantoms_and_bytes(ranks: Ranks) -> None:
    n = ranks.size

    def program() -> Program[None]:
        for nbytes in (0, 7, 4000, 600_000):
            for effect, kind, whole in (
                (AllReduce(Phantom(nbytes), phase="a"), AllReduce, nbytes),
                (Broadcast(Phantom(nbytes), phase="b"), Broadcast, nbytes),
                (AllGather(Phantom(nbytes), phase="c"), AllGather, n * nbytes),
            ):
                answer = yield from effect
                assert answer.nbytes == whole, (kind, answer)
        yield from AllReduce(np.zeros(1000, np.float32), phase="d")
        yield from AllGather(np.zeros(ranks.rank + 1, np.float64), tuple(range(1, n + 1)), phase="d")
        for value in (Phantom(400_000), np.zeros(100_000, np.float32)):
            yield from AllReduce(value, wire="bf16", phase="e")
            yield from ReduceScatter(value, wire="bf16", phase="f")
            yield from Broadcast(value, wire="bf16", phase="g")
            yield from AllGather(value, wire="bf16", phase="h")

    outcome = ranks.run(program())
    for phase, kind, times in (("a", AllReduce, 1), ("b", Broadcast, 1), ("c", AllGather, n)):
        sent = sum(traffic(kind, times * nbytes, n).sent for nbytes in (0, 7, 4000, 600_000))
        assert outcome.sent[phase] == sent, (phase, outcome.sent, sent)
        assert outcome.syncs[phase] == 4
    for phase, wired, times in (
        ("e", AllReduce, 1),
        ("f", ReduceScatter, 1),
        ("g", Broadcast, 1),
        ("h", AllGather, n),
    ):
        assert outcome.sent[phase] == 2 * traffic(wired, times * 200_000, n).sent
    assert outcome.sent["d"] == traffic(AllReduce, 4000, n).sent + traffic(AllGather, 4 * n * (n + 1), n).sent


def check_stop(ranks: Ranks) -> None:
    """A stop that one rank alone is asked for reaches all at the same checkpoint, whatever carries it."""

    def exchange(carrier: str) -> Program[None]:
        value = np.ones(4, np.float32)
        if carrier == "direct":
            yield from AllReduce(value)
        elif carrier == "started":
            handle = yield from Start(AllReduce(value))
            yield from Wait(handle)
        elif carrier == "scattered":
            yield from ReduceScatter(value)
        else:
            yield from Broadcast(value)

    def program(carrier: str) -> Program[int]:
        for i in range(100):
            steps.append(i)
            yield from exchange(carrier)
            if (yield from Checkpoint(i, dict)):
                return i
        return -1

    for carrier in ("direct", "started", "scattered", "nothing"):
        steps: list[int] = []
        asked = hooks(lambda steps=steps: ranks.rank == ranks.size - 1 and len(steps) > 3)  # type: ignore[misc]
        ends = ranks.all(ranks.run(program(carrier), hooks=asked).result)
        assert ends == [3] * ranks.size, (carrier, ends)


def check_accounts(ranks: Ranks) -> None:
    """Clocks and spans: what is left out, and in which lane things stand."""
    stamps: list[float] = []

    def program() -> Program[str]:
        for unit in (None, 3):
            yield from Compute(Work("step", unit=unit), lambda: sum(range(20_000)))
        yield from AllReduce(np.ones(3, np.float32), phase="sync")
        yield from Compute(EVALUATE, lambda: sum(range(200_000)))
        yield from AllReduce(np.ones(3), phase="evaluate")
        yield from Compute(STEP, lambda: None, on="host")
        yield from Move(np.ones(2), "host")
        handle = yield from Start(Compute(STEP, lambda: 5))
        yield from Wait(handle)
        yield from Checkpoint(0, dict, due=True)
        return "done"

    def checkpoint(worker: int, seconds: float, state: Any, arrays: dict[str, Array]) -> None:
        assert worker == ranks.rank
        stamps.append(seconds)

    outcome = run(program(), Hooks(lambda *_: None, checkpoint), comm=ranks.comm, trace=True)
    lanes = outcome.lanes
    assert [s[0] for s in lanes["compute"]] == ["step", "step 3", "evaluate", "step"]
    assert [s[0] for s in lanes["network"]] == ["sync", "evaluate"]
    assert [s[0] for s in lanes["host"]] == ["step"]
    assert [s[0] for s in lanes["to host"]] == ["move"]
    assert all(0 <= start <= stop for spans in lanes.values() for _, start, stop in spans)
    evaluated = [stop - start for spans in lanes.values() for name, start, stop in spans if name == "evaluate"]
    assert abs(sum(evaluated) - outcome.evaluating) < 1e-9
    assert 0 < outcome.computing < outcome.seconds
    assert 0 < stamps[0] <= outcome.seconds
    assert outcome.syncs == {"sync": 1, "evaluate": 1}
    assert (outcome.index, outcome.result) == (ranks.rank, "done")
    assert ranks.run(_ for _ in ()).lanes == {}


def check_misfits_without_debug(ranks: Ranks) -> None:
    """Headers alone tell that ranks take part in different things."""
    if ranks.size == 1:
        return
    other = ranks.rank == ranks.size - 1
    makes: list[Callable[[], AllReduce]] = [lambda: AllReduce(np.ones(3, np.float32), op="sum" if other else "mean")]
    if ranks.size == 2:  # among more, sizes that differ are told by the debug mode alone
        makes.append(lambda: AllReduce(np.ones(4 if other else 3, np.float32)))
    for make in makes:
        with pytest.raises(ProtocolError, match="debug"):
            ranks.answer(make())


def check_described_and_emulated_times(ranks: Ranks) -> None:
    """Described and emulated times are computing time, and the program's answers stay what they are."""

    def program() -> Program[int]:
        total = 0
        for i in range(5):
            total += yield from Compute(STEP, lambda i=i: i)  # type: ignore[misc]
        return total

    outcome = ranks.run(program(), price=lambda work: 1e-3)
    assert outcome.result == 10
    assert 4e-3 < outcome.computing <= outcome.seconds  # it never sleeps less than described, on average
    slow = ranks.run(program(), slowness=2.0)
    assert slow.result == 10


def check_exchanges_last_from_the_last_start_to_the_last_stop(ranks: Ranks) -> None:
    """Whichever rank was last, as far as a profile is concerned."""
    n, late = ranks.size, ranks.rank
    spans = np.array([(0.0 + late, 10.0 + late), (50.0 - late, 60.0 + 2 * late)])
    assert together(ranks.comm, spans).tolist() == [10.0, 10.0 + 2 * (n - 1)]
    with patch("paceline.trials.zlib.crc32", lambda _: ranks.rank):  # as on several machines, whose clocks differ
        assert together(ranks.comm, spans).tolist() == [10.0, 10.0], "the shortest among the ranks"


def main() -> None:
    with abort_on_error():
        from mpi4py import MPI

        ranks = Ranks(MPI.COMM_WORLD)
        if len(sys.argv) > 1:
            case = next(c for c in CASES if c.name == sys.argv[1])
            run(case.make(ranks.rank), hooks(), debug=case.debug)
            return
        done = [check_conformance(ranks)]
        for name, check in list(globals().items()):
            if name.startswith("check_") and name != "check_conformance":
                check(ranks)
                done.append(1)
        if ranks.rank == 0:
            print(f"{sum(done)} checks passed on {ranks.size} ranks", flush=True)


if __name__ == "__main__":
    main()
