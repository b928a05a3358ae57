"""How effects are named in errors."""

from __future__ import annotations

from typing import Any

from .effects import (
    AllGather,
    AllReduce,
    Broadcast,
    Collective,
    Compute,
    Move,
    Phantom,
    ReduceScatter,
    Start,
    Value,
    Wait,
)


def size(nbytes: int) -> str:
    """Bytes for people: 100 B, 4 KB, 1.09 MB."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("KB", 1e3)):
        if nbytes >= scale:
            return f"{nbytes / scale:.3g} {unit}"
    return f"{nbytes} B"


def type_of(value: Value) -> str:
    """The value's element type, or that it is a phantom."""
    return "phantom" if isinstance(value, Phantom) else str(value.dtype)


def describe(effect: Any) -> str:
    """An effect in a few words: "AllReduce of 4 KB (parameters)"."""
    kind = type(effect).__name__
    if isinstance(effect, Collective):
        given: Any = effect
        group = "" if given.group is None else f" in group {given.group}"
        return f"{kind} of {size(given.value.nbytes)} ({given.phase}){group}"
    if isinstance(effect, Move):
        return f"{kind} of {size(effect.value.nbytes)} to the {effect.to}"
    if isinstance(effect, Compute):
        return f"{kind} ({effect.work.phase})"
    return kind


def signature(effect: Any) -> str:
    """An effect with all that a collective's members must agree on; for others, as `describe`."""
    parts = [describe(effect)]
    if isinstance(effect, Collective):
        # Exact bytes too: 4,000 and 4,004 are both "4 KB".
        given: Any = effect
        parts += [f"{given.value.nbytes} bytes", type_of(given.value)]
        parts += [f"as {given.wire}"] if given.wire != "fp32" else []
    if isinstance(effect, AllReduce | ReduceScatter):
        parts.append(effect.op)
    if isinstance(effect, Broadcast):
        parts.append(f"root {effect.root}")
    if isinstance(effect, AllGather) and effect.sizes is not None:
        parts.append(f"sizes {effect.sizes}")
    return ", ".join(parts)


def doing(effect: Any) -> str:
    """What a worker does while it is in this effect."""
    if isinstance(effect, Wait):
        return f"waits for the started {signature(effect.handle.effect)}"
    if isinstance(effect, Start):
        return f"starts {signature(effect.effect)}"
    if isinstance(effect, Collective):
        return f"waits in {signature(effect)}"
    return f"is in {signature(effect)}"


def everyone(states: dict[int, str]) -> str:
    """Where workers are, those in the same place named together; states: worker -> what it does."""
    together: dict[str, list[str]] = {}
    for worker, state in sorted(states.items()):
        together.setdefault(state, []).append(str(worker))
    named = [
        (f"worker {who[0]}" if len(who) == 1 else f"each of workers {', '.join(who)}") + f" {what}"
        for what, who in together.items()
    ]
    return "; ".join(named)
