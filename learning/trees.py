"""Trees: one value, or several of the same kind in a tuple or in a dict by name. A model's inputs are such a tree.

Loads no torch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias, TypeVar

T = TypeVar("T")
Tree: TypeAlias = T | tuple[T, ...] | dict[str, T]


def leaves(tree: Any) -> list[Any]:
    """Its values, in order."""
    if isinstance(tree, dict):
        return list(tree.values())
    return list(tree) if isinstance(tree, tuple) else [tree]


def mapped(function: Callable[[Any], Any], tree: Any) -> Any:
    """The tree of what `function` makes of each value."""
    if isinstance(tree, dict):
        return {name: function(value) for name, value in tree.items()}
    return tuple(map(function, tree)) if isinstance(tree, tuple) else function(tree)


def names(tree: Any, of: str) -> list[str]:
    """How errors call its values: "train_x", "train_x[0]" or "train_x['ids']", where `of` is "train_x"."""
    if isinstance(tree, dict):
        return [f"{of}[{name!r}]" for name in tree]
    return [f"{of}[{place}]" for place in range(len(tree))] if isinstance(tree, tuple) else [of]


def called(function: Callable[..., Any], tree: Any) -> Any:
    """function(value); function(*values) of a tuple; function(**values) of a dict."""
    if isinstance(tree, dict):
        return function(**tree)
    return function(*tree) if isinstance(tree, tuple) else function(tree)
