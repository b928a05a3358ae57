"""What an interpreter hands back for each worker, the same in virtual and in real time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from .effects import Array, Move

Span = tuple[str, float, float]  # (name, start, stop) in seconds


@dataclass(slots=True)
class Outcome:
    """One worker's run.

    seconds: clock when its program ended, evaluation excluded. evaluating: seconds in effects of phase "evaluate", as
    Work and as collective. computing: seconds in Compute, evaluation excluded. sent: payload bytes by phase.
    syncs: collectives by phase. moved: bytes copied "to device" and "to host", evaluation excluded. lanes: spans by
    lane ("compute", "network", "host", "to host", "to device", "rounds"), empty unless traced, and where Hooks.spans
    has taken them.
    """

    index: int
    seconds: float = 0.0
    evaluating: float = 0.0
    computing: float = 0.0
    sent: dict[str, float] = field(default_factory=dict)
    syncs: dict[str, int] = field(default_factory=dict)
    moved: dict[str, float] = field(default_factory=dict)
    lanes: dict[str, list[Span]] = field(default_factory=dict)
    result: Any = None

    @property
    def idle(self) -> float:
        """Share of the training time not spent computing: waiting for others and for the network."""
        return max(0.0, 1.0 - self.computing / self.seconds) if self.seconds else 0.0


def count_move(moved: dict[str, float], move: Move) -> None:
    """Book a copy between host and device into an Outcome's `moved`."""
    if move.phase != "evaluate":
        lane = f"to {move.to}"
        moved[lane] = moved.get(lane, 0.0) + move.value.nbytes


def ignored(*said: Any) -> None:
    """A hook that does nothing."""


@dataclass(slots=True)
class Hooks:
    """What an interpreter calls back. stop: asked once per collective; what it says holds for all its members.

    log(worker, seconds, fields): a report line. checkpoint(worker, seconds, state, arrays): one worker's snapshot.
    seconds: the worker's clock, evaluation excluded. spans(worker, lane, spans): takes a traced run's spans, some at a
    time; without it they are kept in the Outcome.
    """

    log: Callable[[int, float, dict[str, Any]], None] = ignored
    checkpoint: Callable[[int, float, Any, dict[str, Array]], None] = ignored
    stop: Callable[[], bool] = lambda: False
    spans: Callable[[int, str, Sequence[Span]], None] | None = None
