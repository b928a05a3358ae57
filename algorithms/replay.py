"""Programs that run again: what a phantom's program yields follows from the plan alone, so it is recorded once and
played back for each of many clusters.

Rule: only a program that has ended is played back, and only one without Start: a Wait names the handle that Start was
answered with, and that is another one in each run.
"""

from __future__ import annotations

import copy
from collections.abc import Hashable
from typing import Any, TypeVar

from ..program.effects import Effect, Program, Start

T = TypeVar("T")
LONGEST = 50_000  # effects that are kept of a program

Recordings = dict[Hashable, tuple[list[Effect[Any]], Any]]  # by what tells programs apart: effects and result


def replayed(recordings: Recordings, key: Hashable, program: Program[T]) -> Program[T]:
    """The program, recorded in `recordings` under `key`; or what is there, played back, if it ran before."""
    if key in recordings:
        return _replay(*recordings[key])
    return _recorded(recordings, key, program)


def _replay(effects: list[Effect[Any]], result: T) -> Program[T]:
    for effect in effects:  # noqa: UP028 - a list takes no answers
        yield effect
    return copy.copy(result)


def _recorded(recordings: Recordings, key: Hashable, program: Program[T]) -> Program[T]:
    effects: list[Effect[Any]] = []
    keeping, answer = True, None
    while True:
        try:
            effect = program.send(answer)
        except StopIteration as end:
            if keeping:
                recordings[key] = effects, copy.copy(end.value)
            result: T = end.value
            return result
        keeping = keeping and type(effect) is not Start and len(effects) < LONGEST
        if keeping:
            effects.append(effect)
        answer = yield effect
