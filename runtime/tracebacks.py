"""How an error is printed: in one line, and with `--traceback` also where it comes from, before that line.

Every command sets TRACEBACK from its option, and the launcher passes the option on to the ranks.
"""

from __future__ import annotations

import sys
import sysconfig
import traceback
from collections.abc import Iterator
from contextvars import ContextVar
from types import FrameType

from ..program.errors import PacelineError, one_line
from .ranks import place

OPTION = "--traceback"
TRACEBACK = ContextVar("traceback", default=False)
# Errors that a user can mend. Any other is a mistake in Paceline, and is printed as Python prints it.
EXPECTED = (PacelineError, OSError, ImportError, MemoryError, SystemError)
LONGEST = 400  # characters of the line
_NO_MEMORY = ("allocate memory", "failed to map segment", "Memory allocation")  # what a library says as it is loaded
_INSTALLED = tuple({sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")})
_OWN = __package__.partition(".")[0]


def tell(error: BaseException) -> None:
    """Print an error that ends this process, unless another rank prints the same.

    A wrong file or library is wrong for all ranks of a machine, so only the first of them prints. (Once ranks have
    found each other, `launcher.abort_on_error` does this.)
    """
    here = place()
    if here is None or here.local == 0 or not isinstance(error, PacelineError):
        print(told(error), file=sys.stderr, flush=True)


def exit_status(error: BaseException) -> int:
    """The exit status for one of the EXPECTED errors, or for a SystemExit that a user's code raised."""
    return error.status if isinstance(error, PacelineError) else 2


def told(error: BaseException) -> str:
    """The text for one of the EXPECTED errors, or for a SystemExit that a user's code raised."""
    shown = TRACEBACK.get()
    hint = f" ({OPTION} shows where)" if of_users_code(error) and not shown else ""
    line = f"paceline: {_reason(error)}"
    line += hint if len(line) + len(hint) <= LONGEST else ""
    return f"{where(error)}{line}" if shown else line


def where(error: BaseException) -> str:
    """The traceback of the error; or of its cause, if Paceline only added a key or a worker to it on the way up."""
    while error.__cause__ is not None and _ours([frame for frame, _ in traceback.walk_tb(error.__traceback__)][-1]):
        error = error.__cause__
    return "".join(traceback.format_exception(error))


def _reason(error: BaseException) -> str:
    if isinstance(error, PacelineError):
        return str(error)
    if isinstance(error, SystemExit):
        return one_line(f"the scenario's own code ended the program: SystemExit({error.code!r})")
    text = f"{type(error).__name__}: {error}".removesuffix(": ")
    notes = [note.removeprefix("paceline: ") for note in vars(error).get("__notes__", ())]
    text = "; ".join((text, *notes))
    return one_line(f"not enough memory; see `free` and `ulimit -v`: {text}" if _of_memory(error) else text)


def _of_memory(error: BaseException) -> bool:
    """Whether memory ran out. Compiled code then raises a SystemError, if it raises anything."""
    return any(
        isinstance(each, MemoryError | SystemError) or any(text in str(each) for text in _NO_MEMORY)
        for each in _chain(error)
    )


def of_users_code(error: BaseException) -> bool:
    """Whether the error passed through code that is neither Paceline's, nor Python's, nor an installed package's."""
    for each in _chain(error):
        for frame, _ in traceback.walk_tb(each.__traceback__):
            if not (_ours(frame) or frame.f_code.co_filename.startswith(("<", *_INSTALLED))):
                return True
    return False


def _ours(frame: FrameType) -> bool:
    return frame.f_globals.get("__name__", "").partition(".")[0] in (_OWN, "__main__")


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error, its cause, the cause of that, and so on."""
    found: BaseException | None = error
    seen = set[int]()  # Python uses MemoryErrors again, so a chain may lead back to its start
    while found is not None and id(found) not in seen:
        seen.add(id(found))
        yield found
        found = found.__cause__ or (None if found.__suppress_context__ else found.__context__)
