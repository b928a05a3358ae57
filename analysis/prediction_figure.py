"""The figure of a validation: for each case, the prediction with its interval and the real runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib as mpl
import matplotlib.pyplot as plt
from matplotlib.figure import Figure

MOST = 60  # % from the median; what is further away is drawn there
_PREDICTED, _A, _B = "#0072B2", "#D55E00", "#E69F00"  # of Okabe and Ito, as in figures.py


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


@mpl.rc_context({"text.parse_math": False, "svg.hashsalt": "paceline"})  # a case's name is not a formula
def predictions(cases: Sequence[Predicted]) -> Figure:
    """A row per case: prediction and real runs, relative to the median of the real runs, which the label names."""

    def place(seconds: float) -> float:
        return max(-MOST, min(MOST, 100 * (seconds / case.measured - 1)))

    figure, ax = plt.subplots(figsize=(9, 1.3 + 0.27 * len(cases)), layout="constrained")
    for row, case in enumerate(cases):
        first = row == 0
        for runs, colour, mark, offset, label in ((case.a, _A, "o", 0.12, "A"), (case.b, _B, "s", 0.24, "B")):
            places = [row + offset] * len(runs)
            shown = list(map(place, runs))
            ax.plot(shown, places, mark, color=colour, markersize=3, alpha=0.8, label=label if first else None)
        middle, low, high = map(place, (case.predicted, case.low, case.high))
        ax.plot([low, high], [row - 0.15] * 2, color=_PREDICTED, linewidth=4, alpha=0.35, solid_capstyle="butt")
        ax.plot(middle, row - 0.15, "D", color=_PREDICTED, markersize=4, label="predicted" if first else None)
    ax.axvline(0, color="black", linewidth=0.6)
    ax.axvspan(-10, 10, color="black", alpha=0.05, linewidth=0)
    labels = [f"{case.name}  {case.measured:.3g} s" for case in cases]
    ax.set(yticks=range(len(cases)), yticklabels=labels, xlabel=f"% from the median of the real runs, {MOST} at most")
    ax.set_ylim(len(cases) - 0.4, -0.6)
    ax.tick_params(axis="y", labelsize=7)
    ax.grid(axis="x", alpha=0.3)
    ax.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside upper right", ncols=3, frameon=False, fontsize=8)
    return figure
