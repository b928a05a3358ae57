"""What `paceline validate` reports: tables on the terminal, and the same as JSON, CSV, Markdown and a figure."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

from rich.table import Column

from .analysis.paper import SCREEN, Paper
from .analysis.where import KINDS
from .config.metrics import Target
from .marked_page import begin_of, fill_page
from .printing import plain_table, right
from .program.errors import ScenarioError, one_line
from .records.directory import to_json, write_atomically
from .studies.judgement import AB_MOST, CLEARLY, REALLY, Clock, Judgement, Verdict, also, complete, widened
from .terminal import console

BEGIN = begin_of("paceline validate")  # in a page
NAME = 34  # characters of a case's name in a table on the terminal
SHOWN = 4  # workers of a case in a table; the JSON has all
UNKNOWN = "-"
MEGA = 1e6


@dataclass(frozen=True)
class Report:
    """What came out. kept: each case's part of the record. target: to which seconds are counted."""

    judgement: Judgement
    kept: Mapping[str, Mapping[str, Any]]
    target: Target
    within: float | None
    environment: Mapping[str, Any]

    @property
    def status(self) -> int:
        """The command's exit status."""
        broken = self.within is not None and not self.judgement.holds(self.within)
        return int(broken or bool(self.judgement.failed))

    @cached_property
    def also(self) -> dict[str, dict[str, tuple[float | None, float | None]]]:
        """case -> what else is compared."""
        return {case: also(kept, self.target) for case, kept in self.kept.items()}

    def document(self) -> dict[str, Any]:
        """For JSON: the judgement, and of each case its rounds' seconds, where the error is, what else is compared."""
        cases = {}
        for case, kept in self.kept.items():
            whole = complete(kept)
            rounds = [
                {"predicted": r["predicted"]["seconds"], "low": low, "high": high}
                | {which: r[which]["seconds"] for which in "ab"}
                for r, (low, high) in zip(whole, widened(whole), strict=True)
            ]
            warnings = sorted({line for r in whole for line in r["predicted"]["warnings"]})
            cases[case] = {"rounds": rounds, "where": kept.get("where"), "also": self.also[case], "warnings": warnings}
        return {
            "target": str(self.target),
            "within": self.within,
            "judgement": self.judgement.document(),
            "cases": cases,
            "environment": dict(self.environment),
        }

    def clocks(self) -> Iterator[list[str]]:
        """The rows of the table of CLOCKS."""
        for v in self.judgement.verdicts:
            if (c := v.clock) is None:
                yield [v.case, *[UNKNOWN] * (len(CLOCKS) - 2), "0"]
                continue
            excess = f"{c.excess:.1%}" if v.judged else f"({c.excess:.1%})"
            interval, shares = f"{c.low:.3f} to {c.high:.3f}", [f"{c.error:+.1%}", f"{c.ab:.1%}", excess]
            row = [v.case, f"{c.predicted:.3f}", interval, f"{c.measured:.3f}", *shares]
            yield [*row, f"{c.inside:.0%}", str(v.rounds)]

    def places(self) -> Iterator[list[str]]:
        """The rows of the table of PLACES."""
        for case, kept in self.kept.items():
            if (where := kept.get("where")) is None:
                continue
            pairs = list(zip(where["predicted"], where["measured"], strict=True))
            for worker, (said, found) in enumerate(pairs[:SHOWN]):
                parts = [f"{said[kind] - found[kind]:+.3f}" for kind in KINDS]
                whole = f"{where['seconds'][0] - where['seconds'][1]:+.3f}"
                yield [case, str(worker), *parts, whole, f"{where['seconds'][1]:.3f}"]

    def others(self) -> Iterator[list[str]]:
        """The rows of the table of OTHERS."""
        for case, found in self.also.items():
            idle = (f"{x:.1%}" if x is not None else UNKNOWN for x in found["idle"])
            sizes = (f"{x / MEGA:.2f}" if x is not None else UNKNOWN for x in (*found["sent"], *found["memory"]))
            yield [case, *idle, *sizes, *map(_seconds, found["to_target"])]

    def sentences(self) -> Iterator[str]:
        """What came out over all cases, a line each."""
        j = self.judgement
        count = sum(v.judged is not None for v in j.verdicts)
        yield f"excess over {count} judged cases: mean {_share(j.mean)}, worst {_share(j.worst)}"
        yield "by preset, mean excess: " + ", ".join(f"{name} {_share(mean)}" for name, mean in j.families.items())
        differ = f"that differ by more than {REALLY:.0%} and what equal runs differ by"
        for found, which in ((j.order, differ), (j.order_clear, f"that differ by more than {CLEARLY:.0%}")):
            wrong = "; wrong: " + ", ".join(" / ".join(pair) for pair in found.wrong) if found.wrong else ""
            yield f"order: right in {found.right} of {found.pairs} pairs {which}{wrong}"
        yield f"the 80 % interval holds {_share(j.inside)} of the judged cases' real runs"
        if j.unjudged:
            yield f"not judged, since A and B differ by more than {AB_MOST:.0%}: {', '.join(j.unjudged)}"
        for v in j.verdicts:
            if v.failure:
                yield f"failed: {v.case}: {v.failure}"
        if self.within is not None:
            yield f"within {self.within:.3g}: {'holds' if j.holds(self.within) else 'does not hold'}"


