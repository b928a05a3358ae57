"""What ranks tell their launcher by files in the job's folder: for ULFM, with which Open MPI does not end all ranks.

Without ULFM an mpirun ends all ranks with the first one that is lost, or that calls MPI_Abort. With it, ranks wait in
MPI_Init for ever for one that is lost before, and now and then MPI_Abort ends no other rank (Open MPI 5.0.11, 4 ranks).
"""

from __future__ import annotations

import os
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

FOLDER = "PACELINE_JOB"  # the environment variable that names the folder
BEGUN, ENDS = "begun-", "ends-"  # how the files' names begin; the rest is a rank's process, and an exit status
LOOK = 0.05  # seconds
PATIENCE = 40  # looks: a rank may have begun, and be about to say so, when another one is lost
GRACE = 1.0  # seconds in which MPI_Abort may end a job


def begun() -> None:
    """This rank has come out of MPI_Init."""
    _leave(f"{BEGUN}{os.getpid()}")


def ends(status: int) -> None:
    """This rank is about to end the job, with this exit status."""
    _leave(f"{ENDS}{status}")


def _leave(name: str) -> None:
    if FOLDER in os.environ:
        with suppress(OSError):
            (Path(os.environ[FOLDER]) / name).touch()


def all_begin(mpirun: subprocess.Popen[Any], ranks: int, folder: Path) -> bool:
    """Return when all ranks have begun or the mpirun has ended; False if a rank was lost before."""
    most = missed = 0
    while mpirun.poll() is None and len([*folder.glob(f"{BEGUN}*")]) < ranks and not _ending(folder):
        living = _children(mpirun.pid)
        most = max(most, min(living, ranks))  # what else an mpirun starts for a moment is not missed
        missed = missed + 1 if living < most else 0
        if missed > PATIENCE:
            return False
        time.sleep(LOOK)
    return True


def exit_status(mpirun: subprocess.Popen[Any], folder: Path) -> int:
    """Wait for the end of the job; its exit status. Where a rank ends it and that does not happen, it is killed."""
    while mpirun.poll() is None:
        status = _ending(folder)
        try:
            return mpirun.wait(LOOK if status is None else GRACE)
        except subprocess.TimeoutExpired:
            if status is not None:
                mpirun.kill()  # its ranks die with it
                mpirun.wait()
                return status
    return mpirun.returncode


def _ending(folder: Path) -> int | None:
    """The status with which a rank ends the job; None where none does."""
    return next((int(path.name.removeprefix(ENDS)) for path in folder.glob(f"{ENDS}*")), None)


def _children(process: int) -> int:
    """How many processes a process has started that live; 0 where the system does not say."""
    found = 0
    for path in Path(f"/proc/{process}/task").glob("*/children"):  # of each of its threads
        with suppress(OSError):
            found += len(path.read_text().split())
    return found
