"""What `paceline plan` prints: the table, and the answer in words.

A way's row has a line for each class of workers. Where the terminal is too narrow for that, what is of classes is a
table of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import inf
from pathlib import Path
from typing import NamedTuple

from rich.table import Column
from rich.text import Text

from ..config.units import told_bytes, told_count, told_seconds
from ..memory_check import gib
from ..printing import WIDE, plain_table, right
from ..program.errors import one_line
from ..terminal import console
from .answer import Answer
from .judge import Row, longer

SHOWN = 8  # rows of the front
FULL = 120  # characters in which one table has all; what is not a terminal is taken to be so wide
NARROW = 80  # and in which two tables do
OF_WAYS = ("way", "time", "per sync", "bound by")
OF_CLASSES = ("workers", "batch", "H", "idle", "memory")

Lines = tuple[str, ...]  # of a cell


class _Told(NamedTuple):
    """A row of the table, without its role."""

    ways: tuple[Lines, ...]  # as OF_WAYS
    classes: tuple[Lines, ...]  # as OF_CLASSES; each has a line for each class


def show_plan(answer: Answer, path: Path) -> None:
    """Print an answer. path: where the recommended way is written."""
    front = [row for row in answer.rows if row.roles == ("front",)]
    hidden, shown = front[SHOWN:], list[tuple[str, _Told]]()
    for number, row in enumerate(answer.rows):
        told = _Told(_of_way(answer, number, row), _of_classes(row))
        # What differs by the size of its units alone, or by prefetch, is shown once.
        if row not in hidden and not (row in front and any(told == other for _, other in shown)):
            shown.append((", ".join(role for role in row.roles if role != "front"), told))
    _show_tables(shown)
    out = console(width=WIDE)
    if hidden:
        out.print(Text(f"{len(hidden)} of the front's ways are not shown; --json has them"))
    for line in _words(answer):
        out.print(Text(one_line(line, WIDE)))
    out.print(Text(one_line(f"written to {path}", WIDE)))


def _of_way(answer: Answer, number: int, row: Row) -> tuple[Lines, ...]:
    way, spread = row.way, f" ± {row.spread / row.epoch:.1%}" if row.spread else ""
    wire = "" if way.options.wire == "fp32" else way.options.wire
    place = "" if way.placement == "replicated" else way.placement.replace("_", ", ")
    collective = "" if way.collective == way.team.timing.network.collective else way.collective
    asked: Lines = ()
    if answer.learning is not None:
        known = answer.learning.ways.get(number)
        first, *rest = known.told if known else ("?",)
        asked = (f"target: {first}", *rest)
    whole = () if row.epochs == 1 else (f"{told_seconds(row.training, 4)} in all",)
    return (
        (", ".join(filter(None, (way.preset, place, wire, collective))),),
        (*asked, f"{told_seconds(row.epoch, 4)}/epoch{spread}", *whole),
        (f"{told_count(way.gap)} samples", *((told_bytes(row.measured.sent),) if row.measured.sent else ())),
        tuple(row.bound_by.split(", ", 1)),
    )


def _of_classes(row: Row) -> tuple[Lines, ...]:
    """Of each class: workers that are used, batch, steps, idle, memory. Only the first where all are left out."""
    lines = list[Lines]()
    for name, size in row.sizes.items():
        used = size - row.left_out.get(name, 0)
        count = f"{used} {name}" if used == size else f"{used} of {size} {name}"
        if used:
            batch, micro = row.batches[name], row.way.division.micro
            told = (
                f"{batch} by {micro}" if micro and batch > micro else f"{batch}",
                row.told_steps(row.steps[name]),
                f"{row.idle[name]:.0%}",
            )
            lines.append((count, *told, gib(row.memory[name], 3)))
        else:
            lines.append((count, "", "", "", ""))
    return tuple(zip(*lines, strict=True))


def _show_tables(rows: Sequence[tuple[str, _Told]]) -> None:
    """One table, or two where the terminal is narrow."""
    screen = console()
    wide = screen.width if screen.is_terminal else FULL
    out = console(width=max(wide, NARROW))
    workers, *numbers = OF_CLASSES
    one = plain_table(*OF_WAYS[:-1], _whole(workers), *map(right, numbers), OF_WAYS[-1])
    first, second = plain_table("", *OF_WAYS), plain_table("", _whole(workers), *map(right, numbers))
    for number, (role, (ways, classes)) in enumerate(rows, 1):
        if number > 1:
            one.add_row()
            first.add_row()
            if len(classes[0]) > 1:
                second.add_row()
        texts = [_text((role, *ways[0]) if role else ways[0]), *map(_text, ways[1:])]
        others = [*map(_text, classes)]
        one.add_row(*texts[:-1], *others, texts[-1])
        first.add_row(f"{number}", *texts)
        second.add_row(f"{number}", *others)
    for shown in (one,) if wide >= FULL else (first, "", second):
        out.print(shown, soft_wrap=False)


def _whole(heading: str) -> Column:
    """A column whose lines are not broken, since they stand next to those of other columns."""
    return Column(heading, no_wrap=True)


def _text(lines: Lines) -> Text:
    return Text("\n".join(one_line(line, 60) for line in lines))


def _words(answer: Answer) -> Iterator[str]:
    """The answer in words."""
    if not answer.whole:
        yield f"stopped: this is the best of the {answer.simulated} ways that were simulated until then"
    yield from answer.learned_words
    for number, reason in enumerate(answer.reasons):
        yield f"{'what matters most: ' if number == 0 else '  '}{reason.text}"
    for name, share in answer.worth.items():
        if share == inf:
            yield f"the {name}: no way fits without it"
        elif share == -1:
            yield f"the {name}: no way fits with it"
        else:
            yield f"the {name}: without it the fastest epoch takes {longer(1 + share)}"
    for line in (answer.note, answer.guidance):
        if line:
            yield line
