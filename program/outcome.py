"""What an interpreter returns for each worker, and what it calls back; the same in virtual and in real time."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, overload

from .effects import Array, Move

Span = tuple[str, float, float]  # (name, start, stop) in seconds


class Spans(Sequence[Span]):
    """Spans of one lane while a run goes on, as columns.

    Why not a list of tuples: each tuple and each of its numbers lies elsewhere in memory, so that a run of many workers
    waits for its memory whenever it keeps a span and whenever it hands them on. Columns took half of a span's time.
    """

    __slots__ = ("names", "starts", "stops")

    def __init__(self, names: Sequence[Any] = (), starts: Sequence[float] = (), stops: Sequence[float] = ()) -> None:
        self.names = list(names)  # or what an interpreter makes names of
        self.starts, self.stops = array("d", starts), array("d", stops)

    @classmethod
    def of(cls, span: Span) -> Spans:
        """One span."""
        name, start, stop = span
        return cls([name], [start], [stop])

    def add(self, name: Any, start: float, stop: float) -> None:
        """Keep a span."""
        self.names.append(name)
        self.starts.append(start)
        self.stops.append(stop)

    def take(self, count: int) -> Spans:
        """Remove the first `count` spans, and return them."""
        taken = self[:count]
        for column in (self.names, self.starts, self.stops):
            del column[:count]
        return taken

    def __len__(self) -> int:
        return len(self.names)

    @overload
    def __getitem__(self, place: int) -> Span: ...

    @overload
    def __getitem__(self, place: slice) -> Spans: ...

    def __getitem__(self, place: int | slice) -> Span | Spans:
        if isinstance(place, slice):
            return Spans(self.names[place], self.starts[place], self.stops[place])
        return self.names[place], self.starts[place], self.stops[place]


@dataclass(slots=True)
class Outcome:
    """One worker's run. All times leave out evaluation, except `evaluating` and those of `lanes`."""

    index: int  # the worker's number
    seconds: float = 0.0  # its clock when its program ended
    evaluating: float = 0.0  # seconds in effects of phase "evaluate", Computes and collectives
    computing: float = 0.0  # seconds in Compute
    sent: dict[str, float] = field(default_factory=dict)  # payload bytes by phase
    syncs: dict[str, int] = field(default_factory=dict)  # number of collectives by phase
    moved: dict[str, float] = field(default_factory=dict)  # bytes copied "to device" and "to host", without evaluation
    # Spans by lane: "compute", "network", "host", "to host", "to device", "rounds". Empty if the run is not traced, or
    # if Hooks.spans has taken them.
    lanes: dict[str, list[Span]] = field(default_factory=dict)
    began: float = 0.0  # when a real run began, by the clock that all processes of a machine share
    result: Any = None  # what its program returned

    @property
    def idle(self) -> float:
        """Share of the training time not spent computing: waiting for others and for the network."""
        return max(0.0, 1.0 - self.computing / self.seconds) if self.seconds else 0.0


def count_move(moved: dict[str, float], move: Move) -> None:
    """Count a copy between host and device in an Outcome's `moved`."""
    if move.phase != "evaluate":
        lane = f"to {move.to}"
        moved[lane] = moved.get(lane, 0.0) + move.value.nbytes


def ignored(*said: Any) -> None:
    """A hook that does nothing."""


@dataclass(slots=True)
class Hooks:
    """What an interpreter calls back. `seconds` is the worker's clock, evaluation excluded."""

    log: Callable[[int, float, dict[str, Any]], None] = ignored  # (worker, seconds, fields): a line of the report
    checkpoint: Callable[[int, float, Any, dict[str, Array]], None] = ignored  # (worker, seconds, state, arrays)
    stop: Callable[[], bool] = lambda: False  # asked once per collective of all workers; the answer holds for all
    # (worker, lane, spans): takes a traced run's spans, some at a time. None: they are kept in the Outcome.
    spans: Callable[[int, str, Spans], None] | None = None
    # (worker, seconds, the Checkpoint effect): at every sync of a real run, behind the checkpoint that was due
    sync: Callable[[int, float, Any], None] | None = None
    # (worker, seconds, rounds done, loss, sent): a round is over; called before its checkpoint is written. loss: the
    # round's. sent: as in Outcome, so far.
    round: Callable[[int, float, int, float, Mapping[str, float]], None] | None = None
    # (worker, entry): a fault strikes. It strikes once this has returned.
    struck: Callable[[int, dict[str, Any]], None] = ignored
