"""The figures of a report as plotly takes them: plain dictionaries, which the page's script draws.

Rule: a text from elsewhere (a run's name, a span's) is given through `said`, since plotly takes tags for its own.
"""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..program.errors import one_line
from . import colours
from .bars import Bar
from .colours import Area, Line
from .compare import intervals
from .curves import AXES, Curve
from .paper import far_apart
from .run import Run
from .timeline_rows import Timeline
from .titles import lines, titles

Document = dict[str, Any]
_DASHES = {"solid": "solid", "dashed": "dash", "dotted": "dot", "dashdot": "dashdot"}
_MARKS = {"o": "circle", "s": "square", "^": "triangle-up", "D": "diamond", "v": "triangle-down", "x": "x"}
TITLES = {"train_loss": "training loss", "test_loss": "test loss", "lr": "learning rate", "H": "H, steps of a round"}
LOG = ("train_loss", "test_loss", "perplexity", "mse", "mae")  # what falls by orders of magnitude
GROUPS = 9  # colours of a table's points
PIXELS = ((8, 52), (16, 32), (64, 16))  # of a worker's row: up to so many workers, so many


def said(text: str) -> str:
    """A text as plotly shows it as it is."""
    return html.escape(one_line(text, 60), quote=False)


def curve_plot(name: str, drawn: Sequence[Curve], runs: Sequence[Run]) -> Document:
    """One field of the reports, a line for each run that has it. x: by axis, for the reader's choice."""
    looks = dict(zip(map(id, runs), zip(titles(runs), lines(runs), strict=True), strict=True))
    data = []
    for curve in drawn:
        title, line = looks[id(curve.run)]
        few = {"mode": "lines+markers", "marker": {"size": 5, "symbol": _MARKS[line.mark]}}
        many = {"mode": "lines"}
        data.append(
            {
                "x": curve.x["seconds"],
                "y": curve.y,
                "name": said(title),
                "line": _line(line),
                "showlegend": len(runs) > 1,
                **(few if len(curve.y) <= 60 else many),
            }
        )
    log = name in LOG and all(value > 0 for curve in drawn for value in curve.y)
    layout = {
        "xaxis": {"title": {"text": AXES["seconds"]}, "rangemode": "tozero"},
        "yaxis": {"title": {"text": said(TITLES.get(name, f"test {name}"))}, "type": "log" if log else "linear"},
    }
    return {
        "data": data,
        "layout": layout,
        "x": {axis: [curve.x[axis] for curve in drawn] for axis in AXES},
        "titles": AXES,
    }


def _line(line: Line) -> Document:
    return {"color": line.colour, "dash": _DASHES[line.dashes], "width": 2}


def round_plot(predicted: Run, measured: Run) -> Document:
    """What a round takes in two runs of one scenario, from report to report."""
    found = intervals(predicted, measured)
    rounds = [each.round for each in found]
    data: list[Document] = [
        {
            "x": rounds,
            "y": [each.seconds[place] for each in found],
            "name": name,
            "line": _line(line) | {"shape": "vh"},
            "mode": "lines",
        }
        for place, (name, line) in enumerate((("simulated", colours.SIMULATED), ("measured", colours.MEASURED)))
    ]
    return {
        "data": data,
        "layout": {
            "xaxis": {"title": {"text": "round"}, "rangemode": "tozero"},
            "yaxis": {"title": {"text": "seconds of a round"}, "rangemode": "tozero"},
        },
    }


def error_plot(predicted: Run, measured: Run) -> Document:
    """The error of the clock in each interval between two reports, and of the whole run so far."""
    found = intervals(predicted, measured)
    rounds = [each.round for each in found]
    spans = np.diff([0, *rounds])
    so_far = [np.cumsum([each.seconds[place] * n for each, n in zip(found, spans, strict=True)]) for place in (0, 1)]
    whole = [(p / m - 1) * 100 if m else None for p, m in zip(*so_far, strict=True)]
    return {
        "data": [
            {
                "type": "bar",
                "x": rounds,
                "y": [each.error * 100 for each in found],
                "name": "of the rounds since the report before",
                "marker": {"color": colours.NEUTRAL},
            },
            {"x": rounds, "y": whole, "name": "of the clock so far", "line": _line(colours.SIMULATED), "mode": "lines"},
        ],
        "layout": {
            "xaxis": {"title": {"text": "round"}, "rangemode": "tozero"},
            "yaxis": {"title": {"text": "simulated / measured - 1, %"}},
        },
    }


