"""Stacked bars of runs: where the time goes, and what memory holds, by class of equal workers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from . import colours
from .classes import WorkerClass, classes
from .colours import Area
from .paper import SCREEN, Paper, drawn, legend
from .run import Run
from .titles import titles
from .where import KINDS, seconds_by_kind

# What memory_predicted calls the parts that are neither parameters, gradients, optimizer state nor buffers of these.
_OTHERS = {
    "activations": "activations",
    "fresh": "fresh gradients",
    "exchange": "buffers",
    "vectors": "outer optimizer",
    "syncs": "copies of syncs",
    "data": "data",
    "process": "process",
}
_PALE = (colours.KINDS["waiting"], colours.KINDS["other"], colours.MEMORY["data"])  # need an edge on white


@dataclass(frozen=True)
class Bar:
    """A bar. parts: by what they are, in the axis's unit. limit: a mark in this unit, or None."""

    name: str
    parts: Mapping[str, float]
    limit: float | None = None

    def scaled(self, factor: float) -> Bar:
        """The same in another unit."""
        parts = {part: size * factor for part, size in self.parts.items()}
        return Bar(self.name, parts, self.limit and self.limit * factor)


@drawn
def time_spent(runs: Sequence[Run], *, paper: Paper = SCREEN) -> Figure:
    """Where the time goes: for each run and each class of its workers, a stacked bar of computing, exchange, waiting.

    A bar is the mean over the class's workers. Runs of unequal work are compared per 1,000 samples of all workers.
    Raises ValueError where a run has no trace.
    """
    groups, unit = time_bars(runs)
    return stacked(titles(runs), groups, {kind: colours.KINDS[kind] for kind in KINDS}, unit, paper)


def time_bars(runs: Sequence[Run]) -> tuple[list[list[Bar]], str]:
    """(the bars of each run, what their sizes are) of `time_spent`."""
    samples = [run.summary["samples"] for run in runs]
    alike = max(samples) <= 1.02 * min(samples)
    groups = []
    for run in runs:
        kinds, scale = seconds_by_kind(run), 1.0 if alike else 1000 / run.summary["samples"]
        groups.append([Bar(each.told, _means(each, kinds, scale)) for each in classes(run)])
    return groups, "time of the run (s)" if alike else "time per 1,000 samples of all workers (s)"


def _means(those: WorkerClass, kinds: Sequence[Mapping[str, float]], scale: float) -> dict[str, float]:
    found = {kind: sum(kinds[worker][kind] for worker in those.workers) / len(those.workers) for kind in KINDS}
    return {kind: max(0.0, seconds) * scale for kind, seconds in found.items()}


@drawn
def memory(runs: Sequence[Run], *, paper: Paper = SCREEN) -> Figure:
    """What memory holds at the peak, as predicted: for each run and each class of its workers, a bar by part.

    A class has a bar for its device and one for its host's memory, where that is another one. A bar is that of the
    worker that needs most. The device's memory is marked where it is known and near.
    Raises ValueError where a run has no predicted memory.
    """
    groups, unit = memory_bars(runs)
    return stacked(titles(runs), groups, colours.MEMORY, unit, paper)


def memory_bars(runs: Sequence[Run]) -> tuple[list[list[Bar]], str]:
    """(the bars of each run, what their sizes are) of `memory`. ValueError as there."""
    groups = []
    for run in runs:
        if not has_memory(run):
            raise ValueError(f"{run.name}: its summary has no predicted memory; run it again")
        groups.append([bar for each in classes(run) for bar in _memory_bars(run, each)])
    unit, byte = memory_unit(max(sum(bar.parts.values()) for group in groups for bar in group))
    shown = [[bar.scaled(byte) for bar in group] for group in groups]
    return shown, f"memory at the peak, predicted ({unit})"


def memory_unit(most: float) -> tuple[str, float]:
    """(the unit of an axis with so many bytes at most, a byte in this unit)."""
    return ("GiB", 2**-30) if most > 2**29 else ("MiB", 2**-20)


