"""Import paths of a user's own code, `package.module:Name`. Every mistake is a ValueError of one line.

Rule: a scenario's import path runs the user's own code, never the standard library's: `os:system` is a mistake. Code
that ends the program (SystemExit) has failed like code that raises.
"""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

from . import errors

FAILURES = (Exception, SystemExit)  # what a user's code may raise; KeyboardInterrupt is the user at the keyboard
SHOWN = 200  # characters of an exception's text


def named(path: str) -> bool:
    """Whether `path` is an import path, `package.module:factory`, rather than a built-in name."""
    return ":" in path


def load(path: str, what: str) -> Callable[..., Any]:
    """The callable at `package.module:factory`; `what` ("model", "data", "loss") begins the ValueErrors."""
    module_name, _, attribute = path.partition(":")
    if not all(part.isidentifier() for part in (*module_name.split("."), *attribute.split("."))):
        raise ValueError(f"{what} {path!r} is not an import path; write package.module:factory")
    _refuse_standard(module_name, what, path)
    try:
        found: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        missing = error.name or module_name
        whose = (
            "" if module_name == missing or module_name.startswith(missing + ".") else f", which {module_name} needs"
        )
        raise ValueError(
            f"{what} {path!r}: no module named {missing!r}{whose}; is its folder on PYTHONPATH?"
        ) from error
    except FAILURES as error:  # whatever a user's module does at import
        raise ValueError(f"{what} {path!r}: importing {module_name} failed: {in_words(error)}") from error
    for name in attribute.split("."):
        if not hasattr(found, name):
            public = [n for n in vars(found) if not n.startswith("_")]
            raise ValueError(f"{what} {path!r}: {module_name} has no {name!r}{errors.nearest(name, public)}")
        found = getattr(found, name)
        if isinstance(found, ModuleType):
            _refuse_standard(found.__name__, what, path)
    if inspect.isroutine(found) or inspect.isclass(found):
        _refuse_standard(found.__module__ or "", what, path)  # torch's own functions in C name none
    if not callable(found):
        raise ValueError(f"{what} {path!r} is a {type(found).__name__}; name a function or class that makes the {what}")
    made: Callable[..., Any] = found
    return made


def _refuse_standard(module: str, what: str, path: str) -> None:
    """ValueError where the module is one of Python's own."""
    top = module.partition(".")[0]
    if top in sys.stdlib_module_names:
        raise ValueError(
            f"{what} {path!r}: {top} is a module of Python's standard library; name a function of your own, "
            "in a module with another name"
        )


def call(function: Callable[..., Any], what: str, *args: Any, **options: Any) -> Any:
    """`function(*args, **options)`, with whatever it raises as a ValueError of one line."""
    try:
        return function(*args, **options)
    except FAILURES as error:  # whatever a user's factory does
        raise ValueError(f"{what} failed: {in_words(error)}") from error


def in_words(error: BaseException) -> str:
    """An exception in one line: its type and the first line of its text, as far as it can be shown."""
    first = next(iter(str(error).splitlines()), "")
    shown = errors.one_line(first, SHOWN)
    return f"{type(error).__name__}: {shown}" if shown else type(error).__name__
