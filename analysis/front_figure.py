"""The figure of a plan: the time of an epoch against the samples between two syncs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib as mpl
import matplotlib.pyplot as plt
from matplotlib.figure import Figure

_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")  # of Okabe and Ito, as in figures.py
_OTHER = "#999999"
FEW = 3  # of the largest and the smallest number: fewer times apart than this, an axis is linear


@dataclass(frozen=True)
class Point:
    """A way to train."""

    samples: float  # between two syncs
    seconds: float  # of an epoch
    spread: float  # plus or minus so many
    method: str
    name: str  # written next to it; empty for most
    front: bool  # whether it is on the front; else it is a baseline


@mpl.rc_context({"text.parse_math": False})  # a device's name is not a formula
def front(points: Sequence[Point]) -> Figure:
    """A mark for each way, coloured by its method; a line along the front."""
    figure, ax = plt.subplots(figsize=(7, 4.2), layout="constrained")
    found = sorted((point for point in points if point.front), key=lambda point: point.samples)
    ax.step(
        [point.samples for point in found],
        [point.seconds for point in found],
        where="post",
        color=_OTHER,
        linewidth=0.8,
    )
    colours = dict(zip(dict.fromkeys(point.method for point in points), _COLOURS, strict=False))
    named = set[str]()
    for point in points:
        label = None if point.method in named else point.method
        named.add(point.method)
        ax.errorbar(
            point.samples,
            point.seconds,
            yerr=point.spread or None,
            fmt="o" if point.front else "x",
            color=colours.get(point.method, _OTHER),
            label=label,
        )
        if point.name:
            ax.annotate(point.name, (point.samples, point.seconds), (5, 5), textcoords="offset points", fontsize=8)
    for axis, numbers in (("x", [p.samples for p in points]), ("y", [p.seconds for p in points])):
        if max(numbers) > FEW * min(numbers) > 0:
            ax.set(**{f"{axis}scale": "log"})
    ax.set(xlabel="samples of all workers between two syncs", ylabel="seconds of an epoch")
    ax.grid(alpha=0.3)
    ax.margins(0.15)
    ax.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside upper right", ncols=4, frameon=False, fontsize=8)
    return figure
