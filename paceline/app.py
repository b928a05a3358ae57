"""What all commands have in common: the option `--traceback`, and errors of one line for a wrong command line."""

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

Traceback = Annotated[bool, typer.Option(OPTION, help="Where your own model, data or loss fails, show its traceback.")]


class App(typer.Typer):
    """A Typer application whose commands all have the option `--traceback`."""

    def command(self, name: str | None = None, **options: Any) -> Callable[[CommandFunctionType], CommandFunctionType]:
        """Register a command, as Typer does."""
        register = super().command(name, **options)

        def add(function: CommandFunctionType) -> CommandFunctionType:
            register(_with_traceback(function))
            return function

        return add

    def run(self, arguments: Sequence[str]) -> int:
        """Run a command line; returns its exit status. ScenarioError where it is wrong."""
        group: Any = typer.main.get_command(self)
        try:
            with group.make_context("paceline", list(arguments)) as context:
                group.invoke(context)
        except typer.Exit as end:
            return end.exit_code
        except typer.TyperException as error:
            if not arguments:  # Typer has shown the help
                return error.exit_code
            known = arguments[0] if arguments and arguments[0] in group.commands else ""
            path = f"paceline {known}".rstrip()
            raise ScenarioError(f"{error.format_message().rstrip('.')}; see {path} --help") from None
        return 0


def print_version(wanted: bool) -> None:
    """Print the version, which pyproject.toml states, and end."""
    if wanted:
        print(f"paceline {version('paceline')}")
        raise typer.Exit


def _with_traceback(function: Callable[..., None]) -> Callable[..., None]:
    """The command, with the option added to its own."""

    @functools.wraps(function)
    def run(*, traceback: bool, **options: Any) -> None:
        TRACEBACK.set(traceback)
        function(**options)

    signature = inspect.signature(function, eval_str=True)
    option = inspect.Parameter("traceback", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=Traceback)
    run.__signature__ = signature.replace(parameters=[*signature.parameters.values(), option])  # type: ignore[attr-defined]
    run.__annotations__ = {**function.__annotations__, "traceback": Traceback}
    return run
