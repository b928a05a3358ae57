"""Training for real that loses a worker and restarts: the numbers of a run that lost none, and a record of the loss."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from kit.cli import MLP, paceline, read, scenario, under_mpirun
from paceline import load, simulate
from paceline.config import yaml
from paceline.records.recoveries import LANE
from paceline.records.trace import read_trace

ROUNDS = 60
# The paceline command with the mpirun of MPICH, which it takes where Open MPI is not installed.
WITH_MPICH = """
from paceline.runtime import launcher, mpirun
launcher.find_mpirun = lambda kind=None: mpirun.find_mpirun("mpich")
from paceline.__main__ import main
main()
"""
OWN = """
import os, signal
from torch import nn

class Model(nn.Module):
    def __init__(self, layers):
        super().__init__()
        self.layers, self.passes = layers, 0

    def forward(self, x):
        self.passes += 1
        if self.training and self.passes == 70 and "OMPI_COMM_WORLD_RANK" in os.environ:
            if not os.path.exists("struck"):
                open("struck", "w").close()
                os.kill(os.getppid(), signal.SIGKILL)
        return self.layers(x)

def make(input_shape, classes):
    return Model(nn.Sequential(nn.Flatten(), nn.Linear(64, classes)))
"""
LEAVES = """
import os
from torch import nn

def make(input_shape, classes):
    if os.environ.get("OMPI_COMM_WORLD_RANK") == "1" and os.environ.get("OMPI_COMM_WORLD_SIZE") == "3":
        if os.path.exists("run/struck.jsonl"):
            os._exit(7)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, classes))
