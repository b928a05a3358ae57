"""Whether this process is a rank, by what launchers set.

Rule: a rank's number alone proves nothing. Slurm sets SLURM_PROCID in every batch script, where nobody has started
ranks yet; a launcher that has also says how a rank finds the others. `launcher.world` compares the size with MPI's.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Literal

Kind = Literal["openmpi", "mpich"]
# (a rank's number, what the same launcher always sets with it, the number of ranks, whose libmpi reads these)
_LAUNCHERS: tuple[tuple[str, str, str, Kind], ...] = (
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_SIZE", "openmpi"),  # Open MPI's mpirun
    ("PMIX_RANK", "PMIX_NAMESPACE", "SLURM_STEP_NUM_TASKS", "openmpi"),  # srun --mpi=pmix, PRRTE
    ("PMI_RANK", "PMI_SIZE", "PMI_SIZE", "mpich"),  # the mpirun of MPICH and Intel, srun --mpi=pmi2, Flux
)
# What tells an MPI library or an mpirun that it belongs to a running job.
JOB_VARIABLES = (*(name for row in _LAUNCHERS for name in row[:2]), "PMI_FD", "PMI_PORT", "PMI_ID")


@dataclass(frozen=True)
class Place:
    """This process's place among ranks. size: how many there are; None where the launcher does not say."""

    rank: int
    size: int | None
    kind: Kind


def place() -> Place | None:
    """The place that a launcher gave to this process, or None where it is not a rank."""
    for rank, companion, size, kind in _LAUNCHERS:
        number, ranks = _number(rank), _number(size)
        # A shell under `srun --pty` is a rank of one, but what is typed into it is not meant as one.
        typed = "SLURM_PTY_PORT" in os.environ and ranks in (None, 1)
        if number is not None and companion in os.environ and not typed:
            return Place(number, ranks, kind)
    return None


def strangers() -> int:
    """How many tasks a plain srun has started with this one, which know nothing of one another; else 1."""
    return (_number("SLURM_STEP_NUM_TASKS") or 1) if place() is None and "SLURM_PROCID" in os.environ else 1


def _number(name: str) -> int | None:
    text = os.environ.get(name, "")
    return int(text) if text.isdecimal() else None
