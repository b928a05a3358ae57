"""The recorder: takes a run's reports and checkpoints, and writes its directory. Without one it writes nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..config import yaml
from ..program.effects import Array
from ..program.errors import ProtocolError
from ..program.outcome import Outcome
from . import checkpoints
from .directory import METRICS, SCENARIO, SUMMARY, to_json, whole_or_absent, write_atomically, write_keys
from .lines import Line, Lines
from .replacing import discard
from .schemas import read_lines


class Recorder:
    """The records of one run.

    on_line: called with each report line, for progress.
    kept: whose optimizer state the checkpoints keep.
    subject: what the run trains, as its checkpoints say it; see `paceline/resuming.py`.
    """

    def __init__(
        self,
        directory: Path | None,
        on_line: Callable[[dict[str, Any]], None] = lambda line: None,
        kept: checkpoints.Kept = "local",
        subject: Mapping[str, Any] = {},
    ) -> None:
        self.directory, self.kept, self.subject = directory, kept, subject
        self.lines = Lines(directory / METRICS if directory else None)
        self.earlier = 0.0  # seconds that the run had taken when it was resumed
        self.saved: Path | None = None  # the newest checkpoint
        self.on_line = on_line
        self._evaluated: Line = {}  # the last line with an evaluation
        self._written: dict[int, str] = {}  # the SHA-256 of each worker's part

    def scenario(self, document: dict[str, Any]) -> None:
        """Write the resolved scenario."""
        if self.directory:
            write_atomically(self.directory / SCENARIO, yaml.dump(document).encode())

    def resume(self, round: int, seconds: float) -> str:
        """Go on after `round`: report lines up to it stay, later ones (of a run that died) are removed.

        Returns a line for the user where the last line was incomplete, else an empty text.
        """
        assert self.directory
        path = self.directory / METRICS
        lines, torn = read_lines(path, resuming=True)
        before = [line for line in lines if line["round"] <= round]
        self.lines.restart(before)
        self._evaluated = next(evaluated(reversed(before)), {})
        self.earlier = seconds
        return f"{path}: the last line was incomplete and is removed" if torn else ""

    def log(self, worker: int, seconds: float, fields: dict[str, Any]) -> None:
        """Take a report line."""
        line = {"round": fields["round"], "step": fields["step"], "samples": fields["samples"]}
        line |= {"seconds": seconds + self.earlier, **fields}
        self.lines.append(line)
        if is_evaluated(line):
            self._evaluated = line
        self.on_line(line)

    def checkpoint(self, worker: int, workers: int, seconds: float, state: Any, arrays: dict[str, Array]) -> None:
        """Write one worker's part of a checkpoint; with the last worker's part it is finished.

        For workers of one process. Ranks write their own parts, and rank 0 commits after a barrier.
        """
        if self.directory is None:
            return
        self._written[worker] = checkpoints.write_worker(self.directory, worker, state.round, arrays, self.kept)
        if len(self._written) == workers:
            self.commit([digest for _, digest in sorted(self._written.items())], seconds, state)
            self._written = {}

    def commit(self, sha256: Sequence[str], seconds: float, state: Any) -> None:
        """Finish the checkpoint once every worker has written its part. sha256: of each part."""
        assert self.directory
        self.saved = checkpoints.commit(self.directory, sha256, state, seconds + self.earlier, self.subject)

    def finish(self, engine: str, outcomes: Sequence[Outcome], extra: dict[str, Any]) -> dict[str, Any]:
        """Write the summary and the files with a line per epoch, and remove the run that this one replaces."""
        summary = summarize(engine, outcomes, self._evaluated, self.earlier) | extra
        if self.directory:
            write_keys(self.directory / SUMMARY, summary)
            (self.directory / METRICS).touch()
            self._write_epochs(self.directory)
            if summary.get("finished") and summary.get("replicas_agree", True):
                discard(self.directory)
        return summary

    def _write_epochs(self, directory: Path) -> None:
        """Write the files with a line per epoch."""
        with (
            whole_or_absent(directory / "loss.txt") as losses,
            whole_or_absent(directory / "acc.txt") as accuracies,
            losses.open("w") as loss,
            accuracies.open("w") as accuracy,
        ):
            for line in per_epoch(evaluated(self.lines)):
                loss.write(f"{to_json(line.get('train_loss'))}\n")
                accuracy.write(f"{to_json(line.get('accuracy'))}\n")


def summarize(engine: str, outcomes: Sequence[Outcome], last: Mapping[str, Any], earlier: float) -> dict[str, Any]:
    """The contents of summary.json. ProtocolError where the run has no round. last: the last line with an evaluation.

    In a resumed run, rounds, steps, samples and seconds are those of the whole run. What is counted (syncs, bytes,
    computing, evaluation, idle) begins at resumed_at_round, and so does the trace.
    """
    state = outcomes[0].result
    if state.round < 1:
        raise ProtocolError("the run has ended without a round of training, so there is no result")
    return {
        "engine": engine,
        "workers": len(outcomes),
        "rounds": state.round,
        "steps": state.step,
        "samples": state.samples,
        "syncs": outcomes[0].syncs,
        "bytes_per_worker": [sum(outcome.sent.values()) for outcome in outcomes],
        "moved_per_worker": [outcome.moved for outcome in outcomes],  # bytes over the host link
        # Virtual seconds (simpy, cohort) or wall-clock seconds (mpi), without evaluation.
        "seconds": max(outcome.seconds for outcome in outcomes) + earlier,
        "evaluation_seconds": max(outcome.evaluating for outcome in outcomes),
        "computing_seconds": [outcome.computing for outcome in outcomes],
        "idle_share": [outcome.idle for outcome in outcomes],
        "train_loss": last.get("train_loss"),
        "test_loss": last.get("test_loss"),
        "accuracy": last.get("accuracy"),
    }


def evaluated(lines: Iterable[Line]) -> Iterator[Line]:
    """The report lines with an evaluation."""
    return filter(is_evaluated, lines)


def is_evaluated(line: Line) -> bool:
    """Whether a report line has an evaluation."""
    return "accuracy" in line


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
