"""The table of published runs: a line per row, misses included, and what they come to.

Errors are those of the time that a sample or a step takes, predicted / published - 1: +5 % is predicted too slow.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

from .published import Guess, Point, Summary, Way, summary

PREDICTORS = ("ours", "perfect", "fit")
WAYS = ("a", "b")
TITLES = {
    "ours": "Paceline",
    "perfect": "perfect scaling",
    "fit": "fit",
    "a": "(a) from the two sizes below the largest",
    "b": "(b) from the smallest size",
}


@dataclass(frozen=True)
class Line:
    """A row of a group."""

    workers: int
    devices: str
    published: float
    unit: str
    why: str = ""  # why it is not simulated
    value: Callable[[float], float] = float  # pace -> the number as it would be published
    place: int | None = None  # among the points of its group


@dataclass(frozen=True)
class Group:
    """What came out for a group."""

    name: str
    source: str
    why: str  # why it does not count; empty where it does
    lines: tuple[Line, ...]
    points: tuple[Point, ...]
    ways: dict[str, Way]  # by a key of WAYS

    def guess(self, way: str, line: Line) -> Guess | None:
        """What a way predicts of a line; None where it does not."""
        guesses = self.ways[way].guesses if way in self.ways else ()
        return next((guess for guess in guesses if guess.row == line.place), None)

    def errors(self, way: str, of: str) -> list[float]:
        """The errors of a predictor, of the lines that Paceline predicts and it predicts as well."""
        found = []
        for guess in self.ways[way].guesses if way in self.ways else ():
            pace = paces(guess)[of]
            if guess.ours is not None and pace is not None:
                found.append(pace / self.points[guess.row].pace - 1)
        return found


def paces(guess: Guess) -> dict[str, float | None]:
    """A guess by predictor."""
    return {"ours": guess.ours, "perfect": guess.perfect, "fit": guess.fit}


@dataclass(frozen=True)
class Verdict:
    """What many groups come to in one way."""

    groups: int
    better: int  # of these, in how many Paceline's mean absolute error is below perfect scaling's
    summaries: dict[str, Summary]  # by predictor


def verdict(groups: Iterable[Group], way: str) -> Verdict:
    """The errors of all groups together."""
    simulated = [group for group in groups if group.errors(way, "ours")]
    means = [
        [fmean(abs(error) for error in group.errors(way, of)) for of in ("ours", "perfect")] for group in simulated
    ]
    found = {of: summary([error for group in simulated for error in group.errors(way, of)]) for of in PREDICTORS}
    better = sum(ours < perfect for ours, perfect in means)
    return Verdict(len(simulated), better, {of: known for of, known in found.items() if known})


def scopes(groups: Sequence[Group]) -> dict[str, list[Group]]:
    """Which groups are summed up together, by title."""
    return {"groups that count": [group for group in groups if not group.why], "all that can be simulated": [*groups]}


def cells(group: Group, line: Line) -> list[str]:
    """A line's predictions with their errors, way by way: "4,512 (-2.1 %)", empty where there is none."""
    found = []
    for way in WAYS:
        guess = group.guess(way, line)
        for of in PREDICTORS if way == "a" else PREDICTORS[:2]:
            pace = paces(guess)[of] if guess else None
            found.append("" if pace is None else f"{number(line.value(pace))} ({error(group, line, pace)})")
    return found


def headings() -> list[str]:
    """Of `cells`."""
    return [f"({way}) {TITLES[of]}" for way in WAYS for of in (PREDICTORS if way == "a" else PREDICTORS[:2])]


def error(group: Group, line: Line, pace: float) -> str:
    """In words, how far a pace is from the published one."""
    assert line.place is not None
    return f"{100 * (pace / group.points[line.place].pace - 1):+.1f} %"


def number(value: float) -> str:
    """Four digits, with commas."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def summary_rows(groups: Sequence[Group]) -> list[list[str]]:
    """The rows of the summary: which groups, way, predictor, how many errors, median, mean, worst."""
    found = []
    for scope, chosen in scopes(groups).items():
        for way in WAYS:
            judged = verdict(chosen, way)
            for of, known in judged.summaries.items():
                sizes = (f"{100 * size:.1f} %" for size in (known.median, known.mean, known.worst))
                better = f"{judged.better} of {judged.groups}" if of == "ours" else ""
                found.append([scope, TITLES[way], TITLES[of], str(known.rows), *sizes, better])
    return found


SUMMARY = ("groups", "calibrated", "predicted by", "rows", "median", "mean", "worst", "better than perfect scaling")


def markdown(groups: Sequence[Group]) -> str:
    """The tables of docs/published.md: the summary, every row, and why groups do not count."""
    rows = [
        [group.name, str(line.workers), f"{number(line.published)} {line.unit}", *(cells(group, line))]
        for group in groups
        for line in group.lines
    ]
    silent = [[group.name, group.why, group.source] for group in groups if group.why]
    parts = [
        table(SUMMARY, summary_rows(groups)),
        table(("group", "workers", "published", *headings()), rows),
        table(("does not count", "why", "source"), silent),
        table(("counts", "source"), [[group.name, group.source] for group in groups if not group.why]),
    ]
    return "\n\n".join(part for part in parts if part)


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown; empty without rows."""
    lines = [headings, ["---"] * len(headings), *rows]
    return (
        "\n".join("| " + " | ".join(cell.replace("|", "/") for cell in line) + " |" for line in lines) if rows else ""
    )


def record(groups: Sequence[Group]) -> dict[str, Any]:
    """All of it as a JSON document: published numbers, predictions in the same unit, errors, what was solved."""
    return {
        "summary": {
            scope: {way: asdict(verdict(chosen, way)) for way in WAYS} for scope, chosen in scopes(groups).items()
        },
        "groups": {group.name: _group(group) for group in groups},
    }


def _group(group: Group) -> dict[str, Any]:
    solved = {way: asdict(found.calibration) for way, found in group.ways.items() if found.calibration}
    return {
        "source": group.source,
        "counts": not group.why,
        "why_not": group.why,
        "solved": solved,
        "rows": [_line(group, line) for line in group.lines],
    }


def _line(group: Group, line: Line) -> dict[str, Any]:
    found: dict[str, Any] = {"workers": line.workers, "devices": line.devices}
    found |= {"published": line.published, "unit": line.unit, "why_not": line.why}
    for way in WAYS:
        guess = group.guess(way, line)
        if guess and line.place is not None:
            pace = group.points[line.place].pace
            known = {of: value for of, value in paces(guess).items() if value is not None}
            found[way] = {
                of: {"predicted": line.value(value), "error": value / pace - 1} for of, value in known.items()
            }
    return found