"""


def write(folder: Path, workers: int = 3, **more: object) -> None:
    document = scenario(workers, MLP, {"preset": "local_sgd", "H": 2}, ROUNDS)
    document |= {"checkpoint": {"every": "10 rounds"}, "report": {"every": "20 rounds", "trace": True}} | more
    (folder / "s.yaml").write_text(yaml.dump(document))


def lost(worker: int) -> dict[str, object]:
    return {"faults": [{"name": "loss", "worker": worker, "at": "25 rounds"}]}


def check(folder: Path, lost: list[int], workers: int = 3) -> None:
    """The run in `folder` has restarted once, from the checkpoint of round 20, and has the bits of one that has not."""
    summary, lines = read(folder / "run")
    undisturbed = simulate(folder / "s.yaml", settings=["faults=[]"])
    assert summary["params_sha256"] == undisturbed.summary["params_sha256"]
    plain = [{**line, "seconds": 0} for line in undisturbed.lines]
    assert [{**line, "seconds": 0} for line in lines] == plain
    (entry,) = summary["recoveries"]
    assert (entry["how"], entry["lost"], entry["workers"], entry["from_round"]) == ("restart", lost, workers, 20)
    assert 0 <= entry["redone"] < 10 + 1
    assert entry["seconds"] == entry["start"] > 0
    (before,) = [line["seconds"] for line in lines if line["round"] == 20]
    assert before <= entry["at"]
    assert entry["at"] + entry["seconds"] <= next(line["seconds"] for line in lines if line["round"] > 20)
    history = yaml.read_mapping(folder / "run" / "scenario.yaml")["recorded"]["history"]
    assert [part.get("recovery") for part in history] == [None, entry]
    assert len({part["command"] for part in history}) == 1, "what the launcher tells the ranks is not part of it"
    ((name, start, stop),) = read_trace(folder / "run" / "trace.json.gz")[0][LANE]
    assert name.startswith("restart")
    assert (stop, stop - start) == (pytest.approx(0.0), pytest.approx(entry["seconds"]))
    left = {path.name for path in (folder / "run").iterdir()}
    assert left.isdisjoint({".lock", ".progress", ".now", ".alive", ".spans"})
    assert load(folder / "run").summary["finished"]


def test_a_killed_rank(tmp_path):
    """Rank 0, of which ULFM could make nothing either."""
    write(tmp_path, 2, **lost(0))
    done = paceline("train", "s.yaml", "--out", "run", "--max-restarts", "2", cwd=tmp_path)
    restart = "paceline: restart 1 of 2: rank 0 was ended by signal 9, perhaps because memory ran out; s goes on from"
    assert [line for line in done.stderr.splitlines() if "warning" not in line] == [f"{restart} round_000020"]
    check(tmp_path, [0], 2)


@pytest.mark.long
@pytest.mark.parametrize("worker", [0, 1])
def test_a_killed_rank_of_mpich(worker, tmp_path):
    """Its mpirun does not say which rank was killed."""
    write(tmp_path, **lost(worker))
    line = [sys.executable, "-c", WITH_MPICH, "train", "s.yaml", "--out", "run", "--max-restarts", "2"]
    done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    said = [line for line in done.stderr.splitlines() if "warning" not in line]
    assert said == [
        "paceline: restart 1 of 2: a rank was ended by signal 9, perhaps because memory ran out; s goes on from "
        "round_000020"
    ]
    assert "BAD TERMINATION" not in done.stdout
    check(tmp_path, [])


@pytest.mark.long
def test_a_killed_mpirun(tmp_path):
    (tmp_path / "own_model.py").write_text(OWN)
    write(tmp_path)
    document = yaml.read_mapping(tmp_path / "s.yaml")
    document["workload"]["model"] = {"name": "own_model:make"}
    (tmp_path / "s.yaml").write_text(yaml.dump(document))
    done = paceline("train", "s.yaml", "--out", "run", "--max-restarts", "1", cwd=tmp_path)
    assert "was ended by signal 9; s goes on from round_0000" in done.stderr
    summary = read(tmp_path / "run")[0]
    undisturbed = simulate(tmp_path / "s.yaml")
    assert summary["params_sha256"] == undisturbed.summary["params_sha256"]
    assert summary["recoveries"][0]["lost"] == []


@pytest.mark.long
def test_a_worker_that_does_not_start_any_more(tmp_path):
    """The others share its work; the run ends with two workers, and its record tells of the lost one."""
    (tmp_path / "own_leaves.py").write_text(LEAVES)
    write(tmp_path, **lost(1))
    document = yaml.read_mapping(tmp_path / "s.yaml")
    document["workload"]["model"] = {"name": "own_leaves:make"}
    (tmp_path / "s.yaml").write_text(yaml.dump(document))
    flags = ("--max-restarts", "5", "--min-workers", "2")
    done = paceline("train", "s.yaml", "--out", "run", *flags, cwd=tmp_path)
    said = [line for line in done.stderr.splitlines() if " restart " in line]
    assert [line.rpartition("; ")[2] for line in said] == [
        "s goes on from round_000020",
        "s goes on from round_000020, without worker 1",
    ]
    summary, _ = read(tmp_path / "run")
    (entry,) = summary["recoveries"]
    assert (summary["workers"], entry["lost"], entry["workers"]) == (2, [1], 2)
    record = yaml.read_mapping(tmp_path / "run" / "scenario.yaml")
    assert len(record["cluster"]["workers"]) == 2


@pytest.mark.long
def test_nothing_saved_and_several_scenarios(tmp_path):
    """The finished one is not trained again; the other one begins again, where it had not saved anything."""
    write(tmp_path)
    (tmp_path / "first.yaml").write_text((tmp_path / "s.yaml").read_text())
    write(tmp_path, checkpoint={}, **lost(2))
    line = ("train", "first.yaml", "s.yaml", "--out", "runs", "--max-restarts", "1")
    done = paceline(*line, cwd=tmp_path)
    assert "s begins again, since no checkpoint was saved" in done.stderr
    (summary, lines), (other, _) = read(tmp_path / "runs" / "s"), read(tmp_path / "runs" / "first")
    assert "recoveries" not in other
    undisturbed = simulate(tmp_path / "s.yaml", settings=["faults=[]"])
    assert summary["params_sha256"] == undisturbed.summary["params_sha256"]
    assert [line["round"] for line in lines] == [line["round"] for line in undisturbed.lines]
    (entry,) = summary["recoveries"]
    assert (entry["from_round"], entry["redone"], entry["lost"]) == (0, 25, [2])
    assert lines[0]["seconds"] > entry["at"]


@pytest.mark.long
def test_under_an_mpirun_of_ones_own_a_failing_rank_says_how_to_go_on(tmp_path):
    write(tmp_path, faults=[{"name": "exception", "worker": 1, "at": "25 rounds"}])
    done = under_mpirun(3, "train", "s.yaml", "--out", "run", "--max-restarts", "1", cwd=tmp_path)
    assert done.returncode == 1
    assert "round_000020 was saved; go on from it with: paceline train --resume run" in done.stderr
    assert "restart 1" not in done.stderr
