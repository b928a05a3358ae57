"""No file of the user's is lost: --force replaces only runs, and keeps the earlier one until the new one is done."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from kit.cli import call, scenario
from paceline import simulate
from paceline.analysis.run import Run
from paceline.config import yaml
from paceline.program.errors import PacelineError, ScenarioError
from paceline.records.recorder import Recorder
from paceline.records.replacing import discard, prepare, put_back

TINY = {"name": "mlp", "hidden": [4]}


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """A user's folder with a scenario in it, and the working folder."""
    monkeypatch.chdir(tmp_path)
    document = scenario(2, TINY, {"preset": "local_sgd", "H": 2}, 2, checkpoint={"every": "1 round"})
    Path("s.yaml").write_text(yaml.dump(document))
    return tmp_path


@pytest.fixture
def run(folder) -> Path:
    """A finished run in it."""
    simulate("s.yaml", out="run")
    return Path("run")


def contents(folder: Path) -> dict[str, bytes]:
    """All that lies in a folder, by path; links are named, not followed."""
    paths = [Path(top) / name for top, dirs, files in os.walk(folder) for name in (*dirs, *files)]
    return {
        str(path.relative_to(folder)): b"link" if path.is_symlink() else path.read_bytes() if path.is_file() else b""
        for path in paths
    }


def users_own(folder: Path) -> list[str]:
    """A scenario and a checkpoint of the user's, in places where a run has its own."""
    (folder / "s.yaml").rename("scenario.yaml")
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints" / "pretrained.pt").write_bytes(b"weights")
    return ["scenario.yaml", "--out", "."]


def users_summary(folder: Path) -> list[str]:
    (folder / "out").mkdir()
    (folder / "out" / "summary.json").write_text("my summary")
    return ["s.yaml", "--out", "out"]


def linked(folder: Path, part: str) -> list[str]:
    """A run with a part that is a link to somewhere else."""
    simulate("s.yaml", out="out")
    (folder / "out" / part).rename("elsewhere")
    (folder / "out" / part).symlink_to(folder / "elsewhere")
    return ["s.yaml", "--out", "out"]


def linked_checkpoints(folder: Path) -> list[str]:
    return linked(folder, "checkpoints")


def linked_checkpoint(folder: Path) -> list[str]:
    return linked(folder, "checkpoints/round_000001")


def linked_file(folder: Path) -> list[str]:
    return linked(folder, "metrics.jsonl")


def notes_in_a_checkpoint(folder: Path) -> list[str]:
    simulate("s.yaml", out="out")
    (folder / "out" / "checkpoints" / "round_000002" / "notes.txt").write_text("the best one")
    return ["s.yaml", "--out", "out"]


def a_folder_for_a_file(folder: Path) -> list[str]:
    simulate("s.yaml", out="out")
    (folder / "out" / "loss.txt").unlink()
    (folder / "out" / "loss.txt").mkdir()
    return ["s.yaml", "--out", "out"]


def the_input(folder: Path) -> list[str]:
    simulate("s.yaml", out="out")
    return ["out/scenario.yaml", "--out", "out"]


def the_input_set_aside(folder: Path) -> list[str]:
    simulate("s.yaml", out="out")
    prepare(folder / "out", force=True)
    return ["out/.replaced-1/scenario.yaml", "--out", "out"]


def a_link_in_the_earlier_runs_place(folder: Path) -> list[str]:
    simulate("s.yaml", out="out")
    simulate("s.yaml", out="other")
    (folder / "out" / ".replaced-1").symlink_to(folder / "other")
    return ["s.yaml", "--out", "out"]


def within_checkpoints(folder: Path) -> list[str]:
    simulate("s.yaml", out="out")
    return ["s.yaml", "--out", "out/checkpoints/new"]


def a_checkpoint(folder: Path) -> list[str]:
    simulate("s.yaml", out="out")
    return ["s.yaml", "--out", "out/checkpoints/round_000002"]


FOREIGN = [
    *(users_own, users_summary, linked_checkpoints, linked_checkpoint, linked_file, notes_in_a_checkpoint),
    *(a_folder_for_a_file, the_input, the_input_set_aside, a_link_in_the_earlier_runs_place),
    *(within_checkpoints, a_checkpoint),
]


