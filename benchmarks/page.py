"""docs/performance.md, filled in from the results files; and a benchmark's rows as lines of text.

python -m benchmarks.page fills it in without measuring.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from paceline.marked_page import begin_of, fill_page

from . import tables
from .form import ROOT, Measure, Result, Row, load_all

PAGE = ROOT / "docs" / "performance.md"
BEGIN = begin_of("python -m benchmarks")
# The benchmarks that `python -m benchmarks` runs, in the order of the page.
SECTIONS = {
    "Simulating": ("cohort", "sim_effects", "sim_scale", "sweep", "planning", "planning_target", "simgrid_flows"),
    "Training": ("local_sgd", "start", "memory", "data_parallel", "runtime_step", "runtime_effects", "lazy_data"),
    "Exchanging": ("runtime_allreduce", "overlap", "exchange_order", "lshdp_star"),
    "Methods": ("time_to_accuracy", "biased_sampling", "fashion_mnist"),
    "Design": ("design",),
    "Against an earlier commit": ("against_commit",),
}
NAMES = tuple(name for names in SECTIONS.values() for name in names)
TELLING: dict[Measure, str] = {
    "speed": "times as fast",
    "time": "of its time",
    "memory": "of its memory",
    "accuracy": "of its accuracy",
    "exponent": "exponent",
}
HEAD = "| case | what | against | ratio | quartiles | turns | bar | limit |"
RULE = "| --- | --- | --- | ---: | ---: | ---: | ---: | --- |"


def told(rows: Sequence[Row]) -> Iterator[str]:
    """A line for each row."""
    for row in rows:
        costs = ", ".join(f"{name} {cost:g}" for name, cost in row.costs.items())
        line = f"{row.case}: {row.way} {row.ratio:.3g} {TELLING[row.measure]} ({row.against}); {_quartiles(row)}"
        yield f"{line}; {costs} {row.unit}{'' if row.holds in (None, True) else f'; the bar is {row.bar:g}'}"


def _quartiles(row: Row) -> str:
    return "-" if row.quartiles is None else f"{row.quartiles[0]:.3g} to {row.quartiles[1]:.3g}"


def _cost(row: Row, name: str) -> str:
    return f"{name} ({f'{row.costs[name]:g} {row.unit}'.strip()})" if name in row.costs else name


def _line(row: Row) -> str:
    bar = "" if row.bar is None else f"{row.bar:.3g}{'' if row.holds else ' (missed)'}"
    limit = "" if row.limit is None else f"{row.limit.ratio:.3g}: {row.limit.what}"
    cells = (
        row.case,
        _cost(row, row.way),
        _cost(row, row.against),
        f"{row.ratio:.3g} {TELLING[row.measure]}",
        _quartiles(row),
        str(row.turns),
        bar,
        limit,
    )
    return f"| {' | '.join(cells)} |"


def _block(result: Result) -> Iterator[str]:
    """One benchmark's part of the page."""
    where = ", ".join(
        f"{key} {result.machine[key]}" for key in ("cores", "python", "torch", "load_before") if key in result.machine
    )
    processor = result.machine.get("processor")
    yield f"### {result.benchmark}\n\n{result.about}\n"
    yield f"Taken on {result.date} at commit {result.commit}{f' on {processor}' if processor else ''} ({where})."
    if result.converted:
        yield f"These figures are of an earlier form of the benchmark: {result.converted}"
    for reason in result.skipped:
        yield f"Not measured: {reason}"
    if result.rows:
        yield "\n".join(("", HEAD, RULE, *map(_line, result.rows)))
    yield ""


def content(results: Mapping[str, Result]) -> str:
    """The part of the page between its marks."""
    lines: list[str] = []
    for section, names in SECTIONS.items():
        there = [name for name in names if name in results]
        if there:
            lines += [f"## {section}", ""]
        for name in there:
            lines += _block(results[name])
    return "\n".join(lines).rstrip()


def write() -> None:
    """Fill the page in from the results files, and the tables on other pages."""
    results = load_all()
    fill_page(PAGE, BEGIN, content(results))
    tables.write(results)


if __name__ == "__main__":
    write()
