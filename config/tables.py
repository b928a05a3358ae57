"""Measured times as tables: seconds by samples, by bytes, or by the part of a model."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, field

from ..program.effects import Work

Table = tuple[tuple[float, float], ...]  # ((samples, seconds), ...) by rising samples


def interpolate(table: Table, samples: float) -> float:
    """Seconds for `samples`: on the lines between the table's points, and beyond them on the first and last line.

    With a single point, seconds are in proportion to samples. Below the first point they are never less than that.
    """
    if len(table) == 1:
        (known, seconds), *_ = table
        return seconds * samples / known if known else seconds  # an update has no samples
    right = min(max(bisect_left(table, (samples,)), 1), len(table) - 1)
    (x0, y0), (x1, y1) = table[right - 1], table[right]
    seconds = y0 + (y1 - y0) * (samples - x0) / (x1 - x0)
    return max(seconds, y0 * samples / x0 if 0 < samples < x0 else 0.0)


@dataclass(frozen=True)
class PassTimes:
    """Forward or backward passes of a model that is computed unit by unit."""

    table: Table  # all units together, in the finest cut, by samples
    shares: tuple[float, ...]  # of each of the finest units in it
    cut: float = 0.0  # seconds that each cut between two units adds

    def seconds(self, work: Work) -> float:
        """Seconds of the unit that `work` names: a merged one saves the cuts within it."""
        first, stop = work.finest
        whole = interpolate(self.table, work.samples)
        return max(0.0, whole * sum(self.shares[first:stop]) - self.cut * (stop - first - 1))


@dataclass(frozen=True, eq=False)
class PieceTimes:
    """Pieces of work that a profile has measured as they run. Each is priced by itself, not as a part of a step.

    Why not: a step that is computed unit by unit takes longer than one in one piece, and one whose parameters are
    fetched takes longer still. Only a measured whole can say how much.
    """

    passes: Mapping[tuple[str, str], PassTimes] = field(default_factory=dict)  # (Work.held, phase) -> a unit's pass
    updates: Mapping[str, Table] = field(default_factory=dict)  # phase -> seconds by the part of all parameters
    first: Table = ()  # the first local step of a round, by samples
    moves: Mapping[str, Table] = field(default_factory=dict)  # "device", "host": seconds of a copy to it, by bytes
    taken: Table = ()  # seconds that a started copy takes from the computation next to it, by bytes
    exchange_taken: Table = ()  # the same of a started exchange, by bytes sent

    def seconds(self, work: Work) -> float | None:
        """Seconds of the piece; None where it was not measured."""
        if work.phase in self.updates:
            return interpolate(self.updates[work.phase], work.fraction)
        if work.first and self.first:
            return interpolate(self.first, work.samples)
        passes = self.passes.get((work.held, work.phase))
        return None if passes is None else passes.seconds(work)
