"""The debug mode's loans: catch a program that writes to a value while an effect has borrowed it."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

import numpy as np

from ..program.effects import Array
from ..program.errors import BorrowError
from .collectives import checked_out, describe


class Loan:
    """What an effect has borrowed, from its yield to its answer: `value`, and `out` too.

    effect: what to perform instead, without `out`, so that `settle` alone writes to the program's arrays and any
    change until then is the program's own.
    """

    def __init__(self, worker: int, effect: Any) -> None:
        self._worker, self._original = worker, effect
        named: list[Any] = [getattr(effect, name, None) for name in ("value", "out")]
        self._lent: list[Array] = [array for array in named if _is_array(array)]
        self._digests = [_digest(a) for a in self._lent]
        self.effect = replace(effect, out=None) if getattr(effect, "out", None) is not None else effect

    def settle(self, answer: Any) -> Any:
        """The answer as the program gets it: in `out` if it passed one. BorrowError where it wrote meanwhile."""
        for array, digest in zip(self._lent, self._digests, strict=True):
            if _digest(array) != digest:
                raise BorrowError(
                    f"worker {self._worker} wrote to a value that {describe(self._original)} had borrowed; "
                    "write after its answer, or give it a copy"
                )
        if not _is_array(getattr(self._original, "out", None)) or not _is_array(answer):
            return answer
        out = checked_out(self._original, answer.size)
        out[...] = answer
        return out


def _is_array(value: Any) -> bool:
    return isinstance(value, np.ndarray)


def _digest(array: Array) -> bytes:
    return hashlib.blake2b(array.tobytes(), digest_size=16).digest()
