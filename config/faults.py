"""The scenario's `faults:` section: what goes wrong, on which worker or link, and when.

Rules: a fault says completely what happens, so that two engines would do the same. A time in rounds or steps means the
sync at which the workers have done so many. A time in seconds counts from the start of the run, evaluation included.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field, PlainSerializer, TypeAdapter, WithJsonSchema, model_validator

from ..program.errors import ScenarioError, brief
from .sections import Section
from .units import SECONDS_SCHEMA, Duration, Share, read_seconds


@dataclass(frozen=True, order=True)
class Instant:
    """A point in time of a run."""

    unit: Literal["seconds", "rounds", "steps"]
    amount: float  # seconds since the start, or rounds or steps done so far

    def __str__(self) -> str:
        return f"{self.amount!r} s" if self.unit == "seconds" else f"{int(self.amount)} {self.unit}"

    def seconds(self) -> float | None:
        """Seconds since the start; None where it is counted in rounds or steps."""
        return self.amount if self.unit == "seconds" else None


ToSeconds = Callable[[Instant], float | None]  # when an Instant is in seconds; None where that is not known
Times = tuple[float, float] | None  # (start, end) in seconds, the end may be infinite; None where that is not known


def read_instant(value: Any) -> Instant:
    """An Instant from its spelling, like '2.5 s' or '10 rounds'; ValueError where it cannot be read."""
    if isinstance(value, Instant):
        return value
    match = re.fullmatch(r"\s*([0-9]{1,15})\s*(round|step)s?\s*", value) if isinstance(value, str) else None
    if match:
        return Instant("rounds" if match[2] == "round" else "steps", float(match[1]))
    try:
        return Instant("seconds", read_seconds(value, "2.5 s"))
    except ValueError:
        raise ValueError(f"{brief(value)} is not a time; write it like '2.5 s', '10 rounds' or '200 steps'") from None


BEGIN = Instant("seconds", 0.0)
_COUNTED = {"type": "string", "pattern": r"^\s*[0-9]{1,15}\s*(round|step)s?\s*$", "examples": ["10 rounds"]}
When = Annotated[
    Instant,
    BeforeValidator(read_instant),
    PlainSerializer(str),
    WithJsonSchema({"anyOf": [SECONDS_SCHEMA, _COUNTED, {"const": 0}]}, mode="validation"),
]
TimesSlower = Annotated[float, Field(gt=1, le=1e9)]
WorkerNumber = Annotated[int, Field(ge=0)]


class Window(Section):
    """A fault that holds from `start` to `end`; without an end, until the run ends."""

    start: When = BEGIN
    end: When | None = None

    @model_validator(mode="after")
    def _order(self) -> Window:
        if self.end is not None and self.end.unit != self.start.unit and self.start != BEGIN:
            raise ValueError(f"start {self.start} and end {self.end} must be in the same unit")
        if self.end is not None and self.end.amount <= self.start.amount:
            raise ValueError(f"end {self.end} must come after start {self.start}")
        return self

    def times(self, to_seconds: ToSeconds) -> Times:
        start, end = to_seconds(self.start), inf if self.end is None else to_seconds(self.end)
        return None if start is None or end is None else (start, end)


class Straggler(Section):
    """Worker `worker` computes `factor` times slower: always, or in each step with `probability`."""

    name: Literal["straggler"]
    worker: WorkerNumber
    factor: TimesSlower
    probability: Share = 1.0

    def times(self, to_seconds: ToSeconds) -> Times:
        return 0.0, inf


class Slowdown(Window):
    """Worker `worker` computes `factor` times slower in a window of time."""

    name: Literal["slowdown"]
    worker: WorkerNumber
    factor: TimesSlower


class Pause(Section):
    """Worker `worker` does nothing for `duration`, from `at` on: it does not compute, send or receive."""

    name: Literal["pause"]
    worker: WorkerNumber
    at: When
    duration: Duration

    def times(self, to_seconds: ToSeconds) -> Times:
        start = to_seconds(self.at)
        return None if start is None else (start, start + self.duration)


class SlowLink(Window):
    """A link has `factor` times less bandwidth in a window of time.

    link: "worker 3" (its port), "node 1" (its uplink), "bus", or "0 to 1" (of a matrix); None: all links.
    """

    name: Literal["slow_link"]
    link: str | None = None
    factor: TimesSlower

    @model_validator(mode="after")
    def _seconds(self) -> SlowLink:
        if self.start.unit != "seconds" or (self.end is not None and self.end.unit != "seconds"):
            raise ValueError("a link does not count rounds and steps; give start and end in seconds, like 2.5 s")
        return self


class WorkerLoss(Section):
    """Worker `worker` is gone from `at` on."""

    name: Literal["loss"]
    worker: WorkerNumber
    at: When

    def times(self, to_seconds: ToSeconds) -> Times:
        start = to_seconds(self.at)
        return None if start is None else (start, inf)


Fault = Straggler | Slowdown | Pause | SlowLink | WorkerLoss
Faults = tuple[Annotated[Fault, Field(discriminator="name")], ...]


_READER: TypeAdapter[Faults] = TypeAdapter(Faults, config=ConfigDict(defer_build=True))


def read_faults(document: Any) -> Faults:
    """The faults of a scenario's `faults:` section, read or written; pydantic's error where they are wrong."""
    return _READER.validate_python(document)


def check_faults(faults: Sequence[Fault], workers: int) -> None:
    """ScenarioError where a fault names a worker that does not exist."""
    for number, fault in enumerate(faults):
        if isinstance(fault, SlowLink):
            match = re.fullmatch(r"worker (\d+)", fault.link or "")
            key, worker = "link", int(match[1]) if match else 0
        else:
            key, worker = "worker", fault.worker
        if worker >= workers:
            raise ScenarioError(f"faults[{number}].{key}: worker {worker} does not exist; write 0 to {workers - 1}")