def has_memory(run: Run) -> bool:
    """Whether a run's summary has the predicted memory of each of its workers."""
    found = run.summary.get("memory_predicted") or {}
    columns = [*found.values(), *(v for parts in run.summary.get("memory_parts", {}).values() for v in parts.values())]
    return {"device", "host"} <= found.keys() and all(len(column) == run.summary["workers"] for column in columns)


def _memory_bars(run: Run, those: WorkerClass) -> Iterator[Bar]:
    """In bytes."""
    predicted = run.summary["memory_predicted"]
    worker = max(those.workers, key=lambda number: sum(values[number] for values in predicted.values()))
    # A run of an earlier version says only how much these parts are together.
    together = {place: {"parameters": predicted[place]} for place in ("device", "host")}
    found = dict[str, dict[str, float]]()
    for place, parts in (run.summary.get("memory_parts") or together).items():
        found[place] = {part: values[worker] for part, values in parts.items()}
    for name, part in _OTHERS.items():
        place = found["device" if name in ("activations", "fresh") else "host"]
        if name in predicted:
            place[part] = place.get(part, 0.0) + predicted[name][worker]
    if those.shared:
        device, host = found.values()
        yield Bar(
            those.told, {part: device.get(part, 0.0) + host.get(part, 0.0) for part in device | host}, those.memory
        )
    else:
        yield Bar(f"{those.told}: device", found["device"], those.memory)
        yield Bar(f"{those.told}: host", found["host"], those.host_memory)


def stacked(
    names: Sequence[str], groups: Sequence[Sequence[Bar]], areas: Mapping[str, Area], unit: str, paper: Paper
) -> Figure:
    """Horizontal bars in groups, the first one on top, with the groups' names above their bars."""
    rows = sum(map(len, groups)) + len(groups)
    figure, ax = plt.subplots(figsize=(paper.width or 7, paper.height or 0.9 + 0.24 * rows), layout="constrained")
    parts = [part for part in areas if any(bar.parts.get(part) for group in groups for bar in group)]
    place, labels = 0, dict[int, str]()
    for name, group in zip(names, groups, strict=True):
        ax.annotate(paper.wrapped(name, 7, 1), (0, place), (3, 0), textcoords="offset points", va="center")
        for bar in group:
            place += 1
            labels[place] = bar.name
            draw_bar(ax, place, bar, {part: areas[part] for part in parts})
        place += 1
    ax.set(yticks=[*labels], yticklabels=[*labels.values()], xlabel=unit, ylim=(place - 0.4, -0.6))
    from_zero(ax)
    ax.tick_params(axis="y", length=0)
    limited = any(bar.limit for group in groups for bar in group)
    handles, told = list[Artist](patch(areas[part]) for part in parts), [*parts]
    if limited:
        handles, told = [*handles, limit_handle()], [*told, "limit"]
    legend(figure, handles, told)
    return figure


def from_zero(ax: Axes) -> None:
    """An axis of sizes: it begins at 0, and the longest bar ends before its end."""
    ax.use_sticky_edges = False
    ax.margins(x=0.03)
    ax.set_xlim(left=0)
    ax.grid(axis="x", alpha=0.3)


def draw_bar(ax: Axes, place: float, bar: Bar, areas: Mapping[str, Area], height: float = 0.78) -> None:
    """A stacked bar, with its limit as a line across it."""
    left = 0.0
    for part, area in areas.items():
        size = bar.parts.get(part, 0.0)
        if size > 0:
            # What is thinner than the edges next to it is still seen.
            ax.barh(place, size, height, left, **_filled(area), zorder=3 if area == colours.KINDS["exchange"] else 2)
        left += size
    if bar.limit:
        ax.plot([bar.limit] * 2, [place - height / 2, place + height / 2], color=colours.LIMIT.colour, linewidth=1.5)


def patch(area: Area) -> Patch:
    """An area in a legend."""
    return Patch(**_filled(area))


def limit_handle() -> Line2D:
    """The mark of a limit in a legend."""
    return Line2D([], [], color=colours.LIMIT.colour, linewidth=1.5, linestyle="none", marker="|", markersize=9)


def _filled(area: Area) -> dict[str, Any]:
    edge = colours.EDGE if area.hatch or area in _PALE else area.colour
    return {"facecolor": area.colour, "hatch": area.hatch * 3, "edgecolor": edge, "linewidth": 0.5}
