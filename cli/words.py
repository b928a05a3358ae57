"""What a scenario may say."""

from __future__ import annotations

from typing import Annotated

from typer import Argument

from .app import app


@app.command()
def explain(
    name: Annotated[str, Argument(metavar="PRESET|KEY", help="Also a member of an axis, or package.module:Name.")],
) -> None:
    """Say what a preset, a member of an axis or a key is: its formula, arguments, source, and a scenario's line."""
    from ..explaining import show_explanations

    show_explanations(name)


@app.command()
def schema() -> None:
    """Print the JSON schema of a scenario, for editors."""
    from ..explaining import show_schema

    show_schema()
