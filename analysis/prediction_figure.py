"""The figure of a validation: for each case, the prediction with its interval and the real runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from . import colours
from .paper import SCREEN, Paper, drawn, legend

MOST = 60  # % from the median; what is further away is drawn there


@dataclass(frozen=True)
class Predicted:
    """A case in the figure. Times are in seconds."""

    name: str
    predicted: float
    low: float  # the 80 % interval
    high: float
    a: Sequence[float]  # of the real runs
    b: Sequence[float]
    measured: float  # the median of the real runs


@drawn
def predictions(cases: Sequence[Predicted], *, paper: Paper = SCREEN) -> Figure:
    """A row per case: prediction and real runs, relative to the median of the real runs, which the label names."""

    def place(seconds: float) -> float:
        return max(-MOST, min(MOST, 100 * (seconds / case.measured - 1)))

    figure, ax = plt.subplots(figsize=(paper.width or 9, paper.height or 1.3 + 0.27 * len(cases)), layout="constrained")
    said = colours.SIMULATED
    for row, case in enumerate(cases):
        for runs, line, offset in ((case.a, colours.MEASURED, 0.12), (case.b, colours.AGAIN, 0.24)):
            ax.plot(list(map(place, runs)), [row + offset] * len(runs), line.mark, color=line.colour, markersize=3)
        middle, low, high = map(place, (case.predicted, case.low, case.high))
        ax.plot([low, high], [row - 0.15] * 2, color=said.colour, linewidth=4, alpha=0.5, solid_capstyle="butt")
        ax.plot(middle, row - 0.15, said.mark, color=said.colour, markersize=4)
    ax.axvline(0, color="black", linewidth=0.6)
    ax.axvspan(-10, 10, color="black", alpha=0.05, linewidth=0)
    labels = [f"{case.name}  {case.measured:.3g} s" for case in cases]
    ax.set(yticks=range(len(cases)), yticklabels=labels)
    ax.set_xlabel(paper.wrapped(f"difference from the median of the real runs (%), {MOST} at most", 9, 2))
    ax.set_ylim(len(cases) - 0.4, -0.6)
    ax.grid(axis="x", alpha=0.3)
    shown = {"predicted, with the 80 % interval": said, "measured, A": colours.MEASURED, "measured, B": colours.AGAIN}
    handles = [Line2D([], [], color=line.colour, marker=line.mark, linestyle="none") for line in shown.values()]
    legend(figure, handles, [*shown])
    return figure
