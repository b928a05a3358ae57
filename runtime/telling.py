"""How an error is told: in one line, and with `--traceback` where it comes from, before that line.

Every command sets TRACEBACK from its option; the launcher hands the option on to the ranks.
"""

from __future__ import annotations

import sysconfig
import traceback
from collections.abc import Iterator
from contextvars import ContextVar

from ..algorithms.errors import PacelineError, one_line

OPTION = "--traceback"
TRACEBACK = ContextVar("traceback", default=False)
# Errors that a user can mend. Any other is a mistake in Paceline, and keeps Python's own report.
EXPECTED = (PacelineError, OSError, ImportError, MemoryError)
LONGEST = 400  # characters of the line
_NO_MEMORY = ("allocate memory", "failed to map segment", "Memory allocation")  # as loading a library says it
_INSTALLED = tuple({sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")})
_OWN = __package__.partition(".")[0]


def told(error: BaseException) -> str:
    """The text for an error that is one of EXPECTED, or for an exit that a user's code asked for."""
    shown = TRACEBACK.get()
    hint = f" ({OPTION} shows where)" if _users(error) and not shown else ""
    line = f"paceline: {_reason(error)}"
    line += hint if len(line) + len(hint) <= LONGEST else ""
    return f"{where(error)}{line}" if shown else line


def where(error: BaseException) -> str:
    """The traceback of what caused the error, or of the error itself where nothing else did."""
    return "".join(traceback.format_exception(error.__cause__ or error))


def ends_as_users(end: SystemExit) -> bool:
    """Whether a user's code ended the program: then whatever status it wanted, the work is not done."""
    return _users(end)


def _reason(error: BaseException) -> str:
    if isinstance(error, PacelineError):
        return str(error)
    if isinstance(error, SystemExit):
        return one_line(f"the scenario's own code ended the program: SystemExit({error.code!r})")
    if any(isinstance(e, MemoryError) or any(text in str(e) for text in _NO_MEMORY) for e in _chain(error)):
        return one_line(f"there is not enough memory (what `free` and `ulimit -v` say): {error or 'MemoryError'}")
    return one_line(f"{type(error).__name__}: {error}")


def _users(error: BaseException) -> bool:
    """Whether the error passed through code that is not Paceline's, nor Python's, nor of an installed package."""
    for each in _chain(error):
        for frame, _ in traceback.walk_tb(each.__traceback__):
            module, file = frame.f_globals.get("__name__", ""), frame.f_code.co_filename
            own = module.partition(".")[0] in (_OWN, "__main__")
            if not (own or file.startswith(("<", *_INSTALLED))):
                return True
    return False


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error, and what it came from."""
    found: BaseException | None = error
    while found is not None:
        yield found
        found = found.__cause__ or (None if found.__suppress_context__ else found.__context__)
