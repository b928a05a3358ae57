"""The folders of a job for its MPI's files, and the removal of what killed jobs have left behind.

Rule: a folder belongs to a living job as long as its lock is held. The launcher takes the lock, its mpirun inherits it,
and the system gives it back when both have ended, however they end. Only this user's folders are looked at.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from ..program.errors import PacelineError
from .ranks import MpiKind

PREFIX = "paceline-{}-"  # of a folder's name, with the MPI's kind
SHARED = Path("/dev/shm")  # where Linux has files in memory
BACKING = "OMPI_MCA_btl_sm_backing_directory"  # Open MPI's variable: where ranks of a node keep what they share
# MPICH's files in SHARED. It takes no other folder, and removes each of them once all ranks of the node have opened it.
# So they are left behind only by jobs that ended while they started.
SEGMENTS = "mpich_shm_*"


@dataclass(frozen=True)
class JobFolders:
    """What an mpirun needs in order to use the folders."""

    temporary: Path  # the one for temporary files
    variables: dict[str, str]  # of its environment
    locks: tuple[int, ...]  # descriptors that it inherits


@contextmanager
def job_folders(kind: MpiKind, here: bool = True) -> Iterator[JobFolders]:
    """Make a job's folders, which are removed afterwards, and remove those of jobs that were killed.

    By default, Open MPI takes ompi.PID in the folder for temporary files. An mpirun that is killed leaves it there, and
    a later one that happens to get the same process number does not start.

    here: all ranks run on this host. On other hosts Open MPI takes what it takes by default.

    PacelineError where there is no folder for temporary files.
    """
    remove_leftovers()
    try:
        made = [_made(kind, Path(tempfile.gettempdir()))]
    except OSError as error:
        raise PacelineError(f"the ranks' temporary files have no place: {error}; set TMPDIR") from error
    temporary = made[0][0]
    variables = {"PRTE_MCA_prte_local_tmpdir_base": str(temporary)}
    if kind == "openmpi" and here and BACKING not in os.environ:
        with suppress(OSError):  # then Open MPI uses what it uses by default
            made.append(_made(kind, SHARED))
            variables[BACKING] = str(made[1][0])
    try:
        yield JobFolders(temporary, variables, tuple(lock for _, lock in made))
    finally:
        for path, lock in made:
            _remove(path, lock)
            os.close(lock)


def remove_leftovers() -> None:
    """Remove the folders of jobs that have ended without removing them."""
    for parent in dict.fromkeys((Path(tempfile.gettempdir()), SHARED)):
        for kind in ("openmpi", "mpich"):
            for path in parent.glob(f"{PREFIX.format(kind)}*"):
                with suppress(OSError):  # another start is removing it
                    lock = _opened(path)
                    try:
                        if os.fstat(lock).st_uid == os.geteuid():
                            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # BlockingIOError: its job is alive
                            _remove(path, lock)
                    finally:
                        os.close(lock)


def _made(kind: MpiKind, parent: Path) -> tuple[Path, int]:
    """(a new folder, its lock)."""
    while True:
        path = Path(tempfile.mkdtemp(prefix=PREFIX.format(kind), dir=parent))
        with suppress(FileNotFoundError):  # another start took it for a dead job's before it was locked
            lock = _opened(path)
            with suppress(OSError):  # a file system without locks: no other start can lock it, and it stays
                fcntl.flock(lock, fcntl.LOCK_EX)
            if path.exists():
                return path, lock
            os.close(lock)


def _opened(path: Path) -> int:
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)


def _remove(path: Path, lock: int) -> None:
    """Remove a folder whose job has ended. It stays as long as a file may be the job's and is in use."""
    if path.name.startswith(PREFIX.format("mpich")) and not _removed_segments(os.fstat(lock).st_mtime):
        return
    shutil.rmtree(path, ignore_errors=True)


def _removed_segments(since: float) -> bool:
    """Remove this user's files of MPICH that are no older than `since` and that no process uses; whether that was all.

    since: in seconds, by the file system's clock.
    """
    found = dict[Path, os.stat_result]()
    for path in SHARED.glob(SEGMENTS):
        with suppress(OSError):
            status = path.lstat()
            if status.st_uid == os.geteuid() and status.st_ctime >= since:
                found[path] = status
    used = _in_use(found.values()) if found else set[int]()
    for path, status in found.items():
        if status.st_ino not in used:
            path.unlink(missing_ok=True)
    return not used


def _in_use(files: Iterable[os.stat_result]) -> set[int]:
    """The inode numbers of those files in SHARED that a process of this user has open or mapped."""
    inodes, device = {file.st_ino for file in files}, SHARED.stat().st_dev
    used = set[int]()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            # First what is open, then what is mapped: a process opens a file, maps it, and closes it.
            for descriptor in (process / "fd").iterdir():
                with suppress(FileNotFoundError):
                    status = descriptor.stat()
                    used |= {status.st_ino} & inodes if status.st_dev == device else set()
            place = f"{os.major(device):02x}:{os.minor(device):02x}"
            for line in (process / "maps").read_text(errors="replace").splitlines():
                _, _, _, where, inode, *_ = line.split(maxsplit=5)
                used |= {int(inode)} & inodes if where == place else set()
        # It has ended, or may not be looked into. A rank lets its user do that: MPICH itself copies from rank to rank.
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
    return used
