"""The timeline: what every worker does in some rounds of a run.

Rule: nothing that happened is invisible. A span that is thinner than a line is drawn as a line, and a row of more spans
than a figure can show has, for each of its slices, the share of each thing. The title says which rounds are shown.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from ..program.outcome import Span
from ..records.spool import FAULTS
from . import colours
from .colours import Area
from .paper import SCREEN, Paper, drawn, legend
from .run import Run
from .timeline_rows import covered
from .titles import titles
from .where import seconds_by_kind

# The rows of a worker, from the top, and the lanes that each shows.
_ROWS = {"computing": ("compute",), "host": ("host",), "host link": ("to host", "to device"), "network": ("network",)}
_ORDER = (
    *("computing", "forward", "backward", "update", "host", "host link"),
    *("exchange of gradients", "exchange of parameters", "exchange", "waiting", "evaluation"),
)
MOST = 400  # spans of a row that are drawn one by one
SLICES = 200  # of a row that has more
WIDE = 100  # a span that takes a larger share of the time than 1 of these has a white edge, which tells steps apart
THIN = 0.8  # points: the least width of a span
_UNITS = ((2.0, "ms", 1e3), (300.0, "s", 1.0), (7200.0, "min", 1 / 60), (np.inf, "h", 1 / 3600))


@dataclass(frozen=True)
class Window:
    """The part of a run that is shown. Times are in seconds."""

    start: float
    stop: float
    first: int  # the number of its first round, from 1
    last: int
    rounds: int  # of the run

    def cut(self, spans: Sequence[Span]) -> Iterator[Span]:
        """The spans in it, from its start."""
        for name, begin, end in spans:
            if end > self.start and begin < self.stop:
                yield name, max(begin, self.start) - self.start, min(end, self.stop) - self.start


@drawn
def timeline(runs: Sequence[Run], rounds: int | None = 3, skip: int = 1, *, paper: Paper = SCREEN) -> Figure:
    """What every worker does in a few rounds, with one panel per run.

    A worker has a row for each of its computing, its host, its host link and its network that any run used. Faults are
    shaded behind the rows of the worker that they hit.

    rounds: how many to draw; None: all.
    skip: how many to leave out at the start.
    Raises ValueError where a run has no trace (report.trace: true).
    """
    for run in runs:
        if not run.lanes:
            raise ValueError(f"{run.name} has no trace; run it with --set report.trace=true")
    rows = [_rows(run) for run in runs]
    windows = [_window(run, rounds, 0 if rounds is None else skip) for run in runs]
    heights = [0.5 + 0.28 * len(found) for found in rows]
    figure, axes = plt.subplots(
        len(runs),
        1,
        figsize=(paper.width or 9, paper.height or 0.7 + sum(heights)),
        sharex=True,
        squeeze=False,
        height_ratios=heights,
        layout="constrained",
    )
    longest = max(window.stop - window.start for window in windows)
    unit, scale = next((unit, scale) for most, unit, scale in _UNITS if longest <= most)
    seen: dict[str, Area] = {}
    for ax, run, title, found, window in zip(axes[:, 0], runs, titles(runs), rows, windows, strict=True):
        drawing = _Drawing(ax, run, window, longest, scale, seen)
        sliced = drawing.draw(found)
        told = f"{title}: {_told(run, window)}{'; slices show shares' if sliced else ''}"
        ax.set_title(paper.wrapped(told, 9, 1.3), loc="left")
    axes[-1, 0].set(xlabel=f"time ({unit})", xlim=(0, longest * scale))
    names = sorted(seen, key=_place)
    legend(figure, [_patch(seen[name]) for name in names], names)
    return figure


def _patch(area: Area) -> Patch:
    return Patch(facecolor=area.colour, hatch=area.hatch * 3, edgecolor=colours.EDGE, linewidth=0.3)


def _place(told: str) -> int:
    """The place of a thing in the legend: what is computed, what travels, waiting, faults."""
    return _ORDER.index(told) if told in _ORDER else len(_ORDER)


def _rows(run: Run) -> list[tuple[int, str]]:
    """(worker, row) of all rows, from the top."""
    used = {row for row, names in _ROWS.items() if any(lanes.get(name) for lanes in run.lanes for name in names)}
    return [(worker, row) for worker in range(len(run.lanes)) for row in _ROWS if row in used]


def _window(run: Run, rounds: int | None, skip: int) -> Window:
    """The rounds to draw, by worker 0's clock."""
    ends = [0.0, *(stop for _, _, stop in run.lanes[0].get("rounds", []))]
    first = min(skip, len(ends) - 2) if len(ends) > 1 else 0
    last = len(ends) - 1 if rounds is None else min(first + rounds, len(ends) - 1)
    if not ends[last]:  # no round has ended: draw all that there is
        stop = max(span[2] for lanes in run.lanes for spans in lanes.values() for span in spans)
        return Window(0.0, stop, 0, 0, 0)
    return Window(ends[first], ends[last], first + 1, last, len(ends) - 1)


