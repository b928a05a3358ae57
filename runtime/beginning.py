"""Notices a rank that is lost before the ranks have found one another.

An mpirun ends all ranks with the first one that is lost. With ULFM it does not, and the others would wait in MPI_Init
for ever, where they notice nothing. So until all have come out of it, the launcher counts the mpirun's processes.
"""

from __future__ import annotations

import os
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

VARIABLE = "PACELINE_BEGUN"  # tells ranks the folder in which each says that it has come out of MPI_Init
LOOK = 0.05  # seconds
PATIENCE = 40  # looks: a rank may have begun, and be about to say so, when another one is lost


def say_begun() -> None:
    """This rank has come out of MPI_Init."""
    if VARIABLE in os.environ:
        with suppress(OSError):
            (Path(os.environ[VARIABLE]) / f"begun-{os.getpid()}").touch()


def all_begin(mpirun: subprocess.Popen[Any], ranks: int, folder: Path) -> bool:
    """Return when all ranks have begun or the mpirun has ended; False if a rank was lost before.

    folder: the one that VARIABLE names.
    """
    most = missed = 0
    while mpirun.poll() is None and len([*folder.glob("begun-*")]) < ranks:
        living = _children(mpirun.pid)
        most, missed = max(most, living), missed + 1 if living < most else 0
        if missed > PATIENCE:
            return False
        time.sleep(LOOK)
    return True


def _children(process: int) -> int:
    """How many processes a process has started that live; 0 where the system does not say."""
    found = 0
    for path in Path(f"/proc/{process}/task").glob("*/children"):  # of each of its threads
        with suppress(OSError):
            found += len(path.read_text().split())
    return found
