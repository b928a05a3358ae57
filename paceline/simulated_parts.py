"""A simulated run in parts: after a lost worker it goes on as a real run does, and so predicts what the loss costs.

Rule: what a part begins with follows from the rules of real runs (recovering.py, handover.py). Only the times that a
real run would take are described, by the scenario's `recovery`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Any, NamedTuple

from .algorithms.phantom import Phantoms
from .algorithms.rounds import State
from .algorithms.worker import Worker
from .config.faults import WorkerException, WorkerLoss
from .handover import Division, Handover
from .job import Job
from .looking import Looking, simulated
from .program.effects import Program
from .program.errors import WorkerLost
from .program.outcome import Hooks, Outcome, Spans, ignored
from .records.checkpoints import as_kept
from .records.recorder import Recorder
from .records.recoveries import LANE, How, Recovery
from .records.spool import TakeSpans
from .recovering import Decision, decided, how_to_go_on
from .resuming import subject
from .simulated_syncs import Snapshot, Sync, Syncs, copied
from .traced_rounds import TracedRounds
from .tracking import Tracking

if TYPE_CHECKING:
    from .sim.parts import Loss, Lost, Part


class _Following(NamedTuple):
    """How a run goes on in another part."""

    how: How
    who: tuple[int, ...]  # the workers that were lost, or are there again, by their numbers at the start of the run
    job: Job
    part: Part
    handover: Handover
    sync: Sync  # from which it goes on
    saved: Sync  # the newest checkpoint
    noticed: float  # when worker 0, or the launcher, knew of the loss, in virtual seconds
    done: int  # rounds that were done
    left_out: float  # virtual seconds that the run's clock does not count up to here
    earlier: float  # what the run's clock shows more than that of the part's programs


class SimulatedParts:
    """A run by the SimPy engine. job, phantoms, workers: of the part that runs, and in the end of the last one.

    workers: None in a timing-only run.
    take: Hooks.spans of the whole run, which knows workers by their numbers at its start; None: no trace.
    debug, limit: see SimulateOptions.
    """

    def __init__(
        self,
        job: Job,
        phantoms: Phantoms,
        workers: Sequence[Worker] | None,
        recorder: Recorder,
        take: TakeSpans | None,
        debug: bool,
        limit: float | None,
        looks: Looking,
    ) -> None:
        self.job, self.phantoms, self.workers = job, phantoms, workers or ()
        self.history = [] if recorder.directory is None else [job.part()]
        self.resumed = 0  # the round at which the last restart went on
        self._whole, self._numbers = job, workers is not None
        self.tracking = Tracking(recorder, job.scenario, virtual=True)
        if take is not None and recorder.directory is not None:
            held = [sum(each) for each in zip(*job.memory(phantoms.works)["memory_predicted"].values(), strict=True)]
            self.tracking.traced = TracedRounds(
                take, lambda w: self._part.workers[w], lambda w: held[self._part.workers[w]]
            )
        self._recorder, self._take, self._debug, self._limit = recorder, take, debug, limit
        self._looks = looks
        self._spec, self._restarts = job.scenario.recovery, 0
        loses = any(isinstance(fault, WorkerLoss | WorkerException) for fault in job.scenario.faults)
        self._recovers = loses and (self._spec.shrink or self._spec.max_restarts > 0)
        # After the last loss: how the run goes on, which workers were lost, and for a shrink the job of the others.
        self._decision, self._gone, self._fewer = Decision("none"), tuple[int, ...](), job

    def document(self) -> dict[str, Any]:
        """The resolved scenario with the history so far. It repeats the run: it is that of the beginning."""
        return self._whole.record(self._recorder.directory, self.history)

    def run(self) -> list[Outcome]:
        """The Outcomes of the last part. Raises what the engine raises: WorkerLost where the run does not go on."""
        from .sim.engine import simulate
        from .sim.parts import Lost, whole

        self._begin(whole(self.job.timing), State())
        checkpoint = self._checkpoint if self._numbers else ignored
        recorder = self._recorder
        hooks = Hooks(recorder.log, checkpoint, spans=self._spans, round=self.tracking.hook, struck=recorder.fault)
        options: dict[str, Any] = {"trace": self._take is not None, "debug": self._debug, "limit": self._limit}
        while True:
            programs = self._programs()
            self._looks.begin(simulated(self.job, self.workers, self._recorder))
            try:
                outcomes = simulate(programs, self.job.timing, hooks, part=self._part, **options)
            except Lost as lost:
                if self._decision.how == "none":
                    raise WorkerLost(f"{lost}{self._why()}", self._named(lost.workers)) from None
                self._go_on(self._shrunk(lost) if self._decision.how == "shrink" else self._restarted(lost))
            else:
                if not self._waits or self.job.plan.finished(outcomes[0].result):
                    return outcomes
                self._go_on(self._joined())

    @property
    def _waits(self) -> bool:
        """Whether the part's workers end at its first sync, so that lost ones join them."""
        return self._spec.respawn and self.job.workers < self._whole.workers

    def _programs(self) -> list[Program[State]]:
        if self._numbers:
            return self.job.programs(self.workers, self._state)
        return self.job.shared_programs(self.phantoms, self._state)

    def _spans(self, worker: int, lane: str, spans: Spans) -> None:
        if self._take is not None:
            self._take(self._part.workers[worker], lane, spans)

    def _checkpoint(self, worker: int, seconds: float, state: Any, arrays: dict[str, Any]) -> None:
        self._recorder.checkpoint(worker, self.job.workers, seconds, state, arrays)

    def _begin(self, part: Part, state: State, left_out: float = 0.0, saved: Sync | None = None) -> None:
        """Let a part begin. left_out: see Sync. saved: the newest checkpoint; None: this is the run's first part."""
        job, recorder, shrink = self.job, self._recorder, self._recovers and self._spec.shrink
        passed = dict.fromkeys(range(job.workers), part.begin)
        sync = Sync(state, Division.of(job.plan), part.workers, passed, left_out)
        if self._numbers and shrink:
            sync.snapshots = {number: copied(worker.snapshot()) for number, worker in enumerate(self.workers)}
        if self._numbers and recorder.directory is not None:
            recorder.subject, recorder.retention = subject(job.scenario, sync.division), job.retention()
        syncs = Syncs(sync, saved or replace(sync, snapshots={}), recorder.earlier, self._numbers, shrink)
        self._syncs, self._state = syncs, state
        self._part = replace(part, rounds=state.round, steps=state.step)
        if self._recovers:
            self._part = replace(self._part, keep=syncs.keep, over=self._over)

    # --- after a loss -------------------------------------------------------------------------------------------------

    def _over(self, loss: Loss) -> float:
        """When the part is over after a loss. Here it is decided how the run goes on."""
        detection = self._spec.detection
        moment = loss.first + detection
        if self._shrinks(loss.by(moment)):
            moment = loss.met(detection)  # others may be lost before all have met
        self._gone = loss.by(moment)
        self._decision, fewer = decided(self.job, self._spec, self._gone, self._restarts)
        self._fewer = fewer or self.job
        return inf if self._decision.how == "none" else moment

    def _shrinks(self, gone: tuple[int, ...]) -> bool:
        sharded = self.job.plan.strategy.placement.sharded
        return how_to_go_on(self._spec, gone, self.job.workers, self._restarts, sharded).how == "shrink"

    def _why(self) -> str:
        """Why a run with a `recovery` does not go on."""
        return f"; {self._decision.why}" if self._recovers else ""

    def _go_on(self, following: _Following) -> None:
        """Begin the next part."""
        self.job, sync, begin = following.job, following.sync, following.part.begin
        entry = Recovery(
            how=following.how,
            lost=following.who,
            workers=self.job.workers,
            at=following.noticed - following.left_out,
            from_round=sync.state.round,
            redone=following.done - sync.state.round,
            seconds=begin - following.noticed,
            start=0.0 if following.how == "shrink" else self._spec.start,
        )
        self._recorder.go_back(sync.state.round, following.earlier)
        self._make_workers(following.handover, sync.snapshots, following.how != "shrink")
        part = replace(following.part, stop=begin if self._waits else inf)
        self._begin(part, following.handover.state(sync.state), following.left_out, following.saved)
        self._record(entry, following.handover, following.noticed)
        self.tracking.begin(self.job.plan, self._state, counts_on=following.how == "shrink")

    def _named(self, numbers: Sequence[int]) -> tuple[int, ...]:
        """Workers of this part, by their numbers at the start of the run."""
        return tuple(self._part.workers[number] for number in numbers)

    def _shrunk(self, lost: Lost) -> _Following:
        """The remaining workers go on from the last sync that all of them have passed. What is counted goes on."""
        left = [number for number in range(self.job.workers) if number not in self._gone]
        for number in left:
            span = Spans(["shrink"], [lost.loss.noticed(number, self._spec.detection)], [lost.over])
            self._spans(number, LANE, span)
        sync, earlier = self._syncs.last(left), self._recorder.earlier
        part = replace(
            self._part,
            workers=self._named(left),
            outcomes=[lost.outcomes[number] for number in left],
            begin=lost.over,
        )
        return _Following(
            how="shrink",
            who=self._named(self._gone),
            job=self._fewer,
            part=part,
            handover=Handover(sync.division, self._fewer.plan, left),
            sync=sync,
            saved=self._syncs.checkpoint(lost.over),
            noticed=lost.loss.noticed(0, self._spec.detection),
            done=max(self._syncs.reached(number, lost.over).state.round for number in left),
            left_out=part.counted + lost.outcomes[0].evaluating - earlier,
            earlier=earlier,
        )

    def _restarted(self, lost: Lost) -> _Following:
        """The part's workers go on from the newest checkpoint, or with respawn all workers."""
        self._restarts += 1
        # Worker 0 keeps the records. If it is lost in a checkpoint, the others have passed that sync, and it has not.
        asked = range(self.job.workers) if 0 in self._gone else [0]
        done = max(self._syncs.reached(worker, lost.over).state.round for worker in asked)
        left_out, saved = self._syncs.reached(0, lost.over).left_out, self._syncs.checkpoint(lost.over)
        return self._again("restart", self._named(self._gone), saved, done, left_out, lost.over)

    def _joined(self) -> _Following:
        """All workers go on from the sync at which those that were left have ended: nothing is done again."""
        sync = self._syncs.last(range(self.job.workers))
        gone = tuple(worker for worker in range(self._whole.workers) if worker not in self._part.workers)
        return self._again("join", gone, sync, sync.state.round, sync.left_out, max(sync.passed.values()))

    def _again(
        self, how: How, who: tuple[int, ...], saved: Sync, done: int, left_out: float, over: float
    ) -> _Following:
        """Workers are started again and go on from a checkpoint. What is counted begins again.

        over: when the ranks have ended, in virtual seconds. Others: see _Following.
        """
        begin, job, workers = over + self._spec.start, self.job, self._part.workers
        if self._spec.respawn:
            job, workers = self._whole, range(self._whole.workers)
        self.resumed = saved.state.round
        return _Following(
            how=how,
            who=who,
            job=job,
            part=replace(self._part, workers=workers, outcomes=(), begin=begin, counted=begin),
            handover=Handover.by_name(saved.division, job.plan, saved.workers, workers),
            sync=saved,
            saved=saved,
            noticed=over,
            done=done,
            left_out=left_out,
            earlier=begin - left_out,
        )

    def _make_workers(self, handover: Handover, snapshots: Mapping[int, Snapshot], restart: bool) -> None:
        """The next part's workers. Without snapshots they are as at the beginning of the run.

        restart: whether they go on from a checkpoint.
        """
        job = self.job
        self.phantoms = job.problem.phantoms(job.plan)
        if not self._numbers:
            return
        self.workers = job.problem.workers(job.plan, range(job.workers), shared_process=True, resumed=bool(snapshots))
        kept = self._recorder.kept if restart else "local"
        for worker in self.workers if snapshots else ():
            fresh = worker.snapshot()
            read = partial(as_kept, snapshots.__getitem__, optimizer=kept, fresh=fresh)
            worker.restore(handover.snapshot(worker.index, read, fresh))

    def _record(self, entry: Recovery, handover: Handover, noticed: float) -> None:
        recorder = self._recorder
        recorder.recoveries.append(entry)
        if entry.how != "shrink":
            self._spans(0, LANE, Spans.of(entry.span(noticed)))
        if recorder.directory is not None:
            part = self._whole.part(entry.from_round) | {"recovery": entry.noted()}
            told = [*handover.lines(entry.lost if entry.how == "shrink" else None)]
            self.history.append(part | ({"handed_over": told} if told else {}))
            recorder.scenario(self.document())
