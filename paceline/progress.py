"""Progress of a run or a sweep: a bar on a terminal, lines elsewhere."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import TYPE_CHECKING, Any

from .algorithms.rounds import Interval
from .config.metrics import metrics_in
from .config.units import told_rate, told_seconds, told_whole
from .program.errors import one_line
from .records.live import Now
from .terminal import console

if TYPE_CHECKING:
    from rich.progress import BarColumn, ProgressColumn

TITLE = 60  # the longest title, in characters
QUIET = 30.0  # seconds after which a line says where a run is that has reported nothing
WIDTH = 24  # of a bar, in characters
# Of the 16 colours that every terminal has: what is done, what is not, a bar that is full, one of unknown length. Each
# has another one, so that a finished bar looks finished.
NOT_DONE, DONE, FULL, UNKNOWN = "bright_black", "cyan", "green", "yellow"


def in_words(line: dict[str, Any]) -> str:
    """A report line in words."""
    text = f"epoch {line['epoch']:7.2f}  round {line['round']:6d}  {told_seconds(line['seconds'], 4):>9}"
    if _known(line, "H") and line["H"] > 1:
        text += f"  H {line['H']}"
    metrics = ((name, name) for name in metrics_in(line))
    for name, key in (("loss", "train_loss"), *metrics, ("gradient", "grad_norm")):
        if _known(line, key):
            text += f"  {name} {number(line[key])}"
    if line["seconds"] > 0:
        text += f"  {told_rate(line['samples'] / line['seconds'])}"
    return text


def learned(line: dict[str, Any]) -> str:
    """The loss and the first metric of a report line."""
    first = ((name, name) for name in metrics_in(line)[:1])
    told = (f"{name} {number(line[key], 3)}" for name, key in (("loss", "train_loss"), *first) if _known(line, key))
    return "  ".join(told)


def where(now: Now) -> str:
    """How far a run is: round, steps and its clock."""
    H, clock = f", H {told_whole(now.H)}" if now.H > 1 else "", "" if now.engine == "mpi" else " of virtual time"
    at = f"round {told_whole(now.round)}{H}"
    if now.done and now.H > 1:
        at = f"round {told_whole(now.round + 1)} (step {told_whole(now.done)} of {told_whole(now.H)})"
    told = f"{at}, {told_whole(now.step)} steps"
    return f"{told}, {told_seconds(now.seconds)}{clock}" if now.seconds > 0 else told


def pace(now: Now) -> str:
    """How fast it gets on: samples per second, what its worker is idle, the time that is left."""
    told = [told_rate(now.samples / now.seconds)] if now.seconds > 0 and now.samples else []
    told += [f"idle {now.idle:.0%}"] if now.idle is not None else []
    return "  ".join(told + ([f"{told_seconds(now.left)} left"] if now.left is not None else []))


def number(value: float, digits: int = 4) -> str:
    """With so many digits behind the point where they show it well, and otherwise with so many in all."""
    return f"{value:.{digits}f}" if 0.01 <= abs(value) < 100 or not value else f"{value:.{digits}g}"


def _known(line: dict[str, Any], key: str) -> bool:
    """Whether the line has that number. Not every line comes from an evaluation or has a loss."""
    return line.get(key) is not None and line[key] == line[key]


class Shown:
    """Shows a run while it goes on. This one shows nothing."""

    def line(self, line: dict[str, Any]) -> None:
        """A report line came."""

    def now(self, now: Now) -> None:
        """Where the run is, some times a second, from another thread."""


class _Lines(Shown):
    """A line for each report, and one now and then where none comes for long."""

    def __init__(self, title: str) -> None:
        self._title, self._last = title, monotonic()

    def line(self, line: dict[str, Any]) -> None:
        self._print(in_words(line))

    def now(self, now: Now) -> None:
        if monotonic() - self._last > QUIET:
            self._print("  ".join(filter(None, (where(now), pace(now)))))

    def _print(self, text: str) -> None:
        self._last = monotonic()
        print(f"{self._title}: {text}", flush=True)


class _Bar(Shown):
    """A bar that moves. update: as of rich's Progress, for its task."""

    def __init__(self, update: Callable[..., None], key: str) -> None:
        self._update, self._key, self._learned = update, key, ""

    def line(self, line: dict[str, Any]) -> None:
        self._learned = learned(line)
        self._update(completed=float(line[self._key]), text=f"{self._learned}  {told_seconds(line['seconds'])}")

    def now(self, now: Now) -> None:
        self._update(completed=now.progress, text="  ".join(filter(None, (pace(now), self._learned, where(now)))))


