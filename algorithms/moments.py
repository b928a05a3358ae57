"""What happens to the inner optimizer's state at a sync: it stays local, is reset, or its vectors are averaged."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from ..program.effects import AllReduce, Program
from ..program.errors import brief
from .worker import Worker

# Names, like exp_avg: these vectors are averaged, and the others stay local.
OptimizerState = Literal["local", "averaged", "reset"] | tuple[str, ...]


def check(state: OptimizerState) -> None:
    """ValueError where it is something else."""
    if not (isinstance(state, tuple) or state in ("local", "averaged", "reset")):
        raise ValueError(f"optimizer_state is {brief(state)}; write local, averaged, reset or a list of vectors' names")


def check_names(state: OptimizerState, optimizer: Mapping[str, Any]) -> None:
    """ValueError where the optimizer has no such vectors. optimizer: see Aggregation.resolve."""
    if state == "averaged" and (others := optimizer.get("others")):
        raise ValueError(
            f"optimizer_state: {', '.join(others)} of {optimizer['name']} do not have one element per parameter, "
            "so they cannot be averaged; write local"
        )
    there = optimizer.get("moments", ())
    for name in state if isinstance(state, tuple) else ():
        if name not in there:
            known = f"it has {', '.join(there)}" if there else "it has no vectors; write local"
            raise ValueError(f"optimizer_state: {optimizer.get('name')} has no {name} to average; {known}")


def averages(state: OptimizerState) -> bool:
    """Whether a vector may be exchanged."""
    return state not in ("local", "reset")


def at_sync(w: Worker, state: OptimizerState, weight: float) -> Program[None]:
    """Worker w's part of it. Vectors are exchanged one after the other, in the optimizer's order."""
    if state == "reset":
        yield from w.reset()
    elif averages(state):
        for name, moment in w.moments.items():
            if state == "averaged" or name in state:
                yield from AllReduce(moment, weight, out=moment, phase="moments")
