"""The command line: bad input is one line and exit status 2, and overwrites nothing; stopping and resuming; mpirun."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tomllib
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest

from kit.cli import MLP, call, paceline, read, scenario, under_mpirun
from kit.paths import ROOT
from paceline import __version__ as version
from paceline.__main__ import main
from paceline.config import yaml


@pytest.fixture
def tiny(tmp_path) -> Path:
    """A scenario of two workers and three rounds."""
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.dump(scenario(2, MLP, {"preset": "local_sgd"}, 3)))
    return path


def test_the_version_has_one_source(monkeypatch, capsys):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert call(monkeypatch, capsys, "--version") == (0, f"paceline {project['version']}\n", "")
    assert version == project["version"]


@pytest.mark.parametrize("command", ["simulate", "train"])
@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("workload.bach=3", "workload.bach: unknown key; did you mean 'batch'?"),
        ("cluster.network.latency=3 GB", "cluster.network.latency: '3 GB' has the unit 'GB'"),
        ("cluster.workers.0.speed=-1 samples/s", "must be above 0"),
        ("cluster.workers=[]", "no workers"),
        ("cluster.workers=[{device: cpu}]", "cluster.workers[0]: how fast is it?"),
        ("cluster.profile=nowhere.yaml", "nowhere.yaml: no such file"),
        ("workload.model=resnet2", "workload.model: no model 'resnet2'"),
        ("workload.model={name: mlp, hiden: [3]}", "model mlp has no argument 'hiden'; it takes hidden"),
        ("workload.model=nowhere.at_all:make", "no module named 'nowhere'"),
        ("workload.model=yaml:make", "yaml has no 'make'"),
        ("workload.data=os:system", "os is a module of Python's standard library"),
        ("workload.data=nowhere.npz", "nowhere.npz"),
        ("workload.data=digitz", "did you mean 'digits'"),
        ("workload.loss=nothing", "workload.loss: no loss 'nothing'"),
        ("strategy.preset=locl_sgd", "did you mean 'local_sgd'?"),
        ("strategy={preset: sync_sgd, split: by_steps}", "write aggregation: parameters, or a split of equal steps"),
        ("strategy.aggregation={parameters: {weights: [1, 2, 3]}}", "3 weights for 2 workers"),
    ],
)
def test_bad_scenarios(command, setting, message, tiny, monkeypatch, capsys):
    monkeypatch.chdir(tiny.parent)
    status, _, err = call(monkeypatch, capsys, command, tiny, "--set", setting, "--out", "run")
    assert status == 2
    assert message in err
    assert len(err.strip().splitlines()) == 1, err
    assert not Path("run").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["simulate", "nowhere.yaml"], "nowhere.yaml: no such file"),
        (["simulate", "tiny.yaml", "--set", "budget"], "write it like --set budget.epochs=5"),
        (["simulate", "tiny.yaml", "--engine", "magic"], "--engine magic: write auto, cohort or simpy"),
        (["train"], "name a scenario file"),
        (["train", "tiny.yaml", "-n", "1"], "2 workers but -n 1"),
        (["train", "tiny.yaml", "--emulate", "--phantom"], "exclude one another"),
        (["train", "--resume", "nowhere"], "there is no checkpoint of a run in it"),
        (["compare", "nowhere", "nowhere"], "it holds no run"),
    ],
)
def test_bad_arguments(arguments, message, tiny, monkeypatch, capsys):
    monkeypatch.chdir(tiny.parent)
    status, _, err = call(monkeypatch, capsys, *arguments)
    assert status == 2
    assert message in err
    assert "Traceback" not in err


@pytest.mark.parametrize("command", ["simulate", "train"])
def test_a_run_is_not_overwritten(command, tiny, monkeypatch, capsys):
    run = tiny.parent / "run"
    run.mkdir()
    (run / "summary.json").write_text("precious")
    status, _, err = call(monkeypatch, capsys, command, tiny, "--out", run)
    assert (status, (run / "summary.json").read_text()) == (2, "precious")
    assert "--force" in err


REFUSED = ["workload.loss=torch:sqrt", "faults=[{name: slow_link, link: uplink, factor: 3}]"]


@pytest.mark.parametrize("setting", REFUSED)
def test_a_run_that_is_refused_replaces_none(setting, tiny, monkeypatch, capsys):
    run = tiny.parent / "run"
    run.mkdir()
    (run / "scenario.yaml").write_text("recorded: {precious: true}")
    status, _, err = call(monkeypatch, capsys, "simulate", tiny, "--out", run, "--force", "--set", setting)
    assert (status, [path.name for path in run.iterdir()]) == (2, ["scenario.yaml"]), err
    assert "--force" not in err


def test_simulate_writes_a_whole_run_directory(tiny, monkeypatch, capsys):
    run = tiny.parent / "run"
    monkeypatch.setattr(sys, "argv", ["paceline", "simulate", str(tiny), "--out", str(run), "--debug"])
    with pytest.raises(SystemExit) as end:
        main()
    assert not end.value.code
    names = {path.name for path in run.iterdir()}
    assert names == {
        *("scenario.yaml", "summary.json", "metrics.jsonl", "trace.json.gz"),
        *("loss.txt", "acc.txt", "checkpoints"),
    }
    assert "virtual time" in capsys.readouterr().out
    recorded = yaml.read_mapping(run / "scenario.yaml")["recorded"]
    assert {"instruction_set", "threads", "torch"} <= set(recorded["environment"])
    again = paceline("simulate", run / "scenario.yaml", "--out", tiny.parent / "again", cwd=tiny.parent)
    assert "sha256" in again.stdout
    assert read(run)[0]["params_sha256"] == read(tiny.parent / "again")[0]["params_sha256"]


@pytest.mark.parametrize("notice", [signal.SIGINT, signal.SIGTERM])
def test_stop_and_resume_to_the_same_bits(notice, tiny):
    folder = tiny.parent
    command = [
        sys.executable,
        "-u",
        "-m",
        "paceline",
        "train",
        str(tiny),
        "--out",
        "run",
        "--set",
        "budget.rounds=100000",
        "--set",
        "workload.loaders=2",  # which end in order, too, and change no bits: the simulation has none
    ]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        for text in process.stdout:
            if "round" in text:
                process.send_signal(notice)
                break
        rest = process.stdout.read()
        process.wait(timeout=120)
    assert "go on with: paceline train --resume run" in rest
    stopped = read(folder / "run")[0]
    assert not stopped["finished"]
    rounds = stopped["rounds"] + 3
    paceline("train", "--resume", "run", "--set", f"budget.rounds={rounds}", cwd=folder)
    paceline("simulate", tiny, "--out", "straight", "--set", f"budget.rounds={rounds}", cwd=folder)
    (resumed, lines), (straight, expected) = read(folder / "run"), read(folder / "straight")
    assert resumed["params_sha256"] == straight["params_sha256"]
    assert resumed["rounds"] == rounds
    assert [{**line, "seconds": 0} for line in lines] == [{**line, "seconds": 0} for line in expected]
    assert all(a["seconds"] < b["seconds"] for a, b in pairwise(lines))


BROKEN = """
import torch
from mpi4py import MPI

