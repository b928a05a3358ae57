"""A scenario's metrics, from the command line: the same bits in both worlds, and in all that tells of a run."""

from __future__ import annotations

import json

import matplotlib
import pytest

import paceline as package
from kit.cli import MLP, call, paceline, read, scenario
from paceline import simulate, sweep
from paceline.analysis.compare import compare
from paceline.analysis.figures import learning_curves
from paceline.config import yaml
from paceline.config.metrics import RESERVED, metrics_in
from paceline.config.scenario import Scenario
from paceline.studies.table import COLUMNS

matplotlib.use("Agg")

OWN = '''
def margin(outputs, targets):
    """How far the right class is ahead of the mean of all: a value for each example."""
    return outputs.gather(1, targets[:, None])[:, 0] - outputs.mean(1)


def wrong(outputs, targets):
    return "much"
'''
METRICS = ["top5", "accuracy", {"gap": "own_measures:margin"}, "perplexity"]
NAMES = ["top5", "accuracy", "gap", "perplexity"]


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "own_measures.py").write_text(OWN)
    document = scenario(2, MLP, {"preset": "local_sgd", "H": 4}, 8)
    document["workload"]["metrics"] = METRICS
    (tmp_path / "own.yaml").write_text(yaml.dump(document))
    return tmp_path


def test_a_metric_of_ones_own_is_the_same_in_training_and_simulation(folder, monkeypatch, capsys):
    said = paceline("train", "own.yaml", "--out", "real", cwd=folder).stdout
    monkeypatch.chdir(folder)
    status, told, _ = call(monkeypatch, capsys, "simulate", "own.yaml", "--out", "simulated")
    assert status == 0
    (measured, lines), (predicted, others) = (read(folder / name) for name in ("real", "simulated"))
    assert [{**line, "seconds": 0} for line in lines] == [{**line, "seconds": 0} for line in others]
    assert [metrics_in(line) for line in lines] == [NAMES] * len(lines)
    assert measured["metrics"] == predicted["metrics"] == NAMES
    assert {name: measured[name] for name in NAMES} == {name: lines[-1][name] for name in NAMES}
    for text in (said, told):
        assert f"accuracy {lines[-1]['accuracy']:.4f}  gap {lines[-1]['gap']:.4f}  perplexity " in text, "progress"
        assert f"test top5 {measured['top5']:.2%}, test accuracy {measured['accuracy']:.2%}, test gap " in text
    assert [json.loads(text) for text in (folder / "real/acc.txt").read_text().splitlines()] == [measured["top5"]]
    # What no metric may be called is all that is in these files under another name.
    assert {*measured, *predicted, *lines[0], *COLUMNS, *Scenario.model_fields} - {"accuracy", *NAMES} <= RESERVED
    run = package.load(folder / "real")
    assert run.test_metrics == {name: measured[name] for name in NAMES}
    assert run.accuracy == measured["accuracy"]
    assert f", gap {measured['gap']:.4g}" in repr(run)
    other = package.load(folder / "simulated")
    assert compare(run, other).same
    other.lines[1]["gap"] += 1e-12
    assert compare(run, other).difference.field == "gap"
    labels = [axis.get_ylabel() for axis in learning_curves([run, other]).axes]
    assert labels == ["training loss", "test top5"]


def test_a_run_without_metrics_tells_its_losses(folder, monkeypatch, capsys):
    status, out, _ = call(
        monkeypatch, capsys, "simulate", folder / "own.yaml", "--set", "workload.metrics=[]", "--out", folder / "none"
    )
    summary, lines = read(folder / "none")
    assert (status, summary["metrics"], metrics_in(lines[-1])) == (0, [], [])
    assert f"training loss {summary['train_loss']:.4f}, test loss {summary['test_loss']:.4f}" in out
    assert "accuracy" not in out
    assert not (folder / "none/acc.txt").exists()
    run = package.load(folder / "none")
    assert (run.accuracy, run.test_metrics) == (None, {})
    curves = learning_curves([run, simulate(folder / "own.yaml")])
    assert [axis.get_ylabel() for axis in curves.axes] == ["training loss", "test loss"]


def test_a_sweep_has_a_column_for_each_metric(folder):
    points = {"workload.metrics": [METRICS, ["accuracy"]]}
    options = {"full": True, "jobs": 1, "out": folder / "table.csv"}
    table = sweep(folder / "own.yaml", points, **options)
    columns = list(table.columns)
    assert columns[columns.index("test_loss") + 1 : columns.index("engine")] == NAMES
    assert table["perplexity"].isna().tolist() == [False, True]
    assert sweep(folder / "own.yaml", points, **options).equals(table), "read back from the file"


@pytest.mark.parametrize(
    ("metrics", "message"),
    [
        ("[acuracy]", "workload.metrics: no metric 'acuracy'; did you mean 'accuracy'?; write accuracy, top5"),
        ("[accuracy, accuracy]", "workload.metrics: two metrics are called accuracy; name one, like {own_accuracy: "),
        ("[{seconds: 'own_measures:margin'}]", "workload.metrics: seconds is another field of a run's reports"),
        ("[{loss: 'own_measures:margin'}]", "workload.metrics: loss is another field of a run's reports"),
        ("[{'a b': accuracy}]", "workload.metrics: 'a b': a metric's name is one word"),
        ("[{a: accuracy, b: top5}]", "write one name, like {bleu: package.module:function}"),
        ("accuracy", "workload.metrics: "),
        (
            "['own_measures:marign']",
            "metric 'own_measures:marign': own_measures has no 'marign'; did you mean 'margin'?",
        ),
        ("['own_measures:wrong']", "fails in the metric wrong: TypeError: it gave a str; expected a mean"),
        ("[mse]", "fails in the metric mse: ValueError: the model's outputs are (8, 10), and the targets (8,)"),
    ],
)
def test_what_is_wrong_is_one_line_and_writes_nothing(folder, monkeypatch, capsys, metrics, message):
    setting = f"workload.metrics={metrics}"
    out = folder / "nothing"
    status, _, said = call(monkeypatch, capsys, "simulate", folder / "own.yaml", "--set", setting, "--out", out)
    assert (status, said.count("\n"), message in said) == (2, 1, True), said
    assert not out.exists()


def test_a_target_is_of_what_the_scenarios_report(folder, monkeypatch, capsys):
    for target, message in (
        ("bleu>=0.3", "--target bleu>=0.3: no scenario reports bleu; they report train_loss, test_loss, top5, "),
        ("perplexity=3", "--within, --target: 'perplexity=3' is not a target; write a share of accuracy like 96%, or"),
    ):
        line = ["validate", folder / "own.yaml", "--target", target, "--out", folder / "nothing"]
        status, _, said = call(monkeypatch, capsys, *line)
        assert (status, message in said) == (2, True), said
        assert not (folder / "nothing").exists()
