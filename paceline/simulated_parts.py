"""A simulated run in parts: after a lost worker it goes on as a real run does, and so predicts what the loss costs.

Rule: what a part begins with follows from the rules of real runs (recovering.py, handover.py). Only the times that a
real run would take are described, by the scenario's `recovery`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import inf
from typing import TYPE_CHECKING, Any

from .algorithms.phantom import Phantoms
from .algorithms.rounds import State
from .algorithms.worker import Worker
from .handover import Division, Handover
from .job import Job
from .program.effects import Program
from .program.errors import WorkerLost
from .program.outcome import Hooks, Outcome, Spans, ignored
from .records.recorder import Recorder
from .records.recoveries import Recovery
from .records.spool import TakeSpans
from .recovering import Decision, how_to_go_on, next_job
from .resuming import subject
from .syncs import Snapshot, Sync, Syncs, copied, reader

if TYPE_CHECKING:
    from .sim.parts import Loss, Lost, Part

LANE = "recovery"  # of traces


class SimulatedParts:
    """A run by the SimPy engine. job, phantoms, workers: of the part that runs, and in the end of the last one.

    workers: in a timing-only run, the phantoms themselves.
    take: Hooks.spans of the whole run, which knows workers by their numbers at its start; None: no trace.
    debug, limit: see SimulateOptions.
    """

    def __init__(
        self,
        job: Job,
        phantoms: Phantoms,
        workers: Sequence[Worker],
        recorder: Recorder,
        take: TakeSpans | None,
        debug: bool,
        limit: float | None,
    ) -> None:
        self.job, self.phantoms, self.workers = job, phantoms, workers
        self.history = [] if recorder.directory is None else [job.part()]
        self.resumed = 0  # the round at which the last restart went on
        self._whole, self._numbers = job, workers is not phantoms
        self._recorder, self._take, self._debug, self._limit = recorder, take, debug, limit
        self._spec, self._restarts = job.scenario.recovery, 0
        self._decision, self._gone = Decision("none"), tuple[int, ...]()  # after the last loss; who was lost in it

    def document(self) -> dict[str, Any]:
        """The resolved scenario with the history so far. It repeats the run: it is that of the beginning."""
        return self._whole.record(self._recorder.directory, self.history)

    def run(self) -> list[Outcome]:
        """The Outcomes of the last part. Raises what the engine raises: WorkerLost where the run does not go on."""
        from .sim.engine import simulate
        from .sim.parts import Lost, whole

        division = Division.of(self.job.plan)
        self._begin(whole(self.job.timing), Sync(State(), division), Sync(State(), division))
        checkpoint = self._checkpoint if self._numbers else ignored
        hooks = Hooks(self._recorder.log, checkpoint, spans=self._spans, struck=self._recorder.fault)
        options: dict[str, Any] = {"trace": self._take is not None, "debug": self._debug, "limit": self._limit}
        while True:
            try:
                return simulate(self._programs(), self.job.timing, hooks, part=self._part, **options)
            except Lost as lost:
                if self._decision.how == "none":
                    raise WorkerLost(f"{lost}{self._why()}") from None
                self._go_on(lost)

    def _programs(self) -> list[Program[State]]:
        state = self._syncs.begin.state
        if self._numbers:
            return self.job.programs(self.workers, state)
        return self.job.shared_programs(self.phantoms, state)

    def _spans(self, worker: int, lane: str, spans: Spans) -> None:
        assert self._take
        self._take(self._part.workers[worker], lane, spans)

    def _checkpoint(self, worker: int, seconds: float, state: Any, arrays: dict[str, Any]) -> None:
        self._recorder.checkpoint(worker, self.job.workers, seconds, state, arrays)

    def _begin(self, part: Part, sync: Sync, saved: Sync) -> None:
        """Let a part begin with the state of `sync`. saved: the newest checkpoint, or the beginning of the run."""
        recorder, shrink = self._recorder, self._spec.shrink
        if self._numbers and shrink:
            sync.snapshots = {number: copied(worker.snapshot()) for number, worker in enumerate(self.workers)}
        if self._numbers and recorder.directory is not None:
            recorder.subject = subject(self.job.scenario, sync.division)
            recorder.retention = self.job.retention()
        self._syncs = Syncs(self.job.workers, sync, saved, recorder.earlier, self._numbers, shrink)
        self._part = replace(part, rounds=sync.state.round, steps=sync.state.step)
        if self._recovers:
            self._part = replace(self._part, keep=self._syncs.keep, over=self._over)

    @property
    def _recovers(self) -> bool:
        return self._spec.shrink or self._spec.max_restarts > 0

    # --- after a loss -------------------------------------------------------------------------------------------------

    def _over(self, loss: Loss) -> float:
        """When the part is over after a loss. Here it is decided how the run goes on."""
        moment = loss.first + self._spec.detection
        self._decide(loss.by(moment))
        if self._decision.how == "shrink":
            moment = loss.met(self._spec.detection)
            self._decide(loss.by(moment))  # others may be lost before all have met
        return inf if self._decision.how == "none" else moment

    def _decide(self, gone: tuple[int, ...]) -> None:
        sharded = self.job.plan.strategy.placement.sharded
        self._gone = gone
        self._decision = how_to_go_on(self._spec, gone, self.job.workers, self._restarts, sharded)

    def _why(self) -> str:
        """Why a run with a `recovery` does not go on."""
        return f"; {self._decision.why}" if self._recovers else ""

    def _go_on(self, lost: Lost) -> None:
        """Begin the next part."""
        syncs, gone = self._syncs, tuple(self._part.workers[number] for number in self._gone)
        reached, saved = syncs.reached(lost.over), syncs.checkpoint(lost.over)
        earlier, shrink = self._recorder.earlier, self._decision.how == "shrink"
        if shrink:
            left = [number for number in range(self.job.workers) if number not in self._gone]
            sync, noticed, begin = syncs.last(left), self._noticed(lost.loss), lost.over
            members = [self._part.workers[number] for number in left]
            self.job = next_job(self._whole, {*range(self._whole.workers)} - {*members})
            handover = Handover(sync.division, self.job.plan, left)
            part = replace(self._part, outcomes=[lost.outcomes[number] for number in left])
            left_out = part.counted + lost.outcomes[0].evaluating - earlier
        else:
            sync, noticed, begin = saved, lost.over, lost.over + self._spec.start
            members, self.job = [*range(self._whole.workers)], self._whole
            handover = Handover.by_number(sync.division, self.job.plan)
            part, left_out = replace(self._part, outcomes=(), counted=begin), reached.left_out
            earlier = begin - left_out
            self._restarts, self.resumed = self._restarts + 1, sync.state.round
        begun = Sync(handover.state(sync.state), Division.of(self.job.plan), left_out)
        entry = Recovery(
            how="shrink" if shrink else "restart",
            lost=gone,
            workers=self.job.workers,
            at=noticed - left_out,
            from_round=sync.state.round,
            redone=reached.state.round - sync.state.round,
            seconds=begin - noticed,
            start=0.0 if shrink else self._spec.start,
        )
        self._recorder.go_back(sync.state.round, earlier)
        self._make_workers(handover, sync.snapshots)
        self._begin(replace(part, workers=members, begin=begin), begun, saved)
        self._record(entry, handover, noticed)

    def _noticed(self, loss: Loss) -> float:
        """When worker 0, which keeps the records, knows of a loss."""
        return max(loss.stands[0], loss.first + self._spec.detection)

    def _make_workers(self, handover: Handover, snapshots: Mapping[int, Snapshot]) -> None:
        """The next part's workers. Without snapshots they are as at the beginning of the run."""
        job = self.job
        self.workers = self.phantoms = job.problem.phantoms(job.plan)
        if not self._numbers:
            return
        made = job.problem.workers(job.plan, range(job.workers), shared_process=True, resumed=bool(snapshots))
        self.workers = made
        # A checkpoint holds no more than checkpoint.optimizer says.
        kept = self._recorder.kept if self._decision.how == "restart" else "local"
        for number, worker in enumerate(made if snapshots else ()):
            fresh = worker.snapshot()
            worker.restore(handover.snapshot(number, reader(snapshots, kept, fresh), fresh))

    def _record(self, entry: Recovery, handover: Handover, noticed: float) -> None:
        recorder = self._recorder
        recorder.recoveries.append(entry)
        if self._take is not None:
            self._take(0, LANE, Spans([entry.how], [noticed], [self._part.begin]))
        if recorder.directory is not None:
            part = self._whole.part(entry.from_round) | {"recovery": entry.noted()}
            self.history.append(part | ({} if handover.same else {"handed_over": [*handover.lines()]}))
            recorder.scenario(self.document())
