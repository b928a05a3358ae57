"""What conformance cases are made of: see kit.conformance."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from paceline.program.effects import (
    Array,
    Effect,
    Program,
    Work,
)
from paceline.program.errors import ProtocolError
from paceline.program.outcome import Hooks

STEP = Work("step", 8, 1e6, 1e4)


@dataclass
class Record:
    """What the programs reported. stop_after: how many world collectives complete before a stop is asked for.

    Across workers the order of entries is the interpreter's own; for one worker it is the program's.
    """

    stop_after: int | None = None
    logs: list[tuple[int, dict[str, Any]]] = field(default_factory=list)
    checkpoints: list[tuple[int, Any, dict[str, Array]]] = field(default_factory=list)
    asked: int = 0

    def hooks(self) -> Hooks:
        def log(worker: int, seconds: float, fields: dict[str, Any]) -> None:
            self.logs.append((worker, fields))

        def checkpoint(worker: int, seconds: float, state: Any, arrays: dict[str, Array]) -> None:
            self.checkpoints.append((worker, state, arrays))

        return Hooks(log, checkpoint, self._stop)

    def _stop(self) -> bool:
        self.asked += 1
        return self.stop_after is not None and self.asked >= self.stop_after


@dataclass(frozen=True)
class Case:
    """One scenario. check: takes the workers' results, asserts; observe: takes the Record, asserts."""

    name: str
    workers: int
    make: Callable[[int], Program[Any]]
    check: Callable[[list[Any]], None] = lambda results: None
    observe: Callable[[Record], None] = lambda record: None
    raises: type[Exception] | None = None
    says: tuple[str, ...] = ()
    debug: bool = False
    stop_after: int | None = None
    overview: bool = False

    def verify(self, results: list[Any], record: Record) -> None:
        assert len(results) == self.workers
        self.check(results)
        self.observe(record)


def vector(worker: int, size: int, dtype: Any = np.float32, salt: int = 0) -> Array:
    """A worker's values: awkward ones, whose sum depends on the order in which they are added."""
    draws = np.random.Generator(np.random.PCG64([worker, size, salt])).standard_normal(size)
    return (draws * 10.0 ** (draws * 3 % 5)).astype(dtype)


def on_wire(value: Array, wire: str) -> Array:
    """An fp32 value as it arrives; bf16 keeps 8 bits of the significand (subnormal numbers aside)."""
    if wire == "fp16":
        with np.errstate(over="ignore"):
            return value.astype(np.float16).astype(np.float32)
    if wire == "bf16":
        significand, exponent = np.frexp(value)
        with np.errstate(over="ignore"):
            rounded: Array = np.ldexp(np.rint(significand * 256) / 256, exponent).astype(np.float32)
            return rounded
    return value


def by_hand(values: Sequence[Array], weights: Sequence[float], op: str) -> Array:
    """The reduction as program.fold defines it, whole vectors at a time."""
    kind = values[0].dtype.type
    same = all(w == weights[0] for w in weights)
    total = float(sum(weights))
    if same:
        terms, last = list(values), kind(1.0 / len(values) if op == "mean" else weights[0])
    else:
        terms = [v * kind(w / total if op == "mean" else w) for v, w in zip(values, weights, strict=True)]
        last = kind(1.0)
    result: Array = terms[0].copy()
    for term in terms[1:]:
        result = result + term
    result *= last
    return result


def same(found: Any, expected: Array) -> None:
    """Equal to the last bit, and of the same type."""
    assert isinstance(found, np.ndarray), f"{found!r} is no array"
    assert found.dtype == expected.dtype
    assert found.shape == expected.shape
    assert found.tobytes() == expected.tobytes()


def each(expected: Callable[[int], Array]) -> Callable[[list[Any]], None]:
    """A check: worker i's result is expected(i)."""

    def check(results: list[Any]) -> None:
        for i, found in enumerate(results):
            same(found, expected(i))

    return check


def equals(expected: list[Any]) -> Callable[[list[Any]], None]:
    """A check: the results are these plain values."""

    def check(results: list[Any]) -> None:
        assert results == expected, f"{results} instead of {expected}"

    return check


def one(effect: Callable[[int], Effect[Any]]) -> Callable[[int], Program[Any]]:
    """Programs of a single effect, whose answer they return."""

    def make(worker: int) -> Program[Any]:
        return (yield from effect(worker))

    return make


CASES: list[Case] = []


def case(name: str, workers: int, make: Callable[[int], Program[Any]], **more: Any) -> None:
    CASES.append(Case(name, workers, make, **more))


def wrong(name: str, workers: int, make: Callable[[int], Program[Any]], *says: str, **more: Any) -> None:
    """A case that must end in a ProtocolError, unless `raises` names another."""
    case(name, workers, make, says=says, **{"raises": ProtocolError, **more})
