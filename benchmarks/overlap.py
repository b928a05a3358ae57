"""What hides an exchange behind computation best: a thread that sleeps, one that blocks, or looks between units?

    python benchmarks/overlap.py [--small]

Two ranks compute units (a matrix product each, of a few ms) and all-reduce a vector after every one or two of them, by
ways that take turns block by block in one mpirun:

- ceiling: the units alone, nothing is sent. No overlap: each AllReduce is waited for at once.
- sleeping thread: Start and Wait, as the runtime serves them (runtime/polling.py).
- blocking thread: a thread that does the same exchange in MPI's blocking calls.
- polling: the program itself looks for messages between units, and goes on with the exchange when they are there.

The last two are written out here, for two ranks, without the runtime. All must give the same bits. Once through shared
memory, once through ports of 1 Gbit/s in network namespaces (runtime/star.py; skipped, with the reason, where these
cannot be made). Reported, per way: median over blocks of seconds / the ceiling's seconds of the same block; of the time
that the exchanges add without overlap, the share that it hides; processor seconds of both ranks / those of the ceiling.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import SimpleQueue
from time import perf_counter, process_time
from typing import Any

import numpy as np

from paceline.program.effects import AllReduce, Array, Compute, Program, Start, Wait, Work
from paceline.program.outcome import Hooks
from paceline.records.environment import environment
from paceline.runtime.engine import run
from paceline.runtime.launcher import abort_on_error, launch, under_mpirun
from paceline.runtime.messages import gather_texts
from paceline.runtime.star import Star

RESULTS = Path(__file__).parent / "results" / "overlap.json"
SIDE = 512  # of the unit's square matrices
# Per network: bytes of an all-reduce, units computed before each, all-reduces in a block.
PLANS = {"shared memory": (4_000_000, 1, 16), "1 Gbit/s": (1_000_000, 2, 16)}
BLOCKS = 20
UNIT = Work("step")


class Exchange:
    """The mean of two ranks' vectors, written out: exchange halves, add, exchange the sums."""

    def __init__(self, comm: Any, value: Array) -> None:
        self.comm, self.rank, self.other = comm, comm.rank, 1 - comm.rank
        half = value.size // 2
        self.mine, self.theirs = (
            (slice(half), slice(half, None)) if comm.rank == 0 else (slice(half, None), slice(half))
        )
        self.value, self.out = value, np.empty_like(value)

    def _calls(self) -> Iterator[tuple[Array, Array]]:
        """(what to send, what to receive) of each step."""
        own = self.out[self.mine]
        yield self.value[self.theirs], own
        pair = (self.value[self.mine], own) if self.rank == 0 else (own, self.value[self.mine])
        np.add(*pair, out=own)
        np.multiply(own, np.float32(0.5), out=own)
        yield own, self.out[self.theirs]

    def block(self) -> None:
        """All of it, in MPI's blocking calls."""
        for sent, into in self._calls():
            request = self.comm.Isend(sent, self.other)  # before the receive, as runtime/exchange.py
            self.comm.Recv(into, self.other)
            request.Wait()

    def steps(self) -> Iterator[list[Any]]:
        """The requests to be done before the next step."""
        for sent, into in self._calls():
            request = self.comm.Isend(sent, self.other)
            yield [self.comm.Irecv(into, self.other), request]


class Thread:
    """Blocks in MPI in a thread next to the program."""

    def __init__(self) -> None:
        self._queue: SimpleQueue[tuple[Exchange, threading.Event]] = SimpleQueue()
        threading.Thread(target=self._serve, daemon=True).start()

    def start(self, exchange: Exchange) -> Callable[[], Any]:
        """Begin it; returns what waits for it."""
        done = threading.Event()
        self._queue.put((exchange, done))
        return done.wait

    def look(self) -> None:
        """Nothing to do between units."""

    def _serve(self) -> None:
        while True:
            exchange, done = self._queue.get()
            exchange.block()
            done.set()


class Polling:
    """Goes on with the exchanges, one after another, whenever the program asks."""

    def __init__(self) -> None:
        self._waiting: list[Iterator[list[Any]]] = []
        self._requests: list[Any] = []

    def start(self, exchange: Exchange) -> Callable[[], None]:
        """Begin it; returns what waits for it."""
        steps = exchange.steps()
        self._waiting.append(steps)
        if len(self._waiting) == 1:
            self._requests = next(steps)

        def wait() -> None:
            while steps in self._waiting:
                self.look()

        return wait

    def look(self) -> None:
        """Take the next steps that can be taken."""
        from mpi4py import MPI

        while self._waiting and MPI.Request.Testall(self._requests):
            requests = next(self._waiting[0], None)
            if requests is None:
                self._waiting.pop(0)
                requests = next(self._waiting[0]) if self._waiting else []
            self._requests = requests


