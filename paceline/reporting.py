"""`paceline report`: runs, plans, tables and validations on one page that needs no network."""

from __future__ import annotations

import copy
import html
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .analysis.run import Run
from .analysis.timeline_rows import MOST
from .marked_page import write_text
from .program.errors import ScenarioError, one_line
from .records.directory import REPORT, is_report
from .records.environment import installed
from .records.replacing import is_run
from .records.schemas import parsed
from .report_page import Section, need_plotly, page

if TYPE_CHECKING:
    import pandas as pd

RUNS = 50  # that a folder may hold, if it is named instead of its runs
VALIDATION = "validation.json"  # in a folder of `paceline validate`
TABLES = (".csv", ".json", ".parquet")
WHAT = (
    "name a run's directory, a table (.csv, .json, .parquet), what `plan --json` has written, or a validation's folder"
)


@dataclass(frozen=True)
class Report:
    """A report."""

    html: str = field(repr=False)  # the page
    path: Path  # where it was written

    def _repr_html_(self) -> str:
        """The page in a notebook's output, in a frame of its own."""
        frame = 'sandbox="allow-scripts" style="width:100%;height:700px"'
        return f'<iframe {frame} srcdoc="{html.escape(self.html)}"></iframe>'


def report(*sources: Any, out: str | Path | None = None, title: str = "", spans: int = MOST) -> Report:
    """Write a page about what is given: one HTML file, which holds all that it needs.

    sources: each a run or its directory, a folder of runs, a sweep's table or its file, what `paceline plan --json` has
        written or its folder, or a validation's folder.
    out: the file. Default: report.html in the run's directory for one run, else runs/report.html. Only a report is
        replaced there.
    title: of the page. Default: the names of what is given.
    spans: bars of all timelines together, at most. Longer traces are aggregated, and the page says how.

    ScenarioError where something given is none of these, or plotly is not installed.
    """
    if not sources:
        raise ScenarioError(f"report what? {WHAT}")
    if spans < 1_000:
        raise ScenarioError(f"--spans {spans}: write at least 1000")
    need_plotly()
    path = Path(out) if out is not None else _place(sources)
    refuse(path)
    material = Material()
    for source in sources:
        material.take(source)
    if not material.given:
        raise ScenarioError(f"report what? {WHAT}")
    made = page(
        one_line(title or ", ".join(material.given), 120),
        f"Made by paceline {installed('paceline')} on {datetime.now(UTC):%Y-%m-%d %H:%M} UTC.",
        [*material.sections(spans)],
    )
    write_text(path, made)
    return Report(made, path)


def _place(sources: Sequence[Any]) -> Path:
    """Where the page goes if nothing is said."""
    (first, *more) = sources
    directory = first.directory if isinstance(first, Run) else first if isinstance(first, str | Path) else None
    alone = directory is not None and not more and is_run(Path(directory))
    return Path(directory) / REPORT if alone and directory is not None else Path("runs") / REPORT


def refuse(path: Path) -> None:
    """ScenarioError where something is at the path that is not a report."""
    if path.is_dir():
        raise ScenarioError(f"--out {path}: is a folder; write a file in it, like {path / REPORT}")
    if path.exists() and not is_report(path):
        raise ScenarioError(f"--out {path}: is not a report of `paceline report`; name another file")


@dataclass
class Material:
    """What a report is made of."""

    given: list[str] = field(default_factory=list)  # the names of what was given
    runs: list[Run] = field(default_factory=list)
    plans: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    tables: list[tuple[str, Any]] = field(default_factory=list)
    validations: list[tuple[Path, Path]] = field(default_factory=list)  # (folder, record)

    def take(self, source: Any) -> None:
        """Take what was given, after looking what it is. ScenarioError where it is nothing that a report may show."""
        if isinstance(source, Run):
            self._run(source)
        elif isinstance(source, str | Path):
            self._path(Path(source))
        else:
            self._frame(source)

    def _frame(self, source: Any) -> None:
        import pandas as pd

        if not isinstance(source, pd.DataFrame):
            raise ScenarioError(f"a report cannot show a {type(source).__name__}; {WHAT}")
        self._table("table", source)

    def sections(self, spans: int) -> Iterator[Section]:
        """The page's sections."""
        from . import report_runs, report_tables

        if self.runs:
            yield from report_runs.sections(self.runs, spans)
        for name, document in self.plans:
            yield report_tables.plan_section(name, document)
        for name, frame in self.tables:
            yield report_tables.table_section(name, frame)
        for folder, record in self.validations:
            yield report_tables.validation_section(folder, record)

    def _run(self, run: Run) -> None:
        if any(run.directory and each.directory == run.directory for each in self.runs):
            return
        self.given.append(run.name)
        self.runs.append(copy.copy(run))  # the traces that are read for the page go with the copies

    def _table(self, name: str, frame: pd.DataFrame) -> None:
        self.given.append(name)
        self.tables.append((name, frame))

    def _plan(self, name: str, document: dict[str, Any]) -> None:
        self.given.append(name)
        self.plans.append((name, document))

    def _path(self, path: Path) -> None:
        if path.is_dir():
            self._folder(path)
        elif not path.exists():
            raise ScenarioError(f"{path}: there is no such file or folder; {WHAT}")
        elif is_report(path):
            pass  # as in `paceline report runs/*`, the second time
        elif path.suffix == ".json":
            self._json(path)
        elif path.suffix in TABLES:
            self._table(str(path), _frame(path))
        else:
            raise ScenarioError(f"{path}: is nothing that a report shows; {WHAT}")

    def _folder(self, path: Path) -> None:
        if (path / VALIDATION).is_file():
            self.given.append(str(path))
            self.validations.append((path, path / VALIDATION))
            return
        inner = [] if is_run(path) else sorted(child for child in path.iterdir() if child.is_dir() and is_run(child))
        plans = [] if is_run(path) or inner else [*_plans(path)]
        if len(inner) > RUNS:
            raise ScenarioError(
                f"{path}: holds {len(inner)} runs, more than the {RUNS} of a page; name those that you want"
            )
        for name, document in plans:
            self._plan(name, document)
        for run in inner:
            self._run(Run.load(run))
        if not inner and not plans:
            self._run(Run.load(path))  # or it says why it is none

    def _json(self, path: Path) -> None:
        import pandas as pd

        from .report_tables import is_plan

        document = _document(path)
        if is_plan(document):
            self._plan(str(path), document)
        elif isinstance(document, list) and document and all(isinstance(row, dict) for row in document):
            self._table(str(path), pd.DataFrame(document))
        else:
            raise ScenarioError(f"{path}: is nothing that a report shows; {WHAT}")


def _plans(folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The answers of plans in a folder. ScenarioError where a plan left none there."""
    from .report_tables import is_plan

    for path in sorted(folder.glob("*.json")):
        document = _document(path)
        if is_plan(document):
            yield str(path), document
            return
    if (folder / "plan.yaml").exists():
        raise ScenarioError(
            f"{folder}: has a plan.yaml, which is one way only; write the whole answer with plan --json FILE"
        )


def _document(path: Path) -> Any:
    try:
        return parsed(path.read_bytes(), str(path))
    except OSError as error:
        raise ScenarioError(f"{path}: cannot be read: {error.strerror}") from None


def _frame(path: Path) -> pd.DataFrame:
    import pandas as pd

    try:
        return pd.read_csv(path) if path.suffix == ".csv" else pd.read_parquet(path)
    except (OSError, ValueError, ImportError) as error:
        raise ScenarioError(f"{path}: is not a table: {one_line(str(error), 120)}; {WHAT}") from None