def _told(run: Run, window: Window) -> str:
    """Which part of the run is shown, and what share of the whole run's time the workers spend on exchanges."""
    if not window.rounds:
        return "no round has ended"
    part = f"round {window.first}" if window.first == window.last else f"rounds {window.first} to {window.last}"
    kinds = seconds_by_kind(run)
    whole = sum(sum(found.values()) for found in kinds)
    share = f"; {sum(found['exchange'] for found in kinds) / whole:.1%} of the run is exchange" if whole else ""
    return f"{part} of {window.rounds}{share}"


@dataclass(frozen=True)
class _Drawing:
    """A run's panel. seen: what the legend has so far."""

    ax: Axes
    run: Run
    window: Window
    longest: float  # seconds of the time axis, which all panels share
    scale: float  # of this axis: its units in a second
    seen: dict[str, Area]

    def draw(self, rows: Sequence[tuple[int, str]]) -> bool:
        """Draw the rows. Whether one of them has more spans than a figure can show, and is cut into slices."""
        sliced = False
        for place, (worker, row) in enumerate(rows):
            bars: dict[str, list[tuple[float, float]]] = {}
            for lane in _ROWS[row]:
                for span in self.window.cut(self.run.lanes[worker].get(lane, [])):
                    told, area = colours.of_span(lane, span)
                    self.seen.setdefault(told, Area(area.colour))  # rows tell apart what hatches would
                    bars.setdefault(told, []).append(span[1:])
            if sum(map(len, bars.values())) > MOST:
                self._shares(place, bars)
                sliced = True
            else:
                self._bars(place, bars)
        for worker in dict.fromkeys(worker for worker, _ in rows):
            self._faults(worker, [place for place, (other, _) in enumerate(rows) if other == worker])
        several = len({row for _, row in rows}) > 1
        labels = [f"worker {worker} {row}" if several else f"worker {worker}" for worker, row in rows]
        self.ax.set(yticks=range(len(rows)), yticklabels=labels)
        self.ax.invert_yaxis()
        return sliced

    def _bars(self, place: int, bars: dict[str, list[tuple[float, float]]]) -> None:
        """A bar for each span. A thin one and an exchange have edges of their own colour, so that they are seen."""
        least = self.longest / WIDE
        for told, found in bars.items():
            area = self.seen[told]
            exchange = area.colour in _EXCHANGES
            self.ax.broken_barh(
                [(start * self.scale, (stop - start) * self.scale) for start, stop in found],
                (place - 0.4, 0.8),
                facecolors=area.colour,
                edgecolors=[area.colour if exchange or stop - start < least else "white" for start, stop in found],
                linewidth=[THIN if exchange or stop - start < least else 0.4 for start, stop in found],
                zorder=3 if exchange else 2,  # over the edges of what is next to it
            )

    def _shares(self, place: int, bars: dict[str, list[tuple[float, float]]]) -> None:
        """Slices with the share of each thing, from below."""
        edges = np.linspace(0, self.window.stop - self.window.start, SLICES + 1)
        width = edges[1]
        bottom = np.full(SLICES, place + 0.4)  # the axis goes downwards
        for told, found in bars.items():
            starts, stops = np.array(found).T
            share = 0.8 * covered(starts, stops, edges) / width
            self.ax.bar(
                edges[:-1] * self.scale,
                -share,
                width * self.scale,
                bottom,
                align="edge",
                color=self.seen[told].colour,
                linewidth=0,
            )
            bottom = bottom - share

    def _faults(self, worker: int, places: Sequence[int]) -> None:
        for span in self.window.cut(self.run.lanes[worker].get(FAULTS, [])):
            name, start, stop = span
            area = colours.FAULTS.get(name, colours.KINDS["other"])
            self.seen.setdefault(name.replace("_", " "), area)
            for place in places:
                self.ax.broken_barh(
                    [(start * self.scale, (stop - start) * self.scale)],
                    (place - 0.5, 1.0),
                    facecolors=area.colour,
                    edgecolors=colours.EDGE,
                    hatch=area.hatch * 3,
                    linewidth=0,
                    alpha=0.5,
                    zorder=0,
                )


_EXCHANGES = {colours.of_span("network", (name, 0, 0))[1].colour for name in ("parameters", "gradients", "sync")}
