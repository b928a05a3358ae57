"""Functions on the ranks of an mpirun, each of which is a process of this module."""

from __future__ import annotations

import pickle
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from paceline.runtime.launcher import abort_on_error, launch
from paceline.runtime.star import Star


def on_ranks(function: Callable[..., Any], ranks: int, *arguments: Any, star: Star | None = None) -> Any:
    """What `function(comm, *arguments)` returns on rank 0 of an mpirun. The function is one of a benchmark's module.

    star: the network on whose nodes the ranks run. RuntimeError where a rank fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        task, answer = Path(folder, "task"), Path(folder, "answer")
        task.write_bytes(pickle.dumps((function, arguments)))
        status = launch([str(task), str(answer)], ranks, program=["-m", "benchmarks.ranks"], rounds=False, on=star)
        if status:
            raise RuntimeError(f"{function.__module__}.{function.__name__} on {ranks} ranks: status {status}")
        return pickle.loads(answer.read_bytes())


def slowest(comm: Any, taken: Mapping[str, Sequence[float]]) -> dict[str, list[float]]:
    """The costs of the slowest rank, turn by turn: a step is over when it is over everywhere. Collective."""
    everyone = comm.allgather(dict(taken))
    return {name: [max(costs) for costs in zip(*(own[name] for own in everyone), strict=True)] for name in taken}


def main(task: Path, answer: Path) -> None:
    """A rank: calls the function that `on_ranks` has left in a file."""
    with abort_on_error():
        from mpi4py import MPI

        function, arguments = pickle.loads(task.read_bytes())
        found = function(MPI.COMM_WORLD, *arguments)
        if MPI.COMM_WORLD.rank == 0:
            answer.write_bytes(pickle.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
