"""The run directory of a training loop of the user's own. Every rank has one; only rank 0's writes."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .algorithms.plan import Plan
from .algorithms.rounds import State
from .algorithms.worker import Worker
from .job import Job
from .looking import Looking, trained
from .program.errors import one_line
from .program.outcome import Hooks, Outcome, ignored
from .records import lock
from .records.recorder import Recorder
from .records.replacing import prepare, put_back
from .records.spool import Spool
from .records.trace import open_spool, write_spooled
from .replicas import check_replicas, fingerprints
from .runtime.ending import end_job
from .runtime.messages import gather_outcomes, gather_texts, on_first
from .runtime.watch import Watch
from .terminal import say
from .tracking import Tracking, callbacks_of

if TYPE_CHECKING:
    from .runtime.engine import RankRun


class OwnRecord:
    """What one rank records. directory: None where nothing is written."""

    def __init__(self, comm: Any, job: Job, directory: Path | None, force: bool, callbacks: Sequence[Any] = ()) -> None:
        self._comm, self._job, self._rank = comm, job, comm.Get_rank()
        self.directory, self._force = directory, force
        told = callbacks_of(job.scenario, directory, callbacks) if self._rank == 0 else None
        self.recorder = Recorder(directory if self._rank == 0 else None, tell=say, callbacks=told)
        self.tracking = Tracking(self.recorder, job.scenario, virtual=False)
        self._looks = Looking(directory if self._rank == 0 else None)
        self._held = ExitStack()  # rank 0's lock of the directory
        self._spool: Spool | None = None
        on_first(comm, self._begin)
        if directory is not None and job.scenario.report.trace:
            self._spool = open_spool(directory, self._rank)
            self.tracking.trace_rank(self._spool, self._rank)

    def _begin(self) -> None:
        self._job.warn()
        if self.directory is not None:
            self._held.enter_context(lock.held(self.directory, say))
            prepare(self.directory, self._force)
            self._write(self._job)

    def _write(self, job: Job) -> None:
        assert self.directory
        self.recorder.scenario(job.record(self.directory, [job.part()]))

    def hooks(self, stop: Callable[[], bool]) -> Hooks:
        """What the interpreter calls back. The parameters are the user's, so there are no checkpoints of them."""
        take = self._spool.take if self._spool is not None else None
        return Hooks(self.recorder.log, ignored, stop, take, round=self.tracking.hook)

    def look(self, plan: Plan, state: State, worker: Worker, run: RankRun) -> None:
        """Tell those who watch where the run is. plan: it may have no end. state: the program moves it on."""
        self._looks.begin(trained(plan, state, worker, run, self.recorder, range(self._job.workers)))

    def watch(self) -> Watch | None:
        """Notices stalls; None where nothing can stall, or where there is no directory for the signs of life."""
        spec, size = self._job.scenario.deadline, self._job.workers
        if spec == "none" or size == 1 or self.directory is None:
            return None

        def end(line: str) -> None:
            end_job(f"paceline: {one_line(line)}")

        return Watch(self._rank, range(size), spec, self.directory, lambda: False, say, end)

    def take_back(self, round: int) -> None:
        """Remove the last line if it is of this round: one with an evaluation takes its place."""
        lines = self.recorder.lines
        if len(lines) and lines[-1]["round"] == round:
            self.recorder.forget_last()

    def abandon(self) -> None:
        """The loop has failed: the run that this one was to replace comes back."""
        self._looks.end(RuntimeError("the loop has failed"))
        if self._rank == 0 and self.directory is not None:
            put_back(self.directory)
        self._held.close()

    def finish(
        self, outcome: Outcome, digest: str, step_seconds: float, finished: bool, ended: Callable[[list[float]], Job]
    ) -> None:
        """Write what is written at the end. ended: makes the job that tells of the run, from the ranks' step times.

        ReplicasDiffer, on rank 0, where the ranks' parameters have different hashes.
        """
        self.tracking.close()
        if self._spool is not None:
            self._spool.close()
        found = [json.loads(text) for text in gather_texts(self._comm, json.dumps([digest, step_seconds]))]
        outcomes = gather_outcomes(self._comm, outcome)
        if self._rank > 0:
            return
        job, digests = ended([seconds for _, seconds in found]), [each for each, _ in found]
        if self.directory is not None:
            if self._spool is not None:
                write_spooled(self.directory, len(outcomes), split=True)
            self._write(job)
        extra = {"timing_only": False, "finished": finished} | fingerprints(digests, sharded=False)
        self.recorder.finish("mpi", outcomes, job.plan.epochs(outcomes[0].result), extra | job.by_class(outcomes))
        self._looks.end(None)
        self._held.close()
        check_replicas(digests, self.directory)
