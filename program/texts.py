"""What errors say of effects: the same words in every world.

`terms` is what the members of a collective must agree on; every interpreter compares it, and `agreed` says it in words.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .effects import AllGather, Broadcast, Collective, Compute, Effect, Move, Phantom, Reducing, Start, Value, Wait

ENDED = "has ended"  # what a worker's program does at last


def size(nbytes: int) -> str:
    """Bytes for people: 100 B, 4 KB, 1.09 MB."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("KB", 1e3)):
        if nbytes >= scale:
            return f"{nbytes / scale:.3g} {unit}"
    return f"{nbytes} B"


def describe(effect: Effect[Any]) -> str:
    """An effect in a few words: "AllReduce of 4 KB (parameters)"."""
    kind = type(effect).__name__
    if isinstance(effect, Collective):
        group = "" if effect.group is None else f" in group {effect.group}"
        return f"{kind}{_sized(effect.value)} ({effect.phase}){group}"
    if isinstance(effect, Move):
        return f"{kind}{_sized(effect.value)} to the {effect.to}"
    if isinstance(effect, Compute):
        return f"{kind} ({effect.work.phase})"
    return kind


def _sized(value: Value) -> str:
    # A program may have passed anything; that it is not a value is another error's to say.
    return f" of {size(value.nbytes)}" if isinstance(value, np.ndarray | Phantom) else ""


def terms(effect: Collective) -> tuple[Any, ...]:
    """What all members of a collective must agree on."""
    kind, value = type(effect), effect.value
    dtype = None if isinstance(value, Phantom) else value.dtype
    if isinstance(effect, Reducing):
        return kind, value.nbytes, dtype, effect.wire, effect.op
    if isinstance(effect, AllGather) and effect.sizes is not None:
        return kind, effect.sizes, dtype, effect.wire
    if isinstance(effect, Broadcast):
        return kind, value.nbytes, dtype, effect.wire, f"root {effect.root}"
    return kind, value.nbytes, dtype, effect.wire


def agreed(effect: Collective) -> str:
    """The terms in words: "4000 bytes, float32, mean". Exact bytes, since 4,000 and 4,004 are both "4 KB"."""
    _, nbytes, dtype, wire, *more = terms(effect)
    whole = f"sizes {nbytes}" if isinstance(nbytes, tuple) else f"{nbytes} bytes"
    travels = [] if wire == "fp32" else [f"as {wire}"]
    return ", ".join([whole, "phantom" if dtype is None else str(dtype), *travels, *more])


def doing(effect: Effect[Any]) -> str:
    """What a worker does while it is in this effect."""
    if isinstance(effect, Wait):
        return f"waits for the started {_in_full(effect.handle.effect)}"
    if isinstance(effect, Start):
        return f"starts {_in_full(effect.effect)}"
    return f"{'waits' if isinstance(effect, Collective) else 'is'} in {_in_full(effect)}"


def _in_full(effect: Effect[Any]) -> str:
    return f"{describe(effect)}, {agreed(effect)}" if isinstance(effect, Collective) else describe(effect)


def everyone(states: dict[int, str]) -> str:
    """Where workers are, those in the same place named together; states: worker -> what it does."""
    together: dict[str, list[str]] = {}
    for worker, state in sorted(states.items()):
        together.setdefault(state, []).append(str(worker))
    named = [
        (f"worker {workers[0]}" if len(workers) == 1 else f"each of workers {', '.join(workers)}") + f" {state}"
        for state, workers in together.items()
    ]
    return "; ".join(named)
