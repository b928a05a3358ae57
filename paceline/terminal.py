"""What reaches the terminal: one console for tables, and an output whose errors do not end a run.

Rule: a user's text (a path, a key, an error) is printed as it is, and never read as rich's markup. Output that cannot
be written (a closed pipe, a full disk) does not end a run: the exit status tells about it.
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
    """Where rich prints. Escape codes are for terminals only, and only a rich.text.Text has colours."""
    from rich.console import Console

    from .runtime.launcher import under_mpirun

    if under_mpirun():  # Open MPI's ranks have terminals, wherever their output goes
        options = {"force_terminal": False} | options
    return Console(markup=False, highlight=False, emoji=False, soft_wrap=True, **options)


def say(text: str) -> None:
    """Print a line from Paceline on standard error."""
    print(f"paceline: {one_line(text)}", file=sys.stderr, flush=True)


def warn(text: str) -> None:
    """Print a warning: what users must know to read the results, or to wait for them."""
    say(f"warning: {text}")


class _Patient(io.FileIO):
    """A file that accepts everything. `failed` is the first error with which writing failed."""

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
                if written is None:  # the pipe is non-blocking and full
                    select.select([], [self], [])
                done += written or 0
        return len(view)


def enduring(command: Callable[[], int]) -> int:
    """Run a whole command with a standard output and error that accept everything, and return its exit status.

    Where the command succeeds but its output cannot be written, the status is 141 for a closed pipe, as for a program
    that SIGPIPE ends, and else 1 with a line on standard error.
    """
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:  # the next file to be opened would take this number, and every print would write into it
            os.dup2(os.open(os.devnull, os.O_RDWR), descriptor)
            os.set_inheritable(descriptor, True)  # an mpirun must not find it closed either
    files = {}
    for name, descriptor in (("stdout", 1), ("stderr", 2)):
        stream = getattr(sys, name)
        if stream is None or type(stream) is io.TextIOWrapper:  # not a stream that a test or a notebook has put there
            files[name] = _replace(name, descriptor, stream)
    status = command()
    sys.stdout.flush()
    failed = files["stdout"].failed if "stdout" in files else None
    if status or failed is None:
        return status
    if failed.errno == errno.EPIPE:
        return 141
    say(f"standard output cannot be written: {failed.strerror}; all files are written")
    return 1


def _replace(name: str, descriptor: int, stream: io.TextIOWrapper | None) -> _Patient:
    """Replace a standard stream by a patient file. Characters that its encoding lacks are written like `\\u2713`."""
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
