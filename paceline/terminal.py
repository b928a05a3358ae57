"""What reaches the terminal: one console for rich's tables, and output that a run survives.

Rule: text of a user's (a path, a key, an error) is printed as it is, never read as rich's markup, and output that
cannot be written (a closed pipe, a full disk) ends no run: it is noted, and told by the exit status.
"""

from __future__ import annotations

import errno
import io
import os
import select
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from .program.errors import one_line

if TYPE_CHECKING:
    from rich.console import Console


def console(**options: Any) -> Console:
    """Where rich prints. Escape codes only on a terminal; colours only by rich.text.Text, which has no markup."""
    from rich.console import Console

    from .runtime.launcher import under_mpirun

    if under_mpirun():  # Open MPI gives its ranks terminals, wherever their output goes
        options = {"force_terminal": False} | options
    return Console(markup=False, highlight=False, emoji=False, soft_wrap=True, **options)


def say(text: str) -> None:
    """A line of Paceline's own on standard error."""
    print(f"paceline: {one_line(text)}", file=sys.stderr, flush=True)


def warn(text: str) -> None:
    """What one who reads the results, or waits for them, must know."""
    say(f"warning: {text}")


class _Patient(io.FileIO):
    """A file that takes everything; `failed` holds the first error of those that kept it from being written."""

    failed: OSError | None = None

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        done = 0
        while done < len(view) and self.failed is None:
            try:
                written = super().write(view[done:])
            except OSError as error:
                self.failed = error
            else:
                if written is None:  # somebody made the pipe non-blocking, and it is full
                    select.select([], [self], [])
                done += written or 0
        return len(view)


def enduring(command: Callable[[], int]) -> int:
    """The exit status of a whole command, whose standard output and error take everything, even where they are closed.

    Where the command went well but its output did not: 141 of a closed pipe, as of a program that SIGPIPE ends, and 1
    with a line on standard error of any other.
    """
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:  # else the next file that is opened would be written to by every print
            os.dup2(os.open(os.devnull, os.O_RDWR), descriptor)
            os.set_inheritable(descriptor, True)  # an mpirun must not meet it closed, either
    files = {}
    for name, descriptor in (("stdout", 1), ("stderr", 2)):
        stream = getattr(sys, name)
        if stream is None or type(stream) is io.TextIOWrapper:  # not what a test or a notebook put there
            files[name] = _replace(name, descriptor, stream)
    status = command()
    sys.stdout.flush()
    failed = files["stdout"].failed if "stdout" in files else None
    if status or failed is None:
        return status
    if failed.errno == errno.EPIPE:
        return 141
    say(f"standard output cannot be written: {failed.strerror}; all that goes to files is written")
    return 1


def _replace(name: str, descriptor: int, stream: io.TextIOWrapper | None) -> _Patient:
    """Put a patient file in the place of a standard stream; what its encoding cannot say is written as `\\u2713`."""
    if stream is not None:
        with suppress(OSError):
            stream.flush()
    file = _Patient(descriptor, "w", closefd=False)
    direct = stream is not None and stream.write_through
    new = io.TextIOWrapper(
        file if direct else io.BufferedWriter(file),
        encoding=stream.encoding if stream is not None else "utf-8",
        errors="backslashreplace",
        line_buffering=stream is not None and stream.line_buffering,
        write_through=direct,
    )
    setattr(sys, name, new)
    return file
