"""A run can be repeated from its directory: scenario.yaml gives the same bits, and resuming says what differs."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from kit.cli import call, scenario
from kit.paths import SCENARIOS
from paceline import simulate
from paceline.config import yaml
from paceline.config.scenario import load, validate
from paceline.config.sections import described
from paceline.job import resolve
from paceline.program.errors import ScenarioError
from paceline.records import checkpoints
from paceline.records.history import changes, command, commit
from paceline.resuming import resumption

FILES = [*SCENARIOS.glob("*.yaml"), *SCENARIOS.glob("papers/*.yaml")]
SHORT = ["budget={steps: 2}", "workload.lr_schedule=constant", "report={}"]
FIRST_STEPS = ["budget={steps: 20}", *SHORT[1:]]  # of the papers' settings, which take seconds to simulate


@pytest.fixture
def elsewhere(tmp_path, monkeypatch) -> Path:
    """A later working folder, from which no relative path leads to what the run used."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_runs_own_scenario_gives_it_again(path, elsewhere, tmp_path):
    """A record that is not the run: every shipped scenario is simulated again from what lies in its run's directory."""
    settings = FIRST_STEPS if path.parent.name == "papers" else []
    first = simulate(path, timing_only=True, settings=settings, out=tmp_path / "run")
    again = simulate(tmp_path / "run" / "scenario.yaml", timing_only=True)
    assert [line["seconds"] for line in again.lines] == [line["seconds"] for line in first.lines]
    assert again.summary["seconds"] == first.summary["seconds"]
    written = load(tmp_path / "run" / "scenario.yaml").model_copy(update={"recorded": None})
    assert written == load(path, settings)
    document = yaml.parse(yaml.dump(described(load(path))), "there")
    assert validate(document, "there") == load(path), "every key is written as it was read"
    if load(path).workload.data.name == "digits":
        learned = simulate(path, settings=SHORT, out=tmp_path / "learned")
        relearned = simulate(tmp_path / "learned" / "scenario.yaml")
        assert relearned.summary["params_sha256"] == learned.summary["params_sha256"]


NASTY = [
    *(None, 1e-4, 1e22, 5e-324, float("inf"), 2**70, True, {1: None}),
    *("1e5", "-1E-3", "yes", "2020-01-01", "null", "~", "0123", "1_000", "12:30:00", ".nan", "=", "<<", "", " x "),
    *("é😀\u2028", "a: b\n- c", "#", "[", "!x", "*a", "@", "%"),
]


def test_arguments_are_written_as_they_are_read():
    """Values that YAML or JSON would turn into others: null, text that looks like a number or a date."""
    document = scenario(2, {"name": "own:make", "none": None, "deep": {"list": NASTY}}, {"preset": "local_sgd"}, 3)
    document["strategy"]["aggregation"] = {"parameters": {"weights": None}}
    document["faults"] = [{"name": "loss", "worker": 1, "at": "1234567 rounds"}]
    read = validate(document, "here")
    text = yaml.dump(described(read))
    again = validate(yaml.parse(text, "there"), "there")
    assert again == read
    for old, new in zip(NASTY, again.workload.model.args["deep"]["list"], strict=True):
        assert (type(old), repr(old)) == (type(new), repr(new))
    assert yaml.dump(described(again)) == text


