"""What runs are called in figures: what tells them apart, in plain words, and not the names of their directories."""

from __future__ import annotations

from collections.abc import Sequence

from ..config.strategy_names import strategy_name
from .colours import AGAIN, MEASURED, SIMULATED, Line, methods
from .run import Run


def source(run: Run) -> str:
    """Where a run's numbers come from."""
    return "measured" if run.summary["engine"] == "mpi" else "simulated"


def method(run: Run) -> str:
    """A run's strategy in a few words."""
    section = run.scenario.get("strategy")
    return strategy_name(section) if section else "own loop"


def titles(runs: Sequence[Run]) -> list[str]:
    """A title for each run: its label where it has one, else its method and source, as far as they tell runs apart.

    Runs that neither tells apart also get the names of their directories.
    """
    ways, sources = [method(run) for run in runs], [source(run) for run in runs]
    several = len(set(ways)) > 1
    both = len(set(sources)) > 1 or not several
    plain = [
        run.label or ", ".join(([way] if several else []) + ([found] if both else []))
        for run, way, found in zip(runs, ways, sources, strict=True)
    ]
    return [
        f"{title} ({run.name})" if plain.count(title) > 1 and run.name != title else title
        for run, title in zip(runs, plain, strict=True)
    ]


def lines(runs: Sequence[Run]) -> list[Line]:
    """How each run's curve is drawn. Runs of one method differ by their source, others by their method.

    Measured curves are dashed in both cases.
    """
    ways = [run.label or method(run) for run in runs]
    if len({method(run) for run in runs}) == 1 and not any(run.label for run in runs):
        found = [MEASURED if source(run) == "measured" else SIMULATED for run in runs]
        return [AGAIN if line == MEASURED and MEASURED in found[:n] else line for n, line in enumerate(found)]
    known = methods(ways)
    return [
        Line(known[way].colour, "dashed" if source(run) == "measured" else known[way].dashes, known[way].mark)
        for run, way in zip(runs, ways, strict=True)
    ]
