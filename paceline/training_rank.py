"""Training on one rank under mpirun.

Every rank runs this with the same arguments. Only rank 0 prints and writes, but each rank writes its own part of a
checkpoint.
"""

from __future__ import annotations

import gc
import json
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

from .algorithms.rounds import State
from .handover import Division
from .job import Job, resolve
from .looking import looking, trained
from .memory_check import goes_on, measured
from .program.errors import ScenarioError, WorkerLost, one_line
from .program.outcome import Hooks, Outcome, Spans
from .progress import progress
from .rank_checks import check_ranks, know_hosts
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
from .runtime import ulfm
from .runtime.ending import end_job
from .runtime.engine import RankRun
from .runtime.faults import RankFaults
from .runtime.launcher import Stop, abort_on_error
from .runtime.messages import gather_outcomes, gather_texts, on_first
from .runtime.ranks import by_launcher
from .runtime.resident import resident
from .runtime.watch import Watch
from .survivors import NextPart, Survivors, make_worker
from .terminal import say
from .tracking import Tracking, callbacks_of
from .training import Training, TrainOptions, trainings


def train_ranks(scenarios: Sequence[Path], options: TrainOptions, quiet: bool, stop: Stop) -> None:
    """Train the scenarios one after the other on the ranks of this mpirun."""
    with abort_on_error():
        from mpi4py import MPI

        comm = MPI.COMM_WORLD
        for training in trainings(scenarios, options):
            job = resolve(training.scenario, training.path.parent)
            check_ranks(comm, MPI.COMM_WORLD.Get_size(), training, job)
            recovery = job.scenario.recovery
            taking_part = comm.Get_rank() < job.workers
            group = comm.Split(0 if taking_part else 1, comm.Get_rank())
            if comm.Get_rank() == 0:
                job.warn()
            know_hosts(group, training.directory, job)
            waits = taking_part and _RankTraining(group, training, job, options, stop).train(quiet)
            comm = ulfm.remaining(comm)
            if recovery.respawn and not ulfm.agreed(comm, not waits):
                return


class _Ended(NamedTuple):
    """What rank 0 knows of all ranks when the last part has ended. The others know nothing."""

    digests: list[str]
    memory: list[str]  # what each has used, as JSON
    outcomes: list[Outcome]


