"""Figures of runs: learning curves over seconds, and the timeline of a few rounds."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib as mpl
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from ..records.spool import FAULTS
from ..records.trace import span_phase
from .run import Run

# Colours that stay apart for colour-blind readers (Okabe and Ito, 2008).
_COLOURS = {
    "step": "#0072B2",
    "gradient": "#0072B2",
    "forward": "#0072B2",
    "backward": "#009E73",
    "update": "#56B4E9",
    "host update": "#56B4E9",
    "move": "#CC79A7",
    "evaluate": "#BBBBBB",
    "wait": "#EAEAEA",
    "gradients": "#D55E00",
    "parameters": "#D55E00",
    "begin": "#E69F00",
}
_OTHER = "#999999"
_FAULT = "#F0E442"
# The rows of a worker, from the top, and the lanes that each shows.
_ROWS = {"computing": ("compute",), "host": ("host",), "host link": ("to host", "to device"), "network": ("network",)}


@mpl.rc_context({"text.parse_math": False})  # a run's name is not a formula, whatever signs it has
def learning_curves(runs: Sequence[Run]) -> Figure:
    """Training loss and the first metric against seconds, one line per run.

    The metric is the first one that all runs have; where there is none, the test loss is shown.
    """
    common = [name for name in runs[0].metric_names if all(name in run.metric_names for run in runs)]
    tested = common[0] if common else "test_loss"
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    for run in runs:
        style = "--" if run.summary["engine"] == "mpi" else "-"
        for ax, key in zip(axes, ("train_loss", tested), strict=True):
            # a line without an evaluation has no metrics
            known = run.metrics.reindex(columns=["seconds", key]).dropna()
            ax.plot(known["seconds"], known[key], style, label=run.name)
    for ax, label in zip(axes, ("training loss", f"test {tested.removeprefix('test_')}"), strict=True):
        ax.set(xlabel="seconds (evaluation excluded)", ylabel=label)
        ax.grid(alpha=0.3)
    axes[0].set_yscale("log")
    axes[1].legend(frameon=False)
    return figure


@mpl.rc_context({"text.parse_math": False})  # a run's name is not a formula, whatever signs it has
def timeline(runs: Sequence[Run], rounds: int = 3, skip: int = 1) -> Figure:
    """What every worker does in a few rounds, with one panel per run.

    A worker has a row for each of its computing, its host, its host link and its network that any run used. Faults are
    shaded behind the rows of the worker that they hit.

    rounds: how many to draw.
    skip: how many to leave out at the start.
    Raises ValueError where a run has no trace (report.trace: true).
    """
    for run in runs:
        if not run.lanes:
            raise ValueError(f"{run.name} has no trace; run it with --set report.trace=true")
    rows = [_rows(run) for run in runs]
    heights = [0.5 + 0.28 * len(found) for found in rows]
    figure, axes = plt.subplots(
        len(runs),
        1,
        figsize=(9, 0.7 + sum(heights)),
        sharex=True,
        squeeze=False,
        height_ratios=heights,
        layout="constrained",
    )
    seen: dict[str, str] = {}
    for ax, run, found in zip(axes[:, 0], runs, rows, strict=True):
        _draw(ax, run, found, *_window(run, rounds, skip), seen)
    axes[-1, 0].set(xlabel="milliseconds", xlim=(0, None))
    figure.legend(
        handles=[Patch(color=colour, label=name) for name, colour in seen.items()],
        loc="outside upper right",
        ncols=min(len(seen), 8),
        frameon=False,
        fontsize=8,
    )
    return figure


def _rows(run: Run) -> list[tuple[int, str]]:
    """(worker, row) of all rows, from the top."""
    used = {row for row, names in _ROWS.items() if any(lanes.get(name) for lanes in run.lanes for name in names)}
    return [(worker, row) for worker in range(len(run.lanes)) for row in _ROWS if row in used]


def _window(run: Run, rounds: int, skip: int) -> tuple[float, float]:
    """(start, stop) in seconds of the rounds to draw, by worker 0's clock."""
    ends = [0.0, *(stop for _, _, stop in run.lanes[0].get("rounds", []))]
    first = min(skip, len(ends) - 2) if len(ends) > 1 else 0
    stop = ends[min(first + rounds, len(ends) - 1)]
    if not stop:  # no round has ended: draw all that there is
        stop = max(span[2] for lanes in run.lanes for spans in lanes.values() for span in spans)
    return ends[first], stop


def _draw(ax: Axes, run: Run, rows: Sequence[tuple[int, str]], start: float, stop: float, seen: dict[str, str]) -> None:
    places: dict[int, list[int]] = {}
    for place, (worker, row) in enumerate(rows):
        places.setdefault(worker, []).append(place)
        bars: dict[str, list[tuple[float, float]]] = {}
        for span in (span for lane in _ROWS[row] for span in run.lanes[worker].get(lane, [])):
            _, begin, end = span
            if end > start and begin < stop:
                left = max(begin, start)
                bars.setdefault(span_phase(span), []).append(((left - start) * 1e3, (min(end, stop) - left) * 1e3))
        for phase, found in bars.items():
            colour = seen.setdefault(phase, _COLOURS.get(phase, _OTHER))
            ax.broken_barh(found, (place - 0.4, 0.8), facecolors=colour, edgecolors="white", linewidth=0.4)
    for worker, held in places.items():
        for _, begin, end in run.lanes[worker].get(FAULTS, []):
            if end > start and begin < stop:
                seen.setdefault("fault", _FAULT)
                shade = ((max(begin, start) - start) * 1e3, (min(end, stop) - max(begin, start)) * 1e3)
                for place in held:
                    ax.broken_barh([shade], (place - 0.5, 1.0), facecolors=_FAULT, alpha=0.5, zorder=0)
    several = len({row for _, row in rows}) > 1
    labels = [f"worker {worker} {row}" if several else f"worker {worker}" for worker, row in rows]
    ax.set(yticks=range(len(rows)), yticklabels=labels)
    ax.tick_params(axis="y", labelsize=7)
    ax.invert_yaxis()
    ax.set_title(f"{run.name} ({run.summary['engine']})", loc="left", fontsize=9)
    ax.spines[["top", "right"]].set_visible(False)
