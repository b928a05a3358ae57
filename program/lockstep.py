"""The reference interpreter: workers take turns, there is no time, no network and no MPI.

It shares no code with the others on purpose (its reduction too is written anew): what it answers is what
a program means.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from . import effects as fx
from .errors import BorrowError, ProtocolError, not_an_effect
from .outcome import Hooks


class _Slot:
    """One worker's part in one effect: from its yield (or Start) until its answer is taken."""

    def __init__(self, worker: int, effect: Any, debug: bool) -> None:
        self.worker, self.effect = worker, effect
        self.done = self.taken = self.stop = False
        self.result: Any = None
        self.lent = [
            v
            for v in (getattr(effect, "value", None), getattr(effect, "out", None))
            if debug and isinstance(v, np.ndarray)
        ]
        self.before = [v.tobytes() for v in self.lent]

    def __str__(self) -> str:
        e: Any = self.effect
        if not isinstance(e, fx.Collective | fx.Move):
            return type(e).__name__
        size = f"{e.value.nbytes} B" if e.value.nbytes < 1000 else f"{e.value.nbytes / 1000:g} KB"
        kind = "phantom" if isinstance(e.value, fx.Phantom) else e.value.dtype
        root = f"root {e.root}" if hasattr(e, "root") else ""
        root += f" as {e.wire}" if isinstance(e, fx.Collective) and e.wire != "fp32" else ""
        return f"{type(e).__name__} of {size} ({getattr(e, 'phase', 'move')}) {kind} {getattr(e, 'op', '')}{root}"

    def check(self) -> None:
        if any(v.tobytes() != b for v, b in zip(self.lent, self.before, strict=True)):
            raise BorrowError(f"worker {self.worker} wrote to a value borrowed by {self}")


def _sent(value: Any, wire: str) -> Any:
    """A value as the others see it; bf16 is the upper half of an fp32, rounded to the nearest, in a tie to the even."""
    if wire == "fp32" or isinstance(value, fx.Phantom):
        return value
    if wire == "fp16":
        with np.errstate(over="ignore"):
            return value.astype(np.float16).astype(np.float32)
    bits = value.view(np.uint32).astype(np.uint64)
    upper = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16 << 16
    return np.where(np.isnan(value), value, upper.astype(np.uint32).view(np.float32))


def _sum(values: Sequence[Any], weights: Sequence[float], op: str) -> Any:
    if op == "mean" and not sum(weights) > 0:
        raise ProtocolError(f"weights {list(weights)} need a positive sum")
    if isinstance(values[0], fx.Phantom):
        return values[0]
    kind, total = values[0].dtype.type, None
    factors: list[float | None]
    if len(set(weights)) == 1:
        factors, last = [None] * len(values), 1.0 / len(values) if op == "mean" else weights[0]
    else:
        factors, last = [w / sum(weights) if op == "mean" else w for w in weights], 1.0
    for value, factor in zip(values, factors, strict=True):
        term = value if factor is None else value * kind(factor)
        total = term if total is None else total + term
    return total * kind(last)


