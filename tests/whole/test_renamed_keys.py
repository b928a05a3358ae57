"""Keys with a new name: the old one is refused with a line that names the new; records of earlier runs keep working."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from paceline import ScenarioError, compare, load, simulate, sweep
from paceline.config.scenario import load as load_scenario
from paceline.config.strategy import build_strategy
from paceline.job import resolve
from paceline.records import checkpoints
from paceline.resuming import resumption

RECORDED = Path(__file__).with_name("recorded_before_wire.yaml")  # `paceline simulate` wrote it before the change
PRESET = "strategy:\n  preset: fsdp\n  precision: bf16\n"
MEMBER = "strategy:\n  placement:\n    sharded:\n      precision: bf16\n"
LINE = "precision: is called wire now; write wire: 'bf16'"


@pytest.fixture(params=[PRESET, MEMBER], ids=["preset", "member"])
def old_run(request, tmp_path) -> Path:
    """A run's directory as the version before left it: only the scenario names the key."""
    assert PRESET in RECORDED.read_text()
    simulate(RECORDED, out=tmp_path / "old")
    (tmp_path / "old" / "scenario.yaml").write_text(RECORDED.read_text().replace(PRESET, request.param))
    return tmp_path / "old"


def test_records_of_earlier_runs_are_simulated_loaded_and_compared(old_run):
    assert build_strategy(load_scenario(old_run / "scenario.yaml").strategy).placement.wire == "bf16"
    again = simulate(old_run / "scenario.yaml")
    assert compare(load(old_run), again).same


def test_earlier_runs_resume(old_run):
    """No change is reported, and the run that went on is recorded with the new name."""
    job = resolve(load_scenario(old_run / "scenario.yaml", ["budget.steps=6"]), old_run)
    saved = checkpoints.newest(old_run)
    assert saved
    assert resumption(saved, job, change=False).parts[-1]["changed"] == {"budget.steps": [4, 6]}
    if "preset" in (old_run / "scenario.yaml").read_text():
        arguments = ["train", "--resume", str(old_run), "--set", "budget.steps=6"]
        done = subprocess.run([sys.executable, "-m", "paceline", *arguments], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert load(old_run).summary["steps"] == 6
        assert "wire: bf16" in (old_run / "scenario.yaml").read_text()


@pytest.mark.parametrize(
    ("setting", "key"),
    [
        ("strategy={preset: fsdp, precision: bf16}", "strategy"),
        ("strategy={preset: fsdp, placement: {offloaded: {precision: bf16}}}", "strategy.placement.offloaded"),
        ("strategy={placement: {sharded: {precision: bf16}}}", "strategy.placement.sharded"),
    ],
)
def test_the_old_name_is_refused_with_the_new_one(setting, key, tmp_path):
    """In a file, in --set (of a resumed run as well), and in a sweep."""
    users = tmp_path / "users.yaml"
    users.write_text(RECORDED.read_text().partition("recorded:")[0])
    message = f"^{key}.{LINE}"
    with pytest.raises(ScenarioError, match=rf"^strategy.{LINE}"):
        simulate(users, timing_only=True)
    for path in (users, RECORDED):
        with pytest.raises(ScenarioError, match=message):
            simulate(path, timing_only=True, settings=[setting])
    with pytest.raises(ScenarioError, match=f"^strategy.{LINE}"):
        sweep(RECORDED, {"strategy.precision": ["bf16"]})


def test_the_computations_precision_keeps_its_name():
    assert load_scenario(RECORDED, ["workload.precision=bf16"]).workload.precision == "bf16"
