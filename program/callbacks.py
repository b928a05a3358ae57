"""Callbacks: what a run tells to a user's own code and to trackers while it goes on.

Rule: a callback looks on. It gets values that cannot be changed, nothing that it does changes the run, and it is told
the same in a simulation and in a real run, except for the seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from .errors import ScenarioError
from .import_paths import FAILURES, in_words


class RunStart(NamedTuple):
    """What a callback is told when a run begins, and again when it goes on from an earlier round."""

    name: str  # of the run: its directory's, else the scenario's
    scenario: Mapping[str, Any]  # with all defaults filled in
    directory: Path | None  # of the run; None where nothing is written
    virtual: bool  # whether seconds are virtual ones, of a simulation
    round: int  # rounds that are done already; what was told of later ones is void
    step: int  # nominal steps that are done already
    seconds: float  # what the run's clock shows now


class RoundRecord(NamedTuple):
    """One round that is over."""

    round: int  # rounds done, with this one
    step: int  # nominal steps done
    H: tuple[int, ...]  # steps of each worker in this round
    seconds: float  # the run's clock, evaluation excluded
    duration: float  # seconds of this round; from the start, or from where the run went on, for the first one
    loss: float  # the mean training loss in the round; NaN in a timing-only run
    lr: float  # the learning rate of its last step
    samples: int  # that all workers have processed in this round
    bytes: int  # payload bytes that worker 0 has sent in this round, without evaluation


class Callback:
    """Base of callbacks. Override what you need; the rest does nothing.

    They are called on rank 0, once for all workers, in the order in which things happen. An exception ends the run.
    """

    def on_start(self, start: RunStart) -> None:
        """The run begins. After a lost worker or with --resume, it goes on behind round `start.round`.

        start: what is known of the run now.
        """

    def on_report(self, line: Mapping[str, Any]) -> None:
        """The report has one more line.

        line: with the fields that it has in metrics.jsonl.
        """

    def on_round(self, record: RoundRecord) -> None:
        """A round is over, and all workers have exchanged.

        record: its steps, loss, samples, bytes and seconds.
        """

    def on_checkpoint(self, folder: Path) -> None:
        """A checkpoint is whole.

        folder: with its files.
        """

    def on_end(self, summary: Mapping[str, Any]) -> None:
        """The run has ended, by its budget or because it was asked to stop.

        summary: as in summary.json.
        """


def unchangeable(value: Any) -> Any:
    """The same value for others to read: mappings and lists in it cannot be written to."""
    if isinstance(value, Mapping):
        return MappingProxyType({key: unchangeable(each) for key, each in value.items()})
    return tuple(map(unchangeable, value)) if isinstance(value, list | tuple) else value


class Callbacks:
    """Those of one run. Empty, it does nothing.

    named: (what errors call it, the callback) of each.
    run: what the run is called, where it has no directory.
    """

    def __init__(self, named: Sequence[tuple[str, Callback]] = (), run: str = "run") -> None:
        self._named, self.run = named, run

    def __bool__(self) -> bool:
        return bool(self._named)

    @property
    def by_round(self) -> bool:
        """Whether any of them wants to know of rounds: else nothing is counted for them."""
        return any(type(each).on_round is not Callback.on_round for _, each in self._named)

    def start(self, start: RunStart) -> None:
        """Call `on_start`."""
        self._call("on_start", lambda each: each.on_start, start._replace(scenario=unchangeable(start.scenario)))

    def report(self, line: Mapping[str, Any]) -> None:
        """Call `on_report`."""
        if self._named:
            self._call("on_report", lambda each: each.on_report, unchangeable(line))

    def round(self, record: RoundRecord) -> None:
        """Call `on_round`."""
        self._call("on_round", lambda each: each.on_round, record)

    def checkpoint(self, folder: Path) -> None:
        """Call `on_checkpoint`."""
        self._call("on_checkpoint", lambda each: each.on_checkpoint, folder)

    def end(self, summary: Mapping[str, Any]) -> None:
        """Call `on_end`."""
        if self._named:
            self._call("on_end", lambda each: each.on_end, unchangeable(summary))

    def _call(self, what: str, method: Callable[[Callback], Callable[[Any], None]], value: Any) -> None:
        """ScenarioError that names the callback where one raises: it is the user's code that has failed."""
        for name, each in self._named:
            try:
                method(each)(value)
            except FAILURES as error:
                raise ScenarioError(f"{name}: {what} failed: {in_words(error)}") from error
