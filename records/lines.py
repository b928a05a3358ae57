"""The report lines of a run. With a directory they are in metrics.jsonl, which grows line by line, so that a run that
dies leaves what it has logged.

Rule: memory stays the same however many lines there are. A few thousand are also kept in memory; where there are more,
they are read from the file again, one after another.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, overload

from ..program.errors import ScenarioError
from .directory import to_json, write_atomically

Line = dict[str, Any]
KEPT = 4096  # lines in memory of a run that has a file: about 5 MB


class Lines(Sequence[Line]):
    """The lines so far. path: the file; None: all lines are kept in memory."""

    def __init__(self, path: Path | None) -> None:
        self._path, self._count = path, 0
        self._kept: list[Line] = []  # all lines, or none where there are too many
        self._unwritten: list[Line] = []  # the last ones, while the file cannot be written
        self._written = (0, 0)  # the file's number in its file system, and its bytes: whether it is still ours
        self.failure = ""  # why the last line could not be written

    def append(self, line: Line) -> None:
        """Add a line. Where it cannot be written now, `failure` says why; it is tried again with the next line."""
        self._unwritten.append(line)
        self._keep(line)
        self.write()

    def write(self) -> None:
        """Write what could not be written before."""
        if self._path is None:
            self._unwritten = []
            return
        try:
            with self._path.open("ab") as file:
                size = file.tell()
                if self._written[1] < size:
                    file.truncate(self._written[1])  # a part of a line, which filled the disk
                # The file was removed: all that is still known is written again.
                lines = self._kept if size < self._written[1] and len(self._kept) == self._count else self._unwritten
                file.write("".join(f"{to_json(line)}\n" for line in lines).encode())
                file.flush()
                self._written = os.fstat(file.fileno()).st_ino, file.tell()
        except OSError as error:
            self.failure = error.strerror or str(error)
        else:
            self._unwritten, self.failure = [], ""

    def sync(self) -> None:
        """Return when all lines that could be written are on disk."""
        if self._path is not None and self._path.exists():
            with self._path.open("rb") as file:
                os.fsync(file.fileno())

    def restart(self, lines: Iterable[Line]) -> None:
        """Go on after these lines, which replace those in the file."""
        self._kept, self._count = [], 0
        if self._path is not None:
            write_atomically(self._path, "".join(f"{to_json(line)}\n" for line in lines).encode())
            found = self._path.stat()
            self._written = found.st_ino, found.st_size
        for line in lines:
            self._keep(line)

    def _keep(self, line: Line) -> None:
        if len(self._kept) == self._count and (self._path is None or self._count < KEPT or self.failure):
            self._kept.append(line)
        else:
            self._kept = []
        self._count += 1

    def __len__(self) -> int:
        return self._count

    def __eq__(self, other: object) -> bool:
        """As lists are compared."""
        if not isinstance(other, Lines | list):
            return NotImplemented
        return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))

    def __repr__(self) -> str:
        return repr([*self])

    def __iter__(self) -> Iterator[Line]:
        return iter(self._kept) if len(self._kept) == self._count else self._read()

    def _read(self) -> Iterator[Line]:
        """The lines in the file. ScenarioError where it is not the run's own any more."""
        assert self._path
        try:
            with self._path.open("rb") as file:
                found = os.fstat(file.fileno())
                if (found.st_ino, found.st_size) != self._written:
                    raise ScenarioError(
                        f"{self._path}: has changed since this run wrote it; give each run its own folder"
                    )
                for text in file:
                    # Files hold null where a number was not finite.
                    yield {key: math.nan if value is None else value for key, value in json.loads(text).items()}
        except OSError as error:
            raise ScenarioError(f"{self._path}: cannot be read: {error.strerror}") from None

    @overload
    def __getitem__(self, place: int) -> Line: ...

    @overload
    def __getitem__(self, place: slice) -> list[Line]: ...

    def __getitem__(self, place: int | slice) -> Line | list[Line]:
        if len(self._kept) == self._count:
            return self._kept[place]
        if isinstance(place, slice):
            return list(self)[place]
        return next(islice(self, range(self._count)[place], None))
