"""An extension of griffe, for the reference of Python names: the lines of a docstring that explain arguments, like
`out: the run directory`, become a list.
"""

from __future__ import annotations

from typing import Any

import griffe

from paceline.methods_page import listed


class Arguments(griffe.Extension):
    """Lists of arguments in docstrings."""

    def on_function(self, *, func: griffe.Function, **_: Any) -> None:
        """Change a function's docstring."""
        if func.docstring:
            func.docstring.value = listed(func.docstring.value, {each.name for each in func.parameters})
