"""Borrowing: whose a value is from the yield of an effect to its answer, and after.

Rule: from the yield to the answer the effect has borrowed its values, `out` too, and the program does not write to
them. Without this rule the same program would mean different things: the simulator reads a value when the last member
has come, MPI while the messages are under way. The answer is the program's own: what arrives in `out`, or a copy.
"""

from __future__ import annotations

from dataclasses import replace
from hashlib import blake2b
from typing import Any

import numpy as np

from .checks import check_out
from .effects import Collective, Effect, Phantom, Value
from .errors import BorrowError
from .texts import describe


def deliver(effect: Collective, worker: int, result: Value) -> Value:
    """The answer to one member: its `out`, filled, or a copy of its own. ProtocolError where `out` does not fit."""
    out = effect.out
    if isinstance(result, Phantom):
        if out is None:
            return Phantom(result.nbytes)
        if type(out) is not Phantom or out.nbytes != result.nbytes:  # asked twice, since a call costs more
            check_out(effect, worker, result.nbytes)
        return out
    if out is None:
        return result.copy()
    check_out(effect, worker, result.size)
    np.copyto(out, result)  # type: ignore[arg-type]
    return out


class Loan:
    """What an effect has borrowed, as it was when it was yielded (the debug mode's check).

    performed: the effect to perform instead of the given one: without `out`. Whatever changes `out` before `settle`
    fills it is then the program's doing.
    """

    __slots__ = ("_digests", "_effect", "_worker", "performed")

    def __init__(self, effect: Effect[Any], worker: int) -> None:
        self._effect, self._worker = effect, worker
        fills = isinstance(effect, Collective) and effect.out is not None
        self.performed = replace(effect, out=None) if fills else effect  # type: ignore[type-var]
        self._digests = self._read()

    def _read(self) -> list[bytes]:
        lent = (value for value in self._effect.borrowed() if isinstance(value, np.ndarray))
        return [blake2b(array.tobytes(), digest_size=16).digest() for array in lent]

    def check(self) -> None:
        """BorrowError if a value was written to since."""
        if self._read() != self._digests:
            raise BorrowError(
                f"worker {self._worker}: a value was written to while {describe(self._effect)} had borrowed it; "
                "write to it after the answer, or give the effect a copy"
            )

    def settle(self, answer: Any) -> Any:
        """The answer of `performed`, as the program gets it: in `out` if it passed one. BorrowError as `check`."""
        self.check()
        if isinstance(self._effect, Collective) and self._effect.out is not None:
            return deliver(self._effect, self._worker, answer)
        return answer
