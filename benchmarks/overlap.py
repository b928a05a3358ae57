"""What hides an exchange behind computation best: a thread that sleeps, one that blocks, or looks between units?

Two ranks compute units (a matrix product each, of a few ms) and all-reduce a vector after every one or two of them, by
ways that take turns block by block in one mpirun:

- computing alone: the units, nothing is sent. No overlap: each AllReduce is waited for at once.
- sleeping thread: Start and Wait, as the runtime serves them (runtime/polling.py).
- blocking thread: a thread that does the same exchange in MPI's blocking calls.
- polling: the program itself looks for messages between units, and goes on with the exchange when they are there.

The last two are written out here, for two ranks, without the runtime. All must give the same bits. Once through shared
memory, once through ports of 1 Gbit/s in network namespaces (runtime/star.py; skipped, with the reason, where these
cannot be made). The baseline is computing alone. The limit on the port is what its rate allows: all exchanges one after
another behind the first computation. Bar of the sleeping thread on the port: 1.5. The figures give, of the time that
the exchanges add without overlap, the share that each way hides, and processor seconds of both ranks over those of
computing alone.
"""

from __future__ import annotations

import statistics
import threading
from collections.abc import Callable, Iterator
from queue import SimpleQueue
from time import perf_counter, process_time
from typing import Any

import numpy as np

from paceline.program.effects import AllReduce, Array, Compute, Program, Start, Wait, Work
from paceline.program.outcome import Hooks
from paceline.runtime.engine import run
from paceline.runtime.star import Star

from .form import Limit, compare, rounded
from .harness import Found, Run
from .ranks import on_ranks

SECONDS = 90
SIDE = 512  # of the unit's square matrices
# Per network: bytes of an all-reduce, units computed before each, all-reduces in a block.
PLANS = {"shared memory": (4_000_000, 1, 16), "1 Gbit/s": (1_000_000, 2, 16)}
TURNS = 20
RATE, PAYLOAD = 125e6, 1448 / 1538  # bytes/s of a port, and the share of an Ethernet frame that is payload over TCP
BAR = 1.5
ALONE, LIMIT = "computing alone", "the port's rate"
UNIT = Work("step")


class Exchange:
    """The mean of two ranks' vectors, written out: exchange halves, add, exchange the sums."""

    def __init__(self, comm: Any, value: Array) -> None:
        self.comm, self.rank, self.other = comm, comm.rank, 1 - comm.rank
        half = value.size // 2
        parts = slice(half), slice(half, None)
        self.mine, self.theirs = parts[comm.rank], parts[1 - comm.rank]
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
            ALONE: self.alone,
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

    def alone(self) -> Program[None]:
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

    def program(self, run: Run) -> Program[list[dict[str, tuple[float, float]]]]:
        """Per turn and way: (seconds, this rank's processor seconds)."""
        taken = []
        for turn in run.turns(TURNS, self.comm):
            block = {}
            answers: list[list[Array]] = []
            for name in reversed(list(self.ways)) if turn % 2 else self.ways:
                self.comm.Barrier()
                start, used = perf_counter(), process_time()
                answer = yield from self.ways[name]()
                used = process_time() - used
                self.comm.Barrier()
                block[name] = (perf_counter() - start, used)
                answers += [[vector.copy() for vector in answer]] if answer else []
            assert all(np.array_equal(a, b) for other in answers for a, b in zip(answers[0], other, strict=True))
            if turn >= 0:
                taken.append(block)
        return taken


def on_rank(comm: Any, nbytes: int, units: int, count: int, run_: Run) -> tuple[dict[str, list[float]], ...]:
    """By way, turn by turn: milliseconds, and processor seconds of both ranks."""
    own = run(Measurement(comm, nbytes, units, count).program(run_), Hooks(), comm=comm).result
    everyone = comm.allgather(own)
    seconds = {name: [turn[name][0] * 1e3 for turn in everyone[0]] for name in own[0]}
    used = {name: [sum(turn[name][1] for turn in turns) for turns in zip(*everyone, strict=True)] for name in own[0]}
    return seconds, used


def allowed(nbytes: int, count: int, milliseconds: float) -> Limit:
    """What a port's rate allows. milliseconds: of a block's computing alone."""
    sending, computing = nbytes / RATE / PAYLOAD * 1e3, milliseconds / count
    return Limit(what=LIMIT, ratio=rounded((computing + count * max(sending, computing)) / milliseconds))


def measure(run_: Run) -> Found:
    found, share = Found(), run_.share(len(PLANS))
    for network, (nbytes, units, count) in PLANS.items():
        star = None if network == "shared memory" else Star((0, 1), (RATE, RATE))
        if star and (reason := star.obstacle()):
            found.skipped.append(f"{network}: {reason}")
            continue
        nbytes, count = (100_000, 2) if run_.small else (nbytes, count)
        seconds, used = on_ranks(on_rank, 2, nbytes, units, count, share, star=star)
        case = f"{network}, 2 ranks, {count} exchanges of {nbytes / 1e6:g} MB, units before each: {units}"
        alone, whole = seconds[ALONE], seconds["no overlap"]
        limit = allowed(nbytes, count, statistics.median(alone)) if star else None
        found.figures[network] = figures = dict[str, Any]()
        for way in [way for way in seconds if way != ALONE]:
            bar = BAR if star and way == "sleeping thread" else None
            found.rows.append(compare(case, way, ALONE, seconds, "time", bar=bar, limit=limit, unit="ms"))
            hidden = [(w - t) / (w - b) for w, t, b in zip(whole, seconds[way], alone, strict=True) if w > b]
            processor = [u / b for u, b in zip(used[way], used[ALONE], strict=True)]
            figures[way] = {
                "hidden": rounded(statistics.median(hidden)) if hidden else None,
                "processor ratio": rounded(statistics.median(processor)),
            }
    return found
