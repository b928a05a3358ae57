"""How a run's recoveries are recorded."""

from __future__ import annotations

import json

import pytest

from kit.cli import MLP, scenario
from paceline import simulate
from paceline.analysis.run import Run
from paceline.config import yaml
from paceline.program.errors import ScenarioError
from paceline.records.recoveries import Recovery, numbers, recoveries_in

LOSS = Recovery(how="restart", lost=(2,), workers=2, at=3.5, from_round=4, redone=1, seconds=6.0, start=5.0)


def test_an_entry_reads_back():
    document = json.loads(json.dumps(LOSS.noted()))
    assert document["lost"] == [2]
    assert Recovery.model_validate(document) == LOSS
    history = [{"from_round": 0}, {"from_round": 4, "recovery": document}, {"from_round": 8}]
    assert recoveries_in(history) == [LOSS]


def test_the_workers_after_recoveries():
    shrunk = Recovery(how="shrink", lost=(1,), workers=3, at=1.0, from_round=3, redone=0, seconds=1.0)
    again = shrunk.model_copy(update={"how": "restart", "lost": (0,)})
    without = again.model_copy(update={"lost": (3,), "workers": 2})  # which could not be started
    assert numbers(4, [shrunk, again]) == [0, 2, 3]
    assert numbers(4, [shrunk, again, without]) == [0, 2]


@pytest.mark.parametrize(("key", "value"), [("how", "luck"), ("at", -1.0), ("workers", 0), ("lost", [-1]), ("more", 1)])
def test_a_summary_with_an_entry_that_no_run_wrote(key, value, tmp_path):
    (tmp_path / "s.yaml").write_text(yaml.dump(scenario(2, MLP, {"preset": "local_sgd"}, 3)))
    simulate(tmp_path / "s.yaml", timing_only=True, out=tmp_path / "run")
    path = tmp_path / "run" / "summary.json"
    summary = json.loads(path.read_text())
    path.write_text(json.dumps(summary | {"recoveries": [LOSS.noted()]}))
    assert Run.load(tmp_path / "run").summary["recoveries"][0]["lost"] == [2]
    path.write_text(json.dumps(summary | {"recoveries": [LOSS.noted() | {key: value}]}))
    with pytest.raises(ScenarioError, match=r"summary\.json: recoveries"):
        Run.load(tmp_path / "run")
