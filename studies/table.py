"""The table of a sweep: one row per point, in a file that records what has been run.

Rule: the file is always rewritten as a whole, so it never holds half a table. Floats keep all their bits, so a table
that is read back equals the one that was written.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..config.metrics import metrics_in
from ..program.errors import ScenarioError, one_line
from ..records.directory import to_json, write_atomically
from .points import Identity, Point, cell, identity

if TYPE_CHECKING:  # loaded where it is used: it takes 0.3 s, and processes that simulate points need no table
    import pandas as pd

Row = dict[str, Any]

COLUMNS: dict[str, type] = {
    # Of the run. samples_per_second: of all workers.
    **dict.fromkeys(("seconds", "seconds_per_step", "seconds_per_epoch", "samples_per_second"), float),
    **dict.fromkeys(("steps", "rounds", "samples", "syncs", "workers"), int),  # syncs: without those of evaluations
    # bytes_per_worker: sent by the worker that sends most. computing: seconds, the mean over the workers.
    **dict.fromkeys(("bytes_per_worker", "idle_min", "idle_mean", "idle_max", "computing"), float),
    # Metrics come after the losses, by their own names.
    **dict.fromkeys(("train_loss", "test_loss"), float),
    # error: why the row has no numbers. base: the scenario before the point's values are set, as a hash.
    **dict.fromkeys(("engine", "run", "warning", "error", "base"), str),
}
_OPTIONAL = ("train_loss", "test_loss", "run", "warning")  # columns that are left out where they are empty
SUFFIXES = (".csv", ".json", ".parquet")


def row_of(summary: Mapping[str, Any]) -> Row:
    """The row of a finished run, from its summary."""
    idle, computing = summary["idle_share"], summary["computing_seconds"]
    known = {
        "seconds_per_step": summary["seconds"] / summary["steps"],
        "syncs": sum(count for phase, count in summary["syncs"].items() if phase != "evaluate"),
        "bytes_per_worker": max(summary["bytes_per_worker"]),
        "idle_min": min(idle),
        "idle_mean": sum(idle) / len(idle),
        "idle_max": max(idle),
        "computing": sum(computing) / len(computing),
    }
    row = {name: known.get(name, summary.get(name)) for name in (*COLUMNS, *summary["metrics"])}
    return {name: None if value != value else value for name, value in row.items()}


class SweepTable:
    """The rows of the wanted points, and those that the file already held.

    path: ends in .csv, .json or .parquet. With None the table is only kept in memory.
    keys: the keys that vary.
    base: a hash of the scenario; rows with another base belong to another sweep.
    force: begin the table again. Otherwise a file with another sweep is a ScenarioError.
    """

    def __init__(
        self, path: Path | None, points: Sequence[Point], keys: Sequence[str], base: str, force: bool = False
    ) -> None:
        self.path, self.keys, self.base = path, list(keys), base
        self._points = {identity(point, keys): point for point in points}
        self._rows: dict[Identity, Row] = {}
        if path is None:
            return
        if path.suffix not in SUFFIXES:
            raise ScenarioError(f"--out {path}: write a file that ends in .csv, .json or .parquet")
        try:
            found = path.exists()
        except OSError as error:
            raise ScenarioError(f"--out {path}: {error.strerror}") from None
        for row in _read(path) if found else ():
            if not force:
                self._take(row, path)
            elif "base" not in row:
                raise ScenarioError(f"{path}: is not a table of a sweep; name another file with --out")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self.save()
        except (OSError, ImportError) as error:
            reason = "needs pyarrow; write .csv or .json" if isinstance(error, ImportError) else error.strerror
            raise ScenarioError(f"--out {path}: cannot be written: {reason}") from None

    def _take(self, row: Row, path: Path) -> None:
        """Take over a row of the file. ScenarioError where it belongs to another sweep."""
        metrics = metrics_in(name for name in row if name not in self.keys)
        theirs = [name for name in row if name not in COLUMNS and name not in metrics]
        if set(theirs) != set(self.keys):
            raise ScenarioError(
                f"{path}: holds a sweep over {_names(theirs)}, not {_names(self.keys)}; "
                "write --force to begin again, or name another file with --out"
            )
        if row.get("base") != self.base:
            raise ScenarioError(
                f"{path}: holds rows of another scenario, --set, --full, --engine or version; "
                "write --force to begin again, or name another file with --out"
            )
        self._rows[tuple(str(row[key]) for key in self.keys)] = row

    def missing(self, retry: bool) -> list[Point]:
        """The points without a row. retry: also the points whose row holds an error."""
        return [
            point
            for point_id, point in self._points.items()
            if point_id not in self._rows or (retry and self._rows[point_id].get("error"))
        ]

    @property
    def done(self) -> int:
        """How many of the wanted points have a row."""
        return sum(point_id in self._rows for point_id in self._points)

    @property
    def failed(self) -> int:
        """How many of the wanted points have an error."""
        return sum(bool(self._rows[point_id].get("error")) for point_id in self._points if point_id in self._rows)

    def add(self, point: Point, row: Row) -> None:
        """Add the row of a point."""
        cells = {key: cell(point[key]) if key in point else "" for key in self.keys}
        self._rows[identity(point, self.keys)] = {**cells, **row, "base": self.base}

    def save(self) -> None:
        """Write the file: the wanted points in their order, then the other rows that it held."""
        if self.path is None:
            return
        order = [
            *(point_id for point_id in self._points if point_id in self._rows),
            *(point_id for point_id in self._rows if point_id not in self._points),
        ]
        rows = [self._rows[point_id] for point_id in order]
        write_atomically(self.path, _encode(rows, self._columns(rows), self.path.suffix))

    def frame(self) -> pd.DataFrame:
        """The rows of the wanted points, in their order."""
        import pandas as pd

        found = [
            {**self._rows[point_id], **{key: cell(point.get(key)) if key in point else None for key in self.keys}}
            for point_id, point in self._points.items()
            if point_id in self._rows
        ]
        table = pd.DataFrame(found, columns=self._columns(found))
        whole = [name for name, kind in COLUMNS.items() if kind is int]
        return table.astype(dict.fromkeys(whole, "Int64")).fillna({"error": ""})

    def _columns(self, rows: Sequence[Row]) -> list[str]:
        metrics = dict.fromkeys(metrics_in(name for row in rows for name in row if name not in self.keys))
        every = [*COLUMNS]
        place = every.index("test_loss") + 1
        every[place:place] = metrics
        left_out = {n for n in (*_OPTIONAL, *metrics) if all(row.get(n) in (None, "") for row in rows)}
        return [*self.keys, *(name for name in every if name not in left_out)]


def _names(keys: Sequence[str]) -> str:
    return one_line(", ".join(keys), 100)


def _encode(rows: Sequence[Row], columns: Sequence[str], suffix: str) -> bytes:
    """The file's contents."""
    plain = [{name: row.get(name) for name in columns} for row in rows]
    if suffix == ".json":
        return to_json(plain, indent=1).encode()
    if suffix == ".csv":
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(plain)
        return text.getvalue().encode()
    import pandas as pd

    table = pd.DataFrame(plain, columns=list(columns))
    keys = [name for name in columns if name not in COLUMNS and not metrics_in([name])]
    mixed = [name for name in keys if table[name].map(type).nunique() > 1]
    binary = io.BytesIO()
    table.astype(dict.fromkeys(mixed, str)).to_parquet(binary, index=False)
    return binary.getvalue()


