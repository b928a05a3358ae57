"""Figures of runs: learning curves over seconds. And all figures that some runs have, by their files' names."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from .bars import has_memory, memory, time_spent
from .paper import SCREEN, Paper, drawn, legend
from .run import Run
from .timeline import timeline
from .titles import lines, titles

__all__ = ["Paper", "figures_of", "learning_curves", "memory", "time_spent", "timeline"]


def figures_of(runs: Sequence[Run], paper: Paper = SCREEN, rounds: int | None = 3) -> dict[str, Figure]:
    """All figures that runs have, by the names of their files: `timeline` and `time` need a trace.

    Runs that are all timing-only have no `curves`. rounds: of the timeline; None: all.
    """
    found = {}
    if all(run.lines for run in runs) and not all(run.summary.get("timing_only") for run in runs):
        found["curves"] = learning_curves(runs, paper=paper)
    if all(run.lanes for run in runs):
        found["timeline"] = timeline(runs, rounds, paper=paper)
        found["time"] = time_spent(runs, paper=paper)
    if all(has_memory(run) for run in runs):
        found["memory"] = memory(runs, paper=paper)
    return found


@drawn
def learning_curves(runs: Sequence[Run], *, paper: Paper = SCREEN) -> Figure:
    """Training loss and the first metric against seconds, one line per run.

    The metric is the first one that all runs have; where there is none, the test loss is shown.
    """
    common = [name for name in runs[0].metric_names if all(name in run.metric_names for run in runs)]
    tested = common[0] if common else "test_loss"
    beside = paper.beside(9)
    shape, size = ((1, 2), (9, 3.4)) if beside else ((2, 1), (5, 6))
    figure, axes = plt.subplots(*shape, figsize=paper.size(*size), layout="constrained", sharex=not beside)
    for run, line in zip(runs, lines(runs), strict=True):
        for ax, key in zip(axes, ("train_loss", tested), strict=True):
            # a line without an evaluation has no metrics
            known = run.metrics.reindex(columns=["seconds", key]).dropna()
            ax.plot(known["seconds"], known[key], color=line.colour, linestyle=line.dashes)
    for ax, label in zip(axes, ("training loss", f"test {tested.removeprefix('test_')}"), strict=True):
        if beside or ax is axes[-1]:
            ax.set(xlabel="time without evaluation (s)")
        ax.set(ylabel=label)
        ax.grid(alpha=0.3)
    axes[0].set_yscale("log")
    figure.align_ylabels()
    legend(figure, axes[0].lines, titles(runs))
    return figure