def project(folder: Path) -> Path:
    """A scenario with what it needs next to it: data, a profile, and the user's own model."""
    folder.mkdir()
    (folder / "own_project.py").write_text(
        "from torch import nn\n"
        "def make(input_shape, classes, bias=False, width=7):\n"
        "    return nn.Sequential(nn.Linear(4, width or 5, bias=bool(bias)), nn.Linear(width or 5, classes))\n"
    )
    random = np.random.default_rng(0)
    x, y = random.standard_normal((90, 4), np.float32), np.arange(90) % 3
    np.savez(folder / "own.npz", x_train=x[:60], y_train=y[:60], x_test=x[60:], y_test=y[60:])
    key = "own_project:make(bias=None, width=None) on own.npz, sgd, 1 thread"
    profile = {"devices": {"cpu": {key: {"step": {8: "2 ms", 16: "3 ms"}}}}, "residuals": {"cpu": {key: [0.9, 1.2]}}}
    (folder / "own_profile.yaml").write_text(yaml.dump(profile))
    document = scenario(
        2, {"name": "own_project:make", "bias": None, "width": None}, {"preset": "local_sgd", "H": 2}, 4
    )
    document["workload"] |= {"data": "own.npz", "optimizer": {"name": "sgd", "lr": 0.1}}
    document["cluster"] = {
        "workers": [{"device": "cpu"}, {"device": "cpu", "slowdown": 2}],
        "profile": "own_profile.yaml",
        "noise": {"source": "profile"},
        "network": {"bandwidth": "1 Gbit/s", "latency": "50 us"},
    }
    document["checkpoint"] = {"every": "1 round"}
    (folder / "s.yaml").write_text(yaml.dump(document))
    return folder


def test_relative_paths_are_found_from_anywhere(tmp_path, monkeypatch):
    """Paths relative to a folder that the record did not know: data, a profile and a module, also after a move."""
    folder = project(tmp_path / "project")
    monkeypatch.chdir(tmp_path)
    first = simulate(Path("project/s.yaml"), out="project/run")
    other = tmp_path / "other"
    other.mkdir()
    np.savez(other / "own.npz", x_train=np.zeros((3, 9)))  # of the same name, and not the run's
    (other / "own_project.py").write_text("def make(): raise SystemExit\n")
    monkeypatch.chdir(other)
    again = simulate(folder / "run" / "scenario.yaml", out="again")
    moved = folder.rename(tmp_path / "moved")
    third = simulate(moved / "run" / "scenario.yaml")
    fourth = simulate(moved / "s.yaml")
    for run in (again, third, fourth):
        assert run.summary["params_sha256"] == first.summary["params_sha256"]
        assert [line["seconds"] for line in run.lines] == [line["seconds"] for line in first.lines]
    assert (first.scenario["workload"]["data"], again.scenario["workload"]["data"]) == ({"name": "own.npz"},) * 2


def test_a_folder_of_an_unprintable_name_leaves_the_record_readable(tmp_path, monkeypatch):
    folder = project(tmp_path / "pro\x1b[31mject")
    monkeypatch.setattr(sys, "argv", ["paceline", "simulate", "a\x1bb"])
    first = simulate(folder / "s.yaml", out=tmp_path / "run", timing_only=True)
    recorded = load(tmp_path / "run" / "scenario.yaml").recorded
    assert recorded
    assert recorded.history[0]["command"].isprintable()
    assert first.scenario["recorded"]["profile_path"] == "own_profile.yaml"


