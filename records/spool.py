"""Spans on their way to the trace. While a run goes, they are written to a file of binary numbers, the spool, so that
they fill no memory.

Rule: writing costs the run as little as possible (about 0.1 us a span); the trace is made from the spool when the run
is over. A spool is a row of chunks: a line of JSON (worker, lane, names, number of spans), then the spans.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from time import perf_counter
from typing import Any, BinaryIO

import numpy as np

from ..program.effects import Work
from ..program.outcome import Span, Spans

FAULTS = "faults"  # the lane that shows when faults of the scenario held
BUFFERED = 256  # spans that an interpreter keeps of a lane before it hands them on
TakeSpans = Callable[[int, str, Spans], None]  # (worker, lane, spans): Hooks.spans
RECORD = np.dtype([("name", "<i4"), ("start", "<f8"), ("stop", "<f8")])


class Tracer:
    """One worker's spans by lane, handed on in blocks while a run goes on.

    worker: its number.
    take: gets the blocks; None: the spans are kept until the end.
    named: makes spans of what was kept, where the interpreter has no time for it while it measures.
    """

    def __init__(
        self, worker: int, take: TakeSpans | None, named: Callable[[Spans], Spans] = lambda spans: spans
    ) -> None:
        self.spent = 0.0  # seconds by the clock on the wall that handing on has taken
        self._worker, self._take, self._named = worker, take, named
        self._lanes: dict[str, Spans] = {}

    def lane(self, name: str) -> Spans:
        """The lane's spans, for hot paths: they append, and call `hand_on` when there are more than BUFFERED."""
        return self._lanes.setdefault(name, Spans())

    def span(self, lane: str, what: Any, start: float, stop: float) -> None:
        """Keep a span. what: its name, or what `named` makes a name of."""
        spans = self._lanes.get(lane) or self.lane(lane)
        spans.add(what, start, stop)
        if len(spans) > BUFFERED:
            self.hand_on(lane)

    def hand_on(self, lane: str, keep: int = 1) -> None:
        """Hand on the lane's spans, except for the last `keep`: meetings.py asks where the last one stopped."""
        spans = self._lanes[lane]
        if self._take is not None and len(spans) > keep:
            start = perf_counter()
            self._take(self._worker, lane, self._named(spans.take(len(spans) - keep)))
            self.spent += perf_counter() - start

    def cut(self, end: float) -> None:
        """Leave out what is after `end`. Called last, before `close`."""
        for lane, spans in self._lanes.items():
            if spans and max(spans.stops) > end:
                kept = [(name, start, min(stop, end)) for name, start, stop in spans if start < end]
                self._lanes[lane] = Spans(*map(list, zip(*kept, strict=True))) if kept else Spans()

    def close(self) -> dict[str, list[Span]]:
        """Hand on all that is left; where nothing takes spans, return them by lane."""
        if self._take is None:
            return {lane: list(self._named(spans)) for lane, spans in self._lanes.items() if spans}
        for lane, spans in self._lanes.items():
            if spans:
                self.hand_on(lane, keep=0)
        return {}


def span_name(work: Work) -> str:
    """What a computation is called in traces: its phase, and its unit if it has one."""
    return work.phase if work.unit is None else f"{work.phase} {work.unit}"


class Spool:
    """The file while it is written. Its `take` is the Hooks.spans of a run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: BinaryIO = path.open("wb")

    def take(self, worker: int, lane: str, spans: Spans) -> None:
        """Write spans of one worker's lane."""
        names = {name: number for number, name in enumerate(dict.fromkeys(spans.names))}
        records = np.zeros(len(spans), RECORD)
        records["start"], records["stop"] = spans.starts, spans.stops
        if len(names) > 1:
            records["name"] = [names[name] for name in spans.names]
        head = {"worker": worker, "lane": lane, "names": list(names), "count": len(spans)}
        self._file.write(json.dumps(head).encode() + b"\n" + records.tobytes())

    def flush(self) -> None:
        """Write down all that was taken so far."""
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class SpooledLane:
    """One lane's spans in a closed spool. They are read chunk by chunk in each iteration."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._chunks: list[tuple[int, int, list[str]]] = []  # (its offset in the file, spans, names)

    def add(self, offset: int, count: int, names: list[str]) -> None:
        """Add a chunk of the lane."""
        self._chunks.append((offset, count, names))

    def __iter__(self) -> Iterator[Span]:
        with self._path.open("rb") as file:
            for offset, count, names in self._chunks:
                file.seek(offset)
                for name, start, stop in np.frombuffer(file.read(count * RECORD.itemsize), RECORD).tolist():
                    yield names[name], start, stop


def read_spools(paths: Iterable[Path], workers: int) -> list[Mapping[str, Iterable[Span]]]:
    """The lanes of each worker in spools that are written. What a lost worker has left incomplete ends its lanes."""
    found: list[dict[str, SpooledLane]] = [{} for _ in range(workers)]
    for path in paths:
        size = path.stat().st_size
        with path.open("rb") as file:
            while (line := file.readline()).endswith(b"\n"):
                head = json.loads(line)
                if file.tell() + head["count"] * RECORD.itemsize > size:
                    break
                lane = found[head["worker"]].setdefault(head["lane"], SpooledLane(path))
                lane.add(file.tell(), head["count"], head["names"])
                file.seek(head["count"] * RECORD.itemsize, 1)
    return list(found)
