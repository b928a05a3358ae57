"""Options that several commands have."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

from typer import Argument, Option

from ..analysis.paper import Paper


def find_scenario(name: str) -> Path:
    """The file, or the scenario of this name that comes with Paceline."""
    from ..config.bundled import find

    return find(name)


def find_profile(name: str) -> Path:
    """The file, or the profile of this name that comes with Paceline."""
    from ..config.bundled import find

    return find(name, "profiles")


def complete_scenario(incomplete: str) -> Iterator[str]:
    """For the shell: names of scenarios, then files and folders."""
    from ..config.bundled import names

    yield from (name for name in names() if name.startswith(incomplete))
    folder = Path(incomplete + "x").parent  # "runs/" is in runs, "ru" in the working folder
    if folder.is_dir():
        yield from sorted(f"{path}/" if path.is_dir() else str(path) for path in folder.iterdir())


def scenario_argument(help: str | None = None, **more: Any) -> Any:
    """An argument that is a scenario: a file, or the name of one that comes with Paceline."""
    return Argument(help=help, parser=find_scenario, autocompletion=complete_scenario, **more)


Scenario = Annotated[Path, scenario_argument("A file, or a name that `paceline scenarios` lists.", metavar="SCENARIO")]

Settings = Annotated[list[str], Option("--set", metavar="A.B=C", help="Override a key of the scenario.")]
Engine = Annotated[str, Option(help="The simulator: auto, cohort (faster) or simpy (does everything).")]
Ranks = Annotated[int | None, Option("-n", min=1, help="MPI ranks to start. Default: one per worker.")]
Emulate = Annotated[
    bool | None, Option("--emulate/--no-emulate", help="A worker k times slower sleeps k-1 times its step.")
]
EmulateNetwork = Annotated[
    bool | None,
    Option("--emulate-network/--no-emulate-network", help="Lay the described star around the ranks: Linux, root."),
]

_PAPER = {
    "format": (str, "png", Option(metavar="png,pdf,svg", help="Of figures: one or several formats.")),
    "size": (str | None, None, Option(metavar="3.3x2.5", help="Of figures: inches, a width, or column or page.")),
    "font": (str | None, None, Option(metavar="FAMILY", help="Of figures: like serif, or a family's name.")),
    "font_size": (float, 9.0, Option(metavar="POINTS", help="Of figures.")),
}


def draws(function: Callable[..., None]) -> Callable[..., None]:
    """A command that draws figures: its argument `paper` becomes the options that say how."""

    @functools.wraps(function)
    def run(*, format: str, size: str | None, font: str | None, font_size: float, **options: Any) -> None:
        function(paper=Paper.read(format, size, font, font_size), **options)

    signature = inspect.signature(function, eval_str=True)
    kept = [each for name, each in signature.parameters.items() if name != "paper"]
    added = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, option])
        for name, (kind, default, option) in _PAPER.items()
    ]
    run.__signature__ = signature.replace(parameters=[*kept, *added])  # type: ignore[attr-defined]
    run.__annotations__ = {each.name: each.annotation for each in (*kept, *added)}
    return run