CLOCKS = ("case", "predicted", "80 % interval", "measured", "error", "A/B", "excess", "inside", "rounds")
PLACES = ("case", "worker", *KINDS, "total", "of")
OTHERS = ("case", "idle", "real", "MB sent", "real", "MB memory", "real", "s to target", "real")
TITLES = (
    "Seconds of training. An excess in brackets is not judged.",
    f"Where the error is: predicted less measured, in seconds, of one traced run each (its first {SHOWN} workers).",
    "What else is compared: predicted and real.",
)


def _seconds(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value:.3f}"


def _share(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value:.1%}"


def show(report: Report, folder: Path) -> None:
    """Print the tables and what came out over all cases."""
    shown = console(width=100)
    rows = (report.clocks(), report.places(), report.others())
    for title, headings, found in zip(TITLES, (CLOCKS, PLACES, OTHERS), rows, strict=True):
        first, *others = headings
        table = plain_table(Column(first, overflow="fold", max_width=NAME), *map(right, others))
        table.padding = (0, 1, 0, 0)
        for case, *cells in found:
            table.add_row(one_line(case), *cells)
        shown.print(title)
        shown.print(table)
        shown.print()
    for line in report.sentences():
        shown.print(one_line(line, 1000))
    shown.print(f"written to {one_line(str(folder))}: tables, figure and record")


def write(report: Report, folder: Path, copy: Path | None, page: Path | None, paper: Paper = SCREEN) -> None:
    """Write report.json, validation.csv, validation.md and the figure into the folder.

    copy: a further report.json. page: a Markdown page, whose part between BEGIN and its end is replaced by the tables.
    paper: how the figure is drawn. ScenarioError where something cannot be written.
    """
    document = (to_json(report.document(), indent=1) + "\n").encode()
    try:
        write_atomically(folder / "report.json", document)
        write_atomically(folder / "validation.csv", _csv(report.judgement.verdicts).encode())
        write_atomically(folder / "validation.md", _markdown(report).encode())
        _draw(report, folder, paper)
        if copy is not None:
            copy.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(copy, document)
    except OSError as error:
        raise ScenarioError(f"{error.filename or folder}: cannot be written: {error.strerror}") from None
    if page is not None:
        fill_page(page, BEGIN, _markdown(report))


def _csv(verdicts: Sequence[Verdict]) -> str:
    names = [field.name for field in fields(Clock) if field.name != "per_sample"]
    rows = [
        {"case": v.case, "family": v.family, "rounds": v.rounds, "judged": v.judged is not None, "failure": v.failure}
        | {name: asdict(v.clock)[name] if v.clock else None for name in names}
        for v in verdicts
    ]
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _markdown(report: Report) -> str:
    parts = []
    rows = (report.clocks(), report.places(), report.others())
    for title, headings, found in zip(TITLES, (CLOCKS, PLACES, OTHERS), rows, strict=True):
        lines = [headings, ["---", *["---:"] * (len(headings) - 1)], *found]
        parts.append(f"{title}\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines))
    parts.append("\n".join(f"- {line}" for line in report.sentences()))
    parts.append(f"Measured with {', '.join(f'{name} {what}' for name, what in report.environment.items())}.")
    return "\n\n".join(parts) + "\n"


def _draw(report: Report, folder: Path, paper: Paper) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from .analysis.prediction_figure import Predicted, predictions

    cases = []
    for v in report.judgement.verdicts:
        if (c := v.clock) is not None:
            a, b = ([r[which]["seconds"] for r in complete(report.kept[v.case])] for which in "ab")
            cases.append(Predicted(v.case, c.predicted, c.low, c.high, a, b, c.measured))
    if not cases:
        return
    paper.save({"validation": predictions(cases, paper=paper)}, folder)