def test_another_profile_is_read(tmp_path, monkeypatch):
    """A recorded value must not win over one that is set now."""
    folder = project(tmp_path / "project")
    monkeypatch.chdir(folder)
    simulate("s.yaml", timing_only=True, out="run")
    faster = (folder / "own_profile.yaml").read_text().replace("0.002 s", "0.001 s").replace("2 ms", "1 ms")
    Path("fast.yaml").write_text(faster)
    slow = simulate("run/scenario.yaml", timing_only=True).summary["seconds"]
    fast = simulate("run/scenario.yaml", timing_only=True, settings=["cluster.profile=fast.yaml"]).summary["seconds"]
    assert fast < slow
    with pytest.raises(ScenarioError, match=r"gone\.yaml: no such file"):
        simulate("run/scenario.yaml", timing_only=True, settings=["cluster.profile=gone.yaml"])


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A folder with a scenario and its run of three rounds, with three checkpoints."""
    folder = tmp_path_factory.mktemp("whole")
    model = {"name": "mlp", "hidden": [8]}
    document = scenario(2, model, {"preset": "local_sgd", "H": 2}, 3, checkpoint={"every": "1 round"})
    (folder / "s.yaml").write_text(yaml.dump(document))
    simulate(folder / "s.yaml", out=folder / "run")
    return folder


@pytest.fixture
def run(whole, tmp_path, monkeypatch) -> Path:
    """The run in a copy of it, which is the working folder."""
    monkeypatch.chdir(shutil.copytree(whole, tmp_path / "copy"))
    return Path("run")


def resume(run: Path, *settings: str, change: bool = False):
    saved = checkpoints.newest(run)
    assert saved
    return resumption(saved, resolve(load(run / "scenario.yaml", settings), run), change)


def test_what_differs_on_resume_is_said_and_kept(run):
    """A run whose environment or value changed at a checkpoint: the record must not claim it for the whole run."""
    path = run / "scenario.yaml"
    path.write_text(path.read_text().replace("threads: 1\n  batches", "threads: 7\n  batches"))
    found = resume(run, "workload.optimizer.lr=0.5", "budget.rounds=9", "workload.micro_batch=4")
    assert found.said == [
        "workload.optimizer.lr is 0.5, and was 0.05",
        "budget.rounds is 9, and was 3",
        "workload.micro_batch is 4, and was None",
        "threads is 1, and was 7",
    ]
    first, second = found.parts
    assert (first["from_round"], second["from_round"], second["changed"]["budget.rounds"]) == (0, 3, [3, 9])
    assert "changed" not in first
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", second["date"])
    assert "host" not in second
    assert "host" in resume(run, "record.host=true").parts[1]
    assert resume(run).said == ["threads is 1, and was 7"]


@pytest.mark.parametrize(
    ("setting", "key"),
    [
        ("seed=99", "seed is 99, and was 5"),
        ("workload.data_seed=1", "workload.data_seed is 1, and was None"),
        ("workload.model={name: mlp, hidden: [9]}", "workload.model is "),
        ("workload.data=synthetic", "workload.data is "),
        ("workload.batch=4", "workload.batch is 4, and was 8"),
        ("strategy.split={given: {batches: [9, 7]}}", r"batches is \[9, 7\], and was \[8, 8\]"),
    ],
)
def test_another_run_is_not_resumed(run, setting, key):
    """What makes it another run, set on the command line or written into its scenario.yaml, by whatever key."""
    with pytest.raises(ScenarioError, match=rf"{key}.*write --change"):
        resume(run, setting)
    assert resume(run, setting, change=True).parts[1]["changed"]
    edited = described(load(run / "scenario.yaml", [setting]))
    (run / "scenario.yaml").write_text(yaml.dump(edited))
    with pytest.raises(ScenarioError, match=rf"{key}.*write --change"):
        resume(run)
    old, new = next(iter(resume(run, change=True).parts[1]["changed"].values()))
    assert old != new


def test_the_history_knows_the_commit(tmp_path):
    """Of a scenario in a git checkout, and whether its files are other than committed."""
    if shutil.which("git") is None:
        pytest.skip("git is not installed")

    def git(*arguments: str) -> str:
        line = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b.c", *arguments]
        return subprocess.run(line, check=True, capture_output=True, text=True).stdout.strip()

    assert commit(tmp_path / "none") is None
    git("init", "-q")
    (tmp_path / "s.yaml").write_text("a")
    git("add", "s.yaml")
    git("commit", "-qm", "first")
    (tmp_path / "folder").mkdir()
    name = git("rev-parse", "HEAD")
    assert commit(tmp_path / "folder") == {"commit": name, "dirty": False}
    (tmp_path / "s.yaml").write_text("b")
    git("config", "core.fsmonitor", f"touch {tmp_path}/started; false")
    assert commit(tmp_path) == {"commit": name, "dirty": True}
    assert not (tmp_path / "started").exists(), "a program that the repository's configuration names"


def test_the_history_tells_the_command_as_it_was_typed(monkeypatch):
    """And nothing else: no path of the program, nothing of another program that uses Paceline."""
    for program in ("/home/me/.venv/bin/paceline", "/opt/paceline/__main__.py"):
        monkeypatch.setattr(sys, "argv", [program, "train", "a b.yaml", "--bar"])
        assert command() == "paceline train 'a b.yaml'"
    monkeypatch.setattr(sys, "argv", ["/home/me/secret.py", "--key"])
    assert command() == "from Python"


def flip(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("name", ["worker_1.safetensors", "meta.json"])
def test_a_flipped_bit_is_found_wherever_it_is(run, name):
    """Files that are other than they were written, and look whole."""
    saved = checkpoints.newest(run)
    assert saved
    path = saved / name
    written, sha256 = path.read_bytes(), checkpoints.read_meta(saved)["sha256"]
    for place in range(0, len(written), max(1, len(written) // 40)):
        flip(path, place)
        with pytest.raises(ScenarioError, match=f"{saved.name}/{name}") as caught:
            checkpoints.read_worker(saved, 1, sha256 if path.suffix != ".json" else checkpoints.read_meta(saved))
        text = str(caught.value)
        assert len(text) <= 400
        assert text.isprintable()
        path.write_bytes(written)


def test_checkpoints_that_are_all_damaged_end_train_in_one_line(run, monkeypatch, capsys):
    for saved in checkpoints.finished(run):
        flip(saved / "worker_1.safetensors", -1)
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    status, _, err = call(monkeypatch, capsys, "train", "--resume", run, "--set", "budget.rounds=5")
    assert (status, err.count("\n")) == (2, 1)
    assert "worker_1.safetensors: is damaged" in err
    status, _, err = call(monkeypatch, capsys, "train", "s.yaml", "--change")
    assert (status, "--resume" in err) == (2, True)
    assert before == {path: path.stat().st_mtime_ns for path in run.rglob("*")}


def test_checkpoints_of_earlier_versions_resume(run):
    """Without hashes, without what the run is of, and with neither history nor folders in the record."""
    path = run / "checkpoints" / "round_000003" / "meta.json"
    meta = json.loads(path.read_text())
    path.write_text(json.dumps({key: meta[key] for key in ("workers", "seconds", "state")}))
    document = yaml.read_mapping(run / "scenario.yaml")
    for key in ("history", "folders"):
        del document["recorded"][key]
    del document["record"]
    (run / "scenario.yaml").write_text(yaml.dump(document))
    found = resume(run)
    assert (found.state.round, found.said, len(found.parts)) == (3, [], 2)
    with pytest.raises(ScenarioError, match="seed is 9, and was 5"):
        resume(run, "seed=9")


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"workers": "2"}, "workers"),
        ({"seconds": -1.0}, "seconds"),
        ({"state": [1]}, "state"),
        ({"state": {"round": 3}}, "missing or unknown"),
        ({"sha256": {"a": 5}}, "sha256.a"),
        ({"subject": {"batches": [0, 8]}}, "subject: batches.0"),
        ({"subject": {"batches": [8, 8], "paces": [1, 2]}}, "subject: paces.1"),
        ({"more": 1}, "more"),
    ],
)
def test_a_meta_json_of_other_types(run, changed, says):
    """Files read without a schema: wrong types end in one line that names file and place."""
    path = run / "checkpoints" / "round_000003" / "meta.json"
    meta = json.loads(path.read_text())
    del meta["sha256"]
    path.write_text(json.dumps(meta | changed))
    with pytest.raises(ScenarioError, match=rf"meta\.json: .*{says}"):
        resume(run)
    for text in ("5", "[" * 100_000, "{", "\x00", ""):
        path.write_text(text)
        with pytest.raises(ScenarioError, match=r"meta\.json: "):
            resume(run)


def test_numbers_of_another_state(run):
    path = run / "checkpoints" / "round_000003" / "meta.json"
    meta = json.loads(path.read_text())
    del meta["sha256"]
    for key, value in (("round", 4), ("step", -1), ("H", 2.5), ("loss", "x"), ("refreshed", [1])):
        path.write_text(json.dumps(meta | {"state": meta["state"] | {key: value}}))
        with pytest.raises(ScenarioError, match=r"meta\.json: state: "):
            resume(run)
    path.write_text(json.dumps(meta | {"state": meta["state"] | {"loss": None}}))
    assert np.isnan(resume(run).state.loss), "null is what is not a number"


def test_changes_name_the_keys():
    assert changes({"a": {"b": 1, "c": [1]}, "d": 2}, {"a": {"b": 1, "c": [2]}, "e": 3}) == {
        "a.c": [[1], [2]],
        "d": [2, None],
        "e": [None, 3],
    }
