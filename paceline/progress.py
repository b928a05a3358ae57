"""Progress of a run or a sweep: a bar on a terminal, lines elsewhere."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from .algorithms.rounds import Interval
from .config.metrics import metrics_in
from .program.errors import one_line
from .terminal import console

Show = Callable[[dict[str, Any]], None]
TITLE = 60  # the longest title, in characters


def in_words(line: dict[str, Any]) -> str:
    """A report line in words."""
    text = f"epoch {line['epoch']:7.2f}  round {line['round']:6d}  {line['seconds']:9.3f} s"
    metrics = ((name, name) for name in metrics_in(line))
    for name, key in (("loss", "train_loss"), *metrics, ("gradient", "grad_norm")):
        if _known(line, key):
            text += f"  {name} {_number(line[key])}"
    return text


def next_to_bar(line: dict[str, Any]) -> str:
    """The part of a report line that fits next to a bar."""
    first = (f" {name} {_number(line[name], 3)}" for name in metrics_in(line)[:1] if _known(line, name))
    return f"{line['seconds']:.2f} s{''.join(first)}"


def _number(value: float, digits: int = 4) -> str:
    """With so many digits behind the point where they show it well, and otherwise with so many in all."""
    return f"{value:.{digits}f}" if 0.01 <= abs(value) < 100 or not value else f"{value:.{digits}g}"


def _known(line: dict[str, Any], key: str) -> bool:
    """Whether the line has that number. Not every line comes from an evaluation or has a loss."""
    return key in line and line[key] == line[key]


@contextmanager
def progress(title: str, budget: Interval, quiet: bool, bar: bool | None = None) -> Iterator[Show]:
    """A function that takes report lines and shows how much of the budget is done. quiet: it shows nothing.

    bar: whether to draw a bar; by default where standard output is a terminal.
    """
    key = budget.unit.removesuffix("s")  # report lines count in epoch, step and round
    with _shown(title, budget.amount, quiet, bar) as show:
        yield lambda line: show(float(line[key]), next_to_bar(line), in_words(line))


@contextmanager
def counting(title: str, total: int, quiet: bool, bar: bool | None = None) -> Iterator[Callable[[int, int], None]]:
    """A function (done, failed) that shows how many of `total` are done and failed. quiet: it shows nothing.

    bar: whether to draw a bar; by default where standard output is a terminal. Without a bar there is a line per tenth.
    """
    tenth = -1

    def tell(done: int, failed: int) -> None:
        nonlocal tenth
        failures, before, tenth = f"{failed} failed" if failed else "", tenth, 10 * done // total
        show(done, failures, f"{done} of {total}  {failures}".rstrip() if tenth > before else "")

    with _shown(title, total, quiet, bar, count=True) as show:
        yield tell


@contextmanager
def working(title: str, quiet: bool) -> Iterator[Callable[[str, int, int], None]]:
    """A function (what, done, total) that shows what is going on now, and how long the rest takes at the rate so far.

    quiet: it shows nothing. Without a terminal it prints a line per tenth.
    """
    tenth = -1

    def tell(what: str, done: int, total: int) -> None:
        nonlocal tenth
        before, tenth = tenth, 10 * done // total
        if tenth != before:
            print(f"{title}: {done} of {total}  {what}", flush=True)

    if quiet or not sys.stdout.isatty():
        yield (lambda what, done, total: None) if quiet else tell
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    name, text = (TextColumn(f"{{task.{field}}}", markup=False) for field in ("description", "fields[text]"))
    columns = [name, BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), text]
    # Runs take long, and are of unequal length: the rate is that of the whole command.
    with Progress(*columns, console=console(force_terminal=True), speed_estimate_period=math.inf) as shown:
        task = shown.add_task(title, total=None, text="")
        yield lambda what, done, total: shown.update(task, completed=done, total=total, text=one_line(what, TITLE))


@contextmanager
def _shown(
    title: str, total: float, quiet: bool, bar: bool | None, count: bool = False
) -> Iterator[Callable[[float, str, str], None]]:
    """A function (done, text, line) that shows how much of `total` is done: a bar with the text, or else the line.

    count: whether the bar shows numbers as well, and its text tells about failures.
    """
    title = one_line(title, TITLE)
    if quiet:
        yield lambda done, text, line: None
        return
    if not (sys.stdout.isatty() if bar is None else bar):
        yield lambda done, text, line: print(f"{title}: {line}", flush=True) if line else None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    name = TextColumn("{task.description}", markup=False)
    text = TextColumn("{task.fields[text]}", style="red" if count else "none", markup=False)
    columns = [name, BarColumn(), *([MofNCompleteColumn()] if count else ()), text, TimeRemainingColumn()]
    # A rank is told that the command which started it has a terminal; it cannot see that by itself.
    with Progress(*columns, console=console(force_terminal=True)) as shown:
        task = shown.add_task(title, total=total, text="")
        yield lambda done, text, line: shown.update(task, completed=done, text=text)
