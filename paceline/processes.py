"""Many simulations at once: in processes of this machine, or on the ranks of an mpirun."""

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


class _Here(Executor):
    """An executor that runs everything at once in this process."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_result(fn(*args, **kwargs))
        return future


@contextmanager
def process_pool(jobs: int) -> Iterator[Executor]:
    """An executor of so many processes, or of this one where one is enough. No process stays behind after a sweep."""
    if jobs <= 1:
        yield _Here()
        return
    others = multiprocessing.active_children()
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), _begin_process) as pool:
        # Ctrl-C reaches all processes of the terminal. The new ones start with it blocked: this process decides.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            for _ in range(jobs):
                pool.submit(int)  # starts a process
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        try:
            yield pool
        except BaseException:  # the processes would go on with the points that they have
            for child in multiprocessing.active_children():
                if child not in others:
                    child.terminate()
            raise


def _begin_process() -> None:
    """Let this process end with the one that started it, even where that one is killed."""
    die_with_parent(signal.SIGKILL)
    parent = multiprocessing.parent_process()
    if parent is not None and parent.pid != os.getppid():  # it has already been killed
        os._exit(1)
    gc.set_threshold(100_000, 50, 100)  # there are many small points: collecting garbage less often saves a twentieth


def on_ranks(action: Callable[[Executor | None, int], None]) -> None:
    """Call action(executor, processes) on rank 0 of this mpirun. The executor is the other ranks, if there are any."""
    with abort_on_error():
        ranks = world()[1]
        if ranks == 1:
            action(None, 1)
            return
        from mpi4py import MPI
        from mpi4py.futures import MPICommExecutor

        with MPICommExecutor(MPI.COMM_WORLD, root=0) as pool:
            if pool is not None:
                with abort_on_error():  # aborts at once, while leaving the executor waits for what runs
                    action(cast(Executor, pool), ranks - 1)
