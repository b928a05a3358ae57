"""What a part finds, how it is kept in benchmarks/results/kills.json, and the page that is made of it."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from paceline.marked_page import begin_of, fill_page

from ..form import RESULTS, ROOT

FILE = RESULTS / "kills.json"
PAGE = ROOT / "docs" / "kills.md"
BEGIN = begin_of("python -m benchmarks.kills")


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Claim(_Strict):
    """Something that must hold, and what was found."""

    what: str
    found: str
    holds: bool


class Result(_Strict):
    """What one part found."""

    about: str  # the first line of its docstring
    date: date
    commit: str
    machine: dict[str, Any]
    seed: int
    count: int
    seconds: float  # that it took
    claims: tuple[Claim, ...]
    rows: tuple[dict[str, Any], ...]  # one for each run


class Results(_Strict):
    """All parts that were run so far, by their names."""

    parts: dict[str, Result] = {}


@dataclass(frozen=True)
class Trial:
    """How a part is to be run.

    count: how many runs, or what the part counts. folder: an empty one, for the runs. tell: prints a line.
    """

    count: int
    seed: int
    folder: Path
    tell: Callable[[str], None]


@dataclass
class Found:
    """What a part returns."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    claims: list[Claim] = field(default_factory=list)

    def all_of(self, what: str, held: Iterable[bool]) -> None:
        """Claim that something held in every run."""
        each = [*held]
        self.claims.append(Claim(what=what, found=f"{sum(each)} of {len(each)}", holds=all(each)))

    def most(self, what: str, values: Sequence[float], bar: float, unit: str = "") -> None:
        """Claim that no value is above the bar. Without values nothing is claimed."""
        if values:
            said = f"at most {max(values):.3g}{unit}, median {statistics.median(values):.3g}{unit}, n = {len(values)}"
            self.claims.append(Claim(what=what, found=said, holds=max(values) <= bar))

    def median(self, what: str, values: Sequence[float], bar: float, unit: str = "") -> None:
        """Claim that the median is not above the bar. Without values nothing is claimed."""
        if values:
            middle = statistics.median(values)
            said = f"{middle:.3g}{unit}, at most {max(values):.3g}{unit}, n = {len(values)}"
            self.claims.append(Claim(what=what, found=said, holds=middle <= bar))


def load(path: Path = FILE) -> Results:
    """What is known so far."""
    return Results.model_validate_json(path.read_text()) if path.exists() else Results()


def keep(name: str, result: Result, path: Path) -> None:
    """Write a part's result into the file, next to those of others."""
    parts = load(path).parts | {name: result}
    path.write_text(Results(parts=parts).model_dump_json(indent=1) + "\n")


def told(result: Result) -> Iterator[str]:
    """A line for each claim."""
    for claim in result.claims:
        yield f"{'' if claim.holds else 'MISSED '}{claim.what}: {claim.found}"


def table(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """The rows as lines of text, in columns."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    cells = [names, *([_cell(row.get(name)) for name in names] for row in rows)]
    widths = [max(len(line[place]) for line in cells) for place in range(len(names))]
    for line in cells:
        yield "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def content(results: Results) -> str:
    """What the page says of the results, as Markdown."""
    lines = list[str]()
    for name, part in results.parts.items():
        where = ", ".join(f"{key} {part.machine[key]}" for key in ("cores", "python", "openmpi") if key in part.machine)
        lines += [f"## {name}", "", part.about, ""]
        lines += [f"Taken on {part.date} at commit {part.commit} on {part.machine['processor']} ({where})."]
        lines += [f"Seed {part.seed}, count {part.count}, {part.seconds:.0f} s.", ""]
        lines += ["| what must hold | found | |", "| --- | --- | --- |"]
        lines += [f"| {each.what} | {each.found} | {'holds' if each.holds else 'missed'} |" for each in part.claims]
        lines.append("")
    return "\n".join(lines).strip("\n") or "Nothing was measured yet."


def write_page() -> None:
    """Fill in the page."""
    fill_page(PAGE, BEGIN, content(load()))
