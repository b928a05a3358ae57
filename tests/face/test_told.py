"""What a run, a comparison and a sweep tell about speed and idle shares, in files and on the terminal."""

import json
import re

import pytest

import paceline
from kit.cli import MLP, call, scenario
from paceline.printing import show_comparison, show_run


@pytest.fixture
def mixed(tmp_path):
    """Two classes of workers; the first has two of them."""
    made = scenario(3, MLP, {"preset": "sync_sgd"}, 6)
    made["cluster"] = {
        "workers": [{"count": 2, "device": "fast", "speed": "1000 samples/s"}, {"speed": "500 samples/s"}]
    }
    (tmp_path / "mixed.yaml").write_text(json.dumps(made))
    return tmp_path / "mixed.yaml"


def test_speed_and_idle_by_class(mixed, tmp_path, capsys):
    run = paceline.simulate(mixed, out=tmp_path / "run", timing_only=True)
    s = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert s["samples_per_second"] == s["samples"] / s["seconds"]
    assert s["epochs"] == run.lines[-1]["epoch"]
    assert s["seconds_per_epoch"] == s["seconds"] / s["epochs"]
    idle = s["idle_share"]
    assert s["idle_by_class"] == {"fast": pytest.approx((idle[0] + idle[1]) / 2), "cpu": idle[2]}
    show_run(run)
    printed = capsys.readouterr().out
    assert f"{s['samples_per_second']:,.0f} samples/s" in printed
    assert "virtual time" in printed
    assert f"fast {idle[0]:.1%}, cpu {idle[2]:.1%}" in printed
    assert "\x1b" not in printed
    show_comparison(run, paceline.simulate(mixed, settings=["strategy={preset: local_sgd, H: 4}"], timing_only=True))
    printed = capsys.readouterr().out
    assert "local_sgd H=4" in printed
    assert printed.count("samples/s") == 2


def test_equal_names_are_told_apart(mixed):
    workers = "[{speed: 100 samples/s}, {speed: 100 samples/s, slowdown: 2}]"
    run = paceline.simulate(mixed, settings=[f"cluster={{workers: {workers}}}"], timing_only=True)
    assert [*run.summary["idle_by_class"]] == ["cpu x1", "cpu x2"]
    faster = "cluster={workers: [{speed: 300 samples/s}, {speed: 100 samples/s}]}"
    run = paceline.simulate(mixed, settings=[faster, "strategy={preset: hdp}"], timing_only=True)
    assert all(re.fullmatch(r"cpu \(batch \d+\)", name) for name in run.summary["idle_by_class"])


def test_a_sweep_tells_speed_and_short_names(mixed, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "120")
    grid = "strategy={preset: local_sgd, schedule: {fixed: 4}},{preset: sync_sgd}"
    status, out, _ = call(monkeypatch, capsys, "sweep", mixed, "--grid", grid, "-j", 1, "--out", tmp_path / "t.json")
    assert status == 0
    assert "local_sgd H=4" in out
    for row in json.loads((tmp_path / "t.json").read_text()):
        assert row["samples_per_second"] == row["samples"] / row["seconds"]
        assert f"{row['samples_per_second']:,.0f}" in out
        assert row["seconds_per_epoch"] == pytest.approx(row["seconds"] / (row["samples"] / 1437))
