"""Report lines: all of them can be read, however many there are, and memory stays the same."""

from __future__ import annotations

import math
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from kit.paths import SCENARIOS
from paceline import compare, simulate
from paceline.program.errors import ScenarioError
from paceline.records import lines as module
from paceline.records.lines import Lines


def line(number: int) -> dict[str, Any]:
    return {"round": number, "seconds": 0.1 * number, "train_loss": math.nan if number % 2 else 0.3}


@pytest.fixture
def few_kept(monkeypatch) -> None:
    monkeypatch.setattr(module, "KEPT", 4)


@pytest.mark.parametrize("count", [0, 1, 4, 5, 9])
def test_lines_are_read_as_they_were_logged(count, few_kept, tmp_path):
    """Up to four stay in memory here; more are read from the file."""
    logged, found = [line(number) for number in range(count)], Lines(tmp_path / "metrics.jsonl")
    for each in logged:
        found.append(each)
    assert len(found) == count
    assert repr(found) == repr(logged)  # NaN is not equal to itself
    assert repr(found[1:3]) == repr(logged[1:3])
    for place in range(-count, count):
        assert repr(found[place]) == repr(logged[place])
    with pytest.raises(IndexError):
        found[count]


def test_lines_are_compared_as_lists_are(few_kept, tmp_path):
    found, other = Lines(tmp_path / "metrics.jsonl"), Lines(None)
    for number in range(6):
        found.append({"round": number})
        other.append({"round": number})
    assert found == other == [{"round": number} for number in range(6)]
    other.append({"round": 6})
    assert found != other


def test_a_resumed_run_goes_on_after_its_lines(few_kept, tmp_path):
    found = Lines(tmp_path / "metrics.jsonl")
    found.restart([line(number) for number in range(6)])
    found.append(line(6))
    assert [each["round"] for each in found] == [*range(7)]


def test_a_run_is_the_same_with_its_lines_in_a_file(few_kept, tmp_path):
    """Summary, metrics and comparison of a run with more lines than stay in memory."""
    options: Any = {"settings": ["report={every: 1 round, log: 1 round}", "budget={rounds: 12}"], "timing_only": True}
    path = SCENARIOS / "local_sgd.yaml"
    kept, spooled = simulate(path, **options), simulate(path, out=tmp_path / "run", **options)
    assert len(spooled.lines) == len(kept.lines) == 12
    assert repr(spooled.summary) == repr(kept.summary)
    assert spooled.metrics.equals(kept.metrics)
    assert compare(spooled, kept).difference is None
    assert len((tmp_path / "run" / "loss.txt").read_text().splitlines()) > 1


def test_lines_that_another_run_has_replaced_are_not_read(few_kept, tmp_path):
    options: Any = {"settings": ["report={every: 1 round}", "budget={rounds: 6}"], "timing_only": True}
    first = simulate(SCENARIOS / "local_sgd.yaml", out=tmp_path / "run", **options)
    simulate(SCENARIOS / "local_sgd.yaml", out=tmp_path / "run", force=True, **options)
    with pytest.raises(ScenarioError, match="has changed since this run wrote it; give each run its own folder"):
        first.metrics  # noqa: B018


def peak_of(lines: int, path: Path) -> int:
    tracemalloc.start()
    found = Lines(path)
    for number in range(lines):
        found.append(line(number))
    assert sum(1 for _ in found) == lines
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return peak


def test_memory_does_not_grow_with_the_lines(few_kept, tmp_path):
    assert peak_of(2000, tmp_path / "long") < 2 * peak_of(50, tmp_path / "short")
