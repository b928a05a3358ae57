"""What a scenario may say."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from ..program.errors import ScenarioError
from .app import app


def complete_word(incomplete: str) -> Iterator[str]:
    """For the shell: what can be explained."""
    from ..config.explanations import explained

    yield from (name for name in explained() if name.startswith(incomplete))


@app.command()
def explain(
    name: Annotated[
        str | None,
        Argument(
            metavar="PRESET|KEY",
            help="Also a member of an axis, or package.module:Name.",
            autocompletion=complete_word,
        ),
    ] = None,
    page: Annotated[
        Path | None, Option(metavar="FILE", help="Write all presets and members of axes into this Markdown page.")
    ] = None,
) -> None:
    """Say what a preset, a member of an axis or a key is: its formula, arguments, source, and a scenario's line."""
    from ..explaining import show_explanations
    from ..methods_page import write_methods

    if page:
        write_methods(page)
    elif not name:
        raise ScenarioError("explain what? name a preset, a member of an axis or a key, like `paceline explain qsr`")
    if name:
        show_explanations(name)


@app.command()
def schema() -> None:
    """Print the JSON schema of a scenario, for editors."""
    from ..explaining import show_schema

    show_schema()


@app.command()
def scenarios() -> None:
    """List the scenarios that come with Paceline: other commands take their names as they take files."""
    from ..printing import show_scenarios

    show_scenarios()
