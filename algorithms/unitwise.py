"""One training step unit by unit: what every placement does so that exchanges run while the worker computes.

A unit's parameters are fetched before they are used, forward and again backward. Its gradient is reduced as soon as it
is computed. Rules: what is fetched, moved or exchanged follows from the placement and the unit alone, so all workers
yield the same collectives in the same order. A started effect is waited for at a fixed place of the program, never
"when it is ready": otherwise the order would depend on the clock.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from ..program.effects import AllGather, AllReduce, Effect, Handle, Program, ReduceScatter, Start, Value, Wait, Wire
from ..program.wire import DTYPES
from .rounds import Round
from .worker import Worker, last

UNIT_BYTES = 1 << 20  # consecutive units of fewer bytes of fp32 parameters are merged

Stage = Callable[[int], Effect[Any]]  # unit -> what is done with it


@dataclass(frozen=True)
class PlacementOptions:
    """What a user may write for any placement, and the two facts in which the four placements differ."""

    wire: Wire = "fp32"  # the type in which gradients and parameters travel; they are always added up in fp32
    overlap: bool = True  # exchanges and moves run while the worker computes
    prefetch: int = 1  # units that are fetched ahead
    unit_bytes: int = UNIT_BYTES  # consecutive units are merged until they hold so many bytes of fp32 parameters
    sharded: ClassVar[bool] = False  # each worker keeps one of n parts
    offloaded: ClassVar[bool] = False  # what a worker keeps lies in host memory

    def __post_init__(self) -> None:
        if self.wire not in tuple(DTYPES):
            raise ValueError(f"wire is {self.wire!r}; write one of {', '.join(DTYPES)}")
        if not isinstance(self.overlap, bool):
            raise ValueError(f"overlap is {self.overlap!r}; write true or false")
        for name, value, least in (("prefetch", self.prefetch, 1), ("unit_bytes", self.unit_bytes, 0)):
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise ValueError(f"{name} is {value!r}; write a whole number, {least} or more")


def fetching(place: PlacementOptions, w: Worker, phase: str = "parameters") -> list[Stage]:
    """How a unit's parameters come to the device: gathered from the workers, then moved from the host."""

    def gather(u: int) -> Effect[Any]:
        return AllGather(w.units[u].kept, out=w.units[u].gathered, phase=phase, wire=place.wire)

    def load(u: int) -> Effect[Any]:
        return w.load(u, phase)

    moves = place.offloaded or (place.sharded and w.staged)
    return [gather] * place.sharded + [load] * moves


def reducing(place: PlacementOptions, w: Worker, chunk: int, weight: float | None) -> list[Stage]:
    """How a unit's gradient leaves its buffer on the device, and becomes the workers' mean unless `weight` is None."""

    def unload(u: int) -> Effect[Any]:
        return w.unload(u, chunk)

    def exchange(u: int) -> Effect[Any]:
        unit, kind = w.units[u], ReduceScatter if place.sharded else AllReduce
        return kind(unit.gradient, weight or 0.0, out=unit.reduced, phase="gradients", wire=place.wire)

    away = place.offloaded or w.staged
    if weight is None:
        return [unload] * away
    return [unload] * away + [exchange] + [w.reload] * (w.staged and not place.offloaded)


class Fetch:
    """Brings each unit to the device before it is used: forward 0, 1, ..., then backward from the last.

    A step uses units 2 n times; `at` counts these uses. Fetching a unit takes up to two stages, a gather and a move to
    the device. The last stage starts `prefetch` uses before the unit is needed, the stage before it another `prefetch`
    uses earlier, so that no stage waits for the one before it if each takes no longer than `prefetch` uses.

    Units live in prefetch + 1 slots in turn, so a fetch may only start when the slot's last unit is no longer needed:
    that is exactly `prefetch` uses ahead. When backward begins, the last prefetch + 1 units of the forward pass are
    still in their slots and are not fetched again. A unit whose parameters later units share has a slot to itself, and
    stays there until its backward pass. With four units, prefetch 1 and one stage:

        at          0    1    2    3    4    5    6    7
        in use      0    1    2    3    3    2    1    0
        starts      1    2    3    -    -    1    0    -     (unit 0 starts before 0; 3 and 2 are still there)
    """

    def __init__(self, place: PlacementOptions, w: Worker) -> None:
        self._stages = fetching(place, w)
        self._overlap, self._units = place.overlap, len(w.units)
        self._shared = [unit.shared for unit in w.works.units]
        self._prefetch = min(place.prefetch, self._units)  # with as many as there are, all are fetched at once
        self._started: dict[int, Handle[Any]] = {}  # by the `at` of use

    def begin(self) -> Program[None]:
        """Start what must be on its way before the first unit is used."""
        for at in range(-self._prefetch * len(self._stages), 0):
            yield from self._start(at)

    def use(self, at: int) -> Program[None]:
        """Wait until the unit of use `at`, from 0 to 2 n - 1, is on the device."""
        if not self._overlap:
            for stage in self._stages:
                yield from stage(self._unit(at))
            return
        if at in self._started:
            yield from Wait(self._started.pop(at))
        yield from self._start(at)

    def _start(self, at: int) -> Program[None]:
        """Start what runs during use `at`. Last stages come first: their units are needed soonest."""
        stages = self._stages if self._overlap else []
        for k in reversed(range(len(stages))):
            later = at + self._prefetch * (len(stages) - k)
            if 0 <= later < 2 * self._units and not self._held(later):
                if k:
                    yield from Wait(self._started.pop(later))
                self._started[later] = yield from Start(stages[k](self._unit(later)))

    def _unit(self, at: int) -> int:
        return at if at < self._units else 2 * self._units - 1 - at

    def _held(self, at: int) -> bool:
        """Whether the unit is still on the device from the forward pass."""
        unit = self._unit(at)
        return at >= self._units and (self._shared[unit] or unit >= self._units - self._prefetch - 1)


