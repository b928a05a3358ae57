"""The `recovery` section, its flags, and the decision how a run goes on."""

from __future__ import annotations

import pytest

from kit.cli import MLP, call, scenario
from paceline.config import yaml
from paceline.config.scenario import RecoverySpec, load
from paceline.program.errors import ScenarioError
from paceline.recovering import how_to_go_on


@pytest.mark.parametrize(
    ("recovery", "words"),
    [
        ({"max_restarts": -1}, "recovery.max_restarts: input should be greater than or equal to 0, found -1"),
        ({"max_restarts": True}, "recovery: max_restarts is True; write a number"),
        ({"max_restarts": 1, "min_workers": 0}, "recovery.min_workers: 0: write all, or how many workers must remain"),
        ({"max_restarts": 1, "min_workers": "2"}, "recovery.min_workers: '2': write all, or how many"),
        (
            {"max_restarts": 1, "min_workers": 5},
            "recovery.min_workers: 5, but the number of workers is 3; write 1 to 3",
        ),
        ({"min_workers": 2}, "recovery: min_workers needs max_restarts or shrink"),
        (
            {"shrink": True},
            "recovery: shrink goes on with fewer workers; say how many must remain, like",
        ),
        ({"max_restarts": 1, "respawn": True}, "recovery: respawn needs shrink: true"),
        ({"detection": 0.1}, "recovery.detection: 0.1 is not a quantity with a unit"),
        ({"restarts": 1}, "recovery.restarts: unknown key; did you mean 'max_restarts'?"),
    ],
)
def test_what_makes_no_sense_is_refused(recovery, words, tmp_path, monkeypatch, capsys):
    path = tmp_path / "s.yaml"
    path.write_text(yaml.dump(scenario(3, MLP, {"preset": "local_sgd"}, 3) | {"recovery": recovery}))
    status, out, err = call(monkeypatch, capsys, "simulate", path, "--timing-only", "--out", tmp_path / "run")
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert words in err
    assert not (tmp_path / "run").exists()


def test_flags_stand_for_settings(tmp_path, monkeypatch, capsys):
    path = tmp_path / "s.yaml"
    path.write_text(yaml.dump(scenario(3, MLP, {"preset": "local_sgd"}, 3)))
    flags = ["--max-restarts", 2, "--min-workers", 2, "--shrink"]
    line = ["simulate", path, "--timing-only", "--out", tmp_path / "run", *flags]
    assert call(monkeypatch, capsys, *line)[0] == 0
    assert load(tmp_path / "run" / "scenario.yaml").recovery == RecoverySpec(max_restarts=2, min_workers=2, shrink=True)
    status, _, err = call(monkeypatch, capsys, *line, "--force", "--no-shrink", "--max-restarts", 0)
    assert (status, "min_workers needs max_restarts or shrink" in err) == (2, True)
    assert call(monkeypatch, capsys, "train", path, "--max-restarts", "-1")[0] == 2


def test_how_many_must_remain():
    assert RecoverySpec().least(4) == 4
    assert RecoverySpec(max_restarts=1, min_workers=2).least(4) == 2
    with pytest.raises(ScenarioError, match="min_workers: 2, but the number of workers is 1; write 1, or all"):
        RecoverySpec(max_restarts=1, min_workers=2).least(1)


SHARDED = "sharded parameters resume on as many workers as wrote them"
BOTH = {"max_restarts": 2, "min_workers": 2, "shrink": True}


@pytest.mark.parametrize(
    ("spec", "lost", "restarts", "sharded", "gone", "expected"),
    [
        ({}, [1], 0, False, [], ("none", "max_restarts is 0")),
        ({"max_restarts": 2}, [], 1, False, [], ("restart", "")),
        ({"max_restarts": 2}, [0], 2, False, [], ("none", "the run has restarted 2 times (max_restarts)")),
        ({"max_restarts": 2}, [1], 0, True, [], ("restart", "")),
        ({"max_restarts": 2}, [1], 0, False, [1], ("none", "3 workers remain, and min_workers is 4")),
        (BOTH, [1], 0, False, [], ("shrink", "")),
        (BOTH, [1, 3], 2, False, [], ("shrink", "")),
        (BOTH, [0], 0, False, [], ("restart", "worker 0 keeps the run's records")),
        (BOTH, [], 0, False, [], ("restart", "it is not known which worker was lost")),
        (BOTH, [1], 0, True, [], ("restart", "a part of the sharded parameters is lost")),
        (BOTH, [1, 2, 3], 0, False, [], ("restart", "1 worker remains, and min_workers is 2")),
        (BOTH, [0, 1], 0, False, [0, 1], ("restart", "worker 0 keeps the run's records")),
        (
            BOTH,
            [1],
            0,
            True,
            [1],
            (
                "none",
                "a part of the sharded parameters is lost; sharded parameters resume on as many workers as wrote them",
            ),
        ),
        (
            {"shrink": True, "min_workers": 4},
            [2],
            0,
            False,
            [],
            ("none", "3 workers remain, and min_workers is 4; max_restarts is 0"),
        ),
    ],
)
def test_how_a_run_goes_on(spec, lost, restarts, sharded, gone, expected):
    assert how_to_go_on(RecoverySpec(**spec), lost, 4, restarts, sharded, gone) == expected