def _read(path: Path) -> list[Row]:
    """The rows in a file. ScenarioError where it does not hold the table of a sweep."""
    try:
        if path.suffix == ".csv":
            reader = csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"), newline=""))
            rows: list[Any] = list(reader)
            if not rows and "base" not in (reader.fieldnames or ["base"]):
                raise ValueError("it has no column 'base'")
        elif path.suffix == ".json":
            rows = json.loads(path.read_text(encoding="utf-8"))
        else:
            import pandas as pd

            rows = pd.read_parquet(path).astype(object).to_dict("records")
        if not (isinstance(rows, list) and all(isinstance(row, dict) for row in rows)):
            raise ValueError("it is not a list of rows")
        if any(None in row for row in rows):
            raise ValueError("a row has more cells than the first line")
        return [{name: _known(name, value) for name, value in row.items()} for row in rows]
    except (OSError, ValueError, TypeError, AttributeError, ImportError, RecursionError, csv.Error) as error:
        raise ScenarioError(f"{path}: is not a table of a sweep: {error}; name another file with --out") from None


def _known(name: str, value: Any) -> Any:
    """A cell of the file: in a column of results as its type, None where it is empty; in a key's column as it is."""
    kind = COLUMNS.get(name, float if metrics_in([name]) else None)
    if kind is None:
        return value
    return None if value is None or value == "" or value != value else kind(value)
