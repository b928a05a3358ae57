"""A trace as rows of bars that a page can hold: all spans where they are few enough, however long the run was.

Rule: where there are more spans than wanted, those of some rounds are kept: the first ones, and those around faults and
recoveries. All other time is cut into slices of equal length, in which each kind has a bar as high as its share. So
the areas of a row's bars add up to what the trace has, at any size.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import chain

import numpy as np

from ..program.outcome import Span
from ..records.recoveries import LANE as RECOVERY
from ..records.spool import FAULTS
from ..records.trace import ROUNDS
from .colours import LANES, Area, of_span
from .run import Run

MOST = 150_000  # bars
WORKERS = 64  # rows of so many workers
_EVENTS = 8  # faults and recoveries around which rounds are kept
_OVERLAP = 0.001  # of the time: where kinds overlap by less, a worker has one row for all of them
_KEPT = 0.5  # of the bars, the part that is for single spans where not all are kept
Numbers = np.ndarray


@dataclass(frozen=True, eq=False)
class Bars:
    """What one worker does, in all or on one kind of lane: bars in the order of time.

    They do not overlap, except that all bars of a slice begin and stop together, and lie one above the other.
    """

    worker: int
    kind: str  # a value of colours.LANES; empty: all of them
    names: Numbers  # uint16: places in Timeline.names
    starts: Numbers  # float64, seconds
    stops: Numbers
    shares: Numbers | None = None  # of the row that each bar fills; None: all of it


@dataclass(frozen=True)
class Mark:
    """A fault, or a recovery of the run. Times are in the trace's seconds."""

    name: str
    worker: int | None  # None: all of them
    start: float
    stop: float


@dataclass(eq=False)
class Timeline:
    """The rows of a run's trace."""

    workers: Sequence[int]  # those that have rows
    rows: list[Bars]
    names: list[str]  # of spans, like "forward 3"
    looks: list[tuple[str, Area]]  # of each name: what a legend calls it, and how it is filled
    rounds: Numbers  # float64: when each round ends at worker 0, in seconds
    stop: float  # seconds
    spans: int  # that the trace has in these rows
    kept: list[tuple[int, int]] = field(default_factory=list)  # (first, last) of the rounds whose spans are kept
    slice: float = 0.0  # seconds of a slice elsewhere; 0: all spans are kept
    marks: list[Mark] = field(default_factory=list)

    @property
    def start(self) -> float:
        """Seconds; below 0 after a restart, whose trace begins with the new ranks."""
        return min((0.0, *(mark.start for mark in self.marks)))


def timeline(run: Run, most: int = MOST, workers: int = WORKERS) -> Timeline:
    """The rows of a traced run: of so many workers at most, those that faults hit first, with so many bars at most.

    A worker has a row for each kind of lane if what is on them overlaps, as with exchanges next to computing.

    ValueError where the run has no trace.
    """
    if not run.lanes:
        raise ValueError(f"{run.name} has no trace; run it with --set report.trace=true")
    marks = [*_marks(run)]
    hit = [mark.worker for mark in marks if mark.worker is not None]
    shown = sorted([*dict.fromkeys([*hit, *range(len(run.lanes))])][:workers])
    names: dict[tuple[str, str], int] = {}  # (lane, name) of a span -> its place
    by_worker = [[*_rows(worker, run.lanes[worker], names)] for worker in shown]
    merged = [[_merged(rows)] if rows else [] for rows in by_worker]  # of a lost worker there may be no spans
    apart = sum(map(_seconds, by_worker))
    if apart - sum(map(_seconds, merged)) <= _OVERLAP * apart:
        by_worker = merged
    rows = [row for rows in by_worker for row in rows]
    rounds = np.array([stop for _, _, stop in run.lanes[0].get(ROUNDS, ())])
    looks = [of_span(lane, (name, 0.0, 0.0)) for lane, name in names]
    stop = max((float(row.stops[-1]) for row in rows if len(row.stops)), default=0.0)
    spans = sum(len(row.starts) for row in rows)
    found = Timeline(shown, rows, [name for _, name in names], looks, rounds, stop, spans, marks=marks)
    if spans > most:
        _cut(found, most)
    return found


def _marks(run: Run) -> Iterable[Mark]:
    for worker, lanes in enumerate(run.lanes):
        yield from (Mark(name, worker, start, stop) for name, start, stop in lanes.get(FAULTS, ()))
        yield from (Mark(name, None, start, stop) for name, start, stop in lanes.get(RECOVERY, ()))


def _rows(worker: int, lanes: dict[str, list[Span]], names: dict[tuple[str, str], int]) -> Iterable[Bars]:
    for kind in dict.fromkeys(LANES.values()):
        found = [(lane, lanes[lane]) for lane, its in LANES.items() if its == kind and lanes.get(lane)]
        if not found:
            continue
        places = [names.setdefault((lane, span[0]), len(names)) for lane, spans in found for span in spans]
        starts, stops = np.array([span[1:] for _, spans in found for span in spans]).T
        # Spans of started effects may overlap.
        yield Bars(worker, kind, *_in_order(np.array(places, np.uint16), starts, stops))


def _seconds(rows: Iterable[Bars]) -> float:
    return sum(float((row.stops - row.starts).sum()) for row in rows)


def _merged(rows: Sequence[Bars]) -> Bars:
    """One row of a worker's rows: where two overlap, the later bar begins where the earlier one stops."""
    whole = (np.concatenate([*columns]) for columns in zip(*((r.names, r.starts, r.stops) for r in rows), strict=True))
    return Bars(rows[0].worker, "", *_in_order(*whole))


