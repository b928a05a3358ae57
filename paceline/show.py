"""What the command line prints of runs and comparisons."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from .analysis.compare import compare
from .analysis.run import Run
from .config.catalogue import catalogue


def show_run(run: Run) -> None:
    """A finished run in a few lines."""
    s = run.summary
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    rows = {
        "engine": f"{s['engine']}{', timing only' if s.get('timing_only') else ''}, {s['workers']} workers",
        "training": f"{s['seconds']:.3f} {'s' if s['engine'] == 'mpi' else 'virtual s'}, {s['rounds']} rounds, "
        f"{s['steps']} steps, {s['samples']} samples",
        "idle": "  ".join(f"{share:.1%}" for share in s["idle_share"][:8]) + ("  ..." if s["workers"] > 8 else ""),
        "sent": f"{max(s['bytes_per_worker']) / 1e6:.3f} MB per worker",
    }
    if run.accuracy is not None:
        rows["result"] = f"training loss {s['train_loss']:.4f}, test accuracy {s['accuracy']:.2%}"
    if s.get("params_sha256"):
        rows["parameters"] = f"sha256 {s['params_sha256'][:16]}..."
    if run.directory:
        rows["written to"] = str(run.directory)
    for key, text in rows.items():
        table.add_row(key, text)
    Console(soft_wrap=True).print(table)


def show_comparison(left: Run, right: Run) -> None:
    """Two runs held against each other."""
    result = compare(left, right)
    console = Console(soft_wrap=True)
    if result.same:
        reports = f"{len(left.lines)} reports"
        both = left.summary.get("params_sha256") is not None
        console.print(
            f"[green]same numbers[/]: {reports}{' and the final parameters' if both else ''} agree to the last bit"
        )
    elif result.difference and result.difference.nothing:
        console.print(f"[red]no numbers to compare[/]: {result.difference}")
    else:
        console.print(f"[red]the runs differ[/]: {result.difference}")
        console.print(f"largest relative difference of a loss: {result.worst:.3g}")
        for line in result.explained:
            console.print(f"  this can change bits: {line}")
    table = Table(box=None, padding=(0, 2, 0, 0))
    for heading in ("", left.name, right.name, "error"):
        table.add_column(heading, justify="right" if heading else "left")
    table.add_row("seconds", *(f"{s:.4f}" for s in result.seconds), _share(result.error, "+.1%"))
    table.add_row("ms per round", *(f"{s * 1e3:.4f}" for s in result.per_round), "")
    table.add_row("between reports, median", "", "", _share(result.per_report_error, ".1%"))
    for worker, idle in enumerate(zip(left.summary["idle_share"], right.summary["idle_share"], strict=False)):
        if worker < 8:
            table.add_row(f"idle, worker {worker}", *(f"{share:.1%}" for share in idle), "")
    console.print(table)


def _share(value: float, form: str) -> str:
    """A share in percent; nothing where it is not a number."""
    return "" if value != value else format(value, form)


def show_catalogue() -> None:
    """The catalogue's devices and links; long lines are the terminal's to wrap."""
    console = Console(soft_wrap=True, width=200)
    known = catalogue()
    devices = Table(box=None, padding=(0, 2, 0, 0))
    devices.add_column("device")
    for heading in ("fp32", "bf16", "fp16 Tflop/s", "memory", "GB/s"):
        devices.add_column(heading, justify="right")
    for heading in ("host link", "source"):
        devices.add_column(heading)
    for name, device in known.devices.items():
        peaks = [f"{device.peaks[p] / 1e12:.5g}" if p in device.peaks else "" for p in ("fp32", "bf16", "fp16")]
        memory = f"{device.memory / 1e9:g} GB" if device.memory else ""
        devices.add_row(
            name, *peaks, memory, f"{device.memory_bandwidth / 1e9:g}", device.host_link or "", device.source
        )
    links = Table(box=None, padding=(0, 2, 0, 0))
    links.add_column("link")
    links.add_column("GB/s each way", justify="right")
    links.add_column("source")
    for name, link in known.links.items():
        links.add_row(name, f"{link.bandwidth / 1e9:g}", link.source)
    console.print(devices, "", links, sep="\n")


SHOWN = 20  # rows of a sweep


def show_sweep(found: pd.DataFrame, path: Path) -> None:
    """The first rows of a sweep's table: what varied, what came out."""
    varied = list(found.columns[: list(found.columns).index("seconds")])
    table = Table(box=None, padding=(0, 2, 0, 0))
    for name in varied:
        table.add_column(_short(name, varied))
    for heading in ("seconds", "ms per step", "idle"):
        table.add_column(heading, justify="right")
    table.add_column("", overflow="fold")
    for _, row in found.head(SHOWN).iterrows():
        cells = ["" if pd.isna(row[name]) else str(row[name]) for name in varied]
        if row["error"]:
            table.add_row(*cells, "", "", "", f"[red]{escape(row['error'])}[/]")
        else:
            numbers = f"{row['seconds']:.4f}", f"{row['seconds_per_step'] * 1e3:.4f}", f"{row['idle_mean']:.1%}"
            warning = row.get("warning") or ""
            table.add_row(*map(escape, cells), *numbers, f"[yellow]{escape(warning)}[/]" if warning else "")
    Console(soft_wrap=True).print(table)
    counts = [f"{len(found)} rows"]
    for name, text in (("error", "failed"), ("warning", "with a warning")):
        count = int((found[name].fillna("") != "").sum()) if name in found else 0
        counts += [f"{count} {text}"] if count else []
    print(f"{', '.join(counts)}{f' (the first {SHOWN} above)' if len(found) > SHOWN else ''}; written to {path}")


def _short(name: str, names: Sequence[str]) -> str:
    """The end of a key that no other key has."""
    parts = name.split(".")
    ends = (".".join(parts[-count:]) for count in range(1, len(parts)))
    return next((end for end in ends if sum(f".{other}".endswith(f".{end}") for other in names) == 1), name)


def save_figures(runs: Sequence[Run], folder: Path) -> list[Path]:
    """Learning curves and, of traced runs, the timeline; returns the files."""
    import matplotlib

    matplotlib.use("Agg")
    from .analysis.figures import learning_curves, timeline

    folder.mkdir(parents=True, exist_ok=True)
    figures = {"curves.png": learning_curves(runs)} if all(run.lines for run in runs) else {}
    if all(run.lanes for run in runs):
        figures["timeline.png"] = timeline(runs)
    for name, figure in figures.items():
        figure.savefig(folder / name, dpi=130)
    return [folder / name for name in figures]
