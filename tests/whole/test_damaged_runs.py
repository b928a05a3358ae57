"""Runs with damaged files, and runs whose numbers are not finite: one line that names file and place."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from kit.cli import call, scenario
from kit.learning import make, make_plan
from paceline import simulate
from paceline.analysis.compare import compare
from paceline.analysis.run import Run
from paceline.config import yaml
from paceline.printing import save_figures, show_comparison
from paceline.program.errors import ScenarioError
from paceline.records import checkpoints
from paceline.records.directory import to_json
from paceline.records.recorder import Recorder
from paceline.records.trace import read_trace

NAN, INF = float("nan"), float("inf")


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A finished and traced run."""
    folder = tmp_path_factory.mktemp("whole")
    document = scenario(2, {"name": "mlp", "hidden": [4]}, {"preset": "local_sgd", "H": 2}, 4)
    (folder / "s.yaml").write_text(yaml.dump(document))
    simulate(folder / "s.yaml", out=folder / "run")
    return folder / "run"


@pytest.fixture
def run(whole, tmp_path, monkeypatch) -> Path:
    """A copy of it."""
    monkeypatch.chdir(tmp_path)
    return Path(shutil.copytree(whole, "run"))


def lines_of(run: Path) -> list[str]:
    return (run / "metrics.jsonl").read_text().splitlines()


DAMAGES = {
    "summary.json: int": ("summary.json", "5"),
    "summary.json: is not JSON": ("summary.json", "{"),
    "summary.json: is not JSON: maximum": ("summary.json", "[" * 200_000),
    "summary.json: idle_share": ("summary.json", {"idle_share": None}),
    "summary.json: idle_share.0": ("summary.json", {"idle_share": ["x"]}),
    "summary.json: seconds": ("summary.json", {"seconds": None}),
    "summary.json: rounds": ("summary.json", {"rounds": 0}),
    "summary.json: train_loss": ("summary.json", {"train_loss": "low"}),
    "metrics.jsonl:1: int": ("metrics.jsonl", "5\n"),
    "metrics.jsonl:1: is not JSON": ("metrics.jsonl", "\x00\x00"),
    "metrics.jsonl:2: round": ("metrics.jsonl", lambda text: text.replace('"round": 4', '"round": "4"')),
    "metrics.jsonl:2: seconds": (
        "metrics.jsonl",
        lambda text: text.replace('"seconds"', '"hours"').replace("hours", "seconds", 1),
    ),
    "metrics.jsonl:2: is not JSON": ("metrics.jsonl", lambda text: text[:-20]),
    "summary.json: syncs": ("summary.json", {"syncs": 5}),
    "summary.json: computing_seconds": ("summary.json", {"computing_seconds": ["x"]}),
    "summary.json: samples": ("summary.json", {"samples": 10**400}),
    "scenario.yaml: recorded: environment": ("scenario.yaml", "recorded: {environment: 5}"),
    "scenario.yaml: recorded: int": ("scenario.yaml", "recorded: 5"),
    "scenario.yaml: holds list": ("scenario.yaml", "[1]"),
}


@pytest.mark.parametrize("says", DAMAGES)
def test_a_file_that_is_not_a_runs(says, run, monkeypatch, capsys):
    """Files that another program wrote, or that are cut: compare ends in one line with file and place."""
    name, damage = DAMAGES[says]
    text = (run / name).read_text()
    if isinstance(damage, dict):
        damage = json.dumps(json.loads(text) | damage)
    (run / name).write_text(damage(text) if callable(damage) else damage)
    status, _, err = call(monkeypatch, capsys, "compare", run, run)
    assert (status, err.count("\n")) == (2, 1), err
    assert says in err
    assert len(err) <= 400


