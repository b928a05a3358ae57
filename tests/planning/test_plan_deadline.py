"""`paceline plan --deadline`: ways that are too slow are left out, and the simplest of the others is taken."""

from __future__ import annotations

from math import inf
from pathlib import Path
from typing import Any

import pytest

from kit.cli import call
from paceline.config import yaml
from paceline.planning.answer import Answer
from paceline.planning.plan import plan
from paceline.program.errors import ScenarioError

LAB: dict[str, Any] = {
    "workload": {"model": {"name": "mlp", "hidden": [256]}, "batch": 32, "optimizer": {"lr": 0.1}},
    "cluster": {
        "workers": [
            {"device": "fast", "speed": "9000 samples/s"},
            {"device": "slow", "speed": "3000 samples/s"},
        ],
        "network": {"bandwidth": "100 Mbit/s", "latency": "1 ms"},
    },
    "strategy": {"preset": "sync_sgd"},
    "budget": {"epochs": 4},
}


@pytest.fixture(scope="module")
def free() -> Answer:
    return plan(LAB, keep=["workers"])


def test_the_fewest_local_steps_that_meet_it_are_taken(free: Answer) -> None:
    front = sorted((row for row in free.rows if "front" in row.roles), key=lambda row: row.training)
    assert len({row.way.steps for row in front}) > 3
    for allowed in front:
        deadline = allowed.training * 1.001
        answer = plan(LAB, keep=["workers"], deadline=deadline)
        fewest = min(row.way.steps for row in front if row.training <= deadline)
        best = answer.rows[0]
        assert best.way.steps == fewest
        assert best.training <= deadline
        assert not any(row.late for row in answer.rows if "front" in row.roles)
        assert [row.late for row in answer.rows] == [row.training > deadline for row in answer.rows]
        if best.way.steps > 1:
            assert "sync after every step takes" in " ".join(reason.text for reason in answer.reasons)
    late = [reason.text for reason in plan(LAB, keep=["workers"], deadline=front[0].training * 1.001).reasons]
    assert any(text.endswith(", which is too long for the deadline") for text in late)


def test_one_that_is_long_leaves_the_fastest_way_without_local_steps(free: Answer) -> None:
    best = plan(LAB, keep=["workers"], deadline=1e6).rows[0]
    assert best.way.steps == 1
    assert best.epoch <= min(row.epoch for row in free.rows if row.way.steps == 1) * 1.05


def test_noise_may_make_it_too_late() -> None:
    noisy = LAB | {"cluster": LAB["cluster"] | {"noise": {"sigma": 0.5}}}
    fastest = min(row.training for row in plan(noisy, keep=["workers", "method"]).rows)
    answer = plan(noisy, keep=["workers", "method"], deadline=fastest * 1.0001)
    assert "times vary here, and training may take " in answer.note


def test_a_target_is_to_be_reached_by_then(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("lab.yaml").write_text(yaml.dump(LAB | {"report": {"every": "0.25 epochs"}}))
    command = ["plan", "lab.yaml", "--keep", "workers", "--keep", "method", "--for", "accuracy", "90%", "--deadline"]
    status, _, err = call(monkeypatch, capsys, *command, "100 ms")
    assert status == 2
    assert "--for accuracy>=0.9: no way reaches it in --deadline 100 ms; the closest is " in err
    assert err.endswith("write what can be reached, or a longer --deadline\n")
    assert not Path("runs").exists()
    status, out, _ = call(monkeypatch, capsys, *command, "20 s")
    assert status == 0
    assert "is the first to reach it, in " in out
    untrained = ["--set", "workload.data={name: sized, train: 1500}"]
    status, _, err = call(monkeypatch, capsys, *command, "10 ms", *untrained)  # of the whole training, then
    assert status == 2
    assert "--deadline 10 ms: no way trains 4 epochs in that time; the closest is " in err
    status, _, err = call(monkeypatch, capsys, *command, "10 s", "--sample", "50%")
    assert (status, len(err.splitlines())) == (2, 1)
    assert "drop one of them" in err


def test_nothing_that_is_fast_enough_is_said_with_what_is_closest(free: Answer) -> None:
    fastest = min(row.training for row in free.rows)
    with pytest.raises(ScenarioError) as caught:
        plan(LAB, keep=["workers"], deadline=fastest * 0.9)
    assert "the closest is local_sgd (steps 32, " in str(caught.value)
    assert "write a longer --deadline, or a smaller budget.epochs" in str(caught.value)
    assert plan(LAB, keep=["workers"], deadline=inf).rows[0].epoch == free.rows[0].epoch