def _results(slots: list[_Slot], members: tuple[int, ...]) -> list[Any]:
    """Each member's answer, before it is copied."""
    effects = [s.effect for s in slots]
    first, values = effects[0], [_sent(e.value, e.wire) for e in effects]
    if isinstance(first, fx.Broadcast):
        return [values[members.index(first.root)]] * len(members)
    if isinstance(first, fx.AllGather):
        if isinstance(values[0], fx.Phantom):
            return [fx.Phantom(sum(v.nbytes for v in values))] * len(members)
        return [np.concatenate(values)] * len(members)
    whole = _sum(values, [e.weight for e in effects], first.op)
    if isinstance(first, fx.AllReduce):
        return [_sent(whole, first.wire)] * len(members)
    if isinstance(whole, fx.Phantom):
        return [fx.Phantom(4 * len(p)) for p in np.array_split(np.empty(whole.nbytes // 4), len(members))]
    return list(np.array_split(whole, len(members)))


class _Lockstep:
    def __init__(self, programs: Sequence[fx.Program[Any]], hooks: Hooks, debug: bool) -> None:
        self.programs, self.hooks, self.debug = programs, hooks, debug
        n = len(programs)
        self.waits: list[_Slot | None] = [None] * n
        self.send: list[Any] = [None] * n
        self.ended, self.stop, self.results = [False] * n, [False] * n, [None] * n
        self.started: list[list[_Slot]] = [[] for _ in range(n)]
        self.queues: dict[tuple[int, ...], list[list[_Slot]]] = {}  # group -> each member's unmatched slots

    def run(self) -> list[Any]:
        while not all(self.ended):
            moved = [self.turn(i) for i in range(len(self.programs)) if not self.ended[i]]
            if not any(moved):
                raise ProtocolError(self.everyone())
        return self.results

    def everyone(self) -> str:
        return "; ".join(
            f"worker {i} " + ("has ended" if self.ended[i] else f"waits in {self.waits[i]}")
            for i in range(len(self.programs))
        )

    def turn(self, i: int) -> bool:
        """Let worker i do one thing; False if it cannot."""
        slot = self.waits[i]
        if slot is not None:
            if not slot.done:
                return False
            self.waits[i], self.send[i] = None, self.take(slot)
        try:
            effect = self.programs[i].send(self.send[i])
        except StopIteration as end:
            if any(not s.taken for s in self.started[i]):
                raise ProtocolError(f"worker {i} has ended without Wait for {self.started[i][0]}") from None
            self.ended[i], self.results[i] = True, end.value
            return True
        self.send[i] = None
        if isinstance(effect, fx.Start):
            if not isinstance(effect.effect, fx.Compute | fx.Move | fx.Collective):
                raise ProtocolError(f"worker {i} cannot start {type(effect.effect).__name__}")
            self.started[i].append(self.begin(i, effect.effect))
            self.send[i] = fx.Handle(effect.effect, self.started[i][-1])
        elif isinstance(effect, fx.Wait):
            if effect.handle.inner.taken:
                raise ProtocolError(f"worker {i} waits twice for {effect.handle.inner}")
            self.waits[i] = effect.handle.inner
        elif isinstance(effect, fx.Log):
            self.hooks.log(i, 0.0, effect.fields)
        elif isinstance(effect, fx.Checkpoint):
            if effect.due or self.stop[i]:
                self.hooks.checkpoint(i, 0.0, effect.state, effect.snapshot())
            self.send[i] = self.stop[i]
        else:
            self.waits[i] = self.begin(i, effect)
        return True

    def begin(self, i: int, effect: Any) -> _Slot:
        slot = _Slot(i, effect, self.debug)
        if isinstance(effect, fx.Compute | fx.Move):
            slot.done = True
        elif isinstance(effect, fx.Collective):
            self.join(slot)
        else:
            raise not_an_effect(i, effect)
        return slot

    def join(self, slot: _Slot) -> None:
        e: Any = slot.effect
        members = tuple(range(len(self.programs))) if e.group is None else tuple(sorted(e.group))
        if slot.worker not in members or not set(members) <= set(range(len(self.programs))):
            raise ProtocolError(f"worker {slot.worker} waits in {slot} of group {e.group}")
        if isinstance(e.value, np.ndarray) and (e.value.ndim != 1 or (hasattr(e, "op") and e.value.dtype.kind != "f")):
            raise ProtocolError(f"worker {slot.worker}: {slot} takes vectors of floats, not {e.value.shape}")
        if e.wire not in ("fp32", "bf16", "fp16") or (
            e.wire != "fp32" and isinstance(e.value, np.ndarray) and e.value.dtype != np.float32
        ):
            raise ProtocolError(f"worker {slot.worker}: {slot}: wire {e.wire} takes float32, not {e.value.dtype}")
        sizes = getattr(e, "sizes", None)
        own = e.value.nbytes if isinstance(e.value, fx.Phantom) else e.value.size
        if sizes and sizes[members.index(slot.worker)] != own:
            raise ProtocolError(f"worker {slot.worker}: {slot}: {own} elements, not {sizes}")
        queues = self.queues.setdefault(members, [[] for _ in members])
        queues[members.index(slot.worker)].append(slot)
        if all(queues):
            self.complete([q.pop(0) for q in queues], members)

    def complete(self, slots: list[_Slot], members: tuple[int, ...]) -> None:
        kinds = {str(s) if not isinstance(s.effect, fx.AllGather) else (fx.AllGather, s.effect.wire) for s in slots}
        if len(kinds) > 1:
            raise ProtocolError("; ".join(f"worker {s.worker} waits in {s}" for s in slots))
        for slot in slots:
            slot.check()
        if len(members) == len(self.programs):
            stop = self.hooks.stop()
        for slot, result in zip(slots, _results(slots, members), strict=True):
            # A copy now: values may change as soon as the first member has its answer.
            slot.result = fx.Phantom(result.nbytes) if isinstance(result, fx.Phantom) else result.copy()
            slot.done = True
            if len(members) == len(self.programs):
                slot.stop = stop

    def take(self, slot: _Slot) -> Any:
        """The answer that the worker gets."""
        e, slot.taken = slot.effect, True
        slot.check()
        if isinstance(e, fx.Compute):
            return e.run()
        if isinstance(e, fx.Move):
            return e.copy() if e.copy else e.value if isinstance(e.value, fx.Phantom) else e.value.copy()
        self.stop[slot.worker] |= slot.stop
        if e.out is None or isinstance(e.out, fx.Phantom):
            return slot.result
        if e.out.shape != slot.result.shape or e.out.dtype != slot.result.dtype:
            raise ProtocolError(f"worker {slot.worker}: out of {slot} is {e.out.shape} {e.out.dtype}")
        e.out[:] = slot.result
        return e.out


def lockstep(programs: Sequence[fx.Program[Any]], hooks: Hooks, debug: bool = False) -> list[Any]:
    """Run the programs to their ends and return their results, in worker order."""
    return _Lockstep(programs, hooks, debug).run()
