"""The recorder: takes a run's reports and checkpoints, and writes its directory. Without one it writes nothing."""

from __future__ import annotations

import shutil
from bisect import insort
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ..config import yaml
from ..config.metrics import metrics_in
from ..program.callbacks import Callbacks
from ..program.effects import Array
from ..program.errors import NotWritten, ProtocolError
from ..program.outcome import Outcome
from . import checkpoints, struck
from .directory import (
    EPOCH_LOSS,
    EPOCH_METRIC,
    METRICS,
    SCENARIO,
    SIGNS,
    SPANS,
    SUMMARY,
    to_json,
    whole_or_absent,
    write_atomically,
    write_keys,
)
from .lines import Line, Lines
from .recoveries import Recovery
from .replacing import discard
from .schemas import read_lines


class Part(NamedTuple):
    """One worker's part of a checkpoint."""

    sha256: str = ""  # of its file
    failure: str = ""  # why it could not be written


class Recorder:
    """The records of one run.

    on_line: called with each report line, for progress.
    kept: whose optimizer state the checkpoints keep.
    subject: what the run trains, as its checkpoints say it; see `paceline/resuming.py`.
    retention: which checkpoints stay; None: all.
    tell: called with a line for the user where something cannot be written now. The run goes on.
    callbacks: told of what is recorded.
    """

    def __init__(
        self,
        directory: Path | None,
        on_line: Callable[[dict[str, Any]], None] = lambda line: None,
        kept: checkpoints.Kept = "local",
        subject: Mapping[str, Any] = {},
        retention: checkpoints.Retention | None = None,
        tell: Callable[[str], None] = lambda line: None,
        callbacks: Callbacks | None = None,
    ) -> None:
        self.directory, self.kept, self.subject, self.retention = directory, kept, subject, retention
        self.lines = Lines(directory / METRICS if directory else None)
        self.earlier = 0.0  # seconds that the run had taken when it was resumed
        self.saved: Path | None = None  # the newest checkpoint
        self.recoveries: list[Recovery] = []  # of the whole run
        self.on_line, self.tell, self.callbacks = on_line, tell, callbacks or Callbacks()
        self.struck: list[dict[str, Any]] = []  # the scenario's faults that have struck, as struck.py has them
        self.unsaved = ""  # what could not be written of the last checkpoint, and why
        self._document: dict[str, Any] = {}  # the resolved scenario
        self.seconds = 0.0  # the run's clock at the newest report line
        self._evaluated: Line = {}  # the last line with an evaluation
        self._parts: dict[int, Part] = {}  # of an unfinished checkpoint, by worker

    def scenario(self, document: dict[str, Any]) -> None:
        """Write the resolved scenario."""
        self._document = document
        if self.directory:
            write_atomically(self.directory / SCENARIO, yaml.dump(document).encode())

    def resume(self, round: int, seconds: float) -> str:
        """Go on after `round`: report lines up to it stay, later ones (of a run that died) are removed.

        Returns a line for the user where the last line was incomplete, else an empty text.
        """
        assert self.directory
        self._clear(self.directory)
        path = self.directory / METRICS
        lines, torn = read_lines(path, resuming=True)
        self._go_on_after(round, seconds, lines)
        return f"{path}: the last line was incomplete and is removed" if torn else ""

    def go_back(self, round: int, seconds: float) -> None:
        """Go on after `round` in the same process: what comes now replaces later lines, and an unfinished checkpoint.

        seconds: what the run's clock shows now.
        """
        if self.directory:
            checkpoints.discard_partial(self.directory)
        self._parts = {}
        self._go_on_after(round, seconds, self.lines)

    def _go_on_after(self, round: int, seconds: float, lines: Iterable[Line]) -> None:
        before = [line for line in lines if line["round"] <= round]
        self.lines.restart(before)
        self._evaluated = next(evaluated(reversed(before)), {})
        self.earlier = seconds

    def begin_again(self, seconds: float) -> None:
        """Go on where nothing was saved: from the beginning, after so many seconds."""
        assert self.directory
        self._clear(self.directory)
        self._go_on_after(0, seconds, ())

    def _clear(self, directory: Path) -> None:
        """Remove what ranks that were killed have left, some of which may not come again."""
        checkpoints.discard_partial(directory)
        for left in (SPANS, SIGNS):
            shutil.rmtree(directory / left, ignore_errors=True)

    def log(self, worker: int, seconds: float, fields: dict[str, Any]) -> None:
        """Take a report line."""
        line = {"round": fields["round"], "step": fields["step"], "samples": fields["samples"]}
        line |= {"seconds": seconds + self.earlier, **fields}
        self.seconds = line["seconds"]
        before = self.lines.failure
        self.lines.append(line)
        if self.lines.failure and not before:
            self.tell(f"{METRICS} cannot be written: {self.lines.failure}; the run goes on, and tries again")
        if is_evaluated(line):
            self._evaluated = line
        self.on_line(line)
        self.callbacks.report(line)

    def fault(self, worker: int, entry: dict[str, Any]) -> None:
        """Take a fault of the scenario that strikes a simulated worker. What counts seconds comes late."""
        insort(self.struck, {"worker": worker} | entry, key=lambda each: float(each["seconds"]))

    def forget_last(self) -> None:
        """Remove the last report line."""
        self.lines.restart([*self.lines][:-1])
        self._evaluated = next(evaluated(reversed(self.lines)), {})

    def checkpoint(self, worker: int, workers: int, seconds: float, state: Any, arrays: dict[str, Array]) -> None:
        """Write one worker's part of a checkpoint; with the last worker's part it is finished.

        For workers of one process. Ranks write their own parts, and rank 0 commits after a barrier.
        """
        if self.directory is None:
            return
        self._parts[worker] = self.part(worker, state.round, arrays)
        if len(self._parts) == workers:
            self.commit([part for _, part in sorted(self._parts.items())], seconds, state)
            self._parts = {}

    def part(self, worker: int, round: int, arrays: dict[str, Array]) -> Part:
        """Write one worker's part of a checkpoint."""
        assert self.directory
        try:
            return Part(checkpoints.write_worker(self.directory, worker, round, arrays, self.kept))
        except OSError as error:
            return Part(failure=error.strerror or str(error))

    def commit(self, parts: Sequence[Part], seconds: float, state: Any) -> None:
        """Finish the checkpoint once every worker has written its part. Where one could not, the run goes on without.

        parts: of each worker.
        """
        assert self.directory
        failures = [part.failure for part in parts if part.failure]
        try:
            if not failures:
                self._commit(self.directory, [part.sha256 for part in parts], seconds, state)
        except OSError as error:
            failures = [error.strerror or str(error)]
        self.unsaved = (
            f"the checkpoint after round {state.round} could not be written: {failures[0]}" if failures else ""
        )
        if failures:
            self.tell(f"{self.unsaved}; the run goes on, and tries again with the next one")

    def _commit(self, directory: Path, sha256: Sequence[str], seconds: float, state: Any) -> None:
        if not (directory / SCENARIO).exists():  # it was removed while the run went on
            self.scenario(self._document)
        self.lines.write()
        self.lines.sync()  # before the checkpoint: a resumed run goes on behind the lines that led to it
        self.saved = checkpoints.commit(directory, sha256, state, seconds + self.earlier, self.subject)
        if self.retention is not None:
            self.retention.prune(directory)
        self.callbacks.checkpoint(self.saved)

    def finish(self, engine: str, outcomes: Sequence[Outcome], epochs: float, extra: dict[str, Any]) -> dict[str, Any]:
        """Write the summary and the files with a line per epoch, and remove the run that this one replaces.

        epochs: that the run has trained for. NotWritten where something could not be written.
        """
        summary = summarize(engine, outcomes, epochs, self._evaluated, self.earlier) | extra
        if self.struck:
            summary["faults"] = struck.told(self.struck)
        if self.recoveries:
            summary["recoveries"] = [each.noted() for each in self.recoveries]
        if self.directory:
            try:
                self._write(self.directory, summary)
            except OSError as error:
                self.unsaved = self.unsaved or f"the results could not be written: {error.strerror or error}"
            if self.unsaved:
                raise NotWritten(f"{self.directory}: {self.unsaved}; {checkpoints.go_on(self.directory)}")
        self.callbacks.end(summary)
        return summary

    def _write(self, directory: Path, summary: dict[str, Any]) -> None:
        self.lines.write()
        if self.lines.failure:
            raise OSError(f"{METRICS}: {self.lines.failure}")
        write_keys(directory / SUMMARY, summary)
        self._write_epochs(directory)
        if summary.get("finished") and summary.get("replicas_agree", True) and not self.unsaved:
            discard(directory)

    def _write_epochs(self, directory: Path) -> None:
        """Write the files with a line per epoch: of the training loss, and of the first metric if there is one."""
        (directory / EPOCH_METRIC).unlink(missing_ok=True)  # of an earlier part of the run
        fields = ["train_loss", *metrics_in(self._evaluated)[:1]]
        for name, field in zip((EPOCH_LOSS, EPOCH_METRIC), fields, strict=False):
            with whole_or_absent(directory / name) as temporary, temporary.open("w") as file:
                file.writelines(f"{to_json(line.get(field))}\n" for line in per_epoch(evaluated(self.lines)))


