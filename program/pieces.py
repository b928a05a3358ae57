"""A program in pieces, for a caller with a loop of its own: between two pieces it is the caller's turn to compute.

An interpreter drives a program to its end. `Pieces` cuts it at those Computes that are the caller's: an interpreter
drives one piece after the other, and in between the program stands still where it is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

from .effects import Compute, Effect, Program

T = TypeVar("T")


class Pieces(Generic[T]):
    """A program whose Computes that run `turn` are the caller's.

    taken, left: calls of the present one that the caller has made, and has still to make.
    ended, result: whether the program has returned, and what.
    """

    def __init__(self, program: Program[T], turn: Callable[[], Any]) -> None:
        self._program, self._turn = program, turn
        self._theirs: Compute[Any] | None = None
        self._answer: Any = None
        self.taken = 0
        self.ended = False
        self.result: T | None = None

    @property
    def left(self) -> int:
        """See above; 0 before the first piece, after the last call, and at the end."""
        return 0 if self._theirs is None else self._theirs.times - self.taken

    def next(self) -> Program[None]:
        """The piece up to the caller's next turn, or to the program's end. Only where no call is left."""
        self._theirs, self.taken = None, 0
        while self._theirs is None:
            try:
                effect: Effect[Any] = self._program.send(self._answer)
            except StopIteration as end:
                self.ended, self.result = True, end.value
                return
            self._answer = None
            if type(effect) is Compute and effect.run == self._turn:
                self._theirs = effect
            else:
                self._answer = yield effect

    def call(self) -> Program[None]:
        """A call of the caller's as an effect, so that it is counted: its time has passed since the piece before."""
        assert self._theirs, "it is not the caller's turn"
        work = self._theirs.work if self.taken else self._theirs.first or self._theirs.work
        self._answer = yield Compute(work, self._turn, on=self._theirs.on)
        self.taken += 1

    def leave(self) -> None:
        """Give the program up where it stands: what follows in it is never run."""
        self._program.close()
        self._theirs, self.ended = None, True
