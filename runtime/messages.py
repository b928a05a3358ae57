"""Small messages between ranks outside of training: texts, and outcomes as JSON. Nothing is pickled."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from typing import Any

import numpy as np

from ..program.errors import PacelineError, ScenarioError
from ..program.outcome import Outcome


def broadcast_text(comm: Any, text: str) -> str:
    """Rank 0's text, on every rank."""
    data = np.frombuffer(text.encode(), np.uint8).copy()
    size = np.array([data.size], np.int64)
    comm.Bcast(size, 0)
    buffer = data if comm.Get_rank() == 0 else np.empty(int(size[0]), np.uint8)
    comm.Bcast(buffer, 0)
    return buffer.tobytes().decode()


def on_first(comm: Any, action: Callable[[], str | None]) -> str:
    """Do `action` on rank 0. Every rank gets its answer, or raises its error, so that all end in the same way."""
    answer, failure = "", ""
    if comm.Get_rank() == 0:
        try:
            answer = action() or ""
        except (PacelineError, OSError) as error:
            failure = str(error) or repr(error)
    if failure := broadcast_text(comm, failure):
        raise ScenarioError(failure)
    return broadcast_text(comm, answer)


def gather_texts(comm: Any, text: str) -> list[str]:
    """Every rank's text, on rank 0 (an empty list elsewhere)."""
    data = np.frombuffer(text.encode(), np.uint8).copy()
    sizes = np.empty(comm.Get_size(), np.int64)
    comm.Allgather(np.array([data.size], np.int64), sizes)
    first = comm.Get_rank() == 0
    everything = np.empty(int(sizes.sum()) if first else 0, np.uint8)
    comm.Gatherv(data, [everything, sizes.tolist()] if first else None, 0)
    if not first:
        return []
    ends = np.cumsum(sizes)
    return [everything[end - size : end].tobytes().decode() for end, size in zip(ends, sizes, strict=True)]


def every_text(comm: Any, text: str) -> list[str]:
    """Every rank's text, on every rank."""
    found: list[str] = json.loads(broadcast_text(comm, json.dumps(gather_texts(comm, text))))
    return found


def gather_outcomes(comm: Any, outcome: Outcome) -> list[Outcome]:
    """Every rank's outcome, on rank 0 (an empty list elsewhere). Only rank 0's own keeps its `result`."""
    plain = {field.name: getattr(outcome, field.name) for field in dataclasses.fields(outcome)} | {"result": None}
    gathered = [Outcome(**json.loads(text)) for text in gather_texts(comm, json.dumps(plain))]
    for found in gathered:
        found.lanes = {lane: [(name, a, b) for name, a, b in spans] for lane, spans in found.lanes.items()}
    if gathered:
        gathered[0].result = outcome.result
    return gathered
