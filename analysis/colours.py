"""Which colour means what, in every figure and in the report.

Rule: a colour has one meaning. Shades of a colour are parts of what it means: forward, backward and update are shades
of computing. Colours that may meet in one figure stay apart for readers who cannot tell red from green or blue from
yellow, and computing, exchange and waiting also on paper without colours; a test measures both. Where a figure has
filled areas, a hatch tells what grey paper would not; where it has lines, the dashes and the marks do.

The methods' colours are those of Paul Tol's "muted" scheme (SRON/EPS/TN/09-002, 2021).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ..program.outcome import Span
from ..records.trace import span_phase


@dataclass(frozen=True)
class Area:
    """How a bar or a shaded place is filled."""

    colour: str  # "#rrggbb"
    hatch: str = ""  # one of / \ x - | + . (as in matplotlib and plotly); empty: none


@dataclass(frozen=True)
class Line:
    """How a curve or a row of marks is drawn."""

    colour: str  # "#rrggbb"
    dashes: str = "solid"  # solid, dashed, dotted or dashdot, as in matplotlib
    mark: str = "o"  # o circle, s square, ^ triangle, D diamond, v triangle downwards, x cross: as in matplotlib


# Where the time goes: the names of where.KINDS, and evaluation, which does not count as training.
KINDS = {
    "computing": Area("#0060A0"),
    "host": Area("#44C49A", "/"),
    "host link": Area("#7A1048"),
    "exchange": Area("#EE7733"),
    "waiting": Area("#D9D9D9"),
    "other": Area("#FFFFFF"),
    "evaluation": Area("#6E6E6E", "\\"),
}
EDGE = "#444444"  # around areas that could not be seen on white

# Shades: what a span's phase is called in a legend, and its shade. Others have the colour of their lane's kind.
_PHASES = {
    "forward": ("forward", "#6BAED6"),
    "backward": ("backward", "#0060A0"),
    "update": ("update", "#002B55"),
    "gradients": ("exchange of gradients", "#EE7733"),
    "parameters": ("exchange of parameters", "#B34A00"),
}
LANES = {
    "compute": "computing",
    "host": "host",
    "to host": "host link",
    "to device": "host link",
    "network": "exchange",
}

# What goes wrong: by the fault's name in a scenario. Drawn half transparent behind what it hits.
FAULTS = {
    "straggler": Area("#F0E442"),
    "slowdown": Area("#A8780F", "/"),
    "pause": Area("#9737F5", "x"),
    "slow_link": Area("#35C8B8", "\\"),
    "loss": Area("#1A1A1A", "+"),
    "exception": Area("#B12E93", "."),
}

# Where a number comes from.
SIMULATED = Line("#33BBEE", "solid", "D")
MEASURED = Line("#000000", "dashed", "o")
AGAIN = Line("#777777", "dotted", "s")  # a second, equal measurement

# What memory holds.
MEMORY = {
    "parameters": Area("#77AADD"),
    "gradients": Area("#EE8866", "/"),
    "optimizer": Area("#EEDD88"),
    "buffers": Area("#B36395", "\\"),
    "activations": Area("#5B8D1E"),
    "fresh gradients": Area("#B34363", "x"),
    "outer optimizer": Area("#7FE0A5", "."),
    "copies of syncs": Area("#626731", "-"),
    "data": Area("#DDDDDD"),
    "process": Area("#5C73D9", "+"),
}
LIMIT = Line("#CC0000", "dashed")  # what there is at most

NEUTRAL = "#999999"  # what needs no meaning: a line that joins points

_METHODS = ("#332288", "#CC6677", "#117733", "#88CCEE", "#AA4499", "#999933", "#44AA99", "#882255", "#DDCC77")
METHODS = len(_METHODS)  # colours of them
_DASHES = ("solid", "dashed", "dotted", "dashdot")
_MARKS = ("o", "s", "^", "D", "v", "x")


def methods(names: Iterable[str]) -> dict[str, Line]:
    """For each method its line, by the order in which they are named first. After nine the colours begin again."""
    return {name: method(place) for place, name in enumerate(dict.fromkeys(names))}


def method(place: int) -> Line:
    """The line of a figure's method number `place`, from 0."""
    return Line(
        _METHODS[place % len(_METHODS)],
        _DASHES[place // len(_METHODS) % len(_DASHES)],
        _MARKS[place % len(_MARKS)],
    )


def of_span(lane: str, span: Span) -> tuple[str, Area]:
    """(what it is called in a legend, how it is filled) of a trace's span on a lane that is not that of faults."""
    phase, kind = span_phase(span), LANES.get(lane, "other")
    kind = {"wait": "waiting", "evaluate": "evaluation"}.get(phase, kind)
    told, shade = _PHASES.get(phase, (kind, KINDS[kind].colour))
    return told, Area(shade, KINDS[kind].hatch)
