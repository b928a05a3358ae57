"""Training on one rank under mpirun.

Every rank runs this with the same arguments. Only rank 0 prints and writes, but each rank writes its own part of a
checkpoint.
"""

from __future__ import annotations

import gc
import json
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from .algorithms.rounds import State
from .emulated_network import check_star
from .handover import Division
from .job import Job, resolve
from .program.errors import ScenarioError, one_line
from .program.outcome import Hooks, Spans
from .progress import progress
from .real_faults import rank_faults
from .records import checkpoints, lock, struck
from .records.directory import CHECKPOINTS
from .records.progress import Progress, forget
from .records.recorder import Part, Recorder
from .records.recoveries import LANE, Recovery, recoveries_in
from .records.replacing import prepare, put_back, putting_back
from .records.spool import Spool
from .records.trace import open_spool, write_spooled
from .replicas import check_replicas, fingerprints
from .resuming import Resumption, going_on, history_of, resumption, subject
from .run import Run
from .runtime.faults import RankFaults
from .runtime.launcher import Stop, abort_on_error, end_job
from .runtime.ranks import by_launcher
from .runtime.resident import resident, resident_peak
from .runtime.watch import Watch
from .terminal import say
from .training import Training, TrainOptions, trainings


def train_ranks(scenarios: Sequence[Path], options: TrainOptions, quiet: bool, stop: Stop) -> None:
    """Train the scenarios one after the other on the ranks of this mpirun."""
    with abort_on_error():
        from mpi4py import MPI

        comm = MPI.COMM_WORLD
        for training in trainings(scenarios, options):
            check_star(training.scenario)
            job = resolve(training.scenario, training.path.parent)
            if comm.Get_size() < job.workers:
                raise ScenarioError(
                    f"{training.title}: {job.workers} workers but {comm.Get_size()} ranks; "
                    f"start mpirun with -np {job.workers}"
                )
            taking_part = comm.Get_rank() < job.workers
            group = comm.Split(0 if taking_part else 1, comm.Get_rank())
            if comm.Get_rank() == 0:
                job.warn()
            if taking_part:
                _RankTraining(group, training, job, options, stop).train(quiet)
            group.Free()
            comm.Barrier()


