"""Whether this process is a rank, by the environment variables that launchers set.

Rule: a rank's number alone proves nothing. Slurm sets SLURM_PROCID in every batch script, before any ranks are started.
A launcher that has started ranks also says how a rank finds the others. `launcher.world` compares the size with MPI's.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Literal, NamedTuple

MpiKind = Literal["openmpi", "mpich"]


class _Launcher(NamedTuple):
    """What a launcher sets for its ranks: names of variables."""

    kind: MpiKind  # the MPI to which its ranks belong
    rank: str
    companion: str  # something that it always sets with the rank's number
    size: str  # the number of ranks
    local: str  # the rank among those of its host
    local_size: str  # how many ranks its host has


_LAUNCHERS = (
    _Launcher(  # Open MPI's mpirun
        "openmpi",
        "OMPI_COMM_WORLD_RANK",
        "OMPI_COMM_WORLD_SIZE",
        "OMPI_COMM_WORLD_SIZE",
        "OMPI_COMM_WORLD_LOCAL_RANK",
        "OMPI_COMM_WORLD_LOCAL_SIZE",
    ),
    # srun --mpi=pmix, PRRTE
    _Launcher("openmpi", "PMIX_RANK", "PMIX_NAMESPACE", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID", ""),
    # the mpirun of MPICH and Intel, srun --mpi=pmi2, Flux
    _Launcher("mpich", "PMI_RANK", "PMI_SIZE", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS"),
)
# The variables that tell an MPI library or an mpirun that it belongs to a running job.
CORES = "PACELINE_CORES"  # each rank's threads, where an mpirun's ranks share out their host's cores
LAUNCHED = "PACELINE_LAUNCHED"  # set for the ranks of an mpirun that Paceline has started
JOB_VARIABLES = (*(name for each in _LAUNCHERS for name in (each.rank, each.companion)), "PMI_FD", "PMI_PORT", "PMI_ID")


@dataclass(frozen=True)
class RankPlace:
    """This process's place among the ranks of its job."""

    rank: int
    size: int | None  # how many ranks there are; None where the launcher does not say
    local: int  # the rank among those of this machine; `rank` where the launcher does not say
    kind: MpiKind  # the MPI of its launcher
    local_size: int | None = None  # how many ranks its host has; None where the launcher does not say


def cores() -> int:
    """The number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def place() -> RankPlace | None:
    """The place that a launcher gave this process; None where it is not a rank."""
    for each in _LAUNCHERS:
        number, ranks, local = _number(each.rank), _number(each.size), _number(each.local)
        # A shell under `srun --pty` is a rank of one; a command typed into it is not meant to be one.
        typed = "SLURM_PTY_PORT" in os.environ and ranks in (None, 1)
        if number is not None and each.companion in os.environ and not typed:
            return RankPlace(number, ranks, number if local is None else local, each.kind, _number(each.local_size))
    return None


def by_launcher() -> bool:
    """Whether Paceline has started this rank's mpirun, and says itself how a run that has ended goes on."""
    return LAUNCHED in os.environ


def keep_to_own_cores() -> None:
    """Let this rank use its part of its host's cores alone, if CORES is set and there is a core for each thread.

    Why: a rank that waits for messages looks for them without pause, and a rank that its exchange has just awakened may
    be put on that very core. It then waits until the scheduler notices, 4 ms later: FSDP between a fast worker and a
    slow one took 1.5 times as long.
    """
    threads, here = _number(CORES), place()
    if threads and here and here.local_size and hasattr(os, "sched_getaffinity"):
        usable, ranks = sorted(os.sched_getaffinity(0)), here.local_size
        if 1 < ranks * threads <= len(usable):
            first, stop = (len(usable) * place // ranks for place in (here.local, here.local + 1))
            os.sched_setaffinity(0, usable[first:stop])


def strangers() -> int:
    """How many tasks a plain srun has started that do not know of each other, this one included; else 1."""
    return (_number("SLURM_STEP_NUM_TASKS") or 1) if place() is None and "SLURM_PROCID" in os.environ else 1


def _number(name: str) -> int | None:
    text = os.environ.get(name, "")
    return int(text) if text.isdecimal() else None
