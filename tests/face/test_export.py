"""Models out of runs and into them: `paceline export`, `Run.model` and `workload.init`."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import paceline
from kit import users
from kit.cli import MLP, call, scenario
from kit.learning import DIGITS
from paceline.config import yaml
from paceline.config.scenario import load
from paceline.job import resolve
from paceline.learning.buffers import Buffers, averaged
from paceline.learning.evaluation import PIECE, Evaluation
from paceline.program.errors import ScenarioError
from paceline.resuming import resumption

SAVED = {"checkpoint": {"every": "1 round"}, "report": {"every": "1 round"}}
POINTS = {"model": "kit.users:tied", "data": "kit.users:points"}
SMALL_UNITS = {"wire": "fp32", "unit_bytes": 1}

pytestmark = pytest.mark.usefixtures("torch_as_it_was")


def write(folder: Path, name: str, document: dict) -> Path:
    path = folder / f"{name}.yaml"
    path.write_text(yaml.dump(document))
    return path


def tied(strategy: dict, workers: int = 2, **more: object) -> dict:
    """A scenario of two rounds whose model has tied and frozen parameters and buffers."""
    made = scenario(workers, MLP, strategy, 2, **{**SAVED, **more})
    made["workload"] = {**made["workload"], **POINTS}
    return made


@pytest.fixture
def seen(monkeypatch) -> dict:
    """What the workers' models answered in the last evaluation: (places in the test set, outputs), by the first place."""
    found, judge = {}, Evaluation._judge

    def judged(self, outputs, chosen):
        found[chosen[0]] = chosen, outputs.clone()  # the run's last evaluation comes last
        return judge(self, outputs, chosen)

    monkeypatch.setattr(Evaluation, "_judge", judged)
    return found


def fsdp(workers: int = 3) -> dict:
    strategy = {"preset": "fsdp", "placement": {"sharded": {"unit_bytes": 1}}}
    return scenario(workers, MLP, strategy, 2, **SAVED)


RUNS = {
    "local": (lambda: tied({"preset": "local_sgd", "H": 2}), True),
    "sharded": (lambda: tied({"preset": "fsdp"}, 3), True),
    "units": (fsdp, False),
    "lshdp": (lambda: scenario(2, MLP, {"preset": "lshdp", "total": 16}, 2, **SAVED), False),
    "offloaded": (lambda: tied({"preset": "lsdp"}), True),
}


def test_a_model_loaded_from_the_export_answers_like_the_trained_workers(tmp_path, monkeypatch, capsys, seen):
    """In a plain torch module, with strict names, to the last bit; whatever a worker keeps of it."""
    for name, (make, own) in RUNS.items():
        seen.clear()
        path = write(tmp_path, name, make())
        run = paceline.simulate(path, out=tmp_path / name)
        monkeypatch.setitem(sys.modules, "mpi4py", None)
        status, out, err = call(
            monkeypatch, capsys, "export", tmp_path / name, "--out", tmp_path / "m" / f"{name}.safetensors"
        )
        assert (status, err) == (0, "")
        assert "tensors" in out
        tensors = load_file(tmp_path / "m" / f"{name}.safetensors")
        fresh = (
            users.tied((users.WIDTH,), users.CLASSES) if own else resolve(load(path), tmp_path).problem.fresh_model()
        )
        fresh.load_state_dict(tensors)
        x = torch.from_numpy(users.points()[2] if own else DIGITS.test_x)
        model = run.model()
        assert not model.training
        for places, outputs in seen.values():
            inputs = x[places].split(PIECE if name == "local" else len(places))
            for module in (fresh.eval(), model):
                with torch.no_grad():
                    assert torch.equal(torch.cat([module(part) for part in inputs]), outputs), name
