"""A run directory under damage: checkpoints that are broken or too many, a disk that is full, two runs in one place."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from kit.cli import scenario
from paceline import load, simulate
from paceline.algorithms.rounds import State
from paceline.config import yaml
from paceline.config.scenario import load as load_file
from paceline.disk_check import check_room, checkpoint_bytes
from paceline.job import resolve
from paceline.program.errors import NotWritten, ScenarioError
from paceline.records import checkpoints, lock
from paceline.records.checkpoints import Retention, commit, finished, round_of, whole, write_worker
from paceline.records.directory import LOCK, SIGNS, SPANS
from paceline.records.lines import Lines
from paceline.records.recorder import Recorder

ROUNDS = (2, 4, 6)


def save(directory: Path, round: int, **arrays: np.ndarray) -> Path:
    """A whole checkpoint of two workers."""
    parts = [write_worker(directory, w, round, {"params": np.full(4, round + w, np.float32)} | arrays) for w in (0, 1)]
    return commit(directory, parts, State(round=round, step=round, samples=8 * round), 1.0)


@pytest.fixture
def run(tmp_path) -> Path:
    for round in ROUNDS:
        save(tmp_path, round)
    return tmp_path


def flipped(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


def without(path: Path, key: str) -> None:
    path.write_text(json.dumps({k: v for k, v in json.loads(path.read_text()).items() if k != key}))


DAMAGES = {
    "a flipped bit of the parameters": lambda c: flipped(c / "worker_1.safetensors", -1),
    "a flipped bit of the header": lambda c: flipped(c / "worker_0.safetensors", 9),
    "half a file": lambda c: os.truncate(c / "worker_0.safetensors", 40),
    "an empty file": lambda c: os.truncate(c / "worker_1.safetensors", 0),
    "a longer file": lambda c: (c / "worker_0.safetensors").write_bytes(
        (c / "worker_0.safetensors").read_bytes() + b"x"
    ),
    "a missing file": lambda c: (c / "worker_1.safetensors").unlink(),
    "another worker's file": lambda c: shutil.copy(c / "worker_0.safetensors", c / "worker_1.safetensors"),
    "no meta.json": lambda c: (c / "meta.json").unlink(),
    "half a meta.json": lambda c: os.truncate(c / "meta.json", 50),
    "another meta.json": lambda c: shutil.copy(c.with_name("round_000004") / "meta.json", c / "meta.json"),
    "a changed state": lambda c: (c / "meta.json").write_text(
        (c / "meta.json").read_text().replace('"step": 6', '"step": 7')
    ),
    "a missing key": lambda c: without(c / "meta.json", "seconds"),
    "a folder in place of a file": lambda c: (
        (c / "worker_0.safetensors").unlink(),
        (c / "worker_0.safetensors").mkdir(),
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_passed_over(run, damage):
    newest = run / "checkpoints" / "round_000006"
    DAMAGES[damage](newest)
    chosen, said = whole(run)
    assert chosen.name == "round_000004"
    assert len(said) == 1
    assert "round_000006" in said[0]
    with pytest.raises(ScenarioError, match="round_000006"):
        whole(run, 6)


def test_where_no_checkpoint_is_whole(run, tmp_path):
    for checkpoint in finished(run):
        flipped(checkpoint / "worker_0.safetensors", -1)
    with pytest.raises(ScenarioError, match=r"round_000006.*is damaged.*nor is any of the 2 checkpoints before it"):
        whole(run)
    with pytest.raises(ScenarioError, match=r"has no checkpoint of round 5; it has \[2, 4, 6\]"):
        whole(run, 5)
    with pytest.raises(ScenarioError, match="the run has no checkpoint"):
        whole(tmp_path / "nowhere")


def test_a_commit_removes_later_checkpoints(run):
    """The run went on from an earlier one: what follows it on the disk is of another past."""
    save(run, 3)
    assert [round_of(path) for path in finished(run)] == [2, 3]


@pytest.mark.parametrize(
    ("retention", "left"),
    [
        (Retention(1), [6]),
        (Retention(2), [4, 6]),
        (Retention(9), [2, 4, 6]),
        (Retention(1, lambda state: state["round"] // 3), [4, 6]),
        (Retention(1, lambda state: state["round"] // 2), [2, 4, 6]),
    ],
)
def test_retention(run, retention, left):
    retention.prune(run)
    assert [round_of(path) for path in finished(run)] == left
    retention.prune(run)
    assert [round_of(path) for path in finished(run)] == left


def test_a_damaged_checkpoint_does_not_keep_others_from_being_removed(run):
    os.truncate(run / "checkpoints" / "round_000002" / "meta.json", 10)
    Retention(1, lambda state: 0).prune(run)
    assert [round_of(path) for path in finished(run)] == [2, 6]


def test_a_simulation_keeps_what_it_should(tmp_path):
    document = scenario(2, {"name": "mlp", "hidden": [4]}, {"preset": "local_sgd", "H": 2}, 24)
    document["checkpoint"] = {"every": "1 round", "keep": 2, "keep_every": "5 rounds"}
    (tmp_path / "s.yaml").write_text(yaml.dump(document))
    simulate(tmp_path / "s.yaml", out=tmp_path / "run")
    assert [round_of(path) for path in finished(tmp_path / "run")] == [5, 10, 15, 20, 23, 24]
    assert not (tmp_path / "run" / LOCK).exists()


def test_unfinished_checkpoints_are_removed_on_resume(run):
    write_worker(run, 0, 8, {"params": np.zeros(1, np.float32)})
    for name in (SPANS, SIGNS):  # of a third rank, which was killed and does not come again
        (run / name).mkdir()
        (run / name / "2").write_text("half a line")
    Recorder(run).resume(6, 1.0)
    assert not (run / SPANS).exists()
    assert not (run / SIGNS).exists()
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == [f"round_00000{n}" for n in ROUNDS]


def test_one_run_at_a_time_writes_into_a_directory(tmp_path):
    said = list[str]()
    with lock.held(tmp_path / "run", said.append):
        with pytest.raises(ScenarioError, match=rf"process {os.getpid()} on .* is writing a run in it; wait"):
            lock.check_free(tmp_path / "run")
        with pytest.raises(ScenarioError, match="is writing a run"), lock.held(tmp_path / "run", said.append):
            pass
    lock.check_free(tmp_path / "run")
    assert (said, [*(tmp_path / "run").iterdir()]) == ([], [])


def test_the_lock_of_a_removed_directory_is_not_the_lock_of_the_next_one(tmp_path):
    run = tmp_path / "run"
    with lock.held(run, print):
        shutil.rmtree(run)
        with lock.held(run, print):
            pass
        later = lock.held(run, print)
        later.__enter__()
    with pytest.raises(ScenarioError, match="is writing a run in it"):
        lock.check_free(run)
    later.__exit__(None, None, None)
    assert not (run / LOCK).exists()


def test_the_lock_of_a_killed_process_is_taken_over(tmp_path):
    program = f"""
