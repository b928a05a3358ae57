"""What the command line prints: runs, comparisons, the catalogue, sweeps; and the figures that it saves."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Column, Table
from rich.text import Text

from .analysis.compare import compare
from .analysis.paper import SCREEN, Paper
from .analysis.run import Run
from .config import yaml
from .config.bundled import told
from .config.catalogue import catalogue
from .config.strategy_names import strategy_name
from .config.units import told_bytes, told_rate, told_seconds, told_whole
from .program.errors import one_line
from .terminal import console

if TYPE_CHECKING:
    import pandas as pd

SHARES = 8  # workers whose idle shares are printed
WIDE = 500  # characters: no path is cut, and the terminal wraps long lines


def plain_table(*headings: Column | str, **options: Any) -> Table:
    """A table without lines."""
    return Table(*headings, box=None, padding=(0, 2, 0, 0), **options)


def right(heading: str) -> Column:
    """A column of numbers."""
    return Column(heading, justify="right", no_wrap=True)


def show_run(run: Run) -> None:
    """Print a finished run in a few lines."""
    s = run.summary
    virtual = "" if s["engine"] == "mpi" else " of virtual time"
    table = plain_table(show_header=False)
    rows = {
        "engine": f"{s['engine']}{', timing only' if s.get('timing_only') else ''}, {_count(s['workers'], 'worker')}",
        "training": f"{told_seconds(s['seconds'], 4)}{virtual}, {_count(s['rounds'], 'round')}, "
        f"{_count(s['steps'], 'step')}, {_count(s['samples'], 'sample')}",
        "speed": f"{told_rate(s.get('samples_per_second'))}, {told_seconds(s.get('seconds_per_epoch'), 4)} per epoch",
        "idle": _idle(s),
        "sent": f"{told_bytes(max(s['bytes_per_worker']), 4)} per worker",
    }
    losses = {"training loss": s.get("train_loss"), "test loss": s.get("test_loss")}
    result = [f"{name} {value:.4f}" for name, value in losses.items() if value is not None and isfinite(value)]
    result += [f"test {name} {metric_told(name, value)}" for name, value in run.test_metrics.items()]
    if result:
        rows["result"] = ", ".join(result)
    if s.get("params_sha256"):
        rows["parameters"] = f"sha256 {s['params_sha256'][:16]}..."
    if s.get("recoveries"):
        rows["recoveries"] = _in_words(s["recoveries"])
    if run.directory:
        rows["written to"] = one_line(str(run.directory))
    for key, text in rows.items():
        table.add_row(key, text)
    console(width=WIDE).print(table)


def _idle(summary: dict[str, Any]) -> str:
    """The idle shares: of each class of equal workers, and of each worker where there are a few."""
    each = "  ".join(f"{share:.1%}" for share in summary["idle_share"][:SHARES])
    classes = summary.get("idle_by_class", {})  # earlier versions did not tell them
    told = ", ".join(f"{name} {share:.1%}" for name, share in classes.items())
    if not told or len(classes) == summary["workers"]:
        return told or f"{each}{'  ...' if summary['workers'] > SHARES else ''}"
    return told if summary["workers"] > SHARES or len({*summary["idle_share"]}) == 1 else f"{told} (workers: {each})"


def _in_words(recoveries: Sequence[dict[str, Any]]) -> str:
    """How a run went on after losses; see records/recoveries.py."""
    told = (
        f"{each['how']} at {told_seconds(each['at'])} with {_count(each['workers'], 'worker')}"
        for each in recoveries[:4]
    )
    redone, more = sum(each["redone"] for each in recoveries), "; ..." if len(recoveries) > 4 else ""
    return f"{'; '.join(told)}{more}; {_count(redone, 'round')} done again"


def _count(number: int, what: str) -> str:
    return f"{told_whole(number)} {what}{'' if number == 1 else 's'}"


def metric_told(metric: str, value: float) -> str:
    """The value of a metric. Those that are shares by their definition are in percent."""
    return f"{value:.2%}" if metric in ("accuracy", "top5", "iou") else f"{value:.5g}"


def show_comparison(first: Run, second: Run) -> None:
    """Print how two runs compare."""
    result = compare(first, second)
    shown = console()
    said = result.verdict(first, second)
    what, *more = said.more
    shown.print(Text.assemble((said.text, "green" if said.good else "red"), f": {one_line(what)}"))
    for line in more:
        shown.print(one_line(line))
    table = plain_table("", *map(right, (_name(first), _name(second), "error")))
    summaries = first.summary, second.summary
    if first.strategy != second.strategy:
        table.add_row("strategy", first.strategy, second.strategy, "")
    table.add_row("training time", *(told_seconds(s, 4) for s in result.seconds), _share(result.error, "+.1%"))
    table.add_row("per round", *(told_seconds(s, 4) for s in result.per_round), "")
    table.add_row("per epoch", *(told_seconds(s.get("seconds_per_epoch"), 4) for s in summaries), "")
    table.add_row("speed", *(told_rate(s.get("samples_per_second")) for s in summaries), "")
    table.add_row("between reports, median", "", "", _share(result.per_report_error, ".1%"))
    for worker, idle in enumerate(zip(*(s["idle_share"] for s in summaries), strict=False)):
        if worker < SHARES:
            table.add_row(f"idle, worker {worker}", *(f"{share:.1%}" for share in idle), "")
    shown.print(table)


def _name(run: Run) -> str:
    return one_line(run.name, 60)


def _share(value: float, form: str) -> str:
    """A share in percent; an empty text where it is not a number."""
    return "" if value != value else format(value, form)


def show_catalogue() -> None:
    """Print the devices, links and nodes of the catalogue."""
    known = catalogue()
    numbers = map(right, ("fp32", "bf16", "fp16 Tflop/s", "memory", "GB/s"))
    devices = plain_table("device", *numbers, "host link", "source")
    for name, device in known.devices.items():
        peaks = [f"{device.peaks[p] / 1e12:.5g}" if p in device.peaks else "" for p in ("fp32", "bf16", "fp16")]
        memory = f"{device.memory / 1e9:g} GB" if device.memory else ""
        devices.add_row(
            name, *peaks, memory, f"{device.memory_bandwidth / 1e9:g}", device.host_link or "", device.source
        )
    links = plain_table("link", right("GB/s each way"), "source")
    for name, link in known.links.items():
        links.add_row(name, f"{link.bandwidth / 1e9:g}", link.source)
    nodes = plain_table("node", right("devices"), "inside", right("host memory"), right("GB/s"), "source")
    for name, node in known.nodes.items():
        bandwidth = f"{node.memory_bandwidth / 1e9:g}" if node.memory_bandwidth else ""
        memory = f"{node.memory / 1e9:g} GB"
        nodes.add_row(name, f"{node.count} {node.device}", node.inside, memory, bandwidth, node.source)
    console(width=WIDE).print(devices, "", links, "", nodes, sep="\n")


def show_scenarios() -> None:
    """Print the names of the scenarios that come with Paceline, and a sentence about each."""
    table = plain_table("name", "what")
    for name, what in told():
        table.add_row(name, what)
    console(width=WIDE).print(table)


SHOWN = 20  # rows of a sweep's table that are printed
NUMBERS: dict[str, tuple[str, Callable[[float], str]]] = {  # column -> its heading, and how it is printed
    "seconds": ("time", lambda value: told_seconds(value, 4)),
    "seconds_per_epoch": ("per epoch", lambda value: told_seconds(value, 4)),
    "samples_per_second": ("samples/s", lambda value: told_rate(value, "")),
    "idle_mean": ("idle", lambda value: f"{value:.1%}"),
}


def show_sweep(found: pd.DataFrame, path: Path) -> None:
    """Print the first rows of a sweep's table: what varied and what came out."""
    varied = list(found.columns[: list(found.columns).index("seconds")])
    numbers = (right(heading) for heading, _ in NUMBERS.values())
    names = (Column(one_line(_short(name, varied), 60), overflow="fold") for name in varied)
    table = plain_table(*names, *numbers, "")
    remarks: dict[tuple[str, str], Text] = {}  # each once, since many rows may have the same one
    for _, row in found.head(SHOWN).iterrows():
        missing = row.isna()
        told: dict[str, Any] = {name: "" if missing[name] else row[name] for name in found.columns}
        shown = ["" if told["error"] or told[name] == "" else tell(told[name]) for name, (_, tell) in NUMBERS.items()]
        kind, style = ("error", "red") if told["error"] else ("warning", "yellow")
        said = one_line(str(told.get(kind, "")))
        if said:
            remarks[kind, said] = Text.assemble((kind, style), f": {said}")
        table.add_row(
            *(one_line(_cell(name, told[name]), 60) for name in varied), *shown, Text(kind if said else "", style)
        )
    piped = not sys.stdout.isatty() and "COLUMNS" not in os.environ  # then a row is a line
    console(**({"width": WIDE} if piped else {})).print(table)
    for remark in remarks.values():
        console(width=WIDE).print(remark)
    counts = [f"{len(found)} rows"]
    for name, text in (("error", "failed"), ("warning", "with a warning")):
        count = int((found[name].fillna("") != "").sum()) if name in found else 0
        counts += [f"{count} {text}"] if count else []
    part = f" (the first {SHOWN} above)" if len(found) > SHOWN else ""
    print(one_line(f"{', '.join(counts)}{part}; written to {path}"))


def _cell(key: str, value: Any) -> str:
    """A value that varied. A whole strategy is told by its short name."""
    section = yaml.parse(value, key) if key == "strategy" and isinstance(value, str) else None
    return strategy_name(section) if isinstance(section, dict) else str(value)


def _short(name: str, names: Sequence[str]) -> str:
    """The shortest end of a key that no other key has."""
    parts = name.split(".")
    ends = (".".join(parts[-count:]) for count in range(1, len(parts)))
    return next((end for end in ends if sum(f".{other}".endswith(f".{end}") for other in names) == 1), name)


def show_report(path: Path) -> None:
    """Print where a report is, and how large it is."""
    print(one_line(f"written to {path}: {told_bytes(path.stat().st_size)}"))


def save_figures(runs: Sequence[Run], folder: Path, paper: Paper = SCREEN, rounds: int | None = 3) -> list[Path]:
    """Draw the figures that runs have. Returns the files. rounds: of the timeline; None: all."""
    import matplotlib

    matplotlib.use("Agg")
    from .analysis.figures import figures_of

    return paper.save(figures_of(runs, paper, rounds), folder)
