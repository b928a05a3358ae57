"""`sweep`: each row is what one `simulate` gives, a sweep continues from its table, and no failing cell ends it."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import paceline
from kit.cli import MLP, call, scenario, under_mpirun
from kit.cli import paceline as run_cli
from kit.paths import ROOT
from paceline import ScenarioError, simulate, sweep, sweeping
from paceline.algorithms.rounds import State
from paceline.config import yaml
from paceline.program.errors import PacelineError, ProtocolError
from paceline.program.outcome import Outcome
from paceline.records.recorder import summarize
from paceline.studies.points import cross, parse_grid, read_list
from paceline.studies.table import COLUMNS

GRID = {"cluster.network.latency": ["10 us", "1 ms"], "strategy.H": [1, 4], "cluster.noise.sigma": [0, 0.3]}


@pytest.fixture
def tiny(tmp_path) -> Path:
    """A scenario of two workers and three rounds of local SGD."""
    path = tmp_path / "tiny.yaml"
    document = scenario(2, MLP, {"preset": "local_sgd", "H": 2}, 3)
    document["cluster"]["network"] = {"bandwidth": "1 Gbit/s"}
    path.write_text(yaml.dump(document))
    return path


def rows(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines()))


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_row_is_what_simulate_gives(jobs, tiny):
    table = sweep(tiny, GRID, jobs=jobs)
    assert list(table.columns[:3]) == list(GRID)
    assert list(map(list, table[list(GRID)].to_numpy())) == [
        [a, b, c] for a in ("10 us", "1 ms") for b in (1, 4) for c in (0, 0.3)
    ]
    for _, row in table.iterrows():
        run = simulate(tiny, settings=[f"{key}={row[key]}" for key in GRID], timing_only=True)
        s = run.summary
        assert row["seconds"] == s["seconds"]
        assert row["seconds_per_step"] == s["seconds"] / s["steps"]
        for name in ("steps", "rounds", "samples", "workers"):
            assert row[name] == s[name]
        assert (row["engine"], s["engine"]) == ("cohort", "simpy"), "a sweep shows no traces, so it makes none"
        assert row["syncs"] == s["syncs"]["parameters"] + s["syncs"]["begin"]
        assert row["bytes_per_worker"] == max(s["bytes_per_worker"])
        assert (row["idle_min"], row["idle_max"]) == (min(s["idle_share"]), max(s["idle_share"]))
        assert row["idle_mean"] == pytest.approx(sum(s["idle_share"]) / 2)
        assert row["computing"] == pytest.approx(sum(s["computing_seconds"]) / 2)
        assert row["error"] == ""
    assert table["seconds"].nunique() == len(table), "every key moves the clock"


def test_a_warning_stays_with_its_row(tiny):
    table = sweep(tiny, {"workload.batch": [8, 64]}, settings=["cluster.workers=[{step_time: {8: 1 ms, 16: 2 ms}}]"])
    assert table["warning"].isna().tolist() == [True, False]
    assert "batch 64 is extrapolated" in table["warning"][1]


def test_full_sweeps_learn(tiny, tmp_path):
    table = sweep(tiny, {"workload.optimizer.lr": [0.01, 0.05]}, full=True, runs=tmp_path / "runs")
    for _, row in table.iterrows():
        run = paceline.load(row["run"])
        lr = row["workload.optimizer.lr"]
        alone = simulate(tiny, settings=[f"workload.optimizer.lr={lr}"])
        assert run.summary["params_sha256"] == alone.summary["params_sha256"]
        assert row["accuracy"] == alone.accuracy
        assert row["train_loss"] == alone.summary["train_loss"]
    assert table["run"].nunique() == 2


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("a.b=1,2,4", [1, 2, 4]),
        ("a=1e-4, 2.5", [1e-4, 2.5]),
        ("a=25 Gbit/s,1 Gbit/s", ["25 Gbit/s", "1 Gbit/s"]),
        ("a=[1, 2],[3]", [[1, 2], [3]]),
        ("a={fixed: 4},every", [{"fixed": 4}, "every"]),
        ("a='x, y',z", ["x, y", "z"]),
        ("a=true,null", [True, None]),
    ],
)
def test_grid_values(text, values):
    ((_, found),) = parse_grid([text]).items()
    assert found == values


def test_lists_and_grids_combine(tiny, tmp_path):
    (tmp_path / "points.csv").write_text('strategy.H,cluster.workers\n2,\n1,"[{speed: 50 samples/s, count: 3}]"\n')
    (tmp_path / "points.yaml").write_text(
        "- {strategy.H: 2}\n- strategy.H: 1\n  cluster.workers: [{speed: 50 samples/s, count: 3}]\n"
    )
    assert read_list(tmp_path / "points.csv") == read_list(tmp_path / "points.yaml")
    table = sweep(tiny, {"budget.rounds": [3, 5]}, tmp_path / "points.csv", jobs=1)
    assert list(table["workers"]) == [2, 2, 3, 3], "an empty cell leaves a key as it is"
    assert list(table["rounds"]) == [3, 5, 3, 5]
    assert table["cluster.workers"].isna().tolist() == [True, True, False, False]
    assert cross({"a": [1, 1, 2]}, [{"b": 1}, {"b": 1}]) == [{"b": 1, "a": 1}, {"b": 1, "a": 2}], "each point once"


@pytest.fixture
def simulated(monkeypatch) -> list[int]:
    """A line for each point that is simulated in this process."""
    calls: list[int] = []
    together, alone = sweeping.Simulator.together, sweeping.Simulator.alone

    def counted(self: sweeping.Simulator, several: Any) -> Any:
        calls.extend([1] * len(several))
        return together(self, several)

    monkeypatch.setattr(sweeping.Simulator, "together", counted)
    monkeypatch.setattr(sweeping.Simulator, "alone", lambda self, one: (calls.append(1), alone(self, one))[1])
    return calls


@pytest.mark.parametrize("suffix", [".csv", ".json", ".parquet"])
def test_what_is_in_the_table_does_not_run_again(suffix, tiny, tmp_path, simulated):
    if suffix == ".parquet":
        pytest.importorskip("pyarrow")
    out = tmp_path / "deep" / f"table{suffix}"
    values = [0.1, True, "25 Gbit/s", {"epochs": 0.5}, 1e-05, "", None]
    grid = {"recorded.a": values, "budget.rounds": [2, 3]}  # `recorded` takes anything
    whole = sweep(tiny, grid, jobs=1, out=out)
    assert len(whole) == len(simulated) == 14
    pd.testing.assert_frame_equal(sweep(tiny, grid, jobs=1, out=out), whole)
    assert len(simulated) == 14
    more = sweep(tiny, {**grid, "budget.rounds": [2, 3, 4]}, jobs=1, out=out)
    assert len(simulated) == 21
    assert list(more["seconds"][more["budget.rounds"] < 4]) == list(whole["seconds"])
    assert len(sweep(tiny, {**grid, "recorded.a": [0.1]}, jobs=1, out=out)) == 2, "the rows asked for"
    pd.testing.assert_frame_equal(sweep(tiny, {**grid, "budget.rounds": [2, 3, 4]}, jobs=1, out=out), more)
    assert len(simulated) == 21, "rows that were not asked for stay in the file"
    assert [path.name for path in out.parent.iterdir()] == [out.name], "no temporary file is left"


def test_another_sweep_is_not_mixed_in(tiny, tmp_path):
    out = tmp_path / "table.csv"
    sweep(tiny, {"strategy.H": [1]}, jobs=1, out=out)
    before = out.read_bytes()
    with pytest.raises(ScenarioError, match=r"holds a sweep over strategy\.H, not strategy\.H, budget\.rounds"):
        sweep(tiny, {"strategy.H": [1], "budget.rounds": [1]}, jobs=1, out=out)
    with pytest.raises(ScenarioError, match="rows of another scenario"):
        sweep(tiny, {"strategy.H": [1]}, settings=["seed=3"], jobs=1, out=out)
    assert out.read_bytes() == before
    assert len(sweep(tiny, {"strategy.H": [1, 2]}, settings=["seed=3"], jobs=1, out=out, force=True)) == 2
    out.write_text("something else\n1\n")
    with pytest.raises(ScenarioError, match="holds a sweep over something else"):
        sweep(tiny, {"strategy.H": [1]}, jobs=1, out=out)
    (tmp_path / "table.json").write_text("[1, 2]")
    with pytest.raises(ScenarioError, match="is not a table of a sweep"):
        sweep(tiny, {"strategy.H": [1]}, jobs=1, out=tmp_path / "table.json")


PROFILE = """
devices: {cpu: {"mlp(dropout=0.2, hidden=[32, 16]) on digits, sgd with momentum, 1 thread": {step: {8: 2 ms}}}}
"""


def test_a_failed_point_is_a_row_and_runs_again_only_when_asked(tiny, tmp_path):
    out, missing = tmp_path / "table.csv", tmp_path / "profile.yaml"
    points = [{"cluster.profile": None}, {"cluster.profile": str(missing)}]
    first = sweep(tiny, points=points, jobs=2, out=out)
    assert list(first["error"] == "") == [True, False]
    assert "no such file" in first["error"][1]
    missing.write_text(PROFILE)
    assert "no such file" in sweep(tiny, points=points, out=out)["error"][1], "it is kept"
    healed = sweep(tiny, points=points, out=out, retry=True)
    assert list(healed["error"]) == ["", ""]
    assert float(rows(out)[1]["seconds"]) == healed["seconds"][1]


MODEL = """
import os
from torch import nn

