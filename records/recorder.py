"""The recorder: takes a run's reports and checkpoints, and writes its directory.

metrics.jsonl grows line by line, so a run that dies leaves what it has logged. Without a directory the recorder keeps
the lines in memory and writes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..config import yaml
from ..program.effects import Array
from ..program.errors import ProtocolError
from ..program.outcome import Outcome
from . import checkpoints
from .directory import METRICS, SCENARIO, SUMMARY, to_json, write_atomically
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
        self.lines: list[dict[str, Any]] = []
        self.earlier = 0.0  # seconds that the run had taken when it was resumed
        self.saved: Path | None = None  # the newest checkpoint
        self.on_line = on_line
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
        self.lines = [line for line in lines if line["round"] <= round]
        write_atomically(path, "".join(f"{to_json(line)}\n" for line in self.lines).encode())
        self.earlier = seconds
        return f"{path}: the last line was incomplete and is removed" if torn else ""

    def log(self, worker: int, seconds: float, fields: dict[str, Any]) -> None:
        """Take a report line."""
        line = {"round": fields["round"], "step": fields["step"], "samples": fields["samples"]}
        line |= {"seconds": seconds + self.earlier, **fields}
        self.lines.append(line)
        if self.directory:
            with (self.directory / METRICS).open("a", encoding="utf-8") as file:
                file.write(f"{to_json(line)}\n")
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
        summary = summarize(engine, outcomes, self.lines, self.earlier) | extra
        if self.directory:
            write_atomically(self.directory / SUMMARY, to_json(summary, indent=1).encode())
            (self.directory / METRICS).touch()
            epochs = per_epoch(evaluated(self.lines))
            for name, key in (("loss.txt", "train_loss"), ("acc.txt", "accuracy")):
                rows = "".join(f"{to_json(line.get(key))}\n" for line in epochs)
                write_atomically(self.directory / name, rows.encode())
            if summary.get("finished") and summary.get("replicas_agree", True):
                discard(self.directory)
        return summary


def summarize(
    engine: str, outcomes: Sequence[Outcome], lines: Sequence[dict[str, Any]], earlier: float
) -> dict[str, Any]:
    """The contents of summary.json. ProtocolError where the run has no round.

    In a resumed run, rounds, steps, samples and seconds are those of the whole run. What is counted (syncs, bytes,
    computing, evaluation, idle) begins at resumed_at_round, and so does the trace.
    """
    state, reports = outcomes[0].result, evaluated(lines)
    last = reports[-1] if reports else {}
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


def evaluated(lines: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The report lines with an evaluation."""
    return [line for line in lines if "accuracy" in line]


def per_epoch(lines: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The first report at or after the end of each epoch, and the last report for an epoch that is not finished.

    A report that covers several epochs is listed once.
    """
    rows: list[dict[str, Any]] = []
    ended = 0
    for line in lines:
        if line["epoch"] >= ended + 1 - 1e-9:
            rows.append(line)
            ended = int(line["epoch"] + 1e-9)
    if lines and lines[-1]["epoch"] > ended + 1e-9:
        rows.append(lines[-1])
    return rows
