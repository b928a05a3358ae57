"""The lock of a run directory: one run at a time writes into it.

Rule: the system gives the lock back when its process ends, however it ends. What stays behind is a file that says whose
it was.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ..program.errors import ScenarioError
from .directory import LOCK

_LACKING = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS)  # of a file system without locks


def check_free(directory: Path) -> None:
    """ScenarioError where another process writes a run into the directory. Nothing is written."""
    try:
        descriptor = os.open(directory / LOCK, os.O_RDONLY)
    except OSError:
        return
    try:
        _take(directory, descriptor, fcntl.LOCK_SH)  # which several may take at the same time
    finally:
        os.close(descriptor)


@contextmanager
def held(directory: Path, tell: Callable[[str], None]) -> Iterator[None]:
    """Write a run into the directory meanwhile. ScenarioError where another process does.

    tell: called with a line where a process has ended that could not give the lock back.
    """
    descriptor = _open(directory)
    try:
        if holder := _holder(descriptor):
            tell(f"{directory}: {holder} was writing a run in it and has ended; its lock is taken over")
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode(), 0)
        yield
    finally:
        if _is_there(directory, descriptor):
            (directory / LOCK).unlink()
        os.close(descriptor)


def _open(directory: Path) -> int:
    """The lock file, locked."""
    while True:
        try:
            directory.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(directory / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise ScenarioError(f"{directory}: cannot be written: {error.strerror}") from None
        try:
            _take(directory, descriptor, fcntl.LOCK_EX)
        except BaseException:
            os.close(descriptor)
            raise
        if _is_there(directory, descriptor):
            return descriptor
        os.close(descriptor)  # its process has ended and removed it since it was opened here


def _is_there(directory: Path, descriptor: int) -> bool:
    """Whether the open file is still the directory's lock: not where the file, or the whole folder, was removed."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(directory / LOCK))
    except OSError:
        return False


def _take(directory: Path, descriptor: int, kind: int) -> None:
    """Lock the open file. kind: as of flock. ScenarioError where another process has locked it."""
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = _holder(descriptor) or "another process"
        raise ScenarioError(
            f"{directory}: {holder} is writing a run in it; wait for its end, or name another folder with --out"
        ) from None
    except OSError as error:
        if error.errno not in _LACKING:
            raise


def _holder(descriptor: int) -> str:
    """What the file says of the process that holds the lock, or held it at its end; empty in a new file."""
    return os.pread(descriptor, 200, 0).decode(errors="replace")
