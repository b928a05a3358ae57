"""Costs of a user's model that a profile keeps: what is timed from them, and when they are refused."""

from __future__ import annotations

import shutil

import pytest

from kit.cli import scenario
from kit.paths import TESTS
from paceline import simulate
from paceline.config import yaml
from paceline.config.measured_cost import MeasuredCost
from paceline.config.profile import Profile, save_profile
from paceline.config.scenario import load
from paceline.job import resolve
from paceline.program.errors import ScenarioError


def test_a_timing_only_run_takes_costs_from_the_profile(tmp_path):
    shutil.copy(TESTS / "kit" / "blocks.py", tmp_path / "my_blocks.py")
    model = {"name": "my_blocks:make", "kind": "gpt", "tied": True}
    document = scenario(2, model, {"preset": "fsdp", "placement": {"sharded": {"unit_bytes": 1}}}, 3)
    path = tmp_path / "s.yaml"
    path.write_text(yaml.dump(document))
    counted = simulate(path, timing_only=True)

    problem = resolve(load(path), tmp_path).problem
    kept = {problem.cost_key: MeasuredCost.of(problem.cost)}
    save_profile(tmp_path / "p.yaml", Profile(devices={}, costs=kept))
    document["cluster"]["profile"] = "p.yaml"
    path.write_text(yaml.dump(document))
    assert resolve(load(path), tmp_path).problem.cost == problem.cost
    assert simulate(path).summary["seconds"] == counted.summary["seconds"]

    (tmp_path / "my_blocks.py").write_text("raise RuntimeError('is not loaded')")
    again = simulate(path, timing_only=True)
    assert again.summary["seconds"] == counted.summary["seconds"]


def test_costs_of_older_code_are_refused(tmp_path):
    shutil.copy(TESTS / "kit" / "blocks.py", tmp_path / "old_blocks.py")
    document = scenario(1, {"name": "old_blocks:make", "kind": "deep"}, {"preset": "sync_sgd"}, 1)
    path = tmp_path / "s.yaml"
    path.write_text(yaml.dump(document))
    problem = resolve(load(path), tmp_path).problem
    measured = MeasuredCost.of(problem.cost)
    units = [unit.model_copy(update={"parameters": unit.parameters + 1}) for unit in measured.units]
    save_profile(tmp_path / "p.yaml", Profile(devices={}, costs={problem.cost_key: MeasuredCost(units=tuple(units))}))
    document["cluster"]["profile"] = "p.yaml"
    path.write_text(yaml.dump(document))
    with pytest.raises(ScenarioError, match=r"^workload: the model's units have .* when it was measured; if its code"):
        simulate(path)
