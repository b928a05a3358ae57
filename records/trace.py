"""trace.json.gz: spans per worker and lane in Chrome's trace-event format, which Perfetto opens.

Rule: the events of a track are in the order of time, and each lies within the event that contains it. A worker's
computing is nested: rounds contain steps, steps contain passes, passes contain units. Where spans of a lane overlap, as
those of started effects may, they get further tracks with the lane's name.
"""

from __future__ import annotations

import gzip
import json
import shutil
import sys
import zlib
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import groupby
from math import inf
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ConfigDict, TypeAdapter

from ..program.errors import ScenarioError
from ..program.outcome import Span
from .directory import SPANS, TRACE
from .schemas import Finite
from .spool import FAULTS, Spool, TakeSpans, read_spools
from .trace_notes import NETWORK, NUMBERS, WAIT, Arrows, RoundNumbers

Lanes = Mapping[str, Iterable[Span]]
ROUNDS = "rounds"  # the lane of the spans that contain those of "compute"
ORDER = (FAULTS, "compute", "host", "to host", "to device", NETWORK)  # of the lanes, from the top
_LANES = TypeAdapter(dict[str, list[tuple[str, Finite, Finite]]], config=ConfigDict(defer_build=True))  # a worker's
# The first line and the last one. Between them, each event has a line.
BEGIN, END = '{"displayTimeUnit":"ms","traceEvents":[\n', "]}\n"
BLOCK = 1 << 20  # characters that are read at once
CLOSE = 1e-9  # seconds: spans that overlap by less count as one after the other


@contextmanager
def streamed_trace(directory: Path, workers: int) -> Iterator[TakeSpans]:
    """Hooks.spans for a run in one process. When the run ends, in whatever way, its directory gets the trace."""
    spool = open_spool(directory, 0)
    try:
        yield spool.take
    finally:
        spool.close()
        write_spooled(directory, workers, split=False)


def open_spool(directory: Path, part: int) -> Spool:
    """A spool in a run directory, for one of the processes that write to it."""
    (directory / SPANS).mkdir(exist_ok=True)
    return Spool(directory / SPANS / f"{part}")


def write_spooled(directory: Path, workers: int, split: bool) -> None:
    """Write the trace from the closed spools of a run directory, and remove them. split: see `split_waits`."""
    lanes = read_spools(sorted((directory / SPANS).iterdir()), workers)
    write_trace(directory / TRACE, split_waits(lanes) if split else lanes)
    shutil.rmtree(directory / SPANS)


def write_trace(path: Path, workers: Sequence[Lanes]) -> None:
    """Write the trace: a process per worker, a thread per track. Events are written one by one, to save memory."""
    arrows = Arrows(workers)
    with gzip.open(path, "wt", encoding="utf-8", compresslevel=4) as file:
        file.write(BEGIN)
        file.write(json.dumps({"ph": "M", "name": "paceline", "pid": 0, "args": {"workers": len(workers)}}))
        for worker, lanes in enumerate(workers):
            file.write(f',\n{{"ph":"M","name":"process_name","pid":{worker},"args":{{"name":"worker {worker}"}}}}')
            rounds, numbers = lanes.get(ROUNDS, ()), RoundNumbers(worker, lanes.get(NUMBERS, ()))
            arrows.begin()
            tracks = 0
            for lane in sorted(lanes, key=lambda name: ORDER.index(name) if name in ORDER else len(ORDER)):
                if lane not in (ROUNDS, NUMBERS):
                    events = placed(lanes[lane], rounds if lane == "compute" else (), lane == "compute")
                    follow = arrows if lane == NETWORK else None
                    tracks += _write_lane(file.write, worker, tracks, lane, events, numbers, follow)
            file.write(numbers.rest())
        file.write(f"\n{END}")


def _write_lane(
    write: Callable[[str], object],
    worker: int,
    first: int,
    lane: str,
    events: Iterable[tuple[int, str, Span]],
    numbers: RoundNumbers,
    arrows: Arrows | None,
) -> int:
    """Write a lane's events on the threads from `first` on; returns how many threads it used."""
    labels: list[str] = []
    for place, (track, kind, span) in enumerate(events):
        name, start, stop = span
        while len(labels) <= track:
            thread = first + len(labels)
            labels.append(f'"pid":{worker},"tid":{thread}')
            write(f',\n{{"ph":"M","name":"thread_name",{labels[-1]},"args":{{"name":{json.dumps(lane)}}}}}')
            write(f',\n{{"ph":"M","name":"thread_sort_index",{labels[-1]},"args":{{"sort_index":{thread}}}}}')
        # The format counts in microseconds. repr keeps all bits of the clock.
        arguments, counters = numbers.of(span, place) if kind == "round" else ("", "")
        write(
            f',\n{{"ph":"X","name":{json.dumps(name)},"cat":"{kind}",{labels[track]},"ts":{start * 1e6!r},'
            f'"dur":{(stop - start) * 1e6!r}{arguments}}}{counters}'
        )
        if arrows is not None:
            for event in arrows.events(worker, labels[track], span):
                write(event)
    return len(labels)


