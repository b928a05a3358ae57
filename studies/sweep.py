"""Many simulations, one table: runs the points of a sweep with a given simulator.

Rule: the table records what has been run. A point that is in it is not run again, and the table is saved whatever ends
the sweep. A point that fails becomes a row with its error.

Points that differ only in times are simulated together, which takes little more time than one of them alone. So the
processes get many points at once, and each process groups those that it got.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, wait
from typing import Any, Protocol, TypeVar

from ..program.errors import PacelineError, one_line
from .points import Point
from .table import Row, SweepTable, row_of

T = TypeVar("T")

SAVE_EVERY = 2.0  # seconds between two writes of the table; more where writing would take over a twentieth of the time
LONG = 0.5  # seconds of work after which a process returns what it has finished
FIRST, MOST = 8, 256  # points that are sent to a process at once: at first, and the most

Found = list[Row | None]  # the rows of some points; None for a point that has not been simulated


class Simulator(Protocol):
    """Simulates points. It is pickled for other processes. What it raises becomes the row's error."""

    def prepare(self, point: Point) -> Any:
        """The point's scenario, ready to be simulated."""

    def kind(self, prepared: Any) -> Hashable:
        """Scenarios of equal kinds may be simulated together; None: this one may not."""

    def most(self, prepared: Any) -> int:
        """How many scenarios of this one's kind may be simulated at once."""

    def together(self, several: Sequence[Any]) -> list[Mapping[str, Any]]:
        """The summaries of scenarios of one kind. It raises where one of them cannot be simulated."""

    def alone(self, prepared: Any) -> Mapping[str, Any]:
        """The summary of a single scenario."""


def run(
    points: Sequence[Point],
    simulator: Simulator,
    executor: Executor,
    table: SweepTable,
    *,
    processes: int = 1,
    tell: Callable[[], None] = lambda: None,
) -> None:
    """Simulate the points on the executor and add their rows to the table. It is saved now and then, and at the end.

    processes: how many processes the executor has.
    tell: called when rows have been added.

    PacelineError where a process died.
    """
    running: dict[Future[tuple[Found, float]], list[Point]] = {}
    waiting, size, due = deque(points), FIRST, time.monotonic() + SAVE_EVERY
    try:
        while waiting or running:
            while waiting and len(running) < 2 * processes:
                # Near the end in smaller parts, so that all processes have work until then.
                share = min(size, -(-len(waiting) // (2 * processes - len(running))))
                part = [waiting.popleft() for _ in range(share)]
                running[executor.submit(measure, simulator, part)] = part
            for future in wait(running, timeout=SAVE_EVERY, return_when=FIRST_COMPLETED).done:
                part = running.pop(future)
                left, seconds = _collect(future, part, table)
                waiting.extendleft(reversed(left))
                if left:
                    size = len(part) - len(left)
                elif seconds < LONG / 2 and len(part) == size:
                    size = min(MOST, 2 * size)
            tell()
            if (now := time.monotonic()) >= due:
                table.save()
                due = now + max(SAVE_EVERY, 20 * (time.monotonic() - now))
    except BrokenExecutor:
        raise PacelineError(
            "a process of the sweep died, perhaps because memory ran out; -j 1 needs no other process. "
            "In a script, call sweep under `if __name__ == '__main__':`"
        ) from None
    finally:
        for future, part in running.items():
            if future.done() and not future.cancelled() and future.exception() is None:
                _collect(future, part, table)
        table.save()


def _collect(
    future: Future[tuple[Found, float]], part: Sequence[Point], table: SweepTable
) -> tuple[list[Point], float]:
    """Put finished rows into the table; returns (the points that have none yet, the seconds that the others took)."""
    rows, seconds = future.result()
    left = []
    for point, row in zip(part, rows, strict=True):
        if row is None:
            left.append(point)
        else:
            table.add(point, row)
    return left, seconds


def measure(simulator: Simulator, points: Sequence[Point]) -> tuple[Found, float]:
    """(the rows of the points, the seconds for all of them). A point that fails has a row with only its error.

    After LONG seconds, points have no row that have not been simulated by then.
    """
    begin, rows = time.perf_counter(), Found([None] * len(points))
    kinds: dict[Hashable, list[tuple[int, Any]]] = {}
    for place, point in enumerate(points):
        try:
            ready = simulator.prepare(point)
            kind = simulator.kind(ready)
        except Exception as error:  # whatever a user's model or data raises: the other points are still simulated
            rows[place] = {"error": in_a_line(error)}
        else:
            kinds.setdefault((place, None) if kind is None else kind, []).append((place, ready))
    groups = deque(group for alike in kinds.values() for group in _cut(alike, simulator.most(alike[0][1])))
    while groups and (time.perf_counter() - begin < LONG or not any(rows)):
        group = groups.popleft()
        places, several = zip(*group, strict=True)
        try:
            found = simulator.together(several) if len(group) > 1 else [simulator.alone(*several)]
        except Exception as error:
            if len(group) > 1:  # each has its own error, or none
                groups.extendleft([one] for one in reversed(group))
            else:
                rows[places[0]] = {"error": in_a_line(error)}
        else:
            for place, summary in zip(places, found, strict=True):
                rows[place] = row_of(summary)
    return rows, time.perf_counter() - begin


def _cut(whole: list[T], most: int) -> Iterator[list[T]]:
    """The list in parts of at most so many."""
    return (whole[first : first + most] for first in range(0, len(whole), most))


def in_a_line(error: Exception) -> str:
    """An error in one line. One that Paceline did not raise is shown with its type."""
    return one_line(str(error) if isinstance(error, PacelineError) else f"{type(error).__name__}: {error}")