def test_a_trace_with_a_flipped_bit(run, monkeypatch, capsys):
    """A flipped bit anywhere in the trace: the spans that were written, or one line."""
    path = run / "trace.json.gz"
    data, spans = path.read_bytes(), read_trace(path)
    for place in range(0, len(data), max(1, len(data) // 60)):
        path.write_bytes(data[:place] + bytes([data[place] ^ 4]) + data[place + 1 :])
        assert spans_or_error(path) in (spans, "one line")
    status, _, err = call(monkeypatch, capsys, "compare", run, run, "--figures", "f")
    assert (status, err.count("\n")) == (2, 1), err


def spans_or_error(path: Path) -> object:
    try:
        return read_trace(path)
    except ScenarioError as error:
        return "one line" if len(str(error).splitlines()) == 1 and len(str(error)) <= 400 else str(error)


@pytest.mark.parametrize(
    "events",
    [
        *("5", "{}", '{"traceEvents": 5}', '{"traceEvents": []}', '{"traceEvents": [5]}', "[" * 200_000),
        '{"traceEvents": [{"ph": "M", "name": "paceline", "pid": 0, "args": {"workers": 1}}, {"ph": "X", "name": 5, '
        '"pid": 0, "tid": 0, "ts": 0, "dur": 0, "cat": "round"}]}',
        '{"traceEvents": [{"ph": "M", "name": "paceline", "pid": 0, "args": {"workers": 1}}, {"ph": "X", "name": "a", '
        '"pid": 7, "tid": 0, "ts": 0, "dur": 0, "cat": "round"}]}',
    ],
)
def test_a_trace_of_other_types(events, tmp_path):
    (tmp_path / "trace.json.gz").write_bytes(gzip.compress(events.encode()))
    with pytest.raises(ScenarioError, match="is not a trace, or damaged"):
        read_trace(tmp_path / "trace.json.gz")


def test_a_torn_last_line_is_cut_on_resume(run):
    """A run that died while it wrote a report goes on; a line in the middle that is not a report is an error."""
    path = run / "metrics.jsonl"
    first, second = lines_of(run)
    path.write_text(f"{first}\n{second[:30]}")
    recorder = Recorder(run)
    assert recorder.resume(2, 1.0) == "run/metrics.jsonl: the last line was incomplete and is removed"
    assert lines_of(run) == [first]
    assert Recorder(run).resume(2, 1.0) == ""
    path.write_text(f"{first[:30]}\n{second}\n")
    with pytest.raises(ScenarioError, match=r"metrics\.jsonl:1: is not JSON"):
        Recorder(run).resume(2, 1.0)
    assert path.read_text() == f"{first[:30]}\n{second}\n", "nothing is lost where the run is refused"
    path.unlink()
    assert Recorder(run).resume(2, 1.0) == "", "a run may die before its first report"


def test_a_users_backup_is_not_a_checkpoint(run):
    """Folders among the checkpoints whose names only look like a checkpoint's."""
    saved = checkpoints.newest(run)
    assert saved
    for name in ("round_old", "round_000009.bak", "round_", "round_1e3", "round_-00001", "round_٠٠٠٠٠٩"):
        shutil.copytree(saved, saved.parent / name)
    (saved.parent / "round_000008").mkdir()
    assert checkpoints.newest(run) == saved


@pytest.mark.parametrize("change", ["name", "shape", "dtype", "fewer"])
def test_arrays_of_another_model(change, tmp_path):
    """Headers of safetensors that do not fit the model: names, shapes, dtypes."""
    worker = make(make_plan((4, 4)))[0]
    arrays = worker.snapshot()
    if change == "name":
        arrays["more"] = arrays["params"]
    elif change == "shape":
        arrays["params"] = arrays["params"].reshape(1, -1)
    elif change == "dtype":
        arrays["params"] = arrays["params"].astype(np.float64)
    else:
        del arrays["rng"]
    save_file(arrays, tmp_path / "worker_0.safetensors")
    with pytest.raises(ValueError, match="worker 0: ") as caught:
        worker.restore(load_file(tmp_path / "worker_0.safetensors"))
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("kind", ["F4", "U7"])
def test_arrays_of_an_unknown_kind(kind, tmp_path):
    """A header with a type that does not exist."""
    head = json.dumps({"params": {"dtype": kind, "shape": [2], "data_offsets": [0, 4]}}).encode()
    (tmp_path / "worker_0.safetensors").write_bytes(len(head).to_bytes(8, "little") + head + bytes(4))
    with pytest.raises(ScenarioError, match=r"worker_0\.safetensors: cannot be read: ") as caught:
        checkpoints.read_worker(tmp_path, 0)
    assert len(str(caught.value).splitlines()) == 1


def test_what_is_infinite_or_not_a_number_is_null():
    assert (
        to_json({"a": NAN, "b": [INF, -INF, (0.1 + 0.2,)]}) == '{"a": null, "b": [null, null, [0.30000000000000004]]}'
    )


def of(losses: list[float], times: list[float | None] | None = None, **summary: object) -> Run:
    """A run with these training losses."""
    times = times or [float(number) for number in range(len(losses))]
    lines = [
        {"round": n, "step": n, "samples": n, "seconds": time, "epoch": 0.0, "train_loss": loss, "accuracy": NAN}
        for n, (loss, time) in enumerate(zip(losses, times, strict=True))
    ]
    whole = {"engine": "simpy", "rounds": 2, "seconds": 3.0, "idle_share": [0.0], "params_sha256": "a"}
    return Run(whole | summary, lines, {})


def test_two_runs_without_numbers_do_not_agree(capsys):
    """Two runs whose losses are not numbers have nothing that could be the same."""
    for nothing in (NAN, INF, None):
        result = compare(of([NAN, 1.0, nothing]), of([NAN, 1.0, nothing]))  # type: ignore[list-item]
        assert not result.same
        assert str(result.difference) == "report 2: train_loss is not a number in either run"
    show_comparison(of([NAN, NAN]), of([NAN, NAN]))
    assert "no numbers to compare: report 1: train_loss" in capsys.readouterr().out
    assert compare(of([NAN, 1.0, 2.0]), of([NAN, 1.0, 2.0])).same, "nothing is trained before the first step"
    clocks = [of([NAN, NAN], timing_only=True) for _ in range(2)]
    assert compare(*clocks).same, "a clock has no losses"
    clock, numbers = of([NAN, NAN], timing_only=True), of([NAN, 1.0])
    assert (compare(clock, numbers).same, compare(clock, numbers).same_plan) == (False, True)
    show_comparison(clock, numbers)
    assert "same plan: 2 reports; simpy is timing-only" in capsys.readouterr().out
    clock.lines[1]["step"] = 5
    show_comparison(clock, numbers)
    assert "the runs differ" in capsys.readouterr().out


@pytest.mark.parametrize("seconds", [None, 0.0, NAN])
def test_clocks_that_cannot_be_compared(seconds, capsys):
    """Seconds that are missing or 0 on one side or both: no error in percent, and no traceback."""
    run = of([NAN, 1.0], [0.0, seconds], seconds=seconds)
    result = compare(of([NAN, 1.0]), run)
    assert np.isnan(result.error)
    assert np.isnan(result.per_report_error)
    show_comparison(of([NAN, 1.0]), run)
    assert "nan%" not in capsys.readouterr().out


def test_figures_of_a_run_without_an_evaluation(tmp_path):
    run = of([0.5, 0.25])
    for line in run.lines:
        del line["accuracy"]
    assert [path.name for path in save_figures([run, run], tmp_path)] == ["curves.png"]
