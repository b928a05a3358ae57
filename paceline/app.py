"""What all commands have in common: the option `--traceback`, and that a wrong command line is one line, too."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Annotated, Any

import typer
from typer.models import CommandFunctionType

from .program.errors import ScenarioError
from .runtime.tracebacks import OPTION, TRACEBACK

Traceback = Annotated[bool, typer.Option(OPTION, help="Of an error, show also where your own code failed.")]


class App(typer.Typer):
    """A Typer whose commands all take `--traceback`."""

    def command(self, name: str | None = None, **options: Any) -> Callable[[CommandFunctionType], CommandFunctionType]:
        """As Typer's."""
        register = super().command(name, **options)

        def add(function: CommandFunctionType) -> CommandFunctionType:
            register(_with_traceback(function))
            return function

        return add

    def run(self, arguments: Sequence[str]) -> int:
        """The exit status of a command line. Raises what the command raises, and ScenarioError for a wrong line."""
        group: Any = typer.main.get_command(self)
        try:
            with group.make_context("paceline", list(arguments)) as context:
                group.invoke(context)
        except typer.Exit as end:
            return end.exit_code
        except typer.TyperException as error:
            if not arguments:  # then the help has been shown
                return error.exit_code
            known = arguments[0] if arguments and arguments[0] in group.commands else ""
            path = f"paceline {known}".rstrip()
            raise ScenarioError(f"{error.format_message().rstrip('.')}; see {path} --help") from None
        return 0


def print_version(wanted: bool) -> None:
    """What `paceline --version` prints; pyproject.toml says it."""
    if wanted:
        print(f"paceline {version('paceline')}")
        raise typer.Exit


def _with_traceback(function: Callable[..., None]) -> Callable[..., None]:
    """The command, with the option added to what it takes."""

    @functools.wraps(function)
    def run(*, traceback: bool, **options: Any) -> None:
        TRACEBACK.set(traceback)
        function(**options)

    signature = inspect.signature(function, eval_str=True)
    option = inspect.Parameter("traceback", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=Traceback)
    run.__signature__ = signature.replace(parameters=[*signature.parameters.values(), option])  # type: ignore[attr-defined]
    run.__annotations__ = {**function.__annotations__, "traceback": Traceback}
    return run
