"""Callbacks: what they are told and in which order, that they change nothing, and how a mistake in one is told.

tests/whole/test_same_numbers.py compares what they are told in simulations and in real runs.
"""

from __future__ import annotations

import random
import sys
from typing import Any

import numpy as np
import pytest
import torch

import paceline
from kit.cli import MLP, call, scenario
from kit.told import Told, timeless
from paceline import Callback, ScenarioError
from paceline.config import yaml
from paceline.program.callbacks import Callbacks
from paceline.records.recorder import Recorder
from paceline.tracking import Tracking, callbacks_of

SMALL = scenario(2, MLP, {"preset": "local_sgd", "H": 3}, 4) | {"checkpoint": {"every": "2 rounds"}}
PATH = "kit.told:Told"


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "small.yaml"
    path.write_text(yaml.dump(SMALL))
    return path


class Reckless(Callback):
    """Tries to change what it gets, and takes random numbers from everywhere."""

    def on_start(self, start):
        with pytest.raises(TypeError):
            start.scenario["seed"] = 6
        with pytest.raises(TypeError):
            start.scenario["cluster"]["workers"][0]["speed"] = 1

    def on_report(self, line):
        with pytest.raises(TypeError):
            line["train_loss"] = 0.0

    def on_round(self, record):
        with pytest.raises(AttributeError):
            record.loss = 0.0
        torch.rand(7)
        np.random.rand(7)
        random.random()


def test_told_in_order_and_nothing_changes(file, tmp_path):
    """Report, round and checkpoint of a round come in this order. The report lines are those of the run's record."""
    kept = Told()
    with_them = paceline.simulate(file, out=tmp_path / "with", callbacks=[kept, Reckless()])
    without = paceline.simulate(file, out=tmp_path / "without")
    assert with_them.summary["params_sha256"] == without.summary["params_sha256"]
    assert with_them.summary["seconds"] == without.summary["seconds"]
    one, two = ["on_round"], ["on_report", "on_round", "on_checkpoint"]
    assert [method for method, _ in kept.said] == ["on_start", *one, *two, *one, *two, "on_end"]
    assert [value for method, value in kept.said if method == "on_report"] == without.metrics.to_dict("records")
    rounds = [value for method, value in kept.said if method == "on_round"]
    assert [(r["round"], r["step"], r["H"], r["samples"]) for r in rounds] == [
        (n, 3 * n, [3, 2], 40) for n in (1, 2, 3, 4)
    ]
    assert sum(r["duration"] for r in rounds) == pytest.approx(rounds[-1]["seconds"])
    assert rounds[-1]["seconds"] == without.summary["seconds"]
    assert sum(r["bytes"] for r in rounds) < without.summary["bytes_per_worker"][0], "evaluation is left out"
    mean = (rounds[0]["loss"] + rounds[1]["loss"]) / 2
    assert mean == pytest.approx(without.metrics["train_loss"][0])


def test_who_overrides_one_method_costs_no_other():
    """Without an on_round, interpreters get no hook and count nothing for it."""

    class Ends(Callback):
        def on_end(self, summary):
            pass

    def hook(*callbacks: Callback) -> Any:
        recorder = Recorder(None, callbacks=Callbacks([("", each) for each in callbacks]))
        return Tracking(recorder, None, virtual=True).hook  # type: ignore[arg-type]

    assert hook() is hook(Ends()) is None
    assert hook(Ends(), Told()) is not None


