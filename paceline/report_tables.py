"""The sections of a report that tell of plans, of tables such as a sweep's, and of validations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .analysis.plots import front_plot, table_plot
from .config.metrics import metrics_in
from .config.units import told_bytes
from .printing import metric_told
from .program.errors import ScenarioError
from .report_page import ROWS, Cell, Part, Plot, Section, Table, Words
from .studies.judgement import judge
from .studies.validation_record import read_record
from .validating import TARGET
from .validation_report import CLOCKS, OTHERS, PLACES, TITLES, Report

if TYPE_CHECKING:
    import pandas as pd

_HIDDEN = ("base",)  # columns of a table that tell readers nothing


def is_plan(document: Any) -> bool:
    """Whether a JSON document is the answer of a plan, as its --json writes it."""
    return isinstance(document, Mapping) and {"decision", "reasons", "rows", "worth"} <= document.keys()


def plan_section(name: str, document: Mapping[str, Any]) -> Section:
    """What a plan answers. ScenarioError where the document is not as a plan writes it."""
    try:
        return Section(f"Plan: {name}", _plan(document))
    except (LookupError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise ScenarioError(f"{name}: is not the answer of a plan: {error!r}; name what --json has written") from None


def _plan(document: Mapping[str, Any]) -> list[Part]:
    rows: Sequence[Mapping[str, Any]] = document["rows"]
    learned = (document.get("learning") or {}).get("words") or []
    told = [str(reason["text"]) for reason in document["reasons"]]
    notes = [str(document.get(key) or "") for key in ("note", "guidance")]
    lines = [str(document["decision"]), *learned, *told, *notes]
    if not document["whole"]:
        lines.append(
            f"It was stopped: this is the best of the {document['simulated']} ways that were simulated until then."
        )
    columns = ["", *dict.fromkeys(key for row in rows for key in row if key not in ("roles", "scenario"))]
    cells = [[str(row["roles"]), *(_of_plan(key, row.get(key)) for key in columns[1:])] for row in rows]
    used = [place for place, _ in enumerate(columns) if any(cell != "" for cell in (row[place] for row in cells))]
    table = Table([columns[p].replace("_", " ") for p in used], [[row[p] for p in used] for row in cells])
    return [
        Words([line for line in dict.fromkeys(lines) if line]),
        Plot("seconds of an epoch against samples between two syncs", front_plot(rows), 420),
        table,
    ]


def _of_plan(key: str, value: Any) -> Cell | str:
    """A cell of a plan's table."""
    if value is None or value == {}:
        return ""
    if isinstance(value, Mapping):  # by class of workers
        return ", ".join(f"{name}: {_plain(_of_plan(key, each))}" for name, each in value.items())
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if key in ("memory", "bytes_per_sync", "unit_bytes"):
        return Cell(told_bytes(value), float(value))
    if key == "idle":
        return Cell(f"{value:.0%}", float(value))
    return Cell(f"{value:.5g}", float(value))


def _plain(cell: Cell | str) -> str:
    return cell if isinstance(cell, str) else cell.text


def table_section(name: str, frame: pd.DataFrame) -> Section:
    """A table, such as that of a sweep."""
    shown = {str(column): frame[column].tolist() for column in frame.columns if column not in _HIDDEN}
    metrics = metrics_in(shown)
    cells = {column: [_in_table(column, value, metrics) for value in values] for column, values in shown.items()}
    used = [column for column, its in cells.items() if any(cell != "" for cell in its)]
    rows = [list(row) for row in zip(*(cells[column] for column in used), strict=True)]
    parts: list[Part] = [Table(used, rows)]
    before = used.index("seconds") if "seconds" in used else 0
    plain = {column: [_bare(cell) for cell in cells[column][:ROWS]] for column in used}
    if len(rows) > 1 and any(isinstance(value, float) for values in plain.values() for value in values):
        parts.insert(0, Plot("its rows", table_plot(plain, used[:before]), 400))
    return Section(f"Table: {name}", parts)


def _bare(cell: Cell | str) -> float | str | None:
    """What a figure takes of a cell."""
    text = cell if isinstance(cell, str) else cell.text
    return cell.value if isinstance(cell, Cell) and cell.value is not None else text or None


def _in_table(column: str, value: Any, metrics: Sequence[str]) -> Cell | str:
    if value is None or (isinstance(value, float) and not isfinite(value)):
        return ""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    number = float(value)
    if column.startswith("idle"):
        return Cell(f"{number:.1%}", number)
    if column.startswith("bytes"):
        return Cell(told_bytes(number), number)
    if column in metrics:
        return Cell(metric_told(column, number), number)
    return Cell(f"{number:,.0f}" if number == int(number) else f"{number:.5g}", number)


def validation_section(folder: Path, path: Path) -> Section:
    """What a validation came to. path: its record."""
    document = read_record(path)
    try:
        found = Report(judge(document["cases"]), document["cases"], TARGET, None, {})
        tables = zip(TITLES, (CLOCKS, PLACES, OTHERS), (found.clocks(), found.places(), found.others()), strict=True)
        parts: list[Part] = [Words(list(found.sentences()))]
        parts += [Table(columns, [list(map(_number, row)) for row in rows], title) for title, columns, rows in tables]
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise ScenarioError(f"{path}: is not the record of a validation: {error!r}") from None
    return Section(f"Validation: {folder}", parts)


def _number(text: str) -> Cell | str:
    """A cell that is sorted by its number, if it is one."""
    try:
        return Cell(text, float(text.strip("()%")))
    except ValueError:
        return text
