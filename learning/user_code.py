"""What users name: import paths (program/import_paths.py), arguments, names of a list. Every mistake is a ValueError of
one line.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from ..program.import_paths import FAILURES, call, in_words, load, named

__all__ = ["FAILURES", "call", "in_words", "load", "named", "options", "torchvision"]


def torchvision(what: str) -> Any:
    """The module; ValueError that says what needs it where it is not installed, or does not fit torch."""
    try:
        import torchvision as found
    except ModuleNotFoundError:
        raise ValueError(f"{what} needs torchvision, which is not installed: pip install 'paceline[vision]'") from None
    except Exception as error:  # a build for another torch fails in its own ways
        raise ValueError(f"{what} needs torchvision, which does not load: {in_words(error)}") from error
    return found


def options(function: Callable[..., Any], args: Mapping[str, Any], what: str) -> dict[str, Any]:
    """The function's keyword-only defaults, overridden by `args`; ValueError for a name that it does not take."""
    known = {
        name: parameter.default
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY
    }
    for name in args:
        if name not in known:
            takes = f"takes {', '.join(known)}" if known else "takes no arguments"
            raise ValueError(f"{what} has no argument {name!r}; it {takes}")
    return {**known, **args}
