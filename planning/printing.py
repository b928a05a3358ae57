"""What `paceline plan` prints: the table, and the answer in words."""

from __future__ import annotations

from collections.abc import Iterator
from math import inf
from pathlib import Path

from rich.text import Text

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
    hidden = front[SHOWN:]
    for number, row in enumerate(answer.rows):
        if row not in hidden:
            soon = [Text(ways[number].told if number in ways else "?") for _ in asked]
            table.add_row(Text(", ".join(role for role in row.roles if role != "front")), *soon, *_cells(row))
    out = console(width=WIDE)
    out.print(table)
    if hidden:
        out.print(Text(f"{len(hidden)} of the front's ways are not shown; --json has them"))
    for line in _words(answer):
        out.print(Text(one_line(line, WIDE)))
    out.print(Text(one_line(f"written to {path}", WIDE)))


def _cells(row: Row) -> Iterator[Text]:
    way, spread = row.way, f" ± {row.spread:.2g}" if row.spread else ""
    wire = "" if way.options.wire == "fp32" else f", {way.options.wire}"
    collective = "" if way.collective == way.team.timing.network.collective else f", {way.collective}"
    cells = (
        way.preset,
        row.steps_told,
        by_class(row.batches),
        ", ".join(f"{count} {name}" for name, count in row.left_out.items()),
        f"{way.placement}{wire}{collective}",
        f"{row.epoch:.5g}{spread}",
        f"{way.gap:.0f}",
        f"{row.measured.sent / 1e6:.4g}",
        by_class({name: f"{share:.0%}" for name, share in row.idle.items()}),
        by_class({name: size(need) for name, need in row.memory.items()}),
        row.bound_by,
    )
    return (Text(one_line(cell, 80)) for cell in cells)


def size(nbytes: float) -> str:
    """Bytes in words."""
    return f"{nbytes / 2**30:.3g} GiB" if nbytes >= 2**30 else f"{nbytes / 2**20:.3g} MiB"


def _words(answer: Answer) -> Iterator[str]:
    """The answer in words."""
    if not answer.whole:
        yield f"stopped: this is the best of the {answer.simulated} ways that were simulated until then"
    yield from answer.learned_words
    for number, reason in enumerate(answer.reasons):
        yield f"{'what matters most: ' if number == 0 else '  '}{reason.text}"
    for name, share in answer.worth.items():
        if share == inf:
            yield f"the {name}: nothing can be trained without it"
        elif share == -1:
            yield f"the {name}: nothing that fits into memory can be trained with it"
        else:
            yield f"the {name}: without it the fastest epoch takes {longer(1 + share)}"
    if answer.guidance:
        yield answer.guidance
