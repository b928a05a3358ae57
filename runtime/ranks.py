"""Whether this process is a rank, by the environment variables that launchers set.

Rule: a rank's number alone proves nothing. Slurm sets SLURM_PROCID in every batch script, before any ranks are started.
A launcher that has started ranks also says how a rank finds the others. `launcher.world` compares the size with MPI's.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Literal

MpiKind = Literal["openmpi", "mpich"]
# For each launcher: the MPI to which its ranks belong, and the variables for a rank's number, for something that the
# launcher always sets with it, for the number of ranks, and for the rank among those of its machine.
_LAUNCHERS: tuple[tuple[MpiKind, str, str, str, str], ...] = (
    # Open MPI's mpirun
    ("openmpi", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK"),
    # srun --mpi=pmix, PRRTE
    ("openmpi", "PMIX_RANK", "PMIX_NAMESPACE", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID"),
    # the mpirun of MPICH and Intel, srun --mpi=pmi2, Flux
    ("mpich", "PMI_RANK", "PMI_SIZE", "PMI_SIZE", "MPI_LOCALRANKID"),
)
# The variables that tell an MPI library or an mpirun that it belongs to a running job.
CORES = "PACELINE_CORES"  # the cores that the ranks of an mpirun share out
LAUNCHED = "PACELINE_LAUNCHED"  # set for the ranks of an mpirun that Paceline has started
JOB_VARIABLES = (*(name for row in _LAUNCHERS for name in row[1:3]), "PMI_FD", "PMI_PORT", "PMI_ID")


@dataclass(frozen=True)
class RankPlace:
    """This process's place among the ranks of its job."""

    rank: int
    size: int | None  # how many ranks there are; None where the launcher does not say
    local: int  # the rank among those of this machine; `rank` where the launcher does not say
    kind: MpiKind  # the MPI of its launcher


def cores() -> int:
    """The number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def place() -> RankPlace | None:
    """The place that a launcher gave this process; None where it is not a rank."""
    for kind, rank, companion, size, local in _LAUNCHERS:
        number, ranks, here = _number(rank), _number(size), _number(local)
        # A shell under `srun --pty` is a rank of one; a command typed into it is not meant to be one.
        typed = "SLURM_PTY_PORT" in os.environ and ranks in (None, 1)
        if number is not None and companion in os.environ and not typed:
            return RankPlace(number, ranks, number if here is None else here, kind)
    return None


def by_launcher() -> bool:
    """Whether Paceline has started this rank's mpirun, and says itself how a run that has ended goes on."""
    return LAUNCHED in os.environ


def keep_to_own_cores() -> None:
    """Let this rank use its part of the cores in CORES alone, which the launcher sets where every rank can have some.

    Why: a rank that waits for messages looks for them without pause, and a rank that its exchange has just awakened may
    be put on that very core. It then waits until the scheduler notices, 4 ms later: FSDP between a fast worker and a
    slow one took 1.5 times as long.
    """
    cores, here = os.environ.get(CORES, ""), place()
    if cores and here and here.size:
        usable = [int(core) for core in cores.split(",")]
        first, stop = (len(usable) * place // here.size for place in (here.rank, here.rank + 1))
        os.sched_setaffinity(0, usable[first:stop])


def strangers() -> int:
    """How many tasks a plain srun has started that do not know of each other, this one included; else 1."""
    return (_number("SLURM_STEP_NUM_TASKS") or 1) if place() is None and "SLURM_PROCID" in os.environ else 1


def _number(name: str) -> int | None:
    text = os.environ.get(name, "")
    return int(text) if text.isdecimal() else None
