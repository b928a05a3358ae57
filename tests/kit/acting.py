"""Programs of any kind, which do what a list of acts tells them."""

from __future__ import annotations

from typing import Any

from paceline.program.effects import (
    AllGather,
    AllReduce,
    Broadcast,
    Checkpoint,
    Compute,
    Log,
    Move,
    Phantom,
    Program,
    ReduceScatter,
    Start,
    Wait,
    Work,
    nothing,
)

WORKS = [Work("step", 8), Work("gradient", 3), Work("evaluate", 5), Work("update"), Work("host update", 4, unit=1)]
COLLECTIVES = [AllReduce, AllGather, ReduceScatter, Broadcast]
ACTS = ["compute", "host compute", "move", "collective", "start", "wait", "log", "checkpoint"]


def startable(number: int, n: int) -> Any:
    """An effect that may run while the program goes on."""
    kind = number % 4
    if kind == 0:
        return Compute(WORKS[number % 5], nothing, on="host" if number % 3 else "device")
    if kind == 1:
        return Move(Phantom(4000 * number), "host" if number % 3 else "device")
    phase = "evaluate" if number % 5 == 0 else "sync"
    return COLLECTIVES[number % 3](Phantom(400 * n * number), phase=phase)


def acting(worker: int, n: int, acts: list[tuple[str, int]], late: bool) -> Program[list[int]]:
    """A program that does what it is told, the same for every worker but that `late` ones compute more."""
    handles: list[Any] = []
    sizes = []
    for act, number in acts:
        if act == "compute":
            for _ in range(1 + 2 * late):
                yield from Compute(WORKS[number % 5], nothing)
        elif act == "host compute":
            yield from Compute(WORKS[number % 5], nothing, on="host")
        elif act == "move":
            yield from Move(Phantom(1000 * number), "host")
        elif act == "collective":
            value = yield from COLLECTIVES[number % 4](
                Phantom(400 * n * number),
                phase=("sync", "evaluate")[number % 2],
                wire=("fp32", "bf16", "fp16")[number % 3],
            )
            sizes.append(value.nbytes)
        elif act == "start":
            handles.append((yield from Start(startable(number, n))))
        elif act == "wait" and handles:
            yield from Wait(handles.pop(number % len(handles)))
        elif act == "log" and worker == 0:
            yield from Log(number=number)
        elif act == "checkpoint":
            yield from Checkpoint(number, dict, due=number % 2 == 0)
    for handle in handles:
        yield from Wait(handle)
    return sizes
