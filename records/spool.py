"""Spans on their way to the trace: written to a file of plain binary numbers while a run goes, so memory stays flat.

Rule: writing costs the run as little as can be (about 0.3 us a span); the trace is made of it when the run is over. A
chunk is a line of JSON (worker, lane, its names, how many spans) and the spans themselves.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np

from ..program.outcome import Span

BUFFERED = 256  # spans that an interpreter keeps of a lane before it hands them on
RECORD = np.dtype([("name", "<i4"), ("start", "<f8"), ("stop", "<f8")])


class Spool:
    """The file, being written. `take` is what interpreters call: Hooks.spans."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: BinaryIO = path.open("wb")

    def take(self, worker: int, lane: str, spans: Sequence[Span]) -> None:
        """Write spans of one worker's lane."""
        if not spans:
            return
        names: dict[str, int] = {}
        records = np.empty(len(spans), RECORD)
        said, records["start"], records["stop"] = zip(*spans, strict=True)
        records["name"] = [names.setdefault(name, len(names)) for name in said]
        head = {"worker": worker, "lane": lane, "names": list(names), "count": len(spans)}
        self._file.write(json.dumps(head).encode() + b"\n" + records.tobytes())

    def close(self) -> None:
        """Nothing more comes."""
        self._file.close()


class SpooledLane:
    """One lane's spans in a closed spool, read chunk by chunk each time they are gone through."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._chunks: list[tuple[int, int, list[str]]] = []  # where it begins in the file, spans, names

    def add(self, offset: int, count: int, names: list[str]) -> None:
        """One more chunk of the lane."""
        self._chunks.append((offset, count, names))

    def __iter__(self) -> Iterator[Span]:
        with self._path.open("rb") as file:
            for offset, count, names in self._chunks:
                file.seek(offset)
                for name, start, stop in np.frombuffer(file.read(count * RECORD.itemsize), RECORD).tolist():
                    yield names[name], start, stop


def read_spools(paths: Iterable[Path], workers: int) -> list[Mapping[str, Iterable[Span]]]:
    """The lanes of each worker in closed spools."""
    found: list[dict[str, SpooledLane]] = [{} for _ in range(workers)]
    for path in paths:
        with path.open("rb") as file:
            while line := file.readline():
                head = json.loads(line)
                lane = found[head["worker"]].setdefault(head["lane"], SpooledLane(path))
                lane.add(file.tell(), head["count"], head["names"])
                file.seek(head["count"] * RECORD.itemsize, 1)
    return list(found)