class Measurement:
    """The ways' programs, each of which makes one block."""

    def __init__(self, comm: Any, nbytes: int, units: int, count: int) -> None:
        import torch

        torch.set_num_threads(1)
        a, b, c = (torch.rand(SIDE, SIDE) for _ in range(3))
        self.product = lambda: torch.mm(a, b, out=c)
        self.comm, self.units = comm, units
        draws = np.random.Generator(np.random.PCG64(comm.rank))
        self.values = [draws.random(nbytes // 4, np.float32) for _ in range(count)]
        self.outs = [np.empty_like(value) for value in self.values]
        self.exchanges = [Exchange(comm.Dup(), value) for value in self.values]
        thread, polling = Thread(), Polling()
        self.ways: dict[str, Callable[[], Program[Any]]] = {
            "ceiling": self.ceiling,
            "no overlap": self.direct,
            "sleeping thread": self.started,
            "blocking thread": lambda: self.by_hand(thread),
            "polling": lambda: self.by_hand(polling),
        }

    def compute(self, between: Callable[[], None] = lambda: None) -> Program[None]:
        """The units before one exchange."""
        for _ in range(self.units):
            yield from Compute(UNIT, self.product)
            between()

    def ceiling(self) -> Program[None]:
        for _ in self.values:
            yield from self.compute()

    def direct(self) -> Program[list[Array]]:
        for value, out in zip(self.values, self.outs, strict=True):
            yield from self.compute()
            yield from AllReduce(value, out=out)
        return self.outs

    def started(self) -> Program[list[Array]]:
        handles = []
        for value, out in zip(self.values, self.outs, strict=True):
            yield from self.compute()
            handles.append((yield from Start(AllReduce(value, out=out))))
        for handle in handles:
            yield from Wait(handle)
        return self.outs

    def by_hand(self, helper: Thread | Polling) -> Program[list[Array]]:
        waits = []
        for exchange in self.exchanges:
            yield from self.compute(helper.look)
            waits.append(helper.start(exchange))
        for wait in waits:
            wait()
        return [exchange.out for exchange in self.exchanges]

    def program(self, blocks: int) -> Program[list[dict[str, tuple[float, float]]]]:
        """Per block and way: (seconds, this rank's processor seconds)."""
        taken = []
        for _ in range(blocks + 1):
            block = {}
            answers: list[list[Array]] = []
            for name, way in self.ways.items():
                self.comm.Barrier()
                start, used = perf_counter(), process_time()
                answer = yield from way()
                used = process_time() - used
                self.comm.Barrier()
                block[name] = (perf_counter() - start, used)
                answers += [[vector.copy() for vector in answer]] if answer else []
            assert all(np.array_equal(a, b) for other in answers for a, b in zip(answers[0], other, strict=True))
            taken.append(block)
        return taken[1:]  # the first block warms up


def measure(network: str, small: bool, path: Path) -> None:
    """On every rank; rank 0 writes its rows."""
    from mpi4py import MPI

    nbytes, units, count = PLANS[network]
    nbytes, count, blocks = (100_000, 2, 2) if small else (nbytes, count, BLOCKS)
    comm = MPI.COMM_WORLD
    outcome = run(Measurement(comm, nbytes, units, count).program(blocks), Hooks(), comm=comm)
    everyone = [json.loads(text) for text in gather_texts(comm, json.dumps(outcome.result))]
    if not everyone:
        return
    seconds = {name: [block[name][0] for block in everyone[0]] for name in everyone[0][0]}
    used = {name: [sum(taken[i][name][1] for taken in everyone) for i in range(blocks)] for name in seconds}
    bare, whole = seconds["ceiling"], seconds["no overlap"]
    rows = {}
    for name, times in seconds.items():
        hidden = [(w - t) / (w - b) for w, t, b in zip(whole, times, bare, strict=True) if w > b]
        rows[name] = {
            "ms": round(statistics.median(times) * 1e3, 2),
            "ratio": round(statistics.median(t / b for t, b in zip(times, bare, strict=True)), 3),
            "hidden": round(statistics.median(hidden), 3) if hidden else None,
            "processor_ratio": round(
                statistics.median(u / b for u, b in zip(used[name], used["ceiling"], strict=True)), 3
            ),
        }
    about = {
        "load_average": os.getloadavg()[0],
        "bytes": nbytes,
        "units_each": units,
        "exchanges": count,
        "blocks": blocks,
    }
    path.write_text(json.dumps({**about, "rows": rows}))


def main() -> None:
    small = "--small" in sys.argv
    if under_mpirun():
        with abort_on_error():
            measure(sys.argv[-2], small, Path(sys.argv[-1]))
        return
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.json"
        for network in PLANS:
            arguments = [*sys.argv[1:], network, str(path)]
            star = None if network == "shared memory" else Star((0, 1), (125e6, 125e6))
            if star and (reason := star.obstacle()):
                results[network] = {"skipped": reason}
                print(f"{network}: skipped, {reason}")
                continue
            if launch(arguments, 2, program=[__file__], star=star):
                raise SystemExit(1)
            results[network] = json.loads(path.read_text())
            for name, row in results[network]["rows"].items():
                print(
                    f"{network:13}  {name:15}  {row['ms']:8.2f} ms  {row['ratio']:5.2f} of the ceiling, "
                    f"hidden {row['hidden']}, processor {row['processor_ratio']:.2f}",
                    flush=True,
                )
    if not small:
        RESULTS.write_text(json.dumps({"environment": environment(1), **results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
