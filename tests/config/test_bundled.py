"""Scenarios, lists and profiles that come with Paceline, by name; and the shell's completion, which knows the names."""

from __future__ import annotations

import fnmatch
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import paceline
from kit.cli import call
from kit.paths import ROOT, SCENARIOS
from paceline.config.bundled import find, names, told
from paceline.program.errors import ScenarioError


def test_every_file_has_one_name_and_is_in_the_wheel():
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["paceline"]
    for kind in ("scenarios", "profiles"):
        for name in names(kind):
            assert find(name, kind).is_file()
            whole = f"{kind}/{name}.yaml"
            assert any(fnmatch.fnmatch(whole, p) and p.count("/") == whole.count("/") for p in patterns), name
    last = [name.rpartition("/")[2] for name in names()]
    assert len(last) == len(set(last)), "a name without its folder says which one is meant"
    assert len(names()) == len(list(SCENARIOS.rglob("*.yaml")))


def test_each_says_what_it_is_in_a_sentence():
    listed = dict(told())
    assert set(listed) == {name for name in names() if not name.startswith("validation/")}
    assert listed["quickstart"] == "Local SGD on scikit-learn's digits with two workers."
    assert listed["fsdp"].startswith("FSDP: each worker keeps one part")
    for name, what in listed.items():
        assert what.endswith("."), name
        assert 20 < len(what) < 150, name


def test_commands_take_names(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "quickstart").mkdir()
    assert call(monkeypatch, capsys, "simulate", "quickstart", "--timing-only")[0] == 0
    assert (tmp_path / "runs" / "quickstart-simulated" / "summary.json").exists()
    status, _, err = call(monkeypatch, capsys, "sweep", "quickstart", "--list", "lshdp_mods")
    assert status == 2
    assert "did you mean 'lshdp_modes'?" in err
    status, out, _ = call(monkeypatch, capsys, "scenarios")
    assert status == 0
    assert [line.split()[0] for line in out.splitlines()][1:] == [name for name, _ in told()]


def test_python_takes_names():
    by_name = paceline.simulate("quickstart", timing_only=True)
    by_path = paceline.simulate(SCENARIOS / "quickstart.yaml", timing_only=True)
    assert by_name.summary["seconds"] == by_path.summary["seconds"]
    described = paceline.simulate("qsr", timing_only=True, settings=["cluster.profile=quickstart"])
    assert described.summary["seconds"] > 0
    assert len(paceline.sweep("quickstart", {"workload.batch": [32, 64]}, jobs=1)) == 2


def test_a_file_of_ones_own_comes_first(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert find("quickstart") == find("quickstart.yaml".removesuffix(".yaml"))
    Path("quickstart").write_text("seed: 3\n")
    assert find("quickstart") == Path("quickstart")


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("qiuckstart", "did you mean 'quickstart'?"),
        ("qsr_resnet152_imgenet", "did you mean 'qsr_resnet152_imagenet'?"),
        ("scenarios/quickstart.yaml", "write quickstart for the scenario that comes with Paceline"),
        ("my/own", "`paceline scenarios` lists them"),
        ("my/own.yaml", "no such file"),
    ],
)
def test_a_mistyped_name_gives_one_line(name, told, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    for command in ("simulate", "train", "sweep", "plan", "validate", "profile", "batch-sizes"):
        status, out, err = call(monkeypatch, capsys, command, name)
        assert (status, out) == (2, ""), command
        assert told in err, command
        assert err.count("\n") == 1, command
        assert not list(tmp_path.iterdir()), command


def test_a_mistyped_profile_gives_one_line():
    with pytest.raises(ScenarioError, match=r"^quickstrat: .* no profile .*did you mean 'quickstart'\?$"):
        find("quickstrat", "profiles")


@pytest.mark.parametrize(
    ("words", "completed"),
    [
        ("paceline simulate quick", ["quickstart", "quickstart_sync"]),
        ("paceline simulate own/", ["own/mine.yaml"]),
        ("paceline sim", ["simulate"]),
        ("paceline simulate --timing", ["--timing-only"]),
        ("paceline explain slowm", ["slowmo"]),
    ],
)
def test_the_shell_completes(words, completed, tmp_path):
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "mine.yaml").write_text("")
    asked = {
        "_PACELINE_COMPLETE": "complete_bash",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split()) - 1),
        "PYTHONPATH": str(ROOT),
    }
    line = [sys.executable, "-m", "paceline"]
    done = subprocess.run(line, cwd=tmp_path, env=asked, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.split() == completed, done.stderr


def test_completion_can_be_installed(monkeypatch, capsys):
    assert "--install-completion" in call(monkeypatch, capsys, "--help")[1]