import os, pathlib
from paceline.records import lock
with lock.held(pathlib.Path({str(tmp_path)!r}), print):
    os._exit(9)
"""
    assert subprocess.run([sys.executable, "-c", program], timeout=60, check=False).returncode == 9
    said = list[str]()
    with lock.held(tmp_path, said.append):
        assert len(said) == 1
        assert said[0].endswith("has ended; its lock is taken over")
    with lock.held(tmp_path, said.append):
        assert len(said) == 1


def test_a_directory_with_a_dead_lock_is_empty(tmp_path):
    (tmp_path / "s.yaml").write_text(yaml.dump(scenario(2, {"name": "mlp"}, {"preset": "local_sgd", "H": 2}, 4)))
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / LOCK).write_text("process 1 on another")
    assert simulate(tmp_path / "s.yaml", out=tmp_path / "run", timing_only=True).summary["finished"]


class Full:
    """Files that cannot be written for a while: the folder has another name meanwhile."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def __enter__(self) -> None:
        self.directory.rename(self.directory.with_name("away"))
        self.directory.write_text("a file is in its place")

    def __exit__(self, *error: object) -> None:
        self.directory.unlink()
        self.directory.with_name("away").rename(self.directory)


def report(round: int) -> dict:
    return {"round": round, "step": round, "samples": round, "epoch": 0.5, "train_loss": 1.0, "test_loss": 1.0}