class Broken(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(64, 10)
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        if self.calls > 6 and MPI.COMM_WORLD.rank == 1:
            raise RuntimeError("the second rank broke")
        return self.layer(x.flatten(1))

def make(input_shape, classes):
    return Broken()
"""


@pytest.mark.parametrize("kind", ["openmpi", "mpich"])
def test_under_mpirun(kind, tiny, monkeypatch):
    folder = tiny.parent
    (folder / "broken.py").write_text(BROKEN)
    monkeypatch.setenv("PYTHONPATH", str(folder))
    under = partial(under_mpirun, cwd=folder, kind=kind)
    loaders = ("--set", "workload.loaders=2")
    done = under(2, "train", "tiny.yaml", "--out", "run", *loaders)
    assert done.returncode == 0, done.stdout + done.stderr
    paceline("simulate", "tiny.yaml", "--out", "simulated", cwd=folder)
    assert read(folder / "run")[0]["params_sha256"] == read(folder / "simulated")[0]["params_sha256"]

    done = under(2, "train", "tiny.yaml", "--out", "few", "--set", "cluster.workers.0.count=2")
    assert done.returncode == 2
    assert "3 workers but 2 ranks; start mpirun with -np 3" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (folder / "few").exists()

    done = under(2, "train", "tiny.yaml", "--out", "broken", "--set", "workload.model=broken:make", *loaders)
    assert done.returncode == 2
    assert "worker 1" in done.stderr
    assert "RuntimeError: the second rank broke" in done.stderr
    assert "Traceback" not in done.stderr


def test_phantom_sends_real_messages(tiny):
    """The flag replaces what the scenario says, and the run records it."""
    tiny.write_text(tiny.read_text() + "train: {emulate: true}\n")
    paceline("train", tiny, "--phantom", "--out", "run", cwd=tiny.parent)
    paceline("simulate", tiny, "--timing-only", "--out", "simulated", cwd=tiny.parent)
    (real, _), (virtual, _) = read(tiny.parent / "run"), read(tiny.parent / "simulated")
    assert real["bytes_per_worker"] == virtual["bytes_per_worker"]
    assert real["timing_only"]
    assert json.loads((tiny.parent / "run" / "summary.json").read_text())["accuracy"] is None
    stood = yaml.read_mapping(tiny.parent / "run" / "scenario.yaml")["train"]
    assert stood == {"emulate": False, "phantom": True, "emulate_network": False}


def test_a_removed_working_folder_is_one_line(tmp_path, monkeypatch, capsys):
    """Odd places: without a working folder, loading torch would end the process in words of its own."""
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert call(monkeypatch, capsys, "catalogue") == (
        2,
        "",
        "paceline: the working folder has been removed; change to an existing one (cd) and begin again\n",
    )


def test_whatever_a_users_code_raises_is_one_line(tiny, tmp_path, monkeypatch, capsys):
    """User code that raises what is not an Exception, as test tools and schedulers do, has failed like any other."""
    (tmp_path / "odd_raise.py").write_text("def model(input_shape, classes):\n    raise BaseException('odd')\n")
    monkeypatch.syspath_prepend(tmp_path)
    setting = "workload.model=odd_raise:model"
    status, out, err = call(monkeypatch, capsys, "simulate", tiny, "--set", setting, "--out", tmp_path / "out")
    assert (status, out, err) == (2, "", "paceline: BaseException: odd (--traceback shows where)\n")
    assert not (tmp_path / "out").exists()


def test_a_narrow_terminal_cuts_no_path(tiny, tmp_path, monkeypatch, capsys):
    """Odd terminals: what a line has no room for is wrapped by the terminal, never left out."""
    monkeypatch.setenv("COLUMNS", "10")
    status, out, _ = call(monkeypatch, capsys, "simulate", tiny, "--timing-only", "--out", tmp_path / ("long" * 20))
    assert status == 0
    assert str(tmp_path / ("long" * 20)) in out


def test_figures_that_cannot_be_written_are_one_line(tiny, tmp_path, monkeypatch, capsys):
    """Odd paths: a folder for figures that is a file is named, with what to do."""
    call(monkeypatch, capsys, "simulate", tiny, "--out", tmp_path / "run")
    status, _, err = call(monkeypatch, capsys, "compare", tmp_path / "run", tmp_path / "run", "--figures", tiny)
    assert status == 2
    assert err == f"paceline: {tiny}: figures cannot be written: File exists; name another folder\n"
