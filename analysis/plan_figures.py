"""The figures of a plan: the front, what each device gets, and what the network takes of each method's time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from . import colours
from .bars import Bar, draw_bar, from_zero, limit_handle, memory_unit, patch
from .colours import KINDS, Area
from .paper import SCREEN, Paper, drawn, far_apart, legend

# Of the exchange: what its bytes take, and what its messages take however small they are.
_NETWORK = {"bandwidth": KINDS["exchange"], "latency": Area("#B34A00", "/")}
_TIME = {kind: KINDS[kind] for kind in ("computing", "exchange", "waiting")}


@dataclass(frozen=True)
class Point:
    """A way to train."""

    samples: float  # between two syncs
    seconds: float  # of an epoch
    spread: float  # plus or minus so many
    method: str
    name: str  # written next to it; empty for most
    front: bool  # whether it is on the front; else it is a baseline


@dataclass(frozen=True)
class Allocated:
    """What a class of equal devices gets."""

    name: str
    batch: int  # samples of each worker in a step; 0: it is not used
    largest: int | None  # samples that it takes at most; None: not known
    seconds: dict[str, float]  # between two syncs: computing, exchange, waiting
    memory: float  # bytes of a device at the peak of a step
    limit: float | None  # bytes that it has; None: not known


@dataclass(frozen=True)
class Network:
    """What the network takes of a way's time, as shares: its bandwidth, and its latency."""

    name: str
    bandwidth: float
    latency: float


@drawn
def front(points: Sequence[Point], *, paper: Paper = SCREEN) -> Figure:
    """A mark for each way, by its method; a line along the front. Crosses are ways that are not on it."""
    figure, ax = plt.subplots(figsize=paper.size(7, 4.2), layout="constrained")
    found = sorted((point for point in points if point.front), key=lambda point: point.samples)
    xs, ys = [point.samples for point in found], [point.seconds for point in found]
    ax.step(xs, ys, where="post", color=colours.NEUTRAL, linewidth=0.8)
    lines = colours.methods(point.method for point in points)
    for point in points:
        line = lines[point.method]
        ax.errorbar(
            point.samples,
            point.seconds,
            yerr=point.spread or None,
            fmt=line.mark if point.front else "x",
            color=line.colour,
            markersize=5,
        )
    for axis, numbers in (("x", [p.samples for p in points]), ("y", [p.seconds for p in points])):
        if far_apart(numbers):
            ax.set(**{f"{axis}scale": "log"})
    ax.set(xlabel="samples of all workers between two syncs", ylabel="time of an epoch (s)")
    ax.grid(alpha=0.3)
    ax.margins(0.15)
    _name(ax, points, paper)
    marks = [Line2D([], [], color=line.colour, marker=line.mark, linestyle="none") for line in lines.values()]
    baseline = Line2D([], [], color=colours.NEUTRAL, marker="x", linestyle="none")
    legend(figure, [*marks, baseline], [*lines, "not on the front"])
    return figure


def _name(ax: Axes, points: Sequence[Point], paper: Paper) -> None:
    """Write the names next to their points: to the right, or where that is too narrow, to the left below the front."""
    ax.get_xlim()  # settles where the points are
    for point in points:
        place = point.samples, point.seconds
        right = (ax.transScale + ax.transLimits).transform(place)[0] <= 0.6
        ax.annotate(
            paper.wrapped(point.name, 7, (paper.width or 7) * 0.65),
            place,
            (5, 5) if right else (-5, -5),
            textcoords="offset points",
            fontsize="small",
            ha="left" if right else "right",
            va="bottom" if right else "top",
        )


@drawn
def allocation(devices: Sequence[Allocated], *, paper: Paper = SCREEN) -> Figure:
    """For each class of devices: its batch, where its time goes between two syncs, and its memory with the limit."""
    wide = paper.beside(9)
    height = 0.35 * len(devices)
    figure, axes = plt.subplots(
        *((1, 3) if wide else (3, 1)),
        figsize=(paper.width or 9, paper.height or (1.1 + height if wide else 3 * (0.6 + height))),
        layout="constrained",
        sharey=wide,
    )
    scale, unit = (1e3, "ms") if max(sum(each.seconds.values()) for each in devices) < 1 else (1.0, "s")
    unit_of_memory, byte = memory_unit(max(each.memory for each in devices))
    size = {"memory": Area("#77AADD")}
    for place, each in enumerate(devices):
        draw_bar(axes[0], place, Bar("", {"batch": each.batch}, each.largest), {"batch": Area(colours.NEUTRAL)})
        draw_bar(axes[1], place, Bar("", each.seconds).scaled(scale), _TIME)
        draw_bar(axes[2], place, Bar("", {"memory": each.memory}, each.limit).scaled(byte), size)
        if not each.batch:
            axes[0].annotate("left out", (0, place), (3, 0), textcoords="offset points", va="center", fontsize="small")
    labels = (
        "batch of each worker (samples)",
        f"time between two syncs ({unit})",
        f"memory at the peak ({unit_of_memory})",
    )
    for ax, label in zip(axes, labels, strict=True):
        ax.set(xlabel=label, yticks=range(len(devices)), ylim=(len(devices) - 0.5, -0.5))
        from_zero(ax)
        if ax is axes[0] or not wide:
            ax.set_yticklabels([each.name for each in devices])
    legend(figure, [*map(patch, _TIME.values()), limit_handle()], [*_TIME, "limit"])
    return figure


@drawn
def communication(ways: Sequence[Network], *, paper: Paper = SCREEN) -> Figure:
    """What the network takes of each way's time, in percent. Exchanges next to computing take none."""
    names = [paper.wrapped(way.name, 7, (paper.width or 7) * 0.55) for way in ways]
    row = max(0.26, *(0.15 * len(name.splitlines()) for name in names))
    figure, ax = plt.subplots(figsize=(paper.width or 7, paper.height or 1.0 + row * len(ways)), layout="constrained")
    for place, way in enumerate(ways):
        draw_bar(ax, place, Bar("", {"bandwidth": way.bandwidth, "latency": way.latency}).scaled(100), _NETWORK)
    ax.set(yticks=range(len(ways)), yticklabels=names, ylim=(len(ways) - 0.5, -0.5))
    ax.set_xlabel(paper.wrapped("share of the time that the network takes (%)", 7, (paper.width or 7) * 0.5))
    from_zero(ax)
    legend(figure, [*map(patch, _NETWORK.values())], [*_NETWORK])
    return figure
