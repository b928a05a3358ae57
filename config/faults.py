"""The scenario's `faults:` section: what goes wrong, on which worker or link, and when.

Rules: a fault says completely what happens, so that all engines do the same. A time in rounds or steps means the
sync at which the workers have done so many. A time in seconds counts from the start of the run, evaluation included.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
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


Times = (
    tuple[float, float] | None
)  # (start, end) in seconds, the end may be infinite; None: the worker's effects decide


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
During = Literal["computing", "exchange", "evaluation", "checkpoint", "start"]


class AnyFault(Section):
    """What all faults have."""

    # Its place in the list with which the run began; None: its place in this list. A run that goes on with fewer
    # workers has a shorter list.
    number: Annotated[int, Field(ge=0)] | None = None


class Window(AnyFault):
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

    def times(self) -> Times:
        """When it holds."""
        start, end = self.start.seconds(), inf if self.end is None else self.end.seconds()
        return None if start is None or end is None else (start, end)


class Strike(AnyFault):
    """A fault that strikes worker `worker` once: at `at`, or as it next begins what `during` says, at `at` or later.

    "start" is the first thing that the worker does after a start of the run, also after a restart. An evaluation comes
    before its sync, so it belongs to the rounds before.
    """

    worker: WorkerNumber
    at: When
    during: During | None = None

    @property
    def lasts(self) -> float:
        """For how many seconds it holds."""
        return inf

    def times(self) -> Times:
        """When it holds; None where it strikes as the worker begins something."""
        start = None if self.during else self.at.seconds()
        return None if start is None else (start, start + self.lasts)


class Straggler(AnyFault):
    """Worker `worker` computes `factor` times slower: always, or in each step with `probability`."""

    name: Literal["straggler"]
    worker: WorkerNumber
    factor: TimesSlower
    probability: Share = 1.0

    def times(self) -> Times:
        """When it holds."""
        return 0.0, inf


class Slowdown(Window):
    """Worker `worker` computes `factor` times slower in a window of time."""

    name: Literal["slowdown"]
    worker: WorkerNumber
    factor: TimesSlower


class Pause(Strike):
    """Worker `worker` does nothing for `duration`: it does not compute, send or receive."""

    name: Literal["pause"]
    duration: Duration

    @property
    def lasts(self) -> float:
        """For how many seconds it holds."""
        return self.duration


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


class WorkerLoss(Strike):
    """Worker `worker` is gone from then on. In a real run its process is killed."""

    name: Literal["loss"]


class WorkerException(Strike):
    """Worker `worker` raises an exception as it begins the next thing that it does."""

    name: Literal["exception"]

    def times(self) -> Times:
        """None: only what a worker does can fail."""
        return None


Once = Pause | WorkerLoss | WorkerException  # those that strike once
Fault = Straggler | Slowdown | Pause | SlowLink | WorkerLoss | WorkerException
Faults = tuple[Annotated[Fault, Field(discriminator="name")], ...]
Numbered = tuple[int, Fault]


_READER: TypeAdapter[Faults] = TypeAdapter(Faults, config=ConfigDict(defer_build=True))


def read_faults(document: Any) -> Faults:
    """The faults of a scenario's `faults:` section, read or written; pydantic's error where they are wrong."""
    return _READER.validate_python(document)


def numbered(faults: Sequence[Fault]) -> list[Numbered]:
    """Each fault with its place in the list with which the run began."""
    return [(place if fault.number is None else fault.number, fault) for place, fault in enumerate(faults)]


def mark(number: int, fault: Fault) -> dict[str, Any]:
    """What tells a fault from all others of a run, also when its worker has another number."""
    known: dict[str, Any] = {"fault": number, "name": fault.name}
    if isinstance(fault, Strike):
        known |= {"at": str(fault.at)} | ({"during": fault.during} if fault.during else {})
    return known


def remaining(faults: Sequence[Fault], struck: Collection[dict[str, Any]]) -> list[Numbered]:
    """The faults of a part of a run, with their numbers: those that strike once and have struck are left out.

    struck: what was noted of the faults of earlier parts.
    """
    return [
        (number, fault)
        for number, fault in numbered(faults)
        if not (isinstance(fault, Strike) and any(mark(number, fault).items() <= entry.items() for entry in struck))
    ]


def workers_hit(fault: Fault, nodes: Sequence[int]) -> tuple[int, ...]:
    """The workers that a fault hits. nodes: the node of each worker."""
    if not isinstance(fault, SlowLink):
        return (fault.worker,)
    kind, _, number = (fault.link or "").partition(" ")
    if kind == "worker" and number.isdigit():
        return (int(number),)
    if kind == "node" and number.isdigit():
        return tuple(worker for worker, node in enumerate(nodes) if node == int(number))
    return (int(kind),) if kind.isdigit() else tuple(range(len(nodes)))


def check_faults(faults: Sequence[Fault], workers: int) -> None:
    """ScenarioError where a fault names a worker that does not exist, or has the number of another one."""
    seen = set[int]()
    for place, (number, fault) in enumerate(numbered(faults)):
        if isinstance(fault, SlowLink):
            match = re.fullmatch(r"worker (\d+)", fault.link or "")
            key, worker = "link", int(match[1]) if match else 0
        else:
            key, worker = "worker", fault.worker
        if worker >= workers:
            raise ScenarioError(f"faults[{place}].{key}: worker {worker} does not exist; write 0 to {workers - 1}")
        if number in seen:
            raise ScenarioError(f"faults[{place}].number: {number} is another fault's; leave it out")
        seen.add(number)
