"""Where many simulations run at once: processes of this machine, or the ranks of an mpirun."""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from contextlib import contextmanager
from typing import Any, cast

from .runtime.launcher import abort_on_error, die_with_parent, world


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class _Here(Executor):
    """Runs what is submitted in this process, at once."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_result(fn(*args, **kwargs))
        return future


@contextmanager
def process_pool(jobs: int) -> Iterator[Executor]:
    """Processes of this machine, or this one where one is enough. None is left behind, whatever ends the sweep."""
    if jobs <= 1:
        yield _Here()
        return
    others = multiprocessing.active_children()
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), _begin_process) as pool:
        # Ctrl-C goes to every process of the terminal; they start with it blocked, for this one decides.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            for _ in range(jobs):
                pool.submit(int)  # starts a process
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        try:
            yield pool
        except BaseException:  # they would go on with the points that they have
            for child in multiprocessing.active_children():
                if child not in others:
                    child.terminate()
            raise


def _begin_process() -> None:
    """If the process that drives is killed, so is this one."""
    die_with_parent(signal.SIGKILL)
    parent = multiprocessing.parent_process()
    if parent is not None and parent.pid != os.getppid():  # it was killed before
        os._exit(1)
    gc.set_threshold(100_000, 50, 100)  # points are many and small: collecting less often saves a twentieth


def on_ranks(action: Callable[[Executor | None, int], None]) -> None:
    """Do action(executor, processes) on rank 0 of this mpirun, the executor being the other ranks, if there are any."""
    with abort_on_error():
        ranks = world()[1]
        if ranks == 1:
            action(None, 1)
            return
        from mpi4py import MPI
        from mpi4py.futures import MPICommExecutor

        with MPICommExecutor(MPI.COMM_WORLD, root=0) as pool:
            if pool is not None:
                with abort_on_error():  # at once: leaving the executor waits for what runs
                    action(cast(Executor, pool), ranks - 1)
