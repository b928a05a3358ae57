"""Effects: everything that a training program can ask of the world, as plain data.

A program is a generator. It yields effects, and an interpreter (lockstep, SimPy, cohort, MPI) sends the answers. The
rules:

- Always write `answer = yield from Effect(...)`: it is typed, and a forgotten `from` is a type error.
- A value is *borrowed* from the yield until the answer: the program does not write to it meanwhile. The answer is the
  program's own: a fresh copy, or the `out` buffer that it passed. `out` may be `value` in an AllReduce or a Broadcast.
- An effect is not changed after it is made. No type enforces this: a frozen dataclass takes three times as long to make
  (benchmarks/results/design.json), and a large run makes hundreds of millions.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import KW_ONLY, dataclass, field
from math import nan
from typing import Any, Generic, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

T = TypeVar("T")
Array = NDArray[Any]


@dataclass(slots=True, eq=False)
class Phantom:
    """Stands for a vector in runs without numbers: only its size is known."""

    nbytes: int  # its size in bytes


Value = Array | Phantom
Op = Literal["mean", "sum"]
Wire = Literal["fp32", "bf16", "fp16"]
Group = tuple[int, ...] | None


class Effect(Generic[T]):
    """Base of all effects; `yield from effect` evaluates to its answer, of type T."""

    __slots__ = ()

    def __iter__(self) -> Generator[Effect[Any], Any, T]:
        answer: T = yield self
        return answer

    def borrowed(self) -> tuple[Any, ...]:
        """The values that the program must leave as they are until the answer."""
        return ()


Program = Generator[Effect[Any], Any, T]


@dataclass(slots=True, eq=False)
class Work:
    """What a computation is, so that a table, a FLOP rate or a profile can price it.

    Make one per kind of work and use it again: prices are cached by identity.
    """

    phase: str  # "step" = "gradient" + "update"; "gradient" = "forward" + "backward"; "host update", "evaluate", ...
    samples: int = 0  # examples processed
    flops: float = 0.0  # floating-point operations in total
    bytes: float = 0.0  # memory that it touches at least once
    unit: int | None = None  # the model's unit; None: the whole model
    finest: tuple[int, int] = (0, 0)  # which of the model's finest units that is: from, up to
    held: Literal["", "kept", "fetched"] = ""  # whether a unit's parameters stay on the device, or come before each use
    first: bool = False  # of a round of local steps: it follows an exchange, and its data have left the caches
    fraction: float = 1.0  # its share of its phase in `whole`
    # The work that this is a part of, and by which it is priced: a gradient is a part of a step, a unit's forward or
    # backward pass on a micro-batch a part of a gradient. None: it has a price of its own.
    whole: Work | None = field(default=None, repr=False)


@dataclass(slots=True, eq=False)
class Compute(Effect[T]):
    """Run `run` on the device or on the host. The answer is what `run()` returns, the last time."""

    work: Work  # of one call
    run: Callable[[], T]
    on: Literal["device", "host"] = "device"
    times: int = 1  # how often `run` is called, 1 or more; nothing comes between two calls
    first: Work | None = None  # of the first call, where that costs something else

    def works(self) -> list[Work]:
        """The work of each call."""
        return [self.first or self.work, *[self.work] * (self.times - 1)]

    def perform(self) -> T:
        """Make the answer."""
        if self.run is nothing:  # most are, where many are made
            return None  # type: ignore[return-value]
        for _ in range(self.times):
            answer = self.run()
        return answer


@dataclass(slots=True, eq=False)
class Move(Effect[Any]):
    """Copy `value` to the device or to the host. The answer is the copy."""

    value: Value
    to: Literal["device", "host"]
    copy: Callable[[], Any] | None = None  # makes the copy on a real device, which only the worker knows
    phase: str = "move"

    def copied(self) -> Any:
        """Make the answer."""
        if self.copy is not None:
            return self.copy()
        return self.value if isinstance(self.value, Phantom) else self.value.copy()

    def borrowed(self) -> tuple[Any, ...]:
        # A worker's own copy to the host writes to `value` itself.
        return () if self.to == "host" and self.copy is not None else (self.value,)


@dataclass(slots=True, eq=False)
class Collective(Effect[Any]):
    """Base of the four collectives. All members of the group must yield the same kind, with values that fit."""

    value: Value  # this worker's vector
    _: KW_ONLY
    group: Group = None  # the members' numbers; None: all workers
    out: Value | None = None  # where the answer is written; None: a fresh array
    phase: str = "sync"  # names the exchange in traces and byte counts; "evaluate" is counted apart from training
    wire: Wire = "fp32"  # the type in which an fp32 value travels; "fp32" sends values of any type as they are

    def borrowed(self) -> tuple[Any, ...]:
        return self.value, self.out


@dataclass(slots=True, eq=False)
class Reducing(Collective):
    """Base of the two collectives that reduce the members' values, in rank order (fold.py)."""

    weight: float = 1.0
    op: Op = "mean"  # sum(weight_r * value_r) / sum(weight_r); "sum": sum(weight_r * value_r)