def test_lines_that_could_not_be_written_come_later(tmp_path):
    (tmp_path / "run").mkdir()
    path = tmp_path / "run" / "metrics.jsonl"
    lines = Lines(path)
    path.write_bytes(b'{"round')  # what a full disk has taken of the first line
    lines.append(report(1))
    with Full(tmp_path / "run"):
        lines.append(report(2))
        assert lines.failure
    with path.open("ab") as file:
        file.write(b'{"round": 2, "st')  # what a full disk has taken of it
    lines.append(report(3))
    assert not lines.failure
    assert [json.loads(text)["round"] for text in path.read_text().splitlines()] == [1, 2, 3]
    path.unlink()
    lines.append(report(4))
    assert [json.loads(text)["round"] for text in path.read_text().splitlines()] == [1, 2, 3, 4]
    assert [line["round"] for line in lines] == [1, 2, 3, 4]


def test_a_run_goes_on_while_its_directory_cannot_be_written(tmp_path):
    """Said once; the next checkpoint is tried; the last one decides about the end."""
    said, run = list[str](), tmp_path / "run"
    run.mkdir()
    recorder = Recorder(run, tell=said.append)
    recorder.scenario({"recorded": {}})
    arrays = {"params": np.zeros(3, np.float32)}
    recorder.checkpoint(0, 1, 1.0, State(round=1), arrays)
    with Full(run):
        recorder.log(0, 2.0, report(2))
        recorder.log(0, 3.0, report(3))
        recorder.checkpoint(0, 1, 3.0, State(round=3), arrays)
        assert "round 3 could not be written" in recorder.unsaved
    assert [text.partition(":")[0] for text in said] == [
        "metrics.jsonl cannot be written",
        "the checkpoint after round 3 could not be written",
    ]
    recorder.checkpoint(0, 1, 4.0, State(round=4), arrays)
    assert not recorder.unsaved
    assert [round_of(path) for path in finished(run)] == [1, 4]
    shutil.rmtree(run)
    recorder.checkpoint(0, 1, 5.0, State(round=5), arrays)
    assert whole(run)[0].name == "round_000005"
    assert (run / "scenario.yaml").exists(), "a run that was removed comes back with its next checkpoint"
    assert [line["round"] for line in recorder.lines] == [2, 3]


def test_a_last_checkpoint_that_cannot_be_written(tmp_path, monkeypatch):
    document = scenario(2, {"name": "mlp", "hidden": [4]}, {"preset": "local_sgd", "H": 2}, 8)
    document["checkpoint"] = {"every": "1 round"}
    (tmp_path / "s.yaml").write_text(yaml.dump(document))
    written = checkpoints.write_worker

    def full(directory, worker, round, *more):
        if round >= 3:
            raise OSError(28, "No space left on device")
        return written(directory, worker, round, *more)

    monkeypatch.setattr(checkpoints, "write_worker", full)
    with pytest.raises(NotWritten, match=r"round 8 could not be written: No space.*round_000002 was saved; go on"):
        simulate(tmp_path / "s.yaml", out=tmp_path / "run")
    assert NotWritten.status == 1
    assert load(tmp_path / "run").summary["rounds"] == 8, "what could be written is there"


def test_a_resumed_run_has_some_of_its_checkpoints_already(tmp_path, monkeypatch):
    document = scenario(2, {"name": "mlp", "hidden": [1000]}, {"preset": "local_sgd", "H": 2}, 4)
    document["checkpoint"] = {"keep": 3}
    (tmp_path / "s.yaml").write_text(yaml.dump(document))
    job, usage = resolve(load_file(tmp_path / "s.yaml"), tmp_path), shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=2 * checkpoint_bytes(job)))
    for there in (2, 3, 9):
        check_room(tmp_path, job, there)
    with pytest.raises(ScenarioError, match=r"3 checkpoints take"):
        check_room(tmp_path, job, 1)


def test_room_for_checkpoints(tmp_path, monkeypatch):
    document = scenario(2, {"name": "mlp", "hidden": [1000]}, {"preset": "local_sgd", "H": 2}, 4)
    (tmp_path / "s.yaml").write_text(yaml.dump(document))
    job = resolve(load_file(tmp_path / "s.yaml"), tmp_path)
    usage = shutil.disk_usage(tmp_path)
    check_room(tmp_path / "not" / "there", job)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    with pytest.raises(ScenarioError, match=r"a checkpoint takes .* and 1 KB are free there"):
        check_room(tmp_path / "not" / "there", job)
