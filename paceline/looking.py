"""Looks at a run now and then, from a thread of its own, for the bar and for the file that `paceline watch` reads.

Rule: the run is only looked at. Its loop, its programs and its engine do nothing for this: the thread reads the state
that the program moves on, the plan's present round and the losses that a worker keeps of its steps. A look costs about
0.1 ms, four times a second.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic, perf_counter
from typing import TYPE_CHECKING, Any

from .algorithms.plan import Plan
from .algorithms.rounds import Round, State
from .algorithms.worker import Worker
from .program.errors import one_line
from .records.live import LiveFile, Now, here
from .runtime.watch import idle, waiting

if TYPE_CHECKING:
    from .job import Job
    from .records.recorder import Recorder
    from .runtime.engine import RankRun

LOOK = 0.25  # seconds between two looks
WRITTEN = 2  # looks: after so many the file is written
ENDLESS = 1e12  # a budget of so many epochs, steps or rounds: of a loop of one's own that says no end


@dataclass(eq=False)
class Looked:
    """A part of a run: its workers run one program each from the same state on. Another part may follow."""

    plan: Plan
    state: State  # worker 0's program moves it on
    workers: Sequence[Worker]  # of this process, if they compute
    clock: Callable[[], dict[str, Any]]  # fields of a Now: seconds, and in a real run idle, waiting, waits
    fixed: dict[str, Any] = field(default_factory=dict)  # fields that stay: engine, workers
    _round: int = field(default=-1, init=False)  # the number of rounds before the one that was looked at last
    _steps: list[int] = field(default_factory=list, init=False)  # of each worker in it
    _stale: list[int] = field(default_factory=list, init=False)  # see _done

    def now(self) -> dict[str, Any]:
        """Fields of a Now."""
        state, plan = self.state, self.plan
        found: dict[str, Any] = {"round": state.round, "step": state.step, "samples": state.samples, "H": state.H}
        budget = plan.budget.amount if plan.budget.amount < ENDLESS else 0.0
        found |= {"progress": plan.progress(state), "budget": budget, "unit": plan.budget.unit}
        round = plan.known_round(state)
        if round is not None:
            done, of = self._done(round)
            nominal = done * round.H // of if of else 0
            found |= {"H": round.H, "done": nominal, "step": state.step + nominal}
            found |= {"samples": state.samples + (round.samples * done // of if of else 0)}
            found |= {"progress": round.progress + round.slope * nominal}
        return found | self.clock() | self.fixed

    def _done(self, round: Round) -> tuple[int, int]:
        """(steps that these workers have taken in a round, steps that they take in it).

        A worker keeps the losses of the last round until its first step of the next one. So in a new round those of a
        worker that are as many as its steps of the round before do not count, until there is another number of them.
        """
        lengths = [len(worker.step_losses) for worker in self.workers]
        steps = [round.steps[worker.index] for worker in self.workers]
        if round.start.rounds != self._round:
            before = self._steps or lengths
            self._stale = [n if n == last else -1 for n, last in zip(lengths, before, strict=True)]
            self._round, self._steps = round.start.rounds, steps
        self._stale = [old if n == old else -1 for n, old in zip(lengths, self._stale, strict=True)]
        done = (0 if n == old else min(n, most) for n, old, most in zip(lengths, self._stale, steps, strict=True))
        return sum(done), sum(steps)


class Looking:
    """Looks at one run, and tells what it sees. directory: where that is written; None: nowhere."""

    def __init__(self, directory: Path | None) -> None:
        self.tell: Callable[[Now], None] | None = None  # also takes what is seen
        self.goes_on = False  # whether other processes go on with the run when this one ends without an error
        self._file = None if directory is None else LiveFile(directory)
        self._over = threading.Event()
        self._part: Looked | None = None
        self._began: tuple[float, float] = 0.0, 0.0  # when the part began, by the clock on the wall, and its progress
        self._now = Now()
        self._thread: threading.Thread | None = None

    def begin(self, part: Looked) -> None:
        """Look at this part of the run from now on. Where nothing takes what is seen, nothing is done."""
        if self._file is None and self.tell is None:
            return
        self._began = monotonic(), part.plan.progress(part.state)
        self._part = part
        if self._thread is None:  # else it is the one that looks and writes
            self._look(write=True)
            self._thread = threading.Thread(target=self._run, daemon=True, name="paceline looking")
            self._thread.start()

    def end(self, failure: BaseException | None) -> None:
        """The run has ended. What has become of it without results is written down."""
        self._over.set()
        if self._thread is not None:
            self._thread.join()
        if self._file is None or self._part is None:
            return
        if failure is None and not self.goes_on:
            self._file.remove()
        elif failure is not None:
            self.tell = None
            self._look(write=False)
            state = "stopped" if isinstance(failure, KeyboardInterrupt) else "failed"
            self._file.write(self._now.model_copy(update={"state": state, "why": one_line(str(failure), 500)}))

    def _run(self) -> None:
        looks = 0
        while not self._over.wait(LOOK):
            looks += 1
            self._look(write=looks % WRITTEN == 0)

    def _look(self, write: bool) -> None:
        part, tell = self._part, self.tell
        assert part is not None
        # The run may change what is read meanwhile; the next look sees it whole.
        with suppress(ValueError, RuntimeError, IndexError):
            found = part.now()
            self._now = Now(**here(), **found, left=self._left(found["progress"], found["budget"]))
            if tell is not None:
                tell(self._now)
        if write and self._file is not None:
            self._file.write(self._now)

    def _left(self, progress: float, budget: float) -> float | None:
        """Seconds until the end, if the rest goes on as this part has gone."""
        began, first = self._began
        if not first < progress < budget < ENDLESS:
            return None
        return (budget - progress) / (progress - first) * (monotonic() - began)


@contextmanager
def looking(directory: Path | None) -> Iterator[Looking]:
    """Around a run at which one looks."""
    thread = Looking(directory)
    try:
        yield thread
    except BaseException as failure:
        thread.end(failure)
        raise
    thread.end(None)


def simulated(job: Job, workers: Sequence[Worker], recorder: Recorder) -> Looked:
    """A part of a simulation. Its clock is that of its newest report."""
    return Looked(job.plan, job.reached, workers, lambda: {"seconds": recorder.seconds}, {"engine": "simulated"})


def trained(
    plan: Plan, state: State, worker: Worker, run: RankRun, recorder: Recorder, members: Sequence[int]
) -> Looked:
    """A part of a training, on its first rank. state: the program moves it on. members: see Now.workers."""

    def told() -> dict[str, Any]:
        now = perf_counter()
        what, seconds = waiting(run, now)
        waits = {} if what is None else {"waiting": what, "waits": max(0.0, seconds)}
        return {"seconds": recorder.earlier + run.clock(now), "idle": idle(run)} | waits

    return Looked(plan, state, [worker], told, {"engine": "mpi", "workers": tuple(members)})
