"""The page of the command line: every command with its arguments and options, from the application itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import typer

from paceline.cli import app


def page() -> str:
    """The page as Markdown."""
    group: Any = typer.main.get_command(app)
    lines = ["# Commands\n", "Each command, as `paceline COMMAND --help` tells of it.\n"]
    for name, command in sorted(group.commands.items()):
        if not command.hidden:
            lines += _section(name, command)
    return "\n".join(lines)


def _section(name: str, command: Any) -> Iterator[str]:
    given = [param for param in command.params if param.param_type_name == "argument"]
    words = [_argument(param) if param.required else f"[{_argument(param)}]" for param in given]
    yield f"## {name}\n"
    yield f"`paceline {' '.join([name, *words])}`\n"
    yield f"{command.help}\n"
    rows = [_row(param) for param in command.params if param.help and not param.hidden]
    if rows:
        yield "\n".join(["| option | what |", "|---|---|", *rows, ""])


def _row(param: Any) -> str:
    option = param.param_type_name == "option"
    spelled = " ".join(filter(None, ["/".join([*param.opts, *param.secondary_opts]), param.metavar]))
    default = f" Default: `{param.default}`." if option and param.default and param.default is not True else ""
    cells = f"`{spelled if option else _argument(param)}`", f"{param.help}{default}"
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _argument(param: Any) -> str:
    return str(param.metavar or param.name.upper())