class Reduce:
    """Takes each unit's gradient away after its backward pass: to the host, to the other workers, back again.

    Overlapped, it is a pipeline: while the next unit's backward pass is computed, each gradient goes through one stage.
    Gradients take turns in two buffers, so a stage that reads such a buffer must have ended before the unit after next
    writes to it: it is waited for after one backward pass. The last stage needs this only where it reads a buffer
    (bounded); a gradient that is exchanged where it is kept has a place of its own, and is waited for at the end.
    """

    def __init__(self, stages: Sequence[Stage], overlap: bool, bounded: bool) -> None:
        self._stages, self._overlap, self._bounded = stages, overlap, bounded
        self._moving: list[tuple[int, int, Handle[Any]]] = []  # (unit, stage, handle), the oldest first

    def after(self, unit: int) -> Program[None]:
        """Begin with the unit's gradient, which has just been computed."""
        if not self._overlap:
            for stage in self._stages:
                yield from stage(unit)
            return
        yield from self._advance()
        if self._stages:
            self._moving.append((unit, 0, (yield from Start(self._stages[0](unit)))))

    def end(self) -> Program[None]:
        """Wait until all gradients are reduced."""
        for _ in self._stages:
            yield from self._advance()
        for _, _, handle in self._moving:
            yield from Wait(handle)

    def _advance(self) -> Program[None]:
        """Let every unit go one stage on."""
        before, self._moving = self._moving, []
        for unit, k, handle in before:
            if k + 1 < len(self._stages):
                yield from Wait(handle)
                self._moving.append((unit, k + 1, (yield from Start(self._stages[k + 1](unit)))))
            elif self._bounded:
                yield from Wait(handle)
            else:
                self._moving.append((unit, k, handle))


def local_steps(place: PlacementOptions, w: Worker, round: Round) -> Program[None]:
    """The round's steps without exchanges."""
    for i in range(round.steps[w.index]):
        yield from step(place, w, round, i, None)


def step(place: PlacementOptions, w: Worker, round: Round, i: int, weight: float | None) -> Program[float]:
    """Step i of the round; returns the workers' mean training loss. weight None: a local step, without an exchange.

    The gradients of several micro-batches are added up, whole units of them: on the device, or on the host where
    parameters are offloaded. They are exchanged once, with the last micro-batch.
    """
    n = len(w.units)
    for chunk in range(w.chunks):
        exchanged = weight is not None and chunk == w.chunks - 1
        stages = reducing(place, w, chunk, weight if exchanged else None)
        fetch, reduce = Fetch(place, w), Reduce(stages, place.overlap, place.sharded or not exchanged)
        yield from fetch.begin()
        for u in range(n):
            yield from fetch.use(u)
            yield from w.forward(round, i, chunk, u)
        for u in reversed(range(n)):
            yield from fetch.use(2 * n - 1 - u)
            yield from w.backward(round, i, chunk, u)
            yield from reduce.after(u)
        yield from reduce.end()
    if weight is not None and place.sharded:
        yield from AllReduce(w.loss, weight, out=w.loss, phase="loss")
        if w.clips:
            own = yield from w.squared_norm()
            w.grads_squared = yield from AllReduce(own, op="sum", phase="norm")
    yield from w.update(round, i)
    return last(w.loss if place.sharded else w.grads)


def evaluate(place: PlacementOptions, w: Worker, buffers: Value) -> Program[Value]:
    """As Worker.evaluate, where the device holds a few units at a time."""
    stages, sums = fetching(place, w, "evaluate"), buffers
    for block in range(w.evaluation_blocks):
        for u in range(len(w.units)):
            for stage in stages:
                yield from stage(u)
            sums = yield from w.evaluate_unit(buffers, block, u)
    return sums
