"""`paceline.LocalSync`: the methods that exchange parameters, in a torch loop of the user's own.

The program is the one of `paceline train`, and so is its interpreter. Only the steps are computed elsewhere: the
program stands still while the user's loop takes the steps of a round, and goes on in `step()` after the last of them.
"""

from __future__ import annotations

import atexit
import dataclasses
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from .algorithms.loop import train
from .algorithms.plan import Plan
from .algorithms.reports import report
from .algorithms.rounds import State, due
from .handover import Division, Handover
from .job import Job, resolve
from .own_rate import OwnRate
from .own_record import OwnRecord
from .own_scenario import as_run, check_plan, document_of, is_open, knows_examples, validated
from .program.effects import AllGather, Array, Program
from .program.errors import NotFinite, ScenarioError
from .program.pieces import Pieces

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from .learning.own_loop import Evaluate


class LocalSync:
    """A method that exchanges parameters, in a training loop of one's own, alone or on the ranks of an mpirun::

        sync = paceline.LocalSync(model, optimizer, "qsr", alpha=0.0175, h_base=4)
        for x, y in batches:
            ...; loss.backward(); optimizer.step(); sync.step(loss)

    All ranks begin with rank 0's parameters. `step` belongs after each step of the optimizer; at the end of a round it
    exchanges. All ranks make the same calls. docs/own_loop.md tells more.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        strategy: str | Mapping[str, Any] | None = None,
        *,
        steps: int | None = None,
        epochs: float | None = None,
        examples: int | None = None,
        batch: int | None = None,
        lr_schedule: str | Mapping[str, Any] | None = None,
        every: str | None = None,
        evaluate: Evaluate | None = None,
        out: str | Path | None = None,
        force: bool = False,
        scenario: str | Path | Mapping[str, Any] | None = None,
        callbacks: Sequence[Any] = (),
        **arguments: Any,
    ) -> None:
        """All ranks call it with the same arguments. ScenarioError where they make no sense.

        strategy: a preset, or the axes as in a scenario. arguments: the preset's, and members of axes.
        steps, epochs: the length of the run, if it is known.
        examples: in the training set; an epoch is so many samples. batch: examples in a step of one rank.
        lr_schedule: as in a scenario: LocalSync then sets the optimizer's learning rate for each step. Without it, the
            rate is whatever the optimizer has, equal on all ranks.
        every: how often to call `evaluate`, like "1 epochs"; it is called at the end in any case.
        evaluate: called with the model in evaluation mode, without gradients. It returns (sum, count) over this rank's
            part of the test set for "test_loss" and each metric, like "accuracy": by the same names on all ranks.
        out: the run's directory; by default nothing is written. force: replace a run that is there.
        scenario: everything else, in a scenario's words, or the path of one: cluster, seed, report and so on.
        callbacks: told of the run by rank 0: objects of `paceline.Callback`, or what a scenario writes for one.
        """
        self._closed, self._before = False, sys.excepthook
        self._record: OwnRecord | None = None
        self._held = ExitStack()  # what is changed outside of this object while the run goes on
        sys.excepthook = self._uncaught
        self._held.callback(self._leave_excepthook)
        told: dict[str, Any] = {"steps": steps, "epochs": epochs, "examples": examples, "batch": batch}
        told |= {"lr_schedule": lr_schedule, "every": every}
        try:
            job = self._resolve(model, optimizer, strategy, arguments, scenario, told)
            self._worker = _worker(job, self._plan, self.rank, model, optimizer, evaluate)
            self._begin(None if out is None else Path(out), force, callbacks)
        except BaseException as error:
            self._fail(error)
            raise

    def _resolve(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        strategy: Any,
        arguments: Any,
        scenario: Any,
        told: Any,
    ) -> Job:
        """Find this rank's place, and the plan; see document_of."""
        from .runtime.launcher import world

        self.rank, self.workers = world()
        self._document = document_of(model, optimizer, self.workers, strategy, arguments, scenario, told)
        self._folder = Path(scenario).parent if isinstance(scenario, str | Path) else Path()
        self._described = isinstance(scenario, str | Path) or "cluster" in (scenario or {})
        self._job = resolve(validated(self._document, self.workers), self._folder)
        check_plan(self._job.plan, model, is_open(self._document))
        self._rate = OwnRate(optimizer, "lr_schedule" in self._document["workload"])
        self._held.callback(self._rate.close)
        self._plan = self._rate.planned(self._job.plan)
        return self._job

    def _begin(self, directory: Path | None, force: bool, callbacks: Sequence[Any]) -> None:
        from mpi4py import MPI

        from .runtime.engine import RankRun

        scenario, timing = self._job.scenario, self._job.timing
        self._record = record = OwnRecord(MPI.COMM_WORLD, self._job, directory, force, callbacks)
        self._stopping = False  # whether the loop has ended inside a round
        self._run = RankRun(
            record.hooks(lambda: self._stopping),
            reduction=scenario.reduction,
            trace=directory is not None and scenario.report.trace,
            slowness=timing.slowness(scenario.batch)[self.rank] if scenario.train.emulate else 1.0,
            watch=record.watch(),
        )
        self._tracking = record.tracking
        self._indices: Array | None = None  # of the batch that `batches` has given
        self._taken, self._seconds = 0, 0.0  # steps so far, and how long all but the first one took
        self._start(State())
        atexit.register(self.close)
        self._held.callback(atexit.unregister, self.close)

    def _start(self, state: State) -> None:
        """Begin the program at a sync, and go on to the first step of the loop."""
        self._state, self._due = state, due()
        self._tracking.begin(self._plan, state)
        self._pieces = Pieces(train(self._worker, self._plan, state), self._worker.turn)
        self._rate.tell(self._plan.progress(state), True)
        if self._record is not None:
            self._record.look(self._plan, state, self._worker, self._run)
        self._run.drive(self._pieces.next())
        self._set_lr()

    @property
    def finished(self) -> bool:
        """Whether the run is over: its budget is used up, or it was closed."""
        return self._closed or self._pieces.ended

    @property
    def H(self) -> int:
        """Steps that this rank takes in the present round; 0 at the end. Where the run's end is not known, the last
        round may be shorter."""
        return 0 if self.finished else int(self._plan.next_round(self._state).steps[self.rank])

    def step(self, loss: Tensor | float | None = None) -> bool:
        """The loop has taken a step. At the end of a round, exchange; whether it has.

        loss: of the batch, for the log; where it is a tensor with an element for each example, their mean. Biased
            sampling needs such a tensor.

        ScenarioError where the run is over, or where ranks part: in their numbers of steps, or their learning rates.
        NotFinite where the loss, or a parameter after an exchange, is not finite.
        """
        if self.finished:
            raise ScenarioError("LocalSync: the run is over; leave the loop where sync.finished is true")
        round = self._plan.next_round(self._state)
        self._note(loss)
        before = self._run.outcome.computing
        self._run.drive(self._pieces.call())
        self._taken += 1
        if self._taken > 1:
            self._seconds += self._run.outcome.computing - before
        exchanges = not self._pieces.left
        self._rate.tell(self._progress(), exchanges)
        if exchanges:
            self._agree(self._state.step + round.H)
            self._due = round.due
            self._run.drive(self._pieces.next())
        if self._pieces.ended:
            self.close()
        else:
            self._set_lr()
        return exchanges

    def batches(self) -> Iterator[Array]:
        """The places in the training set of each batch of this rank, until the run is over: int64 (batch,).

        They are those of `paceline train` with the same seed, sampling and batch. Each is followed by one `step`.
        ScenarioError where the number of training examples is not known.
        """
        if not knows_examples(self._document):
            raise ScenarioError("LocalSync: batches() needs the number of training examples; give examples=...")
        while not self.finished:
            here = self._taken
            self._indices = self._worker.indices(self._plan.next_round(self._state), self._pieces.taken)
            yield self._indices
            if self._taken == here and not self.finished:
                raise ScenarioError("LocalSync: batches() gave a batch and no sync.step() followed it")

    def close(self) -> None:
        """End the run: an unfinished round ends with the steps taken so far. Called at the program's end, if before by
        nothing else. All ranks call it after the same step."""
        if self._closed or self._record is None:
            return
        try:
            if not self._pieces.ended:
                self._end(self._record)
            outcome = self._run.finish(self._state)
            if self._state.round:
                each = self._seconds / (self._taken - 1) if self._taken > 1 else outcome.computing
                finished = is_open(self._document) or self._plan.finished(self._state)
                self._record.finish(outcome, self._worker.digest(), each, finished, self._ended)
        except BaseException as error:
            self._fail(error)
            raise
        self._closed = True
        self._held.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None or (isinstance(error, SystemExit) and not error.code):
            self.close()
        else:
            self._fail(error)

    def state_dict(self) -> dict[str, Any]:
        """What a later LocalSync goes on from, next to the model's and the optimizer's own; for torch.save.

        Between rounds only, that is where `step` has returned true: there all ranks have the same parameters.
        """
        if self._pieces.taken:
            raise ScenarioError("LocalSync: state_dict() is for the end of a round; call it where sync.step() is true")
        division = Division.of(self._plan)._asdict()
        return {"state": dataclasses.asdict(self._state), "arrays": self._worker.snapshot(), "division": division}

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Go on from what state_dict() gave, of this rank; model and optimizer are loaded before. Before any step.

        There may be more ranks or fewer than then: a new one loads what rank 0 has saved.
        """
        if self._taken:
            raise ScenarioError("LocalSync: load_state_dict() comes before the first step")
        self._pieces.leave()
        before = Division(**saved["division"]) if "division" in saved else Division.of(self._plan)
        handover = Handover.by_number(before, self._plan)
        self._worker.restore(handover.snapshot(self.rank, lambda rank: saved["arrays"], self._worker.snapshot()))
        self._start(handover.state(State(**saved["state"])))

    def _progress(self) -> float:
        """The plan's progress at the loop's next step."""
        round, state = self._plan.next_round(self._state), self._state
        if self._pieces.left:
            return round.progress + round.slope * (round.nominal(self.rank, self._pieces.taken) - round.start.steps)
        after = State(state.round + 1, state.step + round.H, state.samples + round.samples)
        return self._plan.progress(after)

    def _set_lr(self) -> None:
        self._rate.set(self._plan.next_round(self._state), self.rank, self._pieces.taken)

    def _note(self, loss: Tensor | float | None) -> None:
        """Let the worker note the step that was taken, and its loss."""
        round, i = self._plan.next_round(self._state), self._pieces.taken
        losses: Array | None = None
        if loss is None or isinstance(loss, int | float):
            value = math.nan if loss is None else float(loss)
        else:
            value = loss.detach().mean().item()
            losses = loss.detach().float().cpu().numpy().ravel() if loss.ndim else None
        if loss is not None and self._job.scenario.health == "stop" and not math.isfinite(value):
            step = round.nominal(self.rank, i) + 1
            raise NotFinite(f"worker {self.rank}, step {step}: the training loss is {value}; health: off trains on")
        wanted = self._worker.scores is not None
        if wanted and (losses is None or self._indices is None or len(losses) != len(self._indices)):
            raise ScenarioError(
                "LocalSync: the strategy's sampling chooses examples by their losses; take the batches from "
                "sync.batches(), and give sync.step() the loss of each example: loss(..., reduction='none')"
            )
        self._worker.note(round, i, value, losses, self._indices)

    def _agree(self, step: int) -> None:
        """ScenarioError unless all ranks end a round, or the run, at the same step and with the same learning rate."""
        if self.workers > 1:
            self._run.drive(_agreed(self.rank, float(step), self._rate.chosen))

    def _end(self, record: OwnRecord) -> None:
        """End the run where the loop has ended, inside a round or between two."""
        state, taken = self._state, self._pieces.taken
        if taken:
            if set(self._plan.shares.paces) != {1.0}:
                raise ScenarioError(
                    f"LocalSync: the loop has ended inside round {state.round}, whose ranks take different numbers of "
                    "steps; give it steps=... or epochs=..., and leave it where sync.finished is true"
                )
            self._plan.cut(state, self._plan.next_round(state), taken)
            self._agree(state.step + taken)
            self._stopping = True  # so that the program ends after this round
            self._run.drive(self._pieces.next())
            return
        self._agree(state.step)
        self._pieces.leave()
        if state.round and not self._due.evaluate:
            record.take_back(state.round)
            self._run.drive(self._last_report(state))

    def _last_report(self, state: State) -> Program[None]:
        """The report of a run that has ended between two rounds."""
        yield from report(self._worker, self._plan, state, due(evaluate=True))

    def _ended(self, step_seconds: list[float]) -> Job:
        """The job that tells of the run, for its record."""
        document = as_run(self._document, self._described, self._rate.used, self._state.step, step_seconds)
        return resolve(validated(document, self.workers), self._folder)

    def _fail(self, error: BaseException) -> None:
        """The loop has failed: under mpirun, so has the job."""
        if self._closed:
            return
        from .runtime.launcher import abort_on_error, under_mpirun
        from .runtime.tracebacks import TRACEBACK

        self._closed = True
        self._held.close()
        if self._record is not None:
            self._record.abandon()
        if under_mpirun():
            TRACEBACK.set(True)  # it is the user's program that failed
            with abort_on_error():
                raise error

    def _uncaught(self, kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        self._fail(error)
        self._before(kind, error, trace)

    def _leave_excepthook(self) -> None:
        if sys.excepthook == self._uncaught:
            sys.excepthook = self._before


def _worker(
    job: Job, plan: Plan, rank: int, model: nn.Module, optimizer: torch.optim.Optimizer, evaluate: Evaluate | None
) -> Any:
    from .learning.own_loop import OwnLoopWorker

    seed, data_seed = job.scenario.seed, job.scenario.workload.data_seed
    try:
        return OwnLoopWorker(
            rank,
            model,
            optimizer,
            job.problem.phantoms(plan).works[rank],
            sampling=plan.strategy.sampling,
            examples=plan.examples,
            seed=seed if data_seed is None else data_seed,
            evaluate=evaluate,
            health=job.scenario.health == "stop",
        )
    except ValueError as error:
        raise ScenarioError(f"LocalSync: {error}") from None


def _agreed(rank: int, step: float, lr: float) -> Program[None]:
    """ScenarioError unless all ranks end a round, or the run, after this step and with this learning rate.

    Without it, ranks whose loops part would wait for one another, or average what does not belong together.
    """
    found = (yield from AllGather(np.array([step, lr]), phase="agree")).reshape(-1, 2)
    for other, (their_step, their_lr) in enumerate(found):
        if their_step != step:
            raise ScenarioError(
                f"LocalSync: rank {rank} ends a round or the run after step {step:.0f}, and rank {other} after step "
                f"{their_step:.0f}; all loops must be equally long: give steps=... and leave them where sync.finished"
            )
        if their_lr != lr:
            raise ScenarioError(
                f"LocalSync: the learning rate is {lr:g} on rank {rank} and {their_lr:g} on rank {other}; set the same "
                "on all, or give lr_schedule=..., with which LocalSync sets it"
            )
