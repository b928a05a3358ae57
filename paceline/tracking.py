"""The callbacks of a run: how they are made, and what they are told of its rounds.

Rule: what is told of a round follows from the plan, except for its seconds, its loss and its bytes. So a simulation and
a real run tell the same.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from .algorithms.plan import Plan
from .algorithms.rounds import State
from .config.callbacks import CallbackSpec, OwnCallbackSpec, TensorBoardSpec, WandbSpec, own_callback, read_callbacks
from .config.scenario import Scenario, read
from .config.sections import described
from .program.callbacks import Callback, Callbacks, RoundRecord, RunStart
from .program.errors import ScenarioError
from .records.recorder import Recorder
from .records.spool import Spool
from .runtime.resident import resident
from .traced_rounds import PlannedRounds, TracedRounds


def callbacks_of(scenario: Scenario, directory: Path | None, given: Sequence[Any] = (), run: str = "run") -> Callbacks:
    """The callbacks of a run: the scenario's, then those that a Python program has given (see `read_callbacks`).

    directory: the run's. run: what it is called without one.

    ScenarioError where a callback cannot be made, or needs a package that is not installed.
    """
    every = [*scenario.callbacks, *read_callbacks(given)]
    return Callbacks([_made(each, f"callbacks[{place}]", directory) for place, each in enumerate(every)], run)


def _made(each: Callback | CallbackSpec, path: str, directory: Path | None) -> tuple[str, Callback]:
    if isinstance(each, Callback):
        return f"{path}: {type(each).__name__}", each
    made: Callback
    if isinstance(each, OwnCallbackSpec):
        made = own_callback(each, path)
    elif isinstance(each, WandbSpec):
        from .records.wandb_tracker import WandbTracker

        made = WandbTracker(each, path)
    else:
        from .records.tensorboard_tracker import TensorBoardTracker

        assert isinstance(each, TensorBoardSpec)
        made = TensorBoardTracker(each, path, directory)
    return f"{path}: {each.name}", made


class Tracking:
    """Tells a run's callbacks where it begins and goes on, and of its rounds; and its trace of each worker's rounds.

    virtual: whether the run is simulated.
    traced: of a run with a trace.
    """

    def __init__(self, recorder: Recorder, scenario: Scenario, virtual: bool) -> None:
        self._recorder, self._scenario, self._virtual = recorder, scenario, virtual
        self.traced: TracedRounds | None = None
        self._seconds, self._bytes = 0.0, 0.0  # at the last sync

    def begin(self, plan: Plan, state: State, counts_on: bool = False) -> None:
        """The run begins at this state, or goes on there. counts_on: whether bytes are counted on."""
        self._planned = PlannedRounds(plan, state)
        if self.traced is not None:
            self.traced.begin()
        self._seconds = max(self._seconds, self._recorder.earlier)
        self._bytes = self._bytes if counts_on else 0.0
        if callbacks := self._recorder.callbacks:
            directory = self._recorder.directory
            document = described(self._scenario)
            document.pop("recorded", None)
            name = callbacks.run if directory is None else directory.absolute().name
            place = state.round, state.step, self._seconds
            callbacks.start(RunStart(name, document, directory, self._virtual, *place))

    @property
    def hook(self) -> Callable[[int, float, int, float, Mapping[str, float]], None] | None:
        """Hooks.round; None where neither a callback nor a trace wants to know."""
        return self._passed if self._recorder.callbacks.by_round or self.traced is not None else None

    def trace_rank(self, spool: Spool, rank: int) -> None:
        """Trace the rounds of one rank of a real run, with the memory that it holds. rank: its number in the trace."""
        self.traced = TracedRounds(spool.take, lambda worker: rank, lambda worker: resident(), spool.flush)

    def close(self) -> None:
        """The run, or a part of it, is over: the trace gets the rest."""
        if self.traced is not None:
            self.traced.close()

    def _passed(self, worker: int, seconds: float, done: int, loss: float, sent: Mapping[str, float]) -> None:
        planned, step = self._planned.of(done)
        if self.traced is not None:
            self.traced.passed(worker, done, planned, step, loss, sent)
        if worker > 0 or not self._recorder.callbacks.by_round:
            return
        seconds += self._recorder.earlier
        nbytes = sum(each for phase, each in sent.items() if phase != "evaluate")
        record = RoundRecord(
            round=done,
            step=step,
            H=tuple(planned.steps),
            seconds=seconds,
            duration=seconds - self._seconds,
            loss=float(loss),
            lr=planned.last_lr,
            samples=planned.samples,
            bytes=round(nbytes - self._bytes),
        )
        self._seconds, self._bytes = seconds, nbytes
        self._recorder.callbacks.round(record)


def callback_settings(scenario: str | Path, settings: Sequence[str], given: Sequence[Any]) -> list[str]:
    """The setting by which the ranks of a training get callbacks in addition to the scenario's; none for none.

    ScenarioError for what ranks, which are other processes, cannot get.
    """
    for place, each in enumerate(given if read_callbacks(given) else ()):
        if isinstance(each, Callback):
            kind = type(each)
            raise ScenarioError(
                f"callbacks[{place}]: is an object, and rank 0 is another process, which makes its own; write "
                f"{{'name': '{kind.__module__}:{kind.__qualname__}'}}, with its arguments"
            )
    if not given:
        return []
    try:
        text = json.dumps([*(read(scenario, settings).get("callbacks") or ()), *given])
    except (TypeError, ValueError) as error:
        raise ScenarioError(f"callbacks: {error}; write names, numbers and texts") from None
    return [f"callbacks={text}"]
