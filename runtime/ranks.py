"""Whether this process is a rank, by what launchers set.

Rule: a rank's number alone proves nothing. Slurm sets SLURM_PROCID in every batch script, where nobody has started
ranks yet; a launcher that has also says how a rank finds the others. `launcher.world` compares the size with MPI's.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Literal

MpiKind = Literal["openmpi", "mpich"]
# Whose libmpi reads these, a rank's number, what its launcher always sets with it, the number of ranks, and the rank
# among those of its machine.
_LAUNCHERS: tuple[tuple[MpiKind, str, str, str, str], ...] = (
    # Open MPI's mpirun
    ("openmpi", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK"),
    # srun --mpi=pmix, PRRTE
    ("openmpi", "PMIX_RANK", "PMIX_NAMESPACE", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID"),
    # the mpirun of MPICH and Intel, srun --mpi=pmi2, Flux
    ("mpich", "PMI_RANK", "PMI_SIZE", "PMI_SIZE", "MPI_LOCALRANKID"),
)
# What tells an MPI library or an mpirun that it belongs to a running job.
JOB_VARIABLES = (*(name for row in _LAUNCHERS for name in row[1:3]), "PMI_FD", "PMI_PORT", "PMI_ID")


@dataclass(frozen=True)
class RankPlace:
    """This process's place among ranks. size: how many there are; None where the launcher does not say.

    local: the rank among those of this machine; `rank` where the launcher does not say.
    """

    rank: int
    size: int | None
    local: int
    kind: MpiKind


def place() -> RankPlace | None:
    """The place that a launcher gave to this process, or None where it is not a rank."""
    for kind, rank, companion, size, local in _LAUNCHERS:
        number, ranks, here = _number(rank), _number(size), _number(local)
        # A shell under `srun --pty` is a rank of one, but what is typed into it is not meant as one.
        typed = "SLURM_PTY_PORT" in os.environ and ranks in (None, 1)
        if number is not None and companion in os.environ and not typed:
            return RankPlace(number, ranks, number if here is None else here, kind)
    return None


def strangers() -> int:
    """How many tasks a plain srun has started with this one, which know nothing of one another; else 1."""
    return (_number("SLURM_STEP_NUM_TASKS") or 1) if place() is None and "SLURM_PROCID" in os.environ else 1


def _number(name: str) -> int | None:
    text = os.environ.get(name, "")
    return int(text) if text.isdecimal() else None
