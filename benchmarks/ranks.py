"""A rank of a benchmark: calls the function that harness.on_ranks has left in a file."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path

from paceline.runtime.launcher import abort_on_error


def main(task: Path, answer: Path) -> None:
    with abort_on_error():
        from mpi4py import MPI

        function, arguments = pickle.loads(task.read_bytes())
        found = function(MPI.COMM_WORLD, *arguments)
        if MPI.COMM_WORLD.rank == 0:
            answer.write_bytes(pickle.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