@contextmanager
def progress(title: str, budget: Interval, quiet: bool, bar: bool | None = None) -> Iterator[Shown]:
    """What shows how much of the budget is done. quiet: it shows nothing.

    bar: whether to draw a bar; by default where standard output is a terminal.
    """
    title = one_line(title, TITLE)
    if quiet or not (draws() if bar is None else bar):
        yield Shown() if quiet else _Lines(title)
        return
    key = budget.unit.removesuffix("s")  # report lines count in epoch, step and round
    with _drawn(title, budget.amount, [_percent()]) as update:
        yield _Bar(update, key)


@contextmanager
def counting(title: str, total: int, quiet: bool, bar: bool | None = None) -> Iterator[Callable[[int, int], None]]:
    """A function (done, failed) that shows how many of `total` are done and failed. quiet: it shows nothing.

    bar: whether to draw a bar; by default where standard output is a terminal. Without a bar there is a line per tenth.
    """
    title, tenth = one_line(title, TITLE), -1

    def tell(done: int, failed: int) -> None:
        nonlocal tenth
        before, tenth = tenth, 10 * done // total
        if tenth > before:
            failures = f"  {failed} failed" if failed else ""
            print(f"{title}: {done} of {total}{failures}", flush=True)

    if quiet or not (draws() if bar is None else bar):
        yield (lambda done, failed: None) if quiet else tell
        return
    from rich.progress import MofNCompleteColumn, TimeRemainingColumn

    with _drawn(title, total, [MofNCompleteColumn(), TimeRemainingColumn()], "red") as update:
        yield lambda done, failed: update(completed=done, text=f"{failed} failed" if failed else "")


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
            print(f"{title}: {done} of {total} {what}".rstrip(), flush=True)

    if quiet or not draws():
        yield (lambda what, done, total: None) if quiet else tell
        return
    from rich.progress import MofNCompleteColumn, TimeRemainingColumn

    # Runs take long, and are of unequal length: the rate is that of the whole command.
    with _drawn(title, None, [MofNCompleteColumn(), TimeRemainingColumn()], period=math.inf) as update:
        yield lambda what, done, total: update(completed=done, total=total, text=one_line(what, TITLE))


def draws() -> bool:
    """Whether standard output is a terminal on which a line can be drawn again."""
    return sys.stdout.isatty() and os.environ.get("TERM", "").lower() not in ("dumb", "unknown")


def bar_column() -> BarColumn:
    """A bar that looks finished when it is, in 16 colours too."""
    from rich.progress import BarColumn

    return BarColumn(WIDTH, NOT_DONE, DONE, FULL, UNKNOWN)


def _percent() -> ProgressColumn:
    from rich.progress import TextColumn
    from rich.table import Column

    return TextColumn("{task.percentage:>3.0f}%", markup=False, table_column=Column(no_wrap=True))


@contextmanager
def _drawn(
    title: str, total: float | None, columns: list[ProgressColumn], style: str = "none", period: float = 30.0
) -> Iterator[Callable[..., None]]:
    """Around a bar with these columns and a text behind it: the function that updates it. period: see working()."""
    from rich.progress import Progress, ProgressColumn, Task, TextColumn
    from rich.table import Column
    from rich.text import Text

    class Fitting(ProgressColumn):
        """The text. What does not fit into the terminal is cut, so that a bar is always one line."""

        def render(self, task: Task) -> Text:
            return Text(task.fields["text"], style, no_wrap=True, overflow="ellipsis")

    name = TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True))
    # A rank is told that the command which started it has a terminal; it cannot see that by itself.
    shown = Progress(
        name, bar_column(), *columns, Fitting(), console=console(force_terminal=True), speed_estimate_period=period
    )
    with shown:
        task = shown.add_task(title, total=total, text="")

        def update(**fields: Any) -> None:
            shown.update(task, **fields)

        yield update