class _RankTraining:
    """The part of one rank in one training."""

    def __init__(self, comm: Any, training: Training, job: Job, options: TrainOptions, stop: Stop) -> None:
        self.comm, self.training, self.job, self.options, self.stop = comm, training, job, options, stop
        self.rank = comm.Get_rank()
        self.phantom = job.scenario.train.phantom
        self.recorder = Recorder(
            training.directory,
            kept=job.scenario.checkpoint.optimizer,
            subject=subject(job.scenario, Division.of(job.plan)),
            retention=job.retention(),
            tell=say,
        )
        self.held = ExitStack()  # rank 0's lock of the directory
        self.spool: Spool | None = None  # takes the spans of a traced run
        self.progress: Progress | None = None  # rank 0's, of a run that may restart
        self.recovery: Recovery | None = None  # from which this part of the run comes, on rank 0
        self.resumed = 0  # the round at which this run goes on
        self.loaded = 0  # bytes in memory after imports, before data and worker

    def train(self, quiet: bool) -> None:
        """Train and record; rank 0 also shows the run."""
        with self.held:
            state, worker = self._start()
            with putting_back(self.training.directory if self.rank == 0 else None):
                self._run(state, worker, quiet)

    def _run(self, state: State, worker: Any, quiet: bool) -> None:
        from .runtime.engine import run

        if self.rank == 0:
            self.job.warn()  # new warnings, found when the worker was built
        options, scenario = self.options, self.job.scenario
        device = self.job.timing.devices[self.rank]
        slowness = self.job.timing.slowness(scenario.batch)[self.rank] if scenario.train.emulate else 1.0
        if scenario.report.trace:
            self.spool = open_spool(self.training.directory, self.rank)
        take = self.spool.take if self.spool is not None else None
        synced = self._synced(state)
        hooks = Hooks(self.recorder.log, self._checkpoint, lambda: self.stop.asked, take, synced, self._struck)
        if self.spool is not None and self.recovery is not None:
            name, start, stop = self.recovery.span(-self.recovery.seconds)
            self.spool.take(0, LANE, Spans([name], [start], [stop]))
        silent = quiet or self.rank > 0
        shown = progress(f"train {self.training.title}", self.job.plan.budget, silent, options.bar)
        with shown as self.recorder.on_line, going_on(scenario, self.training.directory):
            outcome = run(
                self.job.programs([worker], state)[0],
                hooks,
                comm=self.comm,
                reduction=scenario.reduction,
                trace=scenario.report.trace,
                debug=options.debug,
                slowness=slowness,
                price=device.seconds if scenario.train.phantom else None,
                watch=self._watch(),
                faults=self._faults(state),
            )
        self._finish(outcome, worker, quiet)

    def _synced(self, state: State) -> Callable[[int, float, Any], None] | None:
        """Notes how far the run has come at each sync, so that it is known if this rank is lost."""
        if self.rank > 0 or not self.job.scenario.recovery.max_restarts:
            return None
        noted = self.progress = Progress(self.training.directory, state.round, self.recorder.earlier)
        return lambda worker, seconds, effect: noted.note(effect.round, seconds + self.recorder.earlier)

    def _faults(self, state: State) -> RankFaults | None:
        if not self.job.scenario.faults:
            return None
        seconds = float(self._on_first(lambda: repr(self.recorder.earlier)))
        return rank_faults(self.job, self.rank, self.training.directory, state, seconds)

    def _struck(self, worker: int, entry: dict[str, Any]) -> None:
        struck.append(self.training.directory, {"worker": worker} | entry)

    def _watch(self) -> Watch | None:
        spec, directory = self.job.scenario.deadline, self.training.directory
        if spec == "none":
            return None

        def end(line: str) -> None:
            how = "" if by_launcher() else f"; {checkpoints.go_on(directory)}"
            end_job(f"paceline: {one_line(f'{line}{how}')}")

        return Watch(self.rank, self.job.workers, spec, directory, self.stop.came, say, end)

    def _start(self) -> tuple[State, Any]:
        """The state to begin with, and this rank's worker. The scenario is written when nothing can refuse it now."""
        problem, plan = self.job.problem, self.job.plan
        if self.phantom:
            self._on_first(self._new_run)
            return State(), problem.phantoms(plan)[self.rank]
        problem.load_libraries(plan)
        gc.freeze()  # what they have made stays, and need not be looked at again
        self.loaded = resident()
        resumed = self.training.resumes
        (worker,) = problem.workers(plan, [self.rank], shared_process=False, resumed=resumed)
        self.comm.Barrier()  # nothing is written before every rank has its worker, which has tried a step
        if not resumed:
            self._on_first(self._new_run)
            return State(), worker
        name = self._on_first(self._checkpoint_to_resume)
        saved = self.training.directory / CHECKPOINTS / name
        found = resumption(saved, self.job, self.options.change, self.training.without)
        state, fresh = found.state, worker.snapshot()

        def read(earlier: int) -> dict[str, Any]:
            return checkpoints.resumed(saved, earlier, self.recorder.kept, fresh, found.sha256)

        try:
            worker.restore(found.handover.snapshot(self.rank, read, fresh))
        except (ValueError, TypeError, KeyError, IndexError, RuntimeError) as error:
            raise ScenarioError(f"{saved}: does not fit the scenario: {error}") from None
        self.recorder.earlier, self.resumed = found.seconds, state.round
        self._on_first(lambda: self._go_on(found))
        return state, worker

    def _hold(self) -> None:
        """Hold the directory from here on. After a lost worker it is known whose lock it was."""
        tell = say if self.training.restart is None else lambda line: None
        self.held.enter_context(lock.held(self.training.directory, tell))

    def _checkpoint_to_resume(self) -> str:
        """The folder's name."""
        self._hold()
        saved, damaged = checkpoints.whole(self.training.directory, self.training.round)
        for line in damaged:
            say(f"resumed: {line}; the run goes on from {saved.name}")
        return saved.name

    def _go_on(self, found: Resumption) -> None:
        torn = self.recorder.resume(found.state.round, found.seconds)
        self._record(found.parts)
        for line in filter(None, (*found.said, torn)):
            say(f"resumed: {line}")

    def _new_run(self) -> None:
        self._hold()
        directory, restart = self.training.directory, self.training.restart
        before: list[dict[str, Any]] = []
        if restart is not None and restart.begun:  # the lost ranks have made the directory ready
            self.recorder.begin_again(0.0)
            before = history_of(directory)
        else:
            prepare(directory, self.options.force, [self.training.path])
        self._record([*before, self.job.part()])

    def _record(self, parts: list[dict[str, Any]]) -> None:
        """Write the scenario. After a lost worker its newest part tells how the run went on, and the clock goes on."""
        directory, restart = self.training.directory, self.training.restart
        if restart is not None:
            self.recovery = restart.recovery(directory, self.job.workers, parts[-1]["from_round"])
            parts[-1] |= {"recovery": self.recovery.noted()}
            self.recorder.earlier = self.recovery.at + self.recovery.seconds
        self.recorder.recoveries = recoveries_in(parts)
        self.recorder.scenario(self.job.record(directory, parts))

    def _on_first(self, action: Callable[[], str | None]) -> str:
        from .runtime.messages import on_first

        return on_first(self.comm, action)

    def _memory(self, worker: Any) -> dict[str, int]:
        """Bytes: what the worker has counted, and what the process held after imports and at most."""
        counted: dict[str, int] = worker.memory()
        return counted | {"resident_before": self.loaded, "resident_peak": resident_peak()}

    def _checkpoint(self, worker: int, seconds: float, state: Any, arrays: dict[str, Any]) -> None:
        """Write this rank's part of a checkpoint. Rank 0 finishes it when all have written."""
        if self.phantom:
            return
        from .runtime.messages import gather_texts

        part = self.recorder.part(worker, state.round, arrays)
        parts = gather_texts(self.comm, json.dumps(part))
        if self.rank == 0:
            self.recorder.commit([Part(*json.loads(text)) for text in parts], seconds, state)

    def _finish(self, outcome: Any, worker: Any, quiet: bool) -> None:
        from .runtime.messages import gather_outcomes, gather_texts

        if self.spool is not None:
            self.spool.close()
        if self.progress is not None:
            self.progress.close()
        digests = gather_texts(self.comm, "" if self.phantom else worker.digest())
        counted = gather_texts(self.comm, json.dumps({} if self.phantom else self._memory(worker)))
        outcomes = gather_outcomes(self.comm, outcome)
        if self.rank > 0:
            return
        if self.spool is not None:
            write_spooled(self.training.directory, self.job.workers, split=True)
        finished = self.job.plan.finished(outcome.result)
        extra: dict[str, Any] = {"timing_only": self.phantom, "finished": finished}
        if self.resumed:
            extra["resumed_at_round"] = self.resumed
        extra["memory_predicted"] = self.job.memory(self.job.problem.phantoms(self.job.plan).works)
        if not self.phantom:
            memories = [json.loads(text) for text in counted]
            extra["memory_measured"] = {key: [each[key] for each in memories] for key in memories[0]}
            extra |= fingerprints(digests, self.job.plan.strategy.placement.sharded)
        self.recorder.struck = struck.read(self.training.directory)
        summary = self.recorder.finish("mpi", outcomes, extra)
        forget(self.training.directory)
        if not quiet:
            from .printing import show_run

            show_run(Run(summary, self.recorder.lines, {}, self.training.directory))
        if not finished and self.recorder.saved:
            command = checkpoints.resume_command(self.training.directory)
            print(f"stopped after round {summary['rounds']}; go on with: {command}")
            if line := put_back(self.training.directory):
                print(line)
        # A CPU and a GPU round differently, so that their parameters need not be equal.
        devices = {device.torch_device for device in self.job.timing.devices}
        if not self.phantom and not self.job.plan.strategy.placement.sharded and len(devices) == 1:
            check_replicas(digests, self.training.directory)