def summarize(
    engine: str, outcomes: Sequence[Outcome], epochs: float, last: Mapping[str, Any], earlier: float
) -> dict[str, Any]:
    """The contents of summary.json. ProtocolError where the run has no round.

    epochs: that the run has trained for.
    last: the last line with an evaluation.
    earlier: seconds that the run had taken when it was resumed.

    In a resumed run, rounds, steps, samples and seconds are those of the whole run. What is counted (syncs, bytes,
    computing, evaluation, idle) begins at resumed_at_round, and so does the trace of a real run.
    """
    state, seconds = outcomes[0].result, max(outcome.seconds for outcome in outcomes) + earlier
    if state.round < 1:
        raise ProtocolError("the run has ended without a round of training, so there is no result")
    return {
        "engine": engine,
        "workers": len(outcomes),
        "rounds": state.round,
        "steps": state.step,
        "samples": state.samples,
        "epochs": epochs,  # as the plan counts them
        "syncs": outcomes[0].syncs,
        "bytes_per_worker": [sum(outcome.sent.values()) for outcome in outcomes],
        "moved_per_worker": [outcome.moved for outcome in outcomes],  # bytes over the host link
        # Virtual seconds (simpy, cohort) or wall-clock seconds (mpi), without evaluation.
        "seconds": seconds,
        # Of all workers; null where no time has passed.
        "samples_per_second": state.samples / seconds if seconds else None,
        "seconds_per_epoch": seconds / epochs if epochs else None,
        "evaluation_seconds": max(outcome.evaluating for outcome in outcomes),
        "computing_seconds": [outcome.computing for outcome in outcomes],
        "idle_share": [outcome.idle for outcome in outcomes],
        "train_loss": last.get("train_loss"),
        "test_loss": last.get("test_loss"),
        "metrics": metrics_in(last),  # their names
        **{name: last[name] for name in metrics_in(last)},
    }


def evaluated(lines: Iterable[Line]) -> Iterator[Line]:
    """The report lines with an evaluation."""
    return filter(is_evaluated, lines)


def is_evaluated(line: Line) -> bool:
    """Whether a report line has an evaluation."""
    return "test_loss" in line


def per_epoch(lines: Iterable[Line]) -> Iterator[Line]:
    """The first report at or after the end of each epoch, and the last report for an epoch that is not finished.

    A report that covers several epochs is listed once.
    """
    ended, line = 0, Line()
    for line in lines:
        if line["epoch"] >= ended + 1 - 1e-9:
            yield line
            ended = int(line["epoch"] + 1e-9)
    if line and line["epoch"] > ended + 1e-9:
        yield line
