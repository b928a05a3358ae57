"""Many simulations, one table: runs the points of a sweep with a given `simulate` function.

Rule: the table records what has been run. A point that is in it is not run again, and the table is saved whatever ends
the sweep. A point that fails becomes a row with its error.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, wait
from typing import Any

from ..program.errors import PacelineError, one_line
from .points import Point
from .table import Row, SweepTable, row_of

Simulate = Callable[[Point], Mapping[str, Any]]  # returns the run's summary

SAVE_EVERY = 2.0  # seconds between two writes of the table; more where writing would take over a twentieth of the time
TOGETHER = 0.25  # seconds of work that are sent to a process at once
MOST = 64  # points that are sent to a process at once, however quick they are


def run(
    points: Sequence[Point],
    simulate: Simulate,
    executor: Executor,
    table: SweepTable,
    *,
    processes: int = 1,
    tell: Callable[[], None] = lambda: None,
) -> None:
    """Simulate the points on the executor and add their rows to the table. It is saved now and then, and at the end.

    simulate: is pickled for other processes. An exception that it raises becomes the row's error.
    processes: how many points the executor can simulate at a time.
    tell: called when rows have been added.

    PacelineError where a process died.
    """
    running: dict[Future[tuple[list[Row], float]], Sequence[Point]] = {}
    begun, together, due = 0, 1, time.monotonic() + SAVE_EVERY
    try:
        while begun < len(points) or running:
            while begun < len(points) and len(running) < 2 * processes:
                part = points[begun : begun + together]
                running[executor.submit(measure, simulate, part)] = part
                begun += len(part)
            for future in wait(running, timeout=SAVE_EVERY, return_when=FIRST_COMPLETED).done:
                seconds = _collect(future, running.pop(future), table)
                together = max(1, min(MOST, int(TOGETHER / max(seconds, 1e-9))))
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


def _collect(future: Future[tuple[list[Row], float]], part: Sequence[Point], table: SweepTable) -> float:
    """Put finished rows into the table; returns the seconds per point."""
    rows, seconds = future.result()
    for point, row in zip(part, rows, strict=True):
        table.add(point, row)
    return seconds / len(rows)


def measure(simulate: Simulate, points: Iterable[Point]) -> tuple[list[Row], float]:
    """(the rows of the points, the seconds for all of them). A point that fails has a row with only its error."""
    begin, rows = time.perf_counter(), list[Row]()
    for point in points:
        try:
            rows.append(row_of(simulate(point)))
        except Exception as error:  # whatever a user's model or data raises: the other points are still simulated
            rows.append({"error": in_a_line(error)})
    return rows, time.perf_counter() - begin


def in_a_line(error: Exception) -> str:
    """An error in one line. One that Paceline did not raise is shown with its type."""
    return one_line(str(error) if isinstance(error, PacelineError) else f"{type(error).__name__}: {error}")
