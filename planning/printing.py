"""What `paceline plan` prints: the table, and the answer in words."""

from __future__ import annotations

from collections.abc import Iterator
from math import inf
from pathlib import Path

from rich.text import Text

from ..memory_check import gib
from ..printing import WIDE, plain_table, right
from ..program.errors import one_line
from ..terminal import console
from .answer import Answer
from .judge import Row, by_class, longer

SHOWN = 12  # rows of the front


def show_plan(answer: Answer, path: Path) -> None:
    """Print an answer. path: where the recommended way is written."""
    ways = {} if answer.learning is None else answer.learning.ways
    asked = [] if answer.learning is None else [right(f"s to {answer.learning.target}")]
    numbers = map(right, ("s per epoch", "samples between syncs", "MB per sync"))
    table = plain_table(
        "", *asked, "method", "steps", "batches", "left out", "placement", *numbers, "idle", "memory", "bound by"
    )
    front = [row for row in answer.rows if row.roles == ("front",)]
    hidden, shown = front[SHOWN:], list[list[str]]()
    for number, row in enumerate(answer.rows):
        soon = [ways[number].told if number in ways else "?" for _ in asked]
        cells = [one_line(cell, 80) for cell in (*soon, *_cells(row))]
        if row in hidden or (row in front and cells in shown):  # which differs by the size of its units, or by prefetch
            continue
        shown.append(cells)
        table.add_row(*map(Text, (", ".join(role for role in row.roles if role != "front"), *cells)))
    out = console(width=WIDE)
    out.print(table)
    if hidden:
        out.print(Text(f"{len(hidden)} of the front's ways are not shown; --json has them"))
    for line in _words(answer):
        out.print(Text(one_line(line, WIDE)))
    out.print(Text(one_line(f"written to {path}", WIDE)))


def _cells(row: Row) -> tuple[str, ...]:
    way, spread = row.way, f" ± {row.spread:.2g}" if row.spread else ""
    wire = "" if way.options.wire == "fp32" else f", {way.options.wire}"
    collective = "" if way.collective == way.team.timing.network.collective else f", {way.collective}"
    return (
        way.preset,
        row.steps_told,
        by_class(row.batches),
        ", ".join(f"{count} {name}" for name, count in row.left_out.items()),
        f"{way.placement}{wire}{collective}",
        f"{row.epoch:.5g}{spread}",
        f"{way.gap:.0f}",
        f"{row.measured.sent / 1e6:.4g}",
        by_class({name: f"{share:.0%}" for name, share in row.idle.items()}),
        by_class({name: gib(need, 3) for name, need in row.memory.items()}),
        row.bound_by,
    )


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