@pytest.mark.parametrize("make", FOREIGN, ids=lambda make: make.__name__)
def test_force_touches_nothing_that_no_run_wrote(make, folder, monkeypatch, capsys):
    """A user's files in places where a run has its own, and links that lead elsewhere: one line, nothing touched."""
    arguments = make(folder)
    before = contents(folder)
    for command in (["simulate", "--timing-only"], ["train"]):
        status, _, err = call(monkeypatch, capsys, *command, *arguments, "--force")
        assert (status, err.count("\n")) == (2, 1), err
        assert len(err) <= 400
        assert contents(folder) == before


def test_force_keeps_what_lies_next_to_a_run(run):
    """A user's backups and notes among a run's files stay where they are."""
    (run / "notes.txt").write_text("mine")
    (run / "checkpoints" / "pretrained.pt").write_text("mine")
    (run / "checkpoints" / "round_old").mkdir()
    (run / "checkpoints" / "round_old" / "meta.json").write_text("mine")
    simulate("s.yaml", out=run, force=True, timing_only=True)
    kept = {name for name, data in contents(run).items() if data == b"mine"}
    assert kept == {"notes.txt", "checkpoints/pretrained.pt", "checkpoints/round_old/meta.json"}
    assert not list(run.glob(".*"))
    assert not (run / "checkpoints" / "round_000002").exists()
    assert Run.load(run).summary["timing_only"]


def test_a_run_that_does_not_finish_gives_back_the_earlier_one(run, monkeypatch):
    """A new run that ends by an error or by Ctrl-C has destroyed nothing."""
    before = contents(run)
    with pytest.raises(PacelineError):
        simulate("s.yaml", out=run, force=True, timing_only=True, limit=1e-9)
    assert contents(run) == before

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Recorder, "log", interrupted)
    with pytest.raises(KeyboardInterrupt):
        simulate("s.yaml", out=run, force=True, timing_only=True)
    assert contents(run) == before


def test_a_run_that_left_a_checkpoint_can_be_gone_on_with(run, monkeypatch):
    """Then both are kept, and the error says where the earlier one is."""
    before = contents(run)

    def full(*_: object) -> None:
        raise ScenarioError("the disk is full")

    monkeypatch.setattr(Recorder, "finish", full)
    with pytest.raises(ScenarioError, match=r"full; the run that was in run stays in run/\.replaced-1 until"):
        simulate("s.yaml", out=run, force=True)
    assert contents(run / ".replaced-1") == before
    assert (run / "checkpoints" / "round_000002").exists()


def test_a_run_that_is_killed_has_destroyed_nothing(run):
    """Killed at once, or half way through moving the earlier run aside: that one is whole, and comparing says where."""
    before = contents(run)
    prepare(run, force=True)
    Recorder(run).scenario({"recorded": {}})
    with pytest.raises(ScenarioError, match=r"did not finish; the run that it was to replace is in run/\.replaced-1"):
        Run.load(run)
    prepare(run, force=True)  # another one, killed as well
    assert contents(run / ".replaced-1") == before
    assert put_back(run) == ""
    assert put_back(run) == ""
    assert contents(run) == before
    (run / ".replaced-4").mkdir()
    (run / "summary.json").rename(run / ".replaced-4" / "summary.json")
    simulate("s.yaml", out=run, force=True, timing_only=True)
    assert not list(run.glob(".*"))
    assert Run.load(run).summary["timing_only"]


def test_what_a_user_keeps_in_the_place_of_an_earlier_run_stays(run):
    aside = run / ".replaced-1"
    aside.mkdir()
    (aside / "notes.txt").write_text("mine")
    discard(run)
    assert (aside / "notes.txt").exists()


def test_tables_and_profiles_replace_their_own_kind_alone(folder, monkeypatch, capsys):
    """--out names a file that is something else: the scenario, a list of points, a table of the user's."""
    Path("points.csv").write_text("seed\n1\n2\n")
    Path("s.json").write_text(json.dumps(yaml.read_mapping(folder / "s.yaml")))
    Path("mine.json").write_text('[{"a": 1}]')
    before = contents(folder)
    for arguments in (
        ["sweep", "s.yaml", "--list", "points.csv", "--out", "points.csv"],
        ["sweep", "s.json", "--grid", "seed=1", "--out", "s.json"],
        ["sweep", "s.yaml", "--grid", "seed=1", "--out", "mine.json"],
    ):
        for force in ([], ["--force"]):
            status, _, err = call(monkeypatch, capsys, *arguments, *force)
            assert (status, err.count("\n")) == (2, 1), err
    for command in ("profile", "batch-sizes"):
        status, _, err = call(monkeypatch, capsys, command, "s.yaml", "--out", "s.yaml")
        assert (status, err.count("\n")) == (2, 1), err
    assert contents(folder) == before
