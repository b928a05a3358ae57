"""What the ranks of a real run check together before a training: that they are enough, and share its directory."""

from __future__ import annotations

import os
import socket
import uuid
from pathlib import Path
from typing import Any

from .emulated_network import check_star
from .job import Job
from .program.errors import ScenarioError, WorkerLost
from .runtime import ulfm
from .runtime.messages import every_text, on_first
from .runtime.ranks import by_launcher
from .training import Training


def check_ranks(comm: Any, started: int, training: Training, job: Job) -> None:
    """ScenarioError where these ranks cannot train the job, WorkerLost where too many of them are lost by now.

    comm: of the ranks that are left of `started`.
    """
    check_star(training.scenario)
    recovery, ranks = job.scenario.recovery, comm.Get_size()
    if ranks < job.workers <= started:  # the launcher may start them again
        raise WorkerLost(f"a worker is lost: {training.title} has {job.workers} workers, and {ranks} are left")
    if ranks < job.workers:
        raise ScenarioError(
            f"{training.title}: {job.workers} workers but {ranks} ranks; start mpirun with -np {job.workers}"
        )
    if recovery.respawn and not by_launcher():
        raise ScenarioError(
            f"{training.title}: recovery.respawn: start it without mpirun, or --set recovery.respawn=false"
        )
    if recovery.shrink and not ulfm.survives():
        raise ScenarioError(
            f"{training.title}: recovery.shrink: these ranks end with the first one that is lost; "
            "start them with mpirun --with-ft ulfm (Open MPI), or let `paceline train` start them"
        )


def know_hosts(comm: Any, directory: Path, job: Job) -> None:
    """Tell the job the host of each worker. ScenarioError where a host does not see what rank 0 writes for the run.

    comm: of the workers' ranks, which all call this. directory: the run's, which need not exist yet.
    """
    with ulfm.noticing(comm):
        hosts = every_text(comm, socket.gethostname())
        job.problem.hosts = tuple(hosts)
        if len(set(hosts)) == 1:
            return
        near = next(folder for folder in (directory, *directory.absolute().parents) if folder.is_dir())
        # No host has looked for this name before: a network file system may remember that a file was missing.
        probe = near / f".paceline-{uuid.uuid4().hex}"
        probe = Path(on_first(comm, lambda: _made(probe)))
        try:
            seen = every_text(comm, "yes" if probe.exists() else "")
        finally:
            if comm.Get_rank() == 0:
                probe.unlink(missing_ok=True)
    blind = list(dict.fromkeys(host for host, found in zip(hosts, seen, strict=True) if not found))
    if blind:
        raise ScenarioError(
            f"{directory}: host {', '.join(blind)} does not see what host {hosts[0]} writes in {near}; all hosts "
            "write the run together: name a folder on a file system that they share by --out"
        )


def _made(path: Path) -> str:
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    return str(path)
