"""What ranks tell their launcher by lines on standard error: for ULFM, with which Open MPI does not end all ranks.

Without ULFM an mpirun ends all ranks with the first one that is lost, or that calls MPI_Abort. With it, ranks wait in
MPI_Init for ever for one that is lost before, and now and then MPI_Abort ends no other rank (Open MPI 5.0.11, 4 ranks).

The mpirun brings the lines from any host. The launcher's Relay notes them and does not show them.
"""

from __future__ import annotations

import os
import re
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

TOLD = "PACELINE_SIGNS"  # the environment variable by which ranks know that signs are noted
SIGN = re.compile(rb"paceline sign: (?P<what>starts|begun|ends)(?: (?P<status>\d+))?\s*$")
LOOK = 0.05  # seconds
PATIENCE = 40  # looks: a rank may have begun, and be about to say so, when another one is lost
SILENT = 120.0  # seconds without a new sign: a rank of another host is lost
GRACE = 1.0  # seconds in which MPI_Abort may end a job
# Seconds in which an error in MPI, which is fatal without ULFM, may end a job. Where ranks of several hosts have it at
# the same time, mpirun now and then waits for ever (Open MPI 5.0.11, 6 ranks on 3 hosts).
FATAL_GRACE = 30.0


class Signs:
    """The signs of a job's ranks that have come so far. One thread notes them, another one reads."""

    def __init__(self) -> None:
        self.begun = 0  # ranks that have come out of MPI_Init
        self.ending: int | None = None  # the status with which a rank ends the job
        self.last = time.monotonic()  # when a sign came
        self.fatal = False  # whether a rank has told of an error that ends it

    def note(self, line: bytes) -> bool:
        """Whether the line is a sign, which is then noted."""
        found = SIGN.match(line)
        if found:
            self.last = time.monotonic()
            self.begun += found["what"] == b"begun"
            if found["what"] == b"ends":
                self.ending = int(found["status"] or 1)
        return found is not None


def starts() -> None:
    """This rank is about to go into MPI_Init."""
    _tell("starts")


def begun() -> None:
    """This rank has come out of MPI_Init."""
    _tell("begun")


def ends(status: int) -> None:
    """This rank is about to end the job, with this exit status."""
    _tell(f"ends {status}")


def _tell(what: str) -> None:
    if TOLD in os.environ:
        with suppress(OSError):
            os.write(2, f"paceline sign: {what}\n".encode())  # at once: a line that other ranks' lines do not cut


def all_begin(mpirun: subprocess.Popen[Any], ranks: int, signs: Signs) -> bool:
    """Return when all ranks have begun or the mpirun has ended; False if a rank was lost before.

    The mpirun's own processes are counted. What other hosts have lost shows by silence.
    """
    most = missed = 0
    while mpirun.poll() is None and signs.begun < ranks and signs.ending is None:
        living = _children(mpirun.pid)
        most = max(most, min(living, ranks))  # what else an mpirun starts for a moment is not missed
        missed = missed + 1 if living < most else 0
        if missed > PATIENCE or time.monotonic() - signs.last > SILENT:
            return False
        time.sleep(LOOK)
    return True


def exit_status(mpirun: subprocess.Popen[Any], signs: Signs, survives: bool) -> int:
    """Wait for the end of the job; its exit status. Where a rank ends it and that does not happen, it is killed.

    survives: whether the others go on when a rank is lost, so that no error is fatal.
    """
    while mpirun.poll() is None:
        fatal = signs.fatal and not survives
        status = 1 if signs.ending is None and fatal else signs.ending
        try:
            return mpirun.wait(LOOK if status is None else GRACE if signs.ending is not None else FATAL_GRACE)
        except subprocess.TimeoutExpired:
            if status is not None:
                mpirun.kill()  # its ranks end with it
                mpirun.wait()
                return status
    return mpirun.returncode


def _children(process: int) -> int:
    """How many processes a process has started that live; 0 where the system does not say."""
    found = 0
    for path in Path(f"/proc/{process}/task").glob("*/children"):  # of each of its threads
        with suppress(OSError):
            found += len(path.read_text().split())
    return found