def bar_plot(names: Sequence[str], groups: Sequence[Sequence[Bar]], areas: Mapping[str, Area], unit: str) -> Document:
    """Stacked horizontal bars in groups, the first one on top. names: of the groups."""
    places = [(said(name), said(bar.name)) for name, bars in zip(names, groups, strict=True) for bar in bars]
    sizes = [bar.parts for bars in groups for bar in bars]
    used = [part for part in areas if any(parts.get(part) for parts in sizes)]
    data = [
        {
            "type": "bar",
            "orientation": "h",
            "y": [list(column) for column in zip(*places, strict=True)] if len(groups) > 1 else [n for _, n in places],
            "x": [parts.get(part, 0.0) for parts in sizes],
            "name": part,
            "marker": {
                "color": areas[part].colour,
                "pattern": {"shape": areas[part].hatch, "fgcolor": colours.EDGE, "size": 6, "solidity": 0.15},
                "line": {"color": colours.EDGE, "width": 0.4},
            },
        }
        for part in used
    ]
    layout = {
        "barmode": "stack",
        "bargap": 0.25,
        "xaxis": {"title": {"text": unit}},
        "yaxis": {"autorange": "reversed", "type": "multicategory" if len(groups) > 1 else "category"},
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom", "traceorder": "normal"},
    }
    return {"data": data, "layout": layout}


def front_plot(rows: Sequence[Mapping[str, Any]]) -> Document:
    """The ways of a plan: seconds of an epoch against samples between two syncs. rows: as `plan --json` has them.

    A line joins the front, and crosses are ways that are not on it, as in `plan_figures.front`.
    """
    looks = colours.methods(str(row["method"]) for row in rows)
    front = sorted(filter(_on_front, rows), key=lambda row: float(row["samples_between_syncs"]))
    data: list[Document] = [
        {
            "x": [row["samples_between_syncs"] for row in front],
            "y": [row["seconds_per_epoch"] for row in front],
            "mode": "lines",
            "line": {"color": colours.NEUTRAL, "width": 1, "shape": "hv"},
            "hoverinfo": "skip",
            "showlegend": False,
        }
    ]
    for method, look in looks.items():
        own = [row for row in rows if row["method"] == method]
        data.append(
            {
                "x": [row["samples_between_syncs"] for row in own],
                "y": [row["seconds_per_epoch"] for row in own],
                "error_y": {
                    "array": [row.get("plus_minus") or 0 for row in own],
                    "visible": any(r.get("plus_minus") for r in own),
                },
                "text": [said(f"{row['roles']}: H {row['steps_between_syncs']:g}, {row['placement']}") for row in own],
                "name": said(method),
                "mode": "markers",
                "marker": {
                    "color": look.colour,
                    "symbol": [_MARKS[look.mark if _on_front(row) else "x"] for row in own],
                    "size": 9,
                },
            }
        )
    layout: Document = {
        "xaxis": {"title": {"text": "samples of all workers between two syncs"}},
        "yaxis": {"title": {"text": "seconds of an epoch"}},
    }
    for axis, key in (("xaxis", "samples_between_syncs"), ("yaxis", "seconds_per_epoch")):
        if far_apart([row[key] for row in rows]):
            layout[axis]["type"] = "log"
    return {"data": data, "layout": layout}


def _on_front(row: Mapping[str, Any]) -> bool:
    return "front" in row["roles"].split(", ")


