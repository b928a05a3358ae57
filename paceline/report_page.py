"""The page of `paceline report`: its parts, and how they become one HTML file that needs no network.

Rule: every text comes from somewhere else (names, paths, errors, scenarios), so it is escaped: Jinja escapes all that
goes into the page, and `analysis/plots.py` what goes into a figure. The page's Content-Security-Policy lets only its
own two scripts run, which it knows by their hashes, and forbids every request.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import Any, ClassVar

from .program.errors import ScenarioError
from .records.directory import REPORT_MARK, to_json

ROWS = 1_000  # of a table
TEXT = 200_000  # characters of a folded text


@dataclass(frozen=True)
class Cell:
    """A cell of a table."""

    text: str
    value: float | None = None  # by which rows are sorted; None: by the text

    @property
    def exact(self) -> str:
        """The value with all its digits, for those that point at the cell; empty where there is none."""
        return "" if self.value is None else repr(self.value)


@dataclass(frozen=True)
class Table:
    """A table. Of more than ROWS rows, the first ones are shown, and it says so."""

    kind: ClassVar[str] = "table"
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell | str]]
    caption: str = ""
    sortable: bool = True

    @property
    def cells(self) -> list[list[Cell]]:
        """The rows that are shown."""
        return [[Cell(cell) if isinstance(cell, str) else cell for cell in row] for row in self.rows[:ROWS]]

    @property
    def remark(self) -> str:
        """What is not shown; empty where all is."""
        return f"the first {ROWS:,} of {len(self.rows):,} rows" if len(self.rows) > ROWS else ""


@dataclass(frozen=True)
class Plot:
    """A figure, which the page's script draws. document: what it draws; see report.js."""

    kind: ClassVar[str] = "plot"
    title: str
    document: dict[str, Any]
    height: int = 320  # pixels
    note: str = ""


@dataclass(frozen=True)
class Plots:
    """Figures next to each other, as far as there is room. switch: whether readers choose what is on the x axis."""

    kind: ClassVar[str] = "plots"
    plots: Sequence[Plot]
    switch: dict[str, str] = field(default_factory=dict)  # the axis's name -> what the choice is called


@dataclass(frozen=True)
class Words:
    """Lines of text. good: whether they say that all is well; None: they say no such thing."""

    kind: ClassVar[str] = "words"
    lines: Sequence[str]
    good: bool | None = None


@dataclass(frozen=True)
class Folded:
    """A text that is shown when it is opened."""

    kind: ClassVar[str] = "folded"
    title: str
    text: str

    @property
    def shown(self) -> str:
        """As much of it as is in the page."""
        cut = len(self.text) > TEXT
        return f"{self.text[:TEXT]}\n... ({len(self.text):,} characters in all)" if cut else self.text


Part = Table | Plot | Plots | Words | Folded


@dataclass(frozen=True)
class Section:
    """A part of the page with a heading."""

    title: str
    parts: Sequence[Part]


def page(title: str, subtitle: str, sections: Sequence[Section]) -> str:
    """The page as HTML. ScenarioError where plotly is not installed."""
    drawn = to_json([plot.document for section in sections for plot in _plots(section.parts)])
    scripts = _plotly(), _file("report.js")
    made: str = _template().render(
        mark=REPORT_MARK,
        title=title,
        subtitle=subtitle,
        sections=sections,
        # In a script element, "<" could end it. JSON spells it in another way as well.
        plots=drawn.replace("<", "\\u003c"),
        style=_file("report.css"),
        plotly=scripts[0],
        script=scripts[1],
        hashes=[_hash(script) for script in scripts],
    )
    return made.encode(errors="replace").decode()  # a path may have bytes that are not text


def _plots(parts: Sequence[Part]) -> Iterator[Plot]:
    for part in parts:
        if isinstance(part, Plot):
            yield part
        elif isinstance(part, Plots):
            yield from part.plots


@cache
def _plotly() -> str:
    """The JavaScript of plotly."""
    need_plotly()
    from plotly.offline import get_plotlyjs

    script: str = get_plotlyjs()
    return script


def need_plotly() -> None:
    """ScenarioError where plotly, or the library that fills in the page, is not installed."""
    try:
        import jinja2  # noqa: F401
        import plotly  # noqa: F401
    except ImportError as error:
        raise ScenarioError(f"a report needs {error.name}; install it with: pip install 'paceline[report]'") from None


def _hash(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _file(name: str) -> str:
    return (resources.files("paceline") / name).read_text(encoding="utf-8")


@cache
def _template() -> Any:
    from jinja2 import Environment, StrictUndefined

    made = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return made.from_string(_file("report.html.jinja"))
