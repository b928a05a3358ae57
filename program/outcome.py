"""What an interpreter returns for each worker, and what it calls back; the same in virtual and in real time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from .effects import Array, Move

Span = tuple[str, float, float]  # (name, start, stop) in seconds


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
    spans: Callable[[int, str, Sequence[Span]], None] | None = None
