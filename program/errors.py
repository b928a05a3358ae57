"""The errors that Paceline raises on purpose. Each can be made again from its `args`, as SimPy does.

Rule: whatever an error quotes (a user's value, a path, another error's text), its message is one line of at most `MOST`
characters, and a terminal takes none of them for a command.
"""

from __future__ import annotations

import difflib
import reprlib
import unicodedata
from collections.abc import Generator, Iterable, Sequence
from typing import Any

MOST = 380  # characters of a message; with "paceline: warning: " before it, the line has less than 400
_REPR = reprlib.Repr()
_REPR.maxlevel, _REPR.maxlist, _REPR.maxtuple, _REPR.maxdict, _REPR.maxset = 3, 6, 6, 4, 6
_REPR.maxstring, _REPR.maxlong, _REPR.maxother = 60, 40, 60


def one_line(text: str, most: int = MOST) -> str:
    """`text` in one line of at most `most` characters; if it is longer, the middle is left out.

    Characters that do not print (escapes, marks that turn the direction of writing) are spelled out, like `\\x1b`.
    """
    # Cut first: what follows takes time for each character.
    lines = (line.strip() for line in _cut(text, 8 * MOST).splitlines())
    return _cut("".join(c if _prints(c) else _spelled(c) for c in " ".join(filter(None, lines))), most)


def _cut(text: str, most: int) -> str:
    """Leave out the middle. The end stays: it often says what to write instead."""
    if len(text) <= most:
        return text
    end = most // 3
    return f"{text[: most - end - 5]} ... {text[-end:]}"


def _prints(character: str) -> bool:
    return unicodedata.category(character) not in ("Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp")


def _spelled(character: str) -> str:
    return " " if character == "\t" else character.encode("unicode_escape").decode()


def brief(value: Any) -> str:
    """A user's value as errors quote it: at most 60 characters, made without writing all of it out."""
    try:
        text = _REPR.repr(value)
    except ValueError:  # a number of more digits than Python writes out
        text = f"a number of {value.bit_length()} bits" if isinstance(value, int) else f"a {type(value).__name__}"
    return text if len(text) <= 60 else f"{text[:57]}..."


def nearest(name: object, known: Iterable[str]) -> str:
    """A hint for an unknown name: "; did you mean 'x'?", or nothing where no known name is similar."""
    by_lower_case = {each.lower(): each for each in known}
    found = difflib.get_close_matches(str(name).lower(), by_lower_case, 1, 0.5)
    return f"; did you mean {by_lower_case[found[0]]!r}?" if found else ""


class PacelineError(Exception):
    """Base of the errors below. The command line catches it, prints one line and ends with its exit status."""

    status = 2

    def __init__(self, message: str = "") -> None:
        super().__init__(one_line(message))


class ScenarioError(PacelineError):
    """The scenario file, or what it names, is wrong. Says the key, what was found, and what to write instead."""


class ProtocolError(PacelineError):
    """The workers' programs do not fit together. Names the workers, and what each of them waits for."""


class BorrowError(ProtocolError):
    """A program wrote to a value while an effect had borrowed it. Found by the debug mode."""


class WorkerLost(PacelineError):
    """A worker is gone, and others wait for it. workers: the numbers of the lost ones; empty where they are unknown."""

    status = 1  # the same run may go well another time

    def __init__(self, message: str = "", workers: tuple[int, ...] = ()) -> None:
        super().__init__(message)
        self.args = (*self.args, workers)  # SimPy makes the error again from these
        self.workers = workers

    def __str__(self) -> str:
        return str(self.args[0])


def are_lost(workers: Sequence[int]) -> str:
    """Which workers are lost, in words."""
    if len(workers) == 1:
        return f"worker {workers[0]} is lost"
    return f"workers {', '.join(map(str, workers))} are lost" if workers else "a worker is lost"


class FaultStruck(PacelineError):
    """A fault of the scenario was to raise an exception in a worker."""

    status = 1


class WorkloadError(PacelineError):
    """The user's model, loss or data failed in a worker's step. Says worker, step and what it was doing."""


class NotFinite(PacelineError):
    """A loss, a gradient or a parameter is infinite or not a number. Says where."""


class NotWritten(PacelineError):
    """The run has ended, but its results could not all be written. Says what is missing, and what is whole."""

    status = 1


class ReplicasDiffer(PacelineError):
    """Workers that must hold the same parameters hold different ones."""


def not_an_effect(worker: int, found: object) -> ProtocolError:
    """A program yielded something that is not an effect."""
    forgotten = isinstance(found, Generator)
    hint = "; is the `from` of a `yield from` missing?" if forgotten else ""
    return ProtocolError(f"worker {worker} yielded {brief(found)}, which is not an effect{hint}")