@pytest.mark.parametrize("recovery", [{"max_restarts": 1}, {"shrink": True, "min_workers": 1}])
def test_after_a_lost_worker_the_run_starts_again_from_a_round(tmp_path, recovery):
    """What is told behind the last `on_start` of a round is what the record has."""
    lost = SMALL | {"recovery": recovery, "faults": [{"name": "loss", "worker": 1, "at": "3 rounds"}]}
    path, kept = tmp_path / "lost.yaml", Told()
    path.write_text(yaml.dump(lost))
    run = paceline.simulate(path, out=tmp_path / "run", callbacks=[kept])
    starts = [value for method, value in kept.said if method == "on_start"]
    assert starts == [[True, 0, 0], [True, 2, 6] if "max_restarts" in recovery else [True, 3, 9]]
    rounds = [value["round"] for method, value in kept.said if method == "on_round"]
    assert rounds == ([1, 2, 3, 3, 4] if "max_restarts" in recovery else [1, 2, 3, 4])
    lines = [value for method, value in kept.said if method == "on_report"]
    assert lines == run.metrics.to_dict("records")


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        (
            {"name": PATH, "fails": "on_start"},
            "callbacks[0]: kit.told:Told: on_start failed: RuntimeError: on_start fails",
        ),
        (
            {"name": PATH, "fails": "on_round"},
            "callbacks[0]: kit.told:Told: on_round failed: RuntimeError: on_round fails",
        ),
        ({"name": PATH, "fails": "on_end"}, "callbacks[0]: kit.told:Told: on_end failed: RuntimeError: on_end fails"),
        ({"name": PATH, "fails": "__init__"}, "callbacks[0]: fails as it is made"),
        ({"name": PATH, "fail": "on_end"}, "callbacks[0].fail: unknown argument; did you mean 'fails'?"),
        ({"name": PATH, "write": 3}, "callbacks[0].write: 3: write true or false"),
        ("kit.told:Tol", "callbacks[0]: callback 'kit.told:Tol': kit.told has no 'Tol'; did you mean"),
        ("kit.told:plain", "callbacks[0]: callback 'kit.told:plain': argument value has no type that a scenario can"),
        ("kit.cli:call", "callbacks[0]: callback 'kit.cli:call': argument monkeypatch has no type"),
        ("tensorbord", "callbacks[0]: unknown name 'tensorbord'; write one of tensorboard, wandb, package.module:Name"),
        ({"fails": "x"}, "callbacks[0]: has no name; write one of tensorboard, wandb, package.module:Name"),
        ({"name": "tensorboard", "foldr": "x"}, "callbacks[0].foldr: unknown key; did you mean 'folder'?"),
        (
            {"name": "tensorboard", "every": 0},
            "callbacks[0].every: input should be greater than or equal to 1, found 0",
        ),
        ({"name": "wandb", "module": "no_such_tracker"}, "pip install no_such_tracker"),
        ({"name": "wandb", "module": "kit.cli"}, "callbacks[0]: kit.cli has no init; a tracker has init, log, finish"),
    ],
)
def test_a_mistake_is_one_line(file, tmp_path, monkeypatch, capsys, entry, words):
    """Status 2, and where the callback could not be made nothing is written."""
    setting = f"callbacks={yaml.in_line([entry])}"
    status, _, err = call(monkeypatch, capsys, "simulate", file, "--out", tmp_path / "run", "--set", setting)
    assert status == 2
    assert words in err
    assert err.count("\n") == 1
    fails = isinstance(entry, dict) and str(entry.get("fails", "")).startswith("on_")
    assert (tmp_path / "run").exists() == fails


def test_without_the_extra_a_line_says_what_to_install(file, tmp_path, monkeypatch, capsys):
    for name in ("tensorboard", "wandb"):
        monkeypatch.setitem(sys.modules, name, None)  # as if it were not installed
        for command in ("simulate", "train"):
            given = (command, file, "--out", tmp_path / "run", "--set", f"callbacks=[{name}]")
            status, _, err = call(monkeypatch, capsys, *given)
            assert (status, err) == (
                2,
                f"paceline: callbacks[0]: needs the package {name}, which is not installed: "
                f"pip install 'paceline[{name}]'\n",
            )
    assert not (tmp_path / "run").exists()


def test_what_python_may_pass(file):
    """Objects, and what a scenario writes; a training's rank 0 makes its own objects, so it takes the latter only."""
    told = callbacks_of(paceline.config.scenario.load(file), None, [Told(), {"name": PATH, "write": False}, PATH])
    assert told.by_round
    for wrong, words in (
        ("tensorboard", "callbacks is 'tensorboard'; write a list, like callbacks=['tensorboard']"),
        (Told(), "write a list"),
        ([Told], "callbacks[0]: is a class; make one, like Told()"),
        ([3], "callbacks[0]: 3: "),
    ):
        with pytest.raises(ScenarioError) as error:
            paceline.simulate(file, callbacks=wrong)
        assert words in str(error.value)
    with pytest.raises(ScenarioError, match=r"callbacks\[0\]: is an object.*{'name': 'kit.told:Told'}"):
        paceline.train(file, callbacks=[Told()])


def test_a_sweep_tells_them_only_when_asked(file, tmp_path):
    settings = [f"callbacks={yaml.in_line([{'name': PATH, 'write': True}])}"]
    grid = {"strategy.H": [2, 3]}
    options: dict[str, Any] = {"settings": settings, "jobs": 1, "runs": tmp_path / "points"}
    quiet = paceline.sweep(file, grid, out=tmp_path / "quiet.csv", **options)
    assert not list((tmp_path / "points").glob("*.told"))
    (tmp_path / "points").rename(tmp_path / "before")
    told = paceline.sweep(file, grid, out=tmp_path / "told.csv", callbacks=True, **options)
    assert told["seconds"].tolist() == quiet["seconds"].tolist()
    assert len(list((tmp_path / "points").glob("*.told"))) == 2


def test_a_loop_of_ones_own_tells_them():
    kept = Told()
    model = torch.nn.Linear(3, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    sync = paceline.LocalSync(model, optimizer, "local_sgd", H=2, steps=5, batch=4, examples=20, callbacks=[kept])
    while not sync.finished:
        loss = model(torch.ones(4, 3)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        sync.step(loss)
    rounds = [timeless(value) for method, value in kept.said if method == "on_round"]
    assert [(r["round"], r["step"], r["H"]) for r in rounds] == [(1, 2, [2]), (2, 4, [2]), (3, 5, [1])]
    method, summary = kept.said[-1]
    assert (method, summary["epochs"]) == ("on_end", 1.0)


def test_explained_like_any_other(monkeypatch, capsys):
    _, out, _ = call(monkeypatch, capsys, "explain", PATH)
    assert "kit.told:Told, a callback" in out
    assert "the method that fails" in out
    _, out, _ = call(monkeypatch, capsys, "explain", "tensorboard")
    assert "tensorboard, a choice of callbacks" in out
