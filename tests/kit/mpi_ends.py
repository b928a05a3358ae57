"""Ways in which a job ends: python -m kit.mpi_ends {raises|known|exits|stops|deaf}, under mpirun.

For tests/runtime/test_runtime.py.
"""

from __future__ import annotations

import os
import signal
import sys
import time

from paceline.program.errors import ScenarioError
from paceline.runtime.launcher import STOP_SIGNALS, abort_on_error, world


def main(way: str) -> None:
    got: list[int] = []
    with abort_on_error():
        for number in STOP_SIGNALS:
            signal.signal(number, lambda number, frame: got.append(number))
        rank, _ = world()
        os.write(1, f"rank {rank} is process {os.getpid()}\n".encode())  # one write: lines of ranks do not mix
        if way == "raises" and rank == 1:
            raise ZeroDivisionError("on purpose")
        if way == "known":
            raise ScenarioError("the file is wrong")
        if way == "exits" and rank == 1:
            sys.exit(3)
        while way == "deaf" or not got:  # also the other ranks of one that fails: they wait for nothing
            time.sleep(0.02)
        os.write(1, f"rank {rank} stopped by {got[0]}\n".encode())


if __name__ == "__main__":
    main(sys.argv[1])