def _in_order(names: Numbers, starts: Numbers, stops: Numbers) -> tuple[Numbers, Numbers, Numbers]:
    """The bars in the order of time, without overlaps."""
    order = np.argsort(starts, kind="stable")
    names, starts, stops = names[order], starts[order], stops[order]
    starts = np.maximum(starts, np.concatenate([starts[:1], np.maximum.accumulate(stops)[:-1]]))
    some = stops > starts
    return names[some], starts[some], stops[some]


def _cut(found: Timeline, most: int) -> None:
    """Keep the spans of some rounds, and make slices of the rest, in place."""
    windows = _windows(found, int(most * _KEPT))
    found.kept = [
        (int(np.searchsorted(found.rounds, start, "right")) + 1, int(np.searchsorted(found.rounds, stop, "left")) + 1)
        for start, stop in windows
    ]
    told = [legend for legend, _ in found.looks]
    whole = {legend: len(told) + place for place, legend in enumerate(dict.fromkeys(told))}
    kinds = np.array([whole[legend] for legend in told])  # what a span of each name counts as in a slice
    looks = dict(found.looks)
    found.names += whole
    found.looks += [(legend, looks[legend]) for legend in whole]
    left = most - sum(_within(found.rows, *window) for window in windows)
    count = max(1, left // sum(len(np.unique(kinds[row.names])) for row in found.rows) - 1)
    rows, found.slice = _slices(found, count, kinds, windows)
    more = int(count * left / max(1, sum(len(row.starts) for row in rows) - (most - left)) * 0.95)
    if more > count:  # not every slice has every kind
        finer, length = _slices(found, more, kinds, windows)
        if sum(len(row.starts) for row in finer) <= most:
            rows, found.slice = finer, length
    found.rows = rows


def _slices(
    found: Timeline, count: int, kinds: Numbers, windows: Sequence[tuple[float, float]]
) -> tuple[list[Bars], float]:
    """(the rows with about so many slices outside the windows, seconds of a slice)."""
    borders = [edge for window in windows for edge in window]
    edges = np.unique(np.concatenate([np.linspace(0.0, found.stop, count + 1), borders]))
    sliced = np.ones(len(edges) - 1, bool)
    for start, stop in windows:
        sliced &= (edges[:-1] < start) | (edges[:-1] >= stop)
    return [_sliced(row, edges, sliced, kinds, windows) for row in found.rows], found.stop / count


def _windows(found: Timeline, spans: int) -> list[tuple[float, float]]:
    """(start, stop) of the times whose spans are kept, in their order: so many spans at most."""
    ends = found.rounds
    if not len(ends):
        return []
    begins = np.concatenate([[0.0], ends[:-1]])
    events = [*dict.fromkeys(int(np.searchsorted(ends, mark.start)) for mark in found.marks)][:_EVENTS]
    rounds = int(spans / (found.spans / len(ends)))
    around = rounds // 2 // len(events) if events else 0
    wanted = [range(round - around // 2, round - around // 2 + around) for round in events]
    first = range(rounds - around * len(events))
    kept = np.zeros(len(ends), bool)
    for place in chain(*wanted, first):
        if 0 <= place < len(ends):
            kept[place] = True
    starts = np.flatnonzero(np.diff(np.concatenate([[False], kept]).astype(int)) == 1)
    stops = np.flatnonzero(np.diff(np.concatenate([kept, [False]]).astype(int)) == -1)
    windows = [(float(begins[a]), float(ends[b])) for a, b in zip(starts, stops, strict=True)]
    while windows and sum(_within(found.rows, *window) for window in windows) > spans:
        start, _ = windows[-1]  # rounds have unequal numbers of spans
        before = ends[(ends > start) & (ends < windows[-1][1])]
        windows[-1:] = [(start, float(before[len(before) // 2]))] if len(before) else []
    return windows


def _within(rows: Iterable[Bars], start: float, stop: float) -> int:
    """How many spans of the rows begin in a window, or reach into it."""
    return sum(int(np.searchsorted(row.starts, stop) - np.searchsorted(row.stops, start, "right")) for row in rows)


def _sliced(row: Bars, edges: Numbers, sliced: Numbers, kinds: Numbers, windows: Sequence[tuple[float, float]]) -> Bars:
    """The row with the bars of slices in place of its spans outside the windows."""
    own = kinds[row.names]
    found = np.unique(own)
    shares = np.column_stack([covered(row.starts[own == kind], row.stops[own == kind], edges) for kind in found])
    shares[~sliced] = 0.0
    some = shares > 1e-12
    widths, slices = np.diff(edges), np.nonzero(some)[0]
    parts = [
        (np.tile(found, (len(shares), 1))[some], edges[slices], edges[slices + 1], (shares / widths[:, None])[some])
    ]
    for start, stop in windows:
        its = slice(np.searchsorted(row.stops, start, "right"), np.searchsorted(row.starts, stop))
        starts, stops = np.maximum(row.starts[its], start), np.minimum(row.stops[its], stop)
        parts.append((row.names[its], starts, stops, np.ones(len(starts))))
    names, starts, stops, filled = (np.concatenate(column) for column in zip(*parts, strict=True))
    order = np.argsort(starts, kind="stable")
    return Bars(row.worker, row.kind, names[order].astype(np.uint16), starts[order], stops[order], filled[order])


def covered(starts: Numbers, stops: Numbers, edges: Numbers) -> Numbers:
    """How many seconds of each slice between two edges the spans fill. Where they overlap, the time counts once."""
    _, starts, stops = _in_order(np.zeros(len(starts)), starts, stops)
    if not len(starts):
        return np.zeros(len(edges) - 1)
    # Seconds up to each time: a line that rises while there is a span.
    times, so_far = np.column_stack([starts, stops]), np.concatenate([[0.0], np.cumsum(stops - starts)])
    return np.diff(np.interp(edges, times.ravel(), np.repeat(so_far, 2)[1:-1]))