def make(input_shape, classes, trouble=None, at=None):
    if trouble == "raise":
        raise KeyError("a user's mistake")
    if trouble == "die" and os.getpid() != at:
        os._exit(3)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, classes))
"""


def test_trouble_in_a_users_model(tiny, tmp_path, monkeypatch):
    (tmp_path / "troubled.py").write_text(MODEL)
    monkeypatch.syspath_prepend(tmp_path)
    out = tmp_path / "table.csv"
    model = {"name": "troubled:make"}
    table = sweep(tiny, {"workload.model": [model, {**model, "trouble": "raise"}]}, jobs=1)
    assert list(table["error"] == "") == [True, False]
    assert "a user's mistake" in table["error"][1]
    with pytest.raises(PacelineError, match="a process of the sweep died"):
        sweep(tiny, {"workload.model": [model, {**model, "trouble": "die"}]}, jobs=2, out=out)
    assert all("die" not in row["workload.model"] for row in rows(out)), "what has no result has no row"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--grid", "workload.bach=3,4"], "workload.bach: unknown key; did you mean 'batch'?"),
        (["--grid", "strategy.HH=3,4"], "strategy.HH: unknown argument; did you mean 'H'?"),
        (["--grid", "cluster.workers.9.count=3"], "'9' is not a place in a list of 2"),
        (["--grid", "seed.x=1"], "seed is 5, which has no keys"),
        (["--grid", "workload.batch=-1,-2"], "workload.batch: input should be greater than or equal to 1"),
        (["--grid", "workload.batch"], "write it like --grid"),
        (["--grid", "workload.batch="], "write it like --grid"),
        (["--grid", "workload.batch=[1"], "not valid YAML"),
        (["--grid", "strategy.H=1", "--grid", "strategy.H=2"], "strategy.H is given twice"),
        (["--grid", "strategy.H=1", "--list", "points.csv"], "strategy.H is both in the grid and in the list"),
        (["--list", "sparse.csv"], "workload.bach: unknown key"),
        (["--list", "nowhere.csv"], "nowhere.csv: no such file"),
        (["--list", "ragged.csv"], "ragged.csv:3: does not have as many cells"),
        (["--list", "twice.csv"], "twice.csv:1: 'workload.batch' must head one column"),
        (["--list", "nameless.csv"], "nameless.csv:1: '' must head one column"),
        (["--list", "empty.yaml"], "holds no points"),
        (["--list", "text.yaml"], "point 0 is 'seed'"),
        ([], "nothing varies"),
        (["--grid", "strategy.H=1", "--out", "table.txt"], "ends in .csv, .json or .parquet"),
        (["--grid", "strategy.H=1", "--set", "budget.rounds=0"], "budget.rounds"),
        (["--grid", "strategy.H=1", "--engine", "magic"], "--engine magic"),
    ],
)
def test_bad_input_is_one_line_before_anything_runs(arguments, message, tiny, monkeypatch, capsys):
    monkeypatch.chdir(tiny.parent)
    Path("points.csv").write_text("strategy.H\n1\n2\n")
    Path("sparse.csv").write_text("strategy.H,workload.bach\n1,\n1,3\n")
    Path("ragged.csv").write_text("strategy.H\n1\n2,3\n")
    Path("twice.csv").write_text("workload.batch, workload.batch\n4,5\n")
    Path("nameless.csv").write_text("strategy.H,\n1,2\n")
    Path("empty.yaml").write_text("[]")
    Path("text.yaml").write_text("[seed]")
    status, out, err = call(monkeypatch, capsys, "sweep", tiny, *arguments)
    assert status == 2
    assert message in err
    assert len(err.strip().splitlines()) == 1, err
    assert not out
    assert not Path("runs").exists()


def test_python_mistakes(tiny):
    with pytest.raises(ScenarioError, match="is not a list of values"):
        sweep(tiny, {"strategy.preset": "local_sgd"})
    with pytest.raises(ScenarioError, match="points: point 1 is 3"):
        sweep(tiny, points=[{"strategy.H": 1}, 3])


def start(*arguments: object, cwd: Path, **more: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "paceline", "sweep", *map(str, arguments)]
    return subprocess.Popen(command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **more)  # type: ignore[call-overload]


@pytest.mark.parametrize(("notice", "jobs"), [(signal.SIGINT, 1), (signal.SIGINT, 2), (signal.SIGTERM, 2)])
def test_a_stopped_sweep_goes_on(notice, jobs, tiny, simulated):
    folder, seeds = tiny.parent, range(3000)
    line = ["tiny.yaml", "--grid", f"seed={','.join(map(str, seeds))}", "--out", "t.csv", "-j", jobs]
    line += ["--engine", "simpy"]  # one by one, so that there is time to stop it
    with start(*line, "--set", "budget.rounds=30", cwd=folder, start_new_session=True) as process:
        assert process.stdout
        assert process.stderr
        for text in process.stdout:
            if re.search("[1-9][0-9]+ of", text):
                break
        os.killpg(process.pid, notice)  # to every process, as a terminal does
        assert process.wait(60) == 130
        assert (
            process.stderr.read() == "paceline: stopped; the finished rows are in t.csv, and the same command goes on\n"
        )
    done = len(rows(folder / "t.csv"))
    assert 0 < done < len(seeds)
    if jobs == 1:
        more = {"settings": ["budget.rounds=30"], "engine": "simpy", "out": folder / "t.csv"}
        table = sweep(tiny, {"seed": seeds}, jobs=1, **more)
        assert len(simulated) == len(seeds) - done
        assert list(table["seed"]) == list(seeds)


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux to end a process with its parent")
def test_a_process_ends_with_its_sweep(tiny):
    line = ["tiny.yaml", "--grid", "seed=1,2", "--set", "budget.rounds=1000000", "--out", "t.csv", "-j", 2]
    with start(*line, cwd=tiny.parent) as process:
        deadline = time.monotonic() + 60
        while len(children := descendants(process.pid)) < 2 and time.monotonic() < deadline:
            time.sleep(0.1)
        assert len(children) == 2
        process.kill()
    deadline = time.monotonic() + 60
    while any(map(alive, children)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not [child for child in children if alive(child)]


def alive(process: int) -> bool:
    """Whether a process runs: one that has ended may wait for its parent to notice."""
    with contextlib.suppress(OSError):
        return (Path("/proc") / str(process) / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def descendants(process: int) -> list[int]:
    """The processes that a sweep has started and that simulate."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == process and b"spawn_main" in (folder / "cmdline").read_bytes():
                found.append(int(folder.name))
    return found