class _RankTraining:
    """The part of one rank in one training.

    A training is a row of parts. Where a worker is lost, the others begin the next one: see survivors.py.
    """

    def __init__(self, comm: Any, training: Training, job: Job, options: TrainOptions, stop: Stop) -> None:
        self.comm, self.training, self.job, self.options, self.stop = comm, training, job, options, stop
        self.rank, self.began_with = comm.Get_rank(), job.workers
        # The present part's workers, by their numbers when the command began.
        self.members = [*range(job.workers)] if training.restart is None else training.restart.members
        self.survivors = Survivors(comm, self.members) if goes_on(job.scenario, job.plan) else None
        self.phantom = job.scenario.train.phantom
        self.recorder = Recorder(
            training.directory,
            kept=job.scenario.checkpoint.optimizer,
            subject=subject(job.scenario, Division.of(job.plan)),
            retention=job.retention(),
            tell=say,
            callbacks=callbacks_of(job.scenario, training.directory) if self.rank == 0 else None,
        )
        self.tracking = Tracking(self.recorder, job.scenario, virtual=False)
        self.held = ExitStack()  # rank 0's lock of the directory
        self.spool: Spool | None = None  # takes the spans of a traced run
        self.history: list[dict[str, Any]] = []  # of rank 0: an entry for each part of the run
        self.progress: Progress | None = None  # rank 0's, of a run that may restart
        self.recovery: Recovery | None = None  # from which this part of the run comes, on rank 0
        self.passed: list[str] = []  # rank 0's: the damaged checkpoints that it passed over, in lines
        self.resumed, self.whole = 0, job  # the round at which this run goes on; the job of all workers
        self.joining = False  # whether this part ends at its first sync, so that lost workers join
        self.finished = False  # whether the budget is used up
        self.loaded = 0  # bytes in memory after imports, before data and worker

    def train(self, quiet: bool) -> bool:
        """Train and record; rank 0 also shows the run. Whether all workers are to go on from here in new ranks."""
        with self.held, ulfm.noticing(self.comm):
            state, worker = self._start()
            with putting_back(self.training.directory if self.rank == 0 else None):
                return self._run(state, worker, quiet)

    def _run(self, state: State, worker: Any, quiet: bool) -> bool:
        if self.rank == 0:
            self.job.warn()  # new warnings, found when the worker was built
        if self.job.scenario.report.trace:
            self.spool = spool = open_spool(self.training.directory, self.rank)
            self.tracking.trace_rank(spool, self.rank)
            if self.recovery is not None:
                spool.take(0, LANE, Spans.of(self.recovery.span(-self.recovery.seconds)))
        self.tracking.begin(self.job.plan, state)
        first, directory = self.rank == 0, self.training.directory
        shown = progress(f"train {self.training.title}", self.job.plan.budget, quiet or not first, self.options.bar)
        with looking(directory if first else None) as self.looks:
            with shown as show, going_on(self.job.scenario, directory, not by_launcher()):
                self.recorder.on_line, self.looks.tell = show.line, show.now if first else None
                ended = self._parts(state, worker)
            waits = self.looks.goes_on = self.joining and not self.finished and not self.stop.asked
            if not waits:
                self._finish(ended, quiet)
        return waits

    def _parts(self, state: State, worker: Any) -> _Ended:
        """Train, one part after the other, until one of them ends well for all ranks that are left."""
        survivors, scenario = self.survivors, self.job.scenario
        take = self.spool.take if self.spool is not None else None
        hooks = Hooks(self.recorder.log, self._checkpoint, lambda: self.stop.asked or self.joining, take)
        hooks.sync, hooks.round, hooks.struck = self._synced(state), self.tracking.hook, self._struck
        run = RankRun(
            hooks,
            comm=self.comm,
            reduction=scenario.reduction,
            trace=scenario.report.trace,
            debug=self.options.debug,
            **self._pace(state),
        )
        if survivors is None:
            return self._part(run, state, worker)
        survivors.kept.restart(state, worker.snapshot())
        following: NextPart | None = None
        noticed = 0.0  # when the last loss was, by the bare clock
        while True:
            ended: _Ended | None = None
            with suppress(WorkerLost):
                if following is not None:
                    self._begin(run, following, noticed)
                ended = self._part(run, state, worker)
            if ulfm.agreed(self.comm, ended is not None) and ended is not None:
                return ended
            noticed = perf_counter()
            if not self.phantom:
                worker.forget()
            del worker, following
            gc.collect()  # the worker goes before the next one comes
            following = survivors.next_part(self.job)
            self.comm, self.job, self.members = survivors.comm, following.job, survivors.members
            self.rank = self.comm.Get_rank()
            state, worker, self.joining = following.state, following.worker, self.job.scenario.recovery.respawn

    def _part(self, run: RankRun, state: State, worker: Any) -> _Ended:
        """Run the part's program; what is known of all ranks at its end."""
        program = self.job.programs([worker], state)[0]
        self.looks.begin(trained(self.job.plan, self.job.reached, worker, run, self.recorder, self.members))
        outcome = run.finish(run.drive(program))
        self.finished = self.job.plan.finished(outcome.result)
        self.tracking.close()  # before rank 0 reads the spools
        with ulfm.noticing(self.comm):
            digests = gather_texts(self.comm, worker.digest())
            memory = gather_texts(
                self.comm, json.dumps({} if self.phantom else measured(worker, self.survivors, self.loaded))
            )
            return _Ended(digests, memory, gather_outcomes(self.comm, outcome))

    def _begin(self, run: RankRun, part: NextPart, noticed: float) -> None:
        """Begin the next part with the ranks that are left, and record that. noticed: the loss, by the bare clock."""
        at = run.clock(noticed)
        try:
            run.join(self.comm, **self._pace(part.state))
        finally:
            begun = perf_counter()
            run.span(LANE, "shrink", noticed, begun)
            if self.rank == 0:
                self._shrunk(part, at + self.recorder.earlier, run.clock(begun) - at)
                run.leave_out(begun)
            self.tracking.begin(self.job.plan, part.state, counts_on=True)

    def _shrunk(self, part: NextPart, at: float, seconds: float) -> None:
        """Say and write down how the run goes on. at, seconds: see Recovery."""
        job, recorder = self.job, self.recorder
        entry = part.recovery(at, seconds)
        how, *handed_over = part.lines()
        for line in (how, *handed_over):
            say(line)
        self.history.append(job.part(entry.from_round) | {"recovery": entry.noted(), "handed_over": handed_over})
        recorder.subject, recorder.retention = subject(job.scenario, Division.of(job.plan)), job.retention()
        recorder.recoveries = recoveries_in(self.history)
        try:
            recorder.go_back(entry.from_round, recorder.earlier)
            # Lost workers that are to join belong to the run.
            recorder.scenario((self.whole if self.joining else job).record(self.training.directory, self.history))
        except OSError as error:  # a full disk: the run goes on while it can
            say(f"{self.training.directory}: cannot be written: {error.strerror or error}; the run goes on")

    def _pace(self, state: State) -> dict[str, Any]:
        """What RankRun.join needs to know of a part that begins with this state."""
        timing, scenario = self.job.timing, self.job.scenario
        return {
            "slowness": timing.slowness(scenario.batch)[self.rank] if scenario.train.emulate else 1.0,
            "price": timing.devices[self.rank].seconds if self.phantom else None,
            "watch": self._watch(),
            "faults": self._faults(state),
        }

    def _synced(self, state: State) -> Callable[[int, float, Any], None] | None:
        """Hooks.sync: keeps what is needed if a rank is lost. Rank 0 notes how far the run has come."""
        kept = None if self.survivors is None else self.survivors.sync
        recovery = self.job.scenario.recovery
        if self.rank > 0 or not (recovery.max_restarts or recovery.respawn):
            return kept
        noted = self.progress = Progress(self.training.directory, state.round, self.recorder.earlier)

        def synced(worker: int, seconds: float, effect: Any) -> None:
            noted.note(effect.round, seconds + self.recorder.earlier, self.joining)
            if kept is not None:
                kept(worker, seconds, effect)

        return synced

    def _faults(self, state: State) -> RankFaults | None:
        if not self.job.scenario.faults:
            return None
        with ulfm.noticing(self.comm):
            seconds = float(self._on_first(lambda: repr(self.recorder.earlier)))
        return rank_faults(self.job, self.rank, self.training.directory, state, seconds)

    def _struck(self, worker: int, entry: dict[str, Any]) -> None:
        struck.append(self.training.directory, {"worker": self.members[worker]} | entry)

    def _watch(self) -> Watch | None:
        spec, directory = self.job.scenario.deadline, self.training.directory
        if spec == "none":
            return None

        def end(line: str) -> None:
            how = "" if by_launcher() else f"; {checkpoints.go_on(directory)}"
            end_job(f"paceline: {one_line(f'{line}{how}')}")

        kills = self.survivors is not None
        return Watch(self.rank, self.members, spec, directory, self.stop.came, say, end, kills)

    def _start(self) -> tuple[State, Any]:
        """The state to begin with, and this rank's worker. The scenario is written when nothing can refuse it now."""
        problem, plan = self.job.problem, self.job.plan
        resumed = self.training.resumes
        if not self.phantom:
            problem.load_libraries(plan)
            gc.freeze()  # what they have made stays, and need not be looked at again
            self.loaded = resident()
        worker = make_worker(self.job, self.rank, resumed)
        self.comm.Barrier()  # nothing is written before every rank has its worker, which has tried a step
        if self.phantom or not resumed:
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
        self.passed = [f"{line}; the run goes on from {saved.name}" for line in damaged]
        return saved.name

    def _go_on(self, found: Resumption) -> None:
        torn = self.recorder.resume(found.state.round, found.seconds)
        self._record(found.parts)
        for line in filter(None, (*self.passed, *found.said, torn)):
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
            from_round, earlier = parts[-1]["from_round"], self.recorder.earlier
            self.recovery = restart.recovery(directory, self.job.workers, from_round, earlier)
            parts[-1] |= {"recovery": self.recovery.noted()}
            self.recorder.earlier = self.recovery.at + self.recovery.seconds
        self.history = parts
        self.recorder.recoveries = recoveries_in(parts)
        self.recorder.scenario(self.job.record(directory, parts))

    def _on_first(self, action: Callable[[], str | None]) -> str:
        return on_first(self.comm, action)

    def _checkpoint(self, worker: int, seconds: float, state: Any, arrays: dict[str, Any]) -> None:
        """Write this rank's part of a checkpoint. Rank 0 finishes it when all have written."""
        if self.phantom:
            return
        part = self.recorder.part(worker, state.round, arrays)
        parts = gather_texts(self.comm, json.dumps(part))
        if self.rank == 0:
            self.recorder.commit([Part(*json.loads(text)) for text in parts], seconds, state)

    def _finish(self, ended: _Ended, quiet: bool) -> None:
        if self.progress is not None:
            self.progress.close()
        if self.rank > 0:
            return
        if self.spool is not None:
            write_spooled(self.training.directory, self.began_with, split=True)
        extra = {"timing_only": self.phantom, "finished": self.finished} | self.job.by_class(ended.outcomes)
        if self.resumed:
            extra["resumed_at_round"] = self.resumed
        extra |= self.job.memory(self.job.problem.phantoms(self.job.plan).works)
        if not self.phantom:
            memories = [json.loads(text) for text in ended.memory]
            extra["memory_measured"] = {key: [each[key] for each in memories] for key in memories[0]}
            extra |= fingerprints(ended.digests, self.job.plan.strategy.placement.sharded)
        self.recorder.struck = struck.read(self.training.directory)
        epochs = self.job.plan.epochs(ended.outcomes[0].result)
        summary = self.recorder.finish("mpi", ended.outcomes, epochs, extra)
        forget(self.training.directory)
        if not quiet:
            from .printing import show_run

            show_run(Run(summary, self.recorder.lines, {}, self.training.directory))
        if not self.finished and self.recorder.saved:
            command = checkpoints.resume_command(self.training.directory)
            print(f"stopped after round {summary['rounds']}; go on with: {command}")
            if line := put_back(self.training.directory):
                print(line)
        # A CPU and a GPU round differently, so that their parameters need not be equal.
        devices = {device.torch_device for device in self.job.timing.devices}
        if not self.phantom and not self.job.plan.strategy.placement.sharded and len(devices) == 1:
            check_replicas(ended.digests, self.training.directory)
