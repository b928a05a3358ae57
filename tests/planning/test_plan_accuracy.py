"""`paceline plan --for accuracy`: the ways of a plan, trained in virtual time until one reaches the target."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import paceline
from kit.cli import call
from paceline.config import yaml
from paceline.config.metrics import Target
from paceline.config.scenario import validate
from paceline.job import resolve
from paceline.planning import contest
from paceline.planning.answer import Answer
from paceline.planning.plan import plan
from paceline.planning.runs import Waiting

TARGET = Target.read("accuracy 0.9")
LAB: dict[str, Any] = {
    "workload": {"model": {"name": "mlp", "hidden": [32]}, "batch": 32, "optimizer": {"lr": 0.1}},
    "cluster": {
        "workers": [
            {"device": "fast", "speed": "9000 samples/s"},
            {"device": "slow", "speed": "3000 samples/s"},
        ],
        "network": {"bandwidth": "100 Mbit/s", "latency": "1 ms"},
    },
    "strategy": {"preset": "sync_sgd"},
    "budget": {"epochs": 4},
    "report": {"every": "0.25 epochs"},
}


@pytest.fixture(scope="module")
def answer() -> Answer:
    return plan(LAB, objective="accuracy 0.9", keep=["workers"])


@pytest.fixture(scope="module")
def trained(answer: Answer) -> list[list[tuple[float, int, float]]]:
    """The reports of every way, each simulated by itself to its end: (seconds, samples, accuracy)."""
    runs = [paceline.simulate(scenario) for scenario in answer.scenarios]
    return [[(line["seconds"], line["samples"], line["accuracy"]) for line in run.lines] for run in runs]


def test_the_ranking_is_that_of_training_all_to_the_end(
    answer: Answer, trained: list[list[tuple[float, int, float]]]
) -> None:
    assert answer.learning is not None
    assert answer.learning.whole
    times = [next((s for s, _, value in run if TARGET.reached(value)), None) for run in trained]
    reached = [time for time in times if time is not None]
    assert times[0] == min(reached)
    assert answer.learning.ways[0].seconds == min(reached)
    assert len(answer.learning.ways) == len(answer.rows)
    known = [way.seconds for way in answer.learning.ways.values() if way.seconds is not None]
    assert known == sorted(known)
    for number, way in answer.learning.ways.items():
        if way.seconds is not None:
            assert way.seconds == times[number]
        else:  # it was trained for as long as the first one, and has not been there
            assert way.trained >= min(reached)
            assert all(s > way.trained for s, _, value in trained[number] if TARGET.reached(value))
    assert answer.rows[0].roles[0] == "recommended"
    assert sum("recommended" in row.roles for row in answer.rows) == 1
    interval = answer.learning.ways[0].interval
    assert interval is not None
    assert interval[0] <= min(reached) <= interval[1]


def test_a_way_in_turns_has_the_bits_of_simulate(answer: Answer, trained: list[list[tuple[float, int, float]]]) -> None:
    """Two ways that are trained in turns, report by report, in one process."""
    like = resolve(answer.scenarios[0], Path())
    ways = [Waiting(answer.documents[number], TARGET, like) for number in (0, len(trained) - 1)]
    while not all(way.over for way in ways):
        for way in ways:
            if not way.over:
                way.go_on()
    assert [list(map(tuple, way.points)) for way in ways] == [trained[0], trained[-1]]


def test_a_sample_of_the_data_is_said() -> None:
    found = plan(LAB, objective="test_loss<=1.2", sample=0.5, keep=["workers", "method"])
    assert found.learning is not None
    assert "on 0.5 of the training examples" in found.learned_words[0]
    assert found.learning.ways[0].seconds is not None
    assert "seconds_to_target" in found.frame.columns


def test_the_command_writes_the_first_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("lab.yaml").write_text(yaml.dump(LAB))
    command = ["plan", "lab.yaml", "--keep", "workers", "--keep", "method", "--json", "a.json", "--for"]
    status, out, err = call(monkeypatch, capsys, *command, "accuracy", "90%")
    assert (status, err) == (0, "")
    assert "target: " in out
    assert "is the first to reach it, in " in out
    found = json.loads(Path("a.json").read_text())
    assert found["rows"][0]["seconds_to_target"] > 0
    assert found["learning"]["whole"]
    document = yaml.parse(Path("runs/plan/plan.yaml").read_text(), "plan.yaml")
    assert document == found["rows"][0]["scenario"]
    run = paceline.simulate(validate(document, "plan"))
    first = next(line["seconds"] for line in run.lines if line["accuracy"] >= 0.9)
    assert first == found["rows"][0]["seconds_to_target"]
    Path("runs/plan/plan.yaml").unlink()
    status, _, err = call(monkeypatch, capsys, *command, "accuracy", "0.999", "--set", "budget.epochs=1")
    assert status == 2
    assert "no way reaches it in 1" in err
    assert " the closest is " in err
    assert len(err.splitlines()) == 1
    assert not Path("runs/plan/plan.yaml").exists()


@pytest.mark.parametrize(
    ("changes", "effort", "why"),
    [
        ({"data": {"name": "sized", "train": 5000}}, 60, "it cannot be trained here: workload.data: data sized is"),
        ({"model": {"name": "mlp", "hidden": [8192, 8192]}, "data": "imagenet"}, 1, "training one way takes about "),
        ({}, 1e-6, "--effort ended the training before its first evaluation"),
    ],
)
def test_where_nothing_can_be_trained_accuracy_is_unknown(
    changes: dict[str, Any],
    effort: float,
    why: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("lab.yaml").write_text(yaml.dump(LAB | {"workload": LAB["workload"] | changes}))
    command = ["plan", "lab.yaml", "--for", "96%", "--effort", f"{effort} s", "--keep", "workers", "--keep", "method"]
    status, out, err = call(monkeypatch, capsys, *command)
    assert status == 0
    assert ("and --effort ends it after" in err) == (why.startswith("--effort"))
    assert f"accuracy>=0.96: not known for any way, since {why}" in out
    assert "arXiv 2310.14423" in out or "Local steps do not make an epoch shorter here." in out


def test_an_interrupt_gives_the_best_so_far(monkeypatch: pytest.MonkeyPatch) -> None:
    tell, calls = contest.Watch.tell, list[str]()

    def interrupted(self: contest.Watch, what: str) -> None:
        calls.append(what)
        if len(calls) == 6:
            raise KeyboardInterrupt
        tell(self, what)

    monkeypatch.setattr(contest.Watch, "tell", interrupted)
    found = plan(LAB, objective="99%", keep=["workers", "method"])
    assert found.learning is not None
    assert not found.learning.whole
    assert "Ctrl-C ended the training before a way had reached it; the closest is " in found.learned_words[0]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--for", "bleu", "0.3"], "--for bleu 0.3: write throughput, or a target like"),
        (["--for", "perplexity", "20"], "the scenario does not report perplexity; it reports test_loss, accuracy"),
        (["--for", "96%", "--effort", "soon"], "--effort: "),
        (["--for", "96%", "--sample", "0"], "--sample: '0' is not a share above 0% and up to 100%; write it like 10%"),
        (["--for", "96%", "--sample", "much"], "--sample: "),
        (["--out", "lab.yaml"], "--out lab.yaml: "),
        (["--json", "lab.yaml/plan.json"], "lab.yaml cannot be written to; name another place"),
        (["--figures", "lab.yaml/figures"], "lab.yaml cannot be written to; name another place"),
    ],
)
def test_what_cannot_be_asked_for(
    options: list[str],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("lab.yaml").write_text(yaml.dump(LAB))
    status, _, err = call(monkeypatch, capsys, "plan", "lab.yaml", *options)
    assert (status, len(err.splitlines())) == (2, 1)
    assert said in err
