"""`paceline run-all`: a row for each mode and choice of batches, simulated or real; it goes on where it stopped."""

from pathlib import Path

import pandas as pd
import pytest
import yaml

from kit.cli import call
from paceline.program.errors import ScenarioError
from paceline.running_all import CHOICES, MODES, RunAllOptions, run_all
from paceline.simulating import simulate

SCENARIO = {
    "workload": {
        "model": {"name": "mlp", "hidden": [64]},
        "data": "digits",
        "batch": 32,
        "optimizer": {"name": "sgd", "lr": 0.05},
    },
    "cluster": {
        "workers": [
            {"device": "fast", "speed": "4000 samples/s", "memory": "600 kB"},
            {"device": "slow", "speed": "1000 samples/s", "memory": "300 kB", "max_batch": 3},
        ],
        "network": {"link": "1gbe", "latency": "50 us"},
    },
    "strategy": {"preset": "sync_sgd"},
    "budget": {"epochs": 1},
}


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(SCENARIO))
    return path


def sizes(row):
    return [int(size) for size in row["batches"].split()]


def test_a_row_for_each_mode_and_choice(path, tmp_path):
    table = run_all(path, tmp_path / "all", RunAllOptions(quiet=True))
    assert [(m, c) for m, c in zip(table["mode"], table["batches by"], strict=True)] == [
        (mode, choice) for mode in MODES for choice in CHOICES
    ]
    assert (table["error"] == "").all()
    for _, row in table.iterrows():
        fast, slow = sizes(row)
        assert row["total"] == fast + slow
        assert slow > 3, "a largest batch that the scenario has for its own placement does not hold for all modes"
        assert (fast == slow) == (row["batches by"] == "equal")
    by = table.set_index(["mode", "batches by"])
    least = min(sizes(by.loc["DDP", "no_restriction"]))
    assert by.loc[("DDP", "fixed_total"), "total"] == by.loc[("DDP", "equal"), "total"]
    assert by.loc[("DDP", "no_restriction"), "samples_per_second"] == pytest.approx(5000, rel=0.01)
    assert by.loc[("DDP", "equal"), "samples_per_second"] == pytest.approx(2000, rel=0.01), "it waits for the slow one"
    assert least < sizes(by.loc["DDP", "equal"])[1], "the slow worker's balanced batch is below its memory's"
    stored = pd.read_csv(tmp_path / "all/table.csv", keep_default_na=False)
    assert stored["samples_per_second"].tolist() == table["samples_per_second"].tolist()


def test_total_and_modes_by_command(path, tmp_path, monkeypatch, capsys):
    out = tmp_path / "all"
    line = ["run-all", path, "--out", out, "--mode", "LSDP", "--total", 100, "--full", "--epochs", 0.2]
    status, said, _ = call(monkeypatch, capsys, *line)
    assert status == 0
    assert "LSDP" in said
    assert "DDP" not in said
    table = pd.read_csv(out / "table.csv").set_index("batches by")
    assert sizes(table.loc["fixed_total"]) == [80, 20]
    assert table.loc["no_restriction", "total"] > 100, "it follows from memory alone"
    assert 0 < table.loc["equal", "accuracy"] < 1
    weights = [yaml.safe_load((out / f"lsdp-{name}/scenario.yaml").read_text()) for name in ("fixed_total-weighted",)]
    assert weights[0]["strategy"]["aggregation"] == {"gradients": "samples"}


def test_the_same_command_goes_on_and_another_is_refused(path, tmp_path):
    options = RunAllOptions(modes=("DDP",), quiet=True)
    out = tmp_path / "all"
    run_all(path, out, options)
    kept = out / "ddp-equal/summary.json"
    before = kept.stat().st_mtime_ns
    (out / "ddp-no_restriction/summary.json").unlink()
    stopped = out / "ddp-fixed_total/summary.json"
    stopped.write_text(stopped.read_text().replace('"finished": true', '"finished": false'))
    run_all(path, out, options)
    assert kept.stat().st_mtime_ns == before
    assert (out / "ddp-no_restriction/summary.json").exists()
    assert '"finished": true' in stopped.read_text()
    with pytest.raises(ScenarioError, match="holds runs of another scenario or with other options; write --force"):
        run_all(path, out, RunAllOptions(modes=("DDP",), epochs=2, quiet=True))
    run_all(path, out, RunAllOptions(modes=("DDP",), epochs=2, quiet=True, force=True))
    assert kept.stat().st_mtime_ns > before


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--mode", "DPP"], "--mode DPP: write DDP, DDP+FP, FSDP, FSDP+OFFLOAD, LSDP"),
        (["--memory", "1 GiB"], "--memory belongs to --real"),
        (["--real", "--full"], "--full belongs to simulations"),
        (["--set", "cluster.workers.0.memory=1 kB"], "cluster.workers[0].memory"),
    ],
)
def test_mistakes(path, tmp_path, monkeypatch, capsys, arguments, said):
    status, _, error = call(monkeypatch, capsys, "run-all", path, "--quiet", "--out", tmp_path / "all", *arguments)
    assert status == 2
    assert said in error
    assert len(error.splitlines()) == 1
    assert not Path(tmp_path / "all").exists() or arguments[0] == "--set"


def test_a_stopped_training_stops_the_command(path, tmp_path, monkeypatch):
    trained = list[str]()

    def stopped(scenario, *, settings, out, force):
        trained.append(out.name)
        run = simulate(scenario, settings=settings, out=out, force=force, timing_only=True)
        run.summary["finished"] = False
        return run

    monkeypatch.setattr("paceline.running_all.train", stopped)
    monkeypatch.setattr("paceline.running_all._Largest._measured", lambda self, own: ["strategy.max=[32, 8]"])
    with pytest.raises(KeyboardInterrupt):
        run_all(path, tmp_path / "all", RunAllOptions(real=True, quiet=True))
    assert trained == ["ddp-equal"]


@pytest.mark.long
def test_for_real(path, tmp_path, monkeypatch, capsys):
    out = tmp_path / "all"
    status, said, _ = call(monkeypatch, capsys, "run-all", path, "--real", "--mode", "LSDP", "--out", out)
    assert status == 0, said
    table = pd.read_csv(out / "table.csv", keep_default_na=False)
    assert (table["error"] == "").all()
    assert yaml.safe_load((out / "lsdp.yaml").read_text())["max_batch"].keys() == {"fast", "slow"}
    for _, row in table.iterrows():
        assert min(sizes(row)) > 3
        assert row["accuracy"] > 0
