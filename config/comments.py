"""What the comments on the fields of a class say: the descriptions of `paceline schema` and `paceline explain`."""

from __future__ import annotations

import ast
import inspect
import io
import textwrap
import tokenize
from collections.abc import Callable
from functools import cache
from typing import Any

_MARKS = ("noqa", "type:")  # comments for tools


@cache
def comments_of(kind: Callable[..., Any]) -> dict[str, str]:
    """field -> what its line's comment, and the comment lines just above it, say. With the fields of base classes.

    Nothing for a function.
    """
    found: dict[str, str] = {}
    for each in reversed(inspect.getmro(kind)) if inspect.isclass(kind) else ():
        if each.__module__ != "builtins" and not each.__module__.startswith("pydantic."):
            found |= _own_comments(each)
    return found


def _own_comments(kind: type) -> dict[str, str]:
    """Of the fields that the class itself declares; none where its source is not there."""
    try:
        text = textwrap.dedent(inspect.getsource(kind))
    except (OSError, TypeError):
        return {}
    (body,) = ast.parse(text).body
    said, alone = _comments(text)
    found = {}
    for field in body.body if isinstance(body, ast.ClassDef) else ():
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
            first = field.lineno
            while first - 1 in alone:
                first -= 1
            lines = [said[line] for line in range(first, (field.end_lineno or field.lineno) + 1) if line in said]
            if lines:
                found[field.target.id] = " ".join(lines)
    return found


def _comments(text: str) -> tuple[dict[int, str], set[int]]:
    """(line -> its comment, the lines that hold a comment alone)."""
    said, alone = {}, set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        comment = token.string.removeprefix("#").strip()
        if token.type == tokenize.COMMENT and not comment.startswith(_MARKS):
            said[token.start[0]] = comment
            if token.line.lstrip().startswith("#"):
                alone.add(token.start[0])
    return said, alone