def table_plot(columns: Mapping[str, Sequence[Any]], keys: Sequence[str]) -> Document:
    """The rows of a table as points, whose axes readers choose.

    columns: numbers or texts of each; None where there is none. keys: the columns that were varied.
    """
    numbers = [name for name, values in columns.items() if any(isinstance(value, int | float) for value in values)]
    varied = [name for name in keys if len({*columns[name]}) > 1]
    results = [name for name in numbers if name not in keys]
    grouping = [name for name in varied[1:] if len({*columns[name]}) <= GROUPS]
    return {
        "table": {
            "columns": columns,
            "keys": [*keys],
            "x": [*dict.fromkeys([*varied, *numbers])],
            "y": [*dict.fromkeys([*results, *numbers])],
            "by": ["", *(name for name in varied if len({*columns[name]}) <= GROUPS)],
            "first": [(varied or numbers)[0], (results or numbers)[0], (grouping or [""])[0]],
            "looks": [[look.colour, _MARKS[look.mark]] for look in map(colours.method, range(GROUPS))],
        }
    }


def timeline_plot(found: Timeline) -> tuple[Document, int]:
    """(the rows of a trace, which the page's script draws as readers zoom; its height in pixels)."""
    place = {worker: row for row, worker in enumerate(found.workers)}
    used = {row.kind for row in found.rows}
    bands = [kind for kind in dict.fromkeys(["", *colours.LANES.values()]) if kind in used]
    legends = dict(found.looks)
    numbers = {legend: number for number, legend in enumerate(legends)}
    rows = [
        {
            "row": place[row.worker],
            "band": bands.index(row.kind),
            "count": len(row.starts),
            "label": ", ".join(filter(None, (f"worker {row.worker}", row.kind))),
        }
        for row in found.rows
    ]
    every = max(1, len(found.workers) // 32)
    shown = range(0, len(found.workers), every)
    layout = {
        "xaxis": {"title": {"text": "seconds of the trace (evaluation included)"}},
        "yaxis": {
            "title": {"text": "worker"},
            "range": [len(found.workers), 0],
            "fixedrange": True,
            "tickvals": [row + 0.5 for row in shown],
            "ticktext": [str(found.workers[row]) for row in shown],
            "showgrid": False,
            "zeroline": False,
        },
    }
    timeline = {
        "workers": list(found.workers),
        "bands": len(bands),
        "rows": rows,
        "names": found.names,
        "looks": [numbers[legend] for legend, _ in found.looks],
        "legends": [[legend, area.colour] for legend, area in legends.items()],
        "starts": _packed([row.starts for row in found.rows], "<f8"),
        "seconds": _packed([row.stops - row.starts for row in found.rows], "<f4"),
        "places": _packed([row.names for row in found.rows], "<u2"),
        # 65,535 is a bar that fills its row; there are no shares where all do
        "shares": _packed([row.shares * 65535 for row in found.rows if row.shares is not None], "<u2"),
        "rounds": _packed([found.rounds], "<f8"),
        "start": found.start,
        "stop": found.stop,
        "marks": [*_marks(found, place)],
        "layout": layout,
    }
    pixels = next((pixels for most, pixels in PIXELS if len(found.workers) <= most), PIXELS[-1][1])
    return {"timeline": timeline}, 110 + pixels * len(found.workers)


def _marks(found: Timeline, place: Mapping[int, int]) -> list[Document]:
    made = []
    for mark in found.marks:
        if mark.worker is not None and mark.worker not in place:
            continue
        area = colours.FAULTS.get(mark.name, Area(colours.NEUTRAL))
        name = "recovery" if mark.worker is None else mark.name.replace("_", " ")
        made.append(
            {
                "row": None if mark.worker is None else place[mark.worker],
                "name": mark.name,
                "legend": said(name),
                "start": mark.start,
                "stop": mark.stop,
                "color": area.colour,
            }
        )
    return made


def _packed(columns: Sequence[np.ndarray], kind: str) -> str:
    """Numbers one after the other as the script decodes them: little-endian, in base64."""
    whole = np.concatenate([*columns]) if columns else np.zeros(0)
    return base64.b64encode((np.rint(whole) if kind[1] == "u" else whole).astype(kind).tobytes()).decode()
