"""Effects: everything that a training program can ask of the world, as plain data.

A program is a generator. It yields effects, an interpreter (lockstep, SimPy, cohort, MPI) sends the
answers. Rules of this file:

- Always `answer = yield from Effect(...)`: it is typed, and a forgotten `from` is a type error.
- A value is *borrowed* from the yield until the answer: the program does not write to it meanwhile. The
  answer is the program's own: a fresh copy, or the `out=` buffer that it passed. `out` may be `value` (where
  AllReduce and Broadcast are concerned), and it is written only when no member's value is needed any more.
- Nobody changes an effect after it is made. They are slotted dataclasses without equality because a
  frozen one costs 0.8 us to make and a large run makes hundreds of millions.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, Generic, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

T = TypeVar("T")
Array = NDArray[Any]


@dataclass(slots=True, eq=False)
class Phantom:
    """A value of which only the size is known (timing-only runs). `nbytes`: its size in bytes."""

    nbytes: int


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

    phase: "step" (forward, backward and update in one), "gradient" (forward and backward), "forward", "backward",
    "update", "host update", "evaluate", ... unit: the model's unit, or None for the whole model. samples: examples
    processed. flops: floating point operations in total. bytes: memory that it touches at least once.
    whole: what this is a part of, and priced by: of a step its gradient and its update, of a gradient a unit's forward
    or backward pass on a micro-batch; None for what is priced by itself. fraction: the part of its phase in the whole.
    Make one per kind of work and reuse it: prices are cached by identity.
    """

    phase: str
    samples: int = 0
    flops: float = 0.0
    bytes: float = 0.0
    unit: int | None = None
    fraction: float = 1.0
    whole: Work | None = field(default=None, repr=False)


@dataclass(slots=True, eq=False)
class Compute(Effect[T]):
    """Run `run` on the device or on the host; the answer is what `run()` returns."""

    work: Work
    run: Callable[[], T]
    on: Literal["device", "host"] = "device"


@dataclass(slots=True, eq=False)
class Move(Effect[Any]):
    """Copy `value` to the device or to the host; the answer is the copy.

    `copy` does it (the worker knows its device); an interpreter that has no real device needs only the bytes.
    """

    value: Value
    to: Literal["device", "host"]
    copy: Callable[[], Any] | None = None
    phase: str = "move"

    def borrowed(self) -> tuple[Any, ...]:
        # A worker's own copy to the host is written to `value` itself.
        return () if self.to == "host" and self.copy is not None else (self.value,)


@dataclass(slots=True, eq=False)
class Collective(Effect[Any]):
    """Base of the four collectives: all members of the group must yield the same kind.

    value: this worker's vector.
    group: the members' numbers; None: all workers.
    out: where the answer is written; None: it is a fresh array.
    phase: names the exchange in traces and byte counts; time in "evaluate" is kept apart from training.
    wire: the type in which an fp32 value travels; "fp32" leaves values of any type as they are.
    """

    value: Value
    _: KW_ONLY
    group: Group = None
    out: Value | None = None
    phase: str = "sync"
    wire: Wire = "fp32"

    def borrowed(self) -> tuple[Any, ...]:
        return self.value, self.out


@dataclass(slots=True, eq=False)
class Reducing(Collective):
    """Base of the two that reduce the members' values, in rank order by `fold`.

    op "mean": sum(weight_r * value_r) / sum(weight_r); "sum": sum(weight_r * value_r).
    """

    weight: float = 1.0
    op: Op = "mean"


@dataclass(slots=True, eq=False)
class AllReduce(Reducing):
    """Every member gets the whole result. An AllReduce of an empty value is a barrier."""


@dataclass(slots=True, eq=False)
class ReduceScatter(Reducing):
    """Member r gets part r of the result, cut as `fold.parts` cuts it."""


@dataclass(slots=True, eq=False)
class AllGather(Collective):
    """The members' values one behind the other in rank order; their sizes may differ.

    sizes: each member's number of elements, known from the plan; None: all as large as this one.
    """

    sizes: tuple[int, ...] | None = None

    def counts(self, members: int) -> tuple[int, ...]:
        """Each member's number of elements (bytes for a Phantom)."""
        value = self.value
        return self.sizes or (value.nbytes if isinstance(value, Phantom) else value.size,) * members


@dataclass(slots=True, eq=False)
class Broadcast(Collective):
    """The root's value. root: a worker's number."""

    root: int = 0


COLLECTIVES = frozenset((AllReduce, ReduceScatter, AllGather, Broadcast))


@dataclass(slots=True, eq=False)
class Handle(Generic[T]):
    """What Start answers: names one started effect until Wait. `inner` belongs to the interpreter."""

    effect: Effect[T]
    inner: Any = None


@dataclass(slots=True, eq=False)
class Start(Effect[Handle[T]]):
    """Begin `effect` beside the program. Collectives of a group match in the order they were started."""

    effect: Effect[T]


@dataclass(slots=True, eq=False)
class Wait(Effect[T]):
    """The answer of a started effect, once it is there."""

    handle: Handle[T]


@dataclass(slots=True, eq=False, init=False)
class Log(Effect[None]):
    """Record a report line; the interpreter stamps it with its clock."""

    fields: dict[str, Any]

    def __init__(self, **fields: Any) -> None:
        self.fields = fields


@dataclass(slots=True, eq=False)
class Checkpoint(Effect[bool]):
    """Offered at every sync; written when `due`, or when the run was asked to stop.

    The answer is whether to stop now, the same for every worker. `snapshot` gives the worker's arrays
    and is called only when it is written. `state` is the loop's State, a dataclass of numbers.
    """

    state: Any
    snapshot: Callable[[], dict[str, Array]]
    due: bool = False


def nothing() -> None:
    """The `run` of a phantom's Compute."""


def barrier(group: Group = None) -> AllReduce:
    """Wait for every member of the group: an AllReduce of nothing."""
    return AllReduce(np.empty(0, np.float32), group=group)