@dataclass(slots=True, eq=False)
class AllReduce(Reducing):
    """Every member gets the whole result. An AllReduce of an empty value is a barrier."""


@dataclass(slots=True, eq=False)
class ReduceScatter(Reducing):
    """Member r gets part r of the result, cut as `fold.parts` cuts it."""


@dataclass(slots=True, eq=False)
class AllGather(Collective):
    """Every member gets all members' values, concatenated in rank order. Their sizes may differ."""

    sizes: tuple[int, ...] | None = None  # each member's elements, known from the plan; None: all as many as here

    def counts(self, members: int) -> tuple[int, ...]:
        """Each member's number of elements (bytes for a Phantom)."""
        value = self.value
        return self.sizes or (value.nbytes if isinstance(value, Phantom) else value.size,) * members


@dataclass(slots=True, eq=False)
class Broadcast(Collective):
    """Every member gets the root's value."""

    root: int = 0  # a worker's number


COLLECTIVES = frozenset((AllReduce, ReduceScatter, AllGather, Broadcast))
Startable = Compute[Any] | Move | Collective  # what Start takes


@dataclass(slots=True, eq=False)
class Handle(Generic[T]):
    """What Start answers, and Wait takes: stands for one started effect."""

    effect: Effect[T]
    inner: Any = None  # the interpreter's own


@dataclass(slots=True, eq=False)
class Start(Effect[Handle[T]]):
    """Begin `effect` and go on; it runs next to the program. A group's collectives match in the order of starting."""

    effect: Effect[T]


@dataclass(slots=True, eq=False)
class Wait(Effect[T]):
    """Wait for a started effect. The answer is that effect's."""

    handle: Handle[T]


@dataclass(slots=True, eq=False, init=False)
class Log(Effect[None]):
    """Record a line of the report. The interpreter stamps it with its clock."""

    fields: dict[str, Any]

    def __init__(self, **fields: Any) -> None:
        self.fields = fields


@dataclass(slots=True, eq=False)
class Checkpoint(Effect[bool]):
    """Offer a checkpoint, at every sync. It is written when `due`, or when the run was asked to stop.

    The answer is whether to stop now, the same for every worker.
    """

    state: Any  # what the program goes on from, a dataclass of numbers; interpreters hand it on unread
    snapshot: Callable[[], dict[str, Array]]  # gives the worker's arrays; called only when they are written
    due: bool = False
    round: int | None = None  # rounds done, for traces and faults; None: the program does not count them
    step: int = 0  # nominal steps done
    loss: float = nan  # the mean training loss of the round before, for code that looks on


def nothing() -> None:
    """The `run` of a phantom's Compute."""


def barrier(group: Group = None) -> AllReduce:
    """Wait for every member of the group: an AllReduce of nothing."""
    return AllReduce(np.empty(0, np.float32), group=group)
