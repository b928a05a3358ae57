"""Figures from runs: learning curves against seconds, and the timeline of a few rounds."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from .run import Run

# Colours that stay apart for colour-blind readers (Okabe and Ito, 2008).
_COLOURS = {
    "step": "#0072B2",
    "gradient": "#0072B2",
    "update": "#56B4E9",
    "evaluate": "#DDDDDD",
    "wait": "#F2F2F2",
    "gradients": "#D55E00",
    "parameters": "#D55E00",
    "begin": "#E69F00",
}
_OTHER = "#999999"


def learning_curves(runs: Sequence[Run]) -> Figure:
    """Training loss and test accuracy against seconds, one line per run."""
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    for run in runs:
        style = "--" if run.summary["engine"] == "mpi" else "-"
        for ax, key in zip(axes, ("train_loss", "accuracy"), strict=True):
            known = run.metrics[["seconds", key]].dropna()  # a line that was only logged has no accuracy
            ax.plot(known["seconds"], known[key], style, label=run.name)
    for ax, label in zip(axes, ("training loss", "test accuracy"), strict=True):
        ax.set(xlabel="seconds (evaluation excluded)", ylabel=label)
        ax.grid(alpha=0.3)
    axes[0].set_yscale("log")
    axes[1].legend(frameon=False)
    return figure


def timeline(runs: Sequence[Run], rounds: int = 3, skip: int = 1) -> Figure:
    """What every worker does in a few rounds: one panel per run, by custom the simulated above the real one.

    rounds: how many to draw; skip: how many to leave out at the start. The runs must be traced (report.trace: true).
    """
    for run in runs:
        if not run.lanes:
            raise ValueError(f"{run.name} has no trace; run it with --set report.trace=true")
    height = 0.7 + sum(0.45 * len(run.lanes) + 0.5 for run in runs)
    figure, axes = plt.subplots(len(runs), 1, figsize=(9, height), sharex=True, squeeze=False, layout="constrained")
    seen: dict[str, str] = {}
    for ax, run in zip(axes[:, 0], runs, strict=True):
        _draw(ax, run, *_window(run, rounds, skip), seen)
    axes[-1, 0].set_xlabel("milliseconds")
    figure.legend(
        handles=[Patch(color=colour, label=name) for name, colour in seen.items()],
        loc="outside upper right",
        ncols=len(seen),
        frameon=False,
        fontsize=8,
    )
    return figure


def _window(run: Run, rounds: int, skip: int) -> tuple[float, float]:
    """(start, stop) in seconds of the rounds to draw: between the ends of training exchanges of worker 0."""
    exchanges = [s for s in run.lanes[0].get("network", []) if s[0] in ("gradients", "parameters")]
    ends = [0.0, *(stop for _, _, stop in exchanges)]
    first = min(skip, len(ends) - 1)
    return ends[first], ends[min(first + rounds, len(ends) - 1)]


def _draw(ax: Axes, run: Run, start: float, stop: float, seen: dict[str, str]) -> None:
    for worker, lanes in enumerate(run.lanes):
        for name, begin, end in (span for spans in lanes.values() for span in spans):
            if end > start and begin < stop:
                colour = seen.setdefault(name, _COLOURS.get(name, _OTHER))
                left, right = max(begin, start), min(end, stop)
                ax.barh(
                    worker,
                    (right - left) * 1e3,
                    left=(left - start) * 1e3,
                    height=0.7,
                    color=colour,
                    edgecolor="white",
                    linewidth=0.4,
                )
    ax.set(yticks=range(len(run.lanes)), yticklabels=[f"worker {w}" for w in range(len(run.lanes))])
    ax.invert_yaxis()
    ax.set_title(f"{run.name} ({run.summary['engine']})", loc="left", fontsize=9)
    ax.spines[["top", "right"]].set_visible(False)