def placed(spans: Iterable[Span], rounds: Iterable[Span], nest: bool) -> Iterator[tuple[int, str, Span]]:
    """(track, kind, span) of a lane's events. kind: "span", or what the trace adds: "round", "step", "pass"."""
    ends = [-inf]  # of the last span on each track
    coming = iter(rounds)
    inside = next(coming, None)
    opened = False
    step: list[Span] = []
    for span in spans:
        _, start, stop = span
        while inside is not None and start >= inside[2] - CLOSE:
            yield from _nested(step)
            step = []
            if not opened:
                yield 0, "round", inside
            inside, opened = next(coming, None), False
        track = next((i for i, end in enumerate(ends) if start >= end - CLOSE), len(ends))
        if inside is not None and (start < inside[1] - CLOSE or stop > inside[2] + CLOSE):
            track = max(track, 1)  # it does not lie within one round
        ends.extend([-inf] * (track + 1 - len(ends)))
        ends[track] = stop
        if track or not nest:
            yield track, "span", span
            continue
        if inside is not None and not opened:
            yield 0, "round", inside
            opened = True
        if _begins_step(span, step):
            yield from _nested(step)
            step = []
        step.append(span)
    yield from _nested(step)
    if inside is not None and not opened:
        yield 0, "round", inside
    yield from ((0, "round", left) for left in coming)


def _begins_step(span: Span, step: Sequence[Span]) -> bool:
    """Whether a span begins another step. A step is forward passes, backward passes and updates, unit by unit."""
    phase = span_phase(span)
    if phase == "forward":
        return not step or span_phase(step[-1]) != "forward"
    return phase not in ("backward", "update", "host update") or not step or span_phase(step[0]) != "forward"


def _nested(step: Sequence[Span]) -> Iterator[tuple[int, str, Span]]:
    """One step's spans, each after the events that contain it."""
    if len(step) > 1:
        yield 0, "step", ("step", step[0][1], step[-1][2])
    for phase, group in groupby(step, span_phase):
        spans = list(group)
        if len(spans) > 1:
            yield 0, "pass", (phase, spans[0][1], spans[-1][2])
        yield from ((0, "span", span) for span in spans)


def span_phase(span: Span) -> str:
    """A span's name without the number of its unit."""
    phase, _, unit = span[0].rpartition(" ")
    return phase if unit.isdigit() else span[0]


def read_trace(path: Path) -> list[dict[str, list[Span]]]:
    """Spans by worker and lane, in seconds. Rounds are a lane of their own; steps and passes are left out.

    ScenarioError where the file is not a trace, or is damaged.
    """
    try:
        return _read(_events(path))
    except (OSError, EOFError, zlib.error, RecursionError, LookupError, TypeError, AttributeError, ValueError) as error:
        lines = str(error).splitlines() or [repr(error)]
        raise ScenarioError(f"{path}: is not a trace, or damaged: {lines[0][:120]}") from None


def _events(path: Path) -> Iterator[dict[str, Any]]:
    """The events of a trace. They are never all in memory, since an event takes ten times the memory of a span."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        if file.readline() != BEGIN:
            raise ValueError("its first line is another one")
        text = ""
        while lines := file.readlines(BLOCK):
            text = "".join(lines)
            yield from json.loads("[" + text.removesuffix(END).rstrip(",\n") + "]")
        if not text.endswith(END):
            raise ValueError("its last line is missing")


def _read(events: Iterator[dict[str, Any]]) -> list[dict[str, list[Span]]]:
    workers: list[dict[str, list[Span]]] = [{} for _ in range(next(events)["args"]["workers"])]
    lanes: dict[tuple[int, int], str] = {}
    for event in events:
        kind = event.get("cat", "span")
        if event["name"] == "thread_name":
            lanes[event["pid"], event["tid"]] = event["args"]["name"]
        elif event["ph"] == "X" and kind in ("span", "round"):
            start = event["ts"] / 1e6
            lane = ROUNDS if kind == "round" else lanes[event["pid"], event["tid"]]
            span = sys.intern(event["name"]), start, start + event["dur"] / 1e6
            workers[event["pid"]].setdefault(lane, []).append(span)
    for number, found in enumerate(workers):
        for spans in found.values():
            spans.sort(key=lambda span: span[1])
        workers[number] = _LANES.validate_python(found, strict=True)
    return workers


class Waits:
    """A network lane in which each exchange is cut in two: the wait for the last worker, and the exchange itself.

    latest: phase -> when the last worker came to each exchange of the phase. Exchanges of other phases stay whole.
    """

    def __init__(self, spans: Iterable[Span], latest: Mapping[str, Sequence[float]]) -> None:
        self._spans, self._latest = spans, latest

    def __iter__(self) -> Iterator[Span]:
        counts = dict.fromkeys(self._latest, 0)
        for name, start, stop in self._spans:
            met = start
            if name in counts:
                met = min(float(self._latest[name][counts[name]]), stop)
                counts[name] += 1
            if met > start:
                yield WAIT, start, met
            yield name, max(start, met), stop


def split_waits(workers: Sequence[Lanes]) -> list[dict[str, Iterable[Span]]]:
    """Cut each collective's span in two: the wait for the last worker, and the exchange. A rank sees them as one.

    The k-th spans of a phase belong together. A phase stays whole where workers have unequal numbers of its spans, as
    with groups. Workers' clocks are compared: they start after a barrier, so they differ by about one latency.
    """
    starts: list[dict[str, array[float]]] = []
    for lanes in workers:
        own: dict[str, array[float]] = {}
        for name, start, _ in lanes.get(NETWORK, ()):
            own.setdefault(name, array("d")).append(start)
        starts.append(own)
    latest = {}
    for name in {name for own in starts for name in own}:
        columns = [own.get(name, array("d")) for own in starts]
        if len({len(column) for column in columns}) == 1:
            latest[name] = np.maximum.reduce([np.frombuffer(column) for column in columns])
    return [
        {lane: Waits(spans, latest) if lane == NETWORK else spans for lane, spans in lanes.items()} for lanes in workers
    ]
