"""The run directory: the names of its files, which are the same for all engines, and how they are written."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

SCENARIO, SUMMARY, METRICS, TRACE = "scenario.yaml", "summary.json", "metrics.jsonl", "trace.json.gz"
CHECKPOINTS = "checkpoints"
LOCK = ".lock"  # see lock.py
SPANS = ".spans"  # a folder for the spans of a run that is going on; the trace is made of them
SIGNS = ".alive"  # a folder with each rank's sign of life, while a training goes on; see runtime/watch.py
STACKS = "stacks"  # a folder with what each rank was doing in a stall
STRUCK = "struck.jsonl"  # the scenario's faults that have struck a training; see struck.py
EPOCH_LOSS, EPOCH_METRIC = "loss.txt", "acc.txt"
NOW = ".now"  # what a run is doing, while it goes on; see live.py
PROGRESS = ".progress"  # how far a run has come that may restart; see progress.py
REPORT = "report.html"  # a page about the run; see is_report
FILES = (SCENARIO, SUMMARY, METRICS, TRACE, EPOCH_LOSS, EPOCH_METRIC, PROGRESS, NOW, STRUCK, REPORT)
EVENTS = "tensorboard"  # a folder with what TensorBoard shows; see tensorboard_tracker.py
FOLDERS = (CHECKPOINTS, SPANS, SIGNS, STACKS, EVENTS)


REPORT_MARK = "<!doctype html>\n<!-- Made by `paceline report` -->"  # how each report begins


def is_report(path: Path) -> bool:
    """Whether `paceline report` has made a file."""
    try:
        with path.open("rb") as file:
            return file.read(len(REPORT_MARK)) == REPORT_MARK.encode()
    except OSError:
        return False


@contextmanager
def whole_or_absent(path: Path) -> Iterator[Path]:
    """A temporary name under which to write a file. The file is on disk before it gets the name `path`."""
    temporary = path.with_name(f".{path.name}.partial")
    yield temporary
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    temporary.replace(path)


def fsync_folder(folder: Path) -> None:
    """Return when the names in a folder are on disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file so that it is whole or absent."""
    with whole_or_absent(path) as temporary:
        temporary.write_bytes(data)


def to_json(document: Any, indent: int | None = None) -> str:
    """JSON that any reader accepts: a number that is not finite becomes null. Floats keep all their bits."""
    return json.dumps(_plain(document), indent=indent, allow_nan=False)


def write_keys(path: Path, document: Mapping[str, Any]) -> None:
    """Write a mapping as JSON, so that the file is whole or absent: a line for each key, however long its list is."""
    with whole_or_absent(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        before = "{"
        for key, value in document.items():
            file.write(f"{before}\n {to_json(key)}: {to_json(value)}")
            before = ","
        file.write("\n}")


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        # There may be a million, one for each worker. A sum is finite only if all its terms are.
        kinds = set(map(type, value))
        plain = kinds == {int} or (kinds == {float} and math.isfinite(sum(value)))
        return value if plain else [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
