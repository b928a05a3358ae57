"""One program for many workers: phantoms that do the same work yield the same effects, so one program serves them all.

Rule: an effect is made once, when the first worker asks for it, and all share it. What differs between the workers of
a kind is said here: a line of the report is worker 0's, and a Wait names the handle of each worker's own Start.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any, Generic, TypeVar

from ..program.effects import Effect, Handle, Log, Program, Reducing, Start, Wait

T = TypeVar("T")
END: Any = None  # in the place of an effect: the program has ended
OWN = frozenset((Log, Start, Wait))  # effects that are not the same for all


class _Node:
    """An effect, and what comes after it. Those that all workers have passed are no longer held by anything."""

    __slots__ = ("effect", "following", "own")

    def __init__(self, effect: Effect[Any]) -> None:
        self.effect = effect
        self.own = type(effect) in OWN or effect is END
        self.following: _Node | None = None  # not made yet


def shared(program: Program[T], workers: int) -> list[Program[T]]:
    """A program for each of `workers` phantoms of a kind. `program` is the first one's. Only the first one logs."""
    source, begin = _Source(program), _Node(END)
    return [source.played(begin, logs=worker == 0) for worker in range(workers)]


class _Source(Generic[T]):
    """The program that runs."""

    def __init__(self, program: Program[T]) -> None:
        self._send = program.send
        self._result: Any = None

    def played(self, node: _Node, logs: bool) -> Program[T]:
        """What comes after the node, for one worker."""
        answer: Any = None
        handles: dict[Effect[Any], Handle[Any]] = {}  # this worker's, of what it has started, by Start
        while True:
            node = node.following or self._next(node, answer)
            effect = node.effect
            if not node.own:
                answer = yield effect
            elif type(effect) is Start:
                handles[effect] = yield effect
                answer = Handle(effect.effect, effect)
            elif type(effect) is Wait:
                answer = yield Wait(handles.pop(effect.handle.inner))
            elif effect is END:
                result: T = copy.copy(self._result)
                return result
            else:
                answer = (yield effect) if logs else None

    def _next(self, node: _Node, answer: Any) -> _Node:
        """Ask the program for the effect after the node's, whose answer this is."""
        try:
            effect = self._send(answer)
        except StopIteration as end:
            self._result, effect = end.value, END
        # A phantom's weight counts for nothing. Not all workers' are 0, but all of this kind may be.
        if isinstance(effect, Reducing) and not effect.weight:
            effect = replace(effect, weight=1.0)
        node.following = _Node(effect)
        return node.following
