"""The application: what all commands have in common, and errors of one line for a wrong command line."""

from __future__ import annotations

import functools
import inspect
import os
import re
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Annotated, Any

import typer
from typer.core import TyperCommand
from typer.models import CommandFunctionType

from ..program.errors import ScenarioError
from ..runtime.tracebacks import OPTION, TRACEBACK

Traceback = Annotated[bool, typer.Option(OPTION, help="Where your own model, data or loss fails, show its traceback.")]
_COMPLETING = "_PACELINE_COMPLETE"  # Typer's name for it


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
        if _COMPLETING in os.environ:  # a shell asks for the words that fit
            group.main(prog_name="paceline")
        try:
            with group.make_context("paceline", list(arguments)) as context:
                group.invoke(context)
        except typer.Exit as end:
            return end.exit_code
        except typer.TyperException as error:
            if not arguments:  # Typer has shown the help
                return error.exit_code
            known = arguments[0] if arguments[0] in group.commands else ""
            path = f"paceline {known}".rstrip()
            raise ScenarioError(f"{error.format_message().rstrip('.')}; see {path} --help") from None
        return 0


class WithTarget(TyperCommand):
    """A command whose option `--for` takes a target in one word or in two, like `--for accuracy 0.96`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Join the two words, so that the second one is not taken for an argument."""
        for place in range(len(args) - 2):
            name, value = args[place + 1 : place + 3]
            if args[place] == "--for" and name.isidentifier() and re.fullmatch(r"[-+0-9.eE]+%?", value):
                args = [*args[: place + 1], f"{name} {value}", *args[place + 3 :]]
                break
        return super().parse_args(ctx, args)


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


app = App(
    help="Train neural networks on devices of unequal speed, and predict such training before it happens.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def print_version(wanted: bool) -> None:
    """Print the version, which pyproject.toml states, and end."""
    if wanted:
        print(f"paceline {version('paceline')}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """The options of `paceline` itself."""
