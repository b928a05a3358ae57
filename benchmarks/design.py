"""What would the ways not taken cost: programs as threads or coroutines, frozen effects, other orders of adding?

docs/design.md gives these figures. Blocks of each kind run in turn. Each block asserts how many answers it gave.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np

from paceline.program.effects import Array, Compute, Program, Work, nothing
from paceline.program.fold import fold

from .form import compare
from .harness import Found, Run, alternate, timed

SECONDS = 40
WORK = Work("step")


@dataclass(frozen=True, slots=True, eq=False)
class FrozenCompute:
    """As `Compute`, but frozen."""

    work: Work
    run: Callable[[], None]
    on: str = "device"


def generator(count: int) -> int:
    """A program as it is: a generator that is sent answers."""

    def program() -> Program[int]:
        got = 0
        for _ in range(count):
            got += yield from Compute(WORK, int)
        return got

    running, answer, given = program(), None, 0
    while True:
        try:
            running.send(answer)
        except StopIteration:
            return given
        answer, given = 1, given + 1


def coroutine(count: int) -> int:
    """A program as an asyncio task that awaits futures, which the interpreter fills."""
    given = 0

    async def program(asked: asyncio.Queue[asyncio.Future[int]]) -> None:
        loop = asyncio.get_running_loop()
        for _ in range(count):
            Compute(WORK, nothing)
            future = loop.create_future()
            asked.put_nowait(future)
            await future

    async def interpreter() -> None:
        nonlocal given
        asked: asyncio.Queue[asyncio.Future[int]] = asyncio.Queue()
        task = asyncio.ensure_future(program(asked))
        for _ in range(count):
            (await asked.get()).set_result(1)
            given += 1
        await task

    asyncio.run(interpreter())
    return given


def thread(count: int) -> int:
    """A program in a thread of its own, which waits for each answer."""
    asked, answered = threading.Semaphore(0), threading.Semaphore(0)

    def program() -> None:
        for _ in range(count):
            Compute(WORK, nothing)
            asked.release()
            answered.acquire()

    running = threading.Thread(target=program)
    running.start()
    for _ in range(count):
        asked.acquire()
        answered.release()
    running.join()
    return count


def slotted(count: int) -> int:
    """Effects as they are."""
    for _ in range(count):
        Compute(WORK, nothing)
    return count


def frozen(count: int) -> int:
    """Effects that Python keeps anyone from changing."""
    for _ in range(count):
        FrozenCompute(WORK, nothing)
    return count


BLOCKS = {
    "answer to a generator": generator,
    "answer to an asyncio task": coroutine,
    "answer to a thread": thread,
    "a slotted effect": slotted,
    "a frozen effect": frozen,
}


# way -> its baseline
PAIRS = {
    "answer to an asyncio task": "answer to a generator",
    "answer to a thread": "answer to a generator",
    "a frozen effect": "a slotted effect",
}


def by_halves(values: list[Array]) -> Array:
    """The sum as recursive doubling makes it: neighbours first, then pairs of pairs."""
    while len(values) > 1:
        values = [values[i] + values[i + 1] if i + 1 < len(values) else values[i] for i in range(0, len(values), 2)]
    return values[0]


def differing(elements: int) -> Iterator[tuple[int, float]]:
    """(workers, share of a sum's elements whose bits differ between rank order and recursive doubling)."""
    random = np.random.default_rng(7)
    for workers in (2, 4, 8, 16):
        values = [random.standard_normal(elements, np.float32) for _ in range(workers)]
        ordered = fold(values, [1.0] * workers, "sum", np.empty(elements, np.float32))
        yield workers, float(np.mean(ordered.view(np.int32) != by_halves(values).view(np.int32)))


def measure(run: Run) -> Found:
    count = 500 if run.small else 20_000

    def cost(block: Callable[[int], int]) -> float:
        given: list[int] = []
        seconds = timed(lambda: given.append(block(count)))
        assert given == [count]
        return seconds / count * 1e6

    taken = alternate({name: partial(cost, block) for name, block in BLOCKS.items()}, run.turns(21))
    rows = [compare("a program", way, against, taken, "time", unit="us") for way, against in PAIRS.items()]
    shares = {str(workers): round(share, 4) for workers, share in differing(1_000 if run.small else 1_000_000)}
    return Found(rows, {"share of elements that differ, by workers": shares})
