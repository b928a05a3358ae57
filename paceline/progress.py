"""Progress of a run: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from .algorithms.rounds import Interval
from .program.errors import one_line
from .terminal import console

Show = Callable[[dict[str, Any]], None]
TITLE = 60  # characters


def describe(line: dict[str, Any]) -> str:
    """A report line for people."""
    text = f"epoch {line['epoch']:7.2f}  round {line['round']:6d}  {line['seconds']:9.3f} s"
    for name, key in (("loss", "train_loss"), ("accuracy", "accuracy"), ("gradient", "grad_norm")):
        if _known(line, key):
            text += f"  {name} {line[key]:.4f}"
    return text


def brief(line: dict[str, Any]) -> str:
    """The part of a report line that fits beside a bar."""
    accuracy = f" accuracy {line['accuracy']:.3f}" if _known(line, "accuracy") else ""
    return f"{line['seconds']:.2f} s{accuracy}"


def _known(line: dict[str, Any], key: str) -> bool:
    """Whether the line holds that number: not every line comes from an evaluation, nor with losses."""
    return key in line and line[key] == line[key]


@contextmanager
def progress(title: str, budget: Interval, quiet: bool, bar: bool | None = None) -> Iterator[Show]:
    """A function that takes report lines and shows how much of the budget lies behind them; quiet: shows nothing.

    bar: whether to draw one; by default where standard output is a terminal.
    """
    if quiet:
        yield lambda line: None
        return
    title = one_line(title, TITLE)
    if bar is None:
        bar = sys.stdout.isatty()
    if not bar:
        yield lambda line: print(f"{title}: {describe(line)}", flush=True)
        return
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    key = budget.unit.removesuffix("s")  # report lines count in epoch, step and round
    name, text = TextColumn("{task.description}", markup=False), TextColumn("{task.fields[text]}", markup=False)
    # A rank has been told that what started it has a terminal, which it cannot see by itself.
    with Progress(name, BarColumn(), text, TimeRemainingColumn(), console=console(force_terminal=True)) as shown:
        task = shown.add_task(title, total=budget.amount, text="")
        yield lambda line: shown.update(task, completed=float(line[key]), text=brief(line))


@contextmanager
def counting(title: str, total: int, quiet: bool, bar: bool | None = None) -> Iterator[Callable[[int, int], None]]:
    """A function that takes how many of `total` are done and how many of these failed, and shows it; quiet: nothing.

    bar: whether to draw one; by default where standard output is a terminal. Otherwise a line per tenth.
    """

    title = one_line(title, TITLE)

    def text(failed: int) -> str:
        return f"{failed} failed" if failed else ""

    if quiet:
        yield lambda done, failed: None
        return
    if not (sys.stdout.isatty() if bar is None else bar):
        tenth = -1

        def tell(done: int, failed: int) -> None:
            nonlocal tenth
            if 10 * done // total > tenth:
                tenth = 10 * done // total
                print(f"{title}: {done} of {total}  {text(failed)}".rstrip(), flush=True)

        yield tell
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    name = TextColumn("{task.description}", markup=False)
    trouble = TextColumn("{task.fields[text]}", style="red", markup=False)
    columns = (name, BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), trouble)
    with Progress(*columns, console=console()) as shown:
        task = shown.add_task(title, total=total, text="")
        yield lambda done, failed: shown.update(task, completed=done, text=text(failed))
