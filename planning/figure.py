"""The figures that `paceline plan --figures` saves."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..analysis.paper import SCREEN, Paper
from .answer import Answer
from .judge import Row

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ..analysis.plan_figures import Allocated, Network, Point


def save_figures(answer: Answer, folder: Path, paper: Paper) -> list[Path]:
    """Draw the figures into the folder. Returns the files. ScenarioError where they cannot be written."""
    import matplotlib

    matplotlib.use("Agg")
    return paper.save(figures_of(answer, paper), folder)


def figures_of(answer: Answer, paper: Paper = SCREEN) -> dict[str, Figure]:
    """The figures of an answer, by the names of their files: front, allocation, communication."""
    from ..analysis import plan_figures

    return {
        "front": plan_figures.front([*map(_point, answer.rows)], paper=paper),
        "allocation": plan_figures.allocation(allocated(answer.rows[0]), paper=paper),
        "communication": plan_figures.communication(_few([*map(network, answer.rows)]), paper=paper),
    }


def allocated(row: Row) -> list[Allocated]:
    """What each class of devices gets in a way, those that are left out last."""
    from ..analysis.plan_figures import Allocated

    way, found = row.way, list[Allocated]()
    between = row.measured.quiet * way.gap
    exchange = (row.measured.quiet - row.measured.computing) * way.gap
    counts = [way.team.by_class.count(c) for c in way.team.devices]
    for (name, batch), device, count in zip(row.batches.items(), way.team.devices.values(), counts, strict=True):
        idle = row.idle[name] * between
        seconds = {"computing": between - idle, "exchange": min(exchange, idle), "waiting": max(0.0, idle - exchange)}
        found.append(
            Allocated(_counted(count, name), batch, device.max_batch, seconds, row.memory[name], device.memory)
        )
    gone = ((name, count) for name, count in row.left_out.items() if name not in row.batches)
    return found + [Allocated(_counted(count, name), 0, None, {}, 0.0, None) for name, count in gone]


def _counted(count: int, name: str) -> str:
    return name if count == 1 else f"{count} x {name}"


def network(row: Row) -> Network:
    """What the network takes of a way's time."""
    from ..analysis.plan_figures import Network

    taken = row.measured
    roles = ", ".join(role for role in row.roles if role != "front")
    name = row.way.preset if row.way.steps == 1 else f"{row.way.preset}, {row.way.steps:.3g} steps"
    return Network(
        f"{name} ({roles})" if roles else name,
        (taken.no_latency - taken.computing) / taken.quiet,
        (taken.quiet - taken.no_latency) / taken.quiet,
    )


def _few(ways: Sequence[Network]) -> list[Network]:
    """One way of each name, the first: of ways that differ in workers, batches or wire alone."""
    first = {way.name: way for way in reversed(ways)}
    return [way for way in ways if way is first[way.name]]


def _point(row: Row) -> Point:
    from ..analysis.plan_figures import Point

    told = ", ".join(role for role in row.roles if role != "front")
    return Point(row.way.gap, row.epoch, row.spread, row.way.preset, told, "front" in row.roles)