@pytest.mark.parametrize("kind", ["openmpi", "mpich"])
def test_under_mpirun(kind, tiny):
    folder = tiny.parent

    def under(ranks: int, *arguments: str) -> subprocess.CompletedProcess[str]:
        return under_mpirun(ranks, "sweep", "tiny.yaml", *arguments, cwd=folder, kind=kind)

    done = under(3, "--grid", "workload.batch=4,-1,8", "--grid", "strategy.H=1,2,3", "--out", "mpi.csv")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "9 rows, 3 failed" in done.stdout
    expected = sweep(tiny, {"workload.batch": [4, -1, 8], "strategy.H": [1, 2, 3]}, jobs=1, out=folder / "here.csv")
    assert (folder / "mpi.csv").read_bytes() == (folder / "here.csv").read_bytes()
    assert (expected["error"] != "").sum() == 3

    done = under(2, "--grid", "workload.bach=4,8", "--out", "bad.csv")
    assert done.returncode == 2
    assert "workload.bach: unknown key; did you mean 'batch'?" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (folder / "bad.csv").exists()


def test_no_round_is_no_result(tiny):
    with pytest.raises(ProtocolError, match="without a round"):
        summarize("simpy", [Outcome(0, result=State())], 0.0, {}, 0.0)
    run = simulate(tiny, settings=["budget={epochs: 1e-9}"], timing_only=True)
    assert run.summary["rounds"] == 1


def test_json_is_plain(tiny, tmp_path):
    sweep(tiny, {"strategy.H": [1], "workload.batch": [4, -1]}, jobs=1, out=tmp_path / "t.json")
    good, bad = json.loads((tmp_path / "t.json").read_text())
    assert good["strategy.H"] == 1
    assert good["seconds"] > 0
    assert (bad["seconds"], bad["rounds"]) == (None, None)
    assert "greater than or equal to 1" in bad["error"]


def test_the_page_says_what_happens(tmp_path):
    for name in ("scenarios", "profiles"):
        (tmp_path / name).symlink_to(ROOT / name)
    page = (ROOT / "docs" / "sweep.md").read_text()
    code, printed = re.search(r"```python\n(.*?)```\n\n```text\n(.*?)```", page, re.S).groups()
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.stdout == printed, done.stderr
    line, *expected = re.search(r"```console\n\$ paceline (.*?)```", page, re.S)[1].splitlines()
    done = run_cli(*shlex.split(line), "-j", 1, cwd=tmp_path)
    shown = [text.rstrip() for text in done.stdout.splitlines() if not re.search(r"\d of \d", text)]
    assert shown == expected
    for name in COLUMNS:
        assert f"`{name}`" in page
