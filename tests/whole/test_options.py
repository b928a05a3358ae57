"""Every option can be set in a scenario, and works in training and in simulation with the same numbers."""

from __future__ import annotations

from pathlib import Path
from shutil import rmtree
from typing import Any

import numpy as np
import torch

from kit.cli import paceline, read
from kit.learning import DIGITS
from kit.paths import DOCS
from paceline import simulate
from paceline.algorithms.rounds import State
from paceline.config import yaml
from paceline.config.lr_schedule import CosineStepSpec, MultistepSpec
from paceline.config.optimizers import AdamWSpec, SGDSpec
from paceline.config.scenario import Budget, CheckpointSpec, Report, Scenario, TrainSpec, load
from paceline.config.workload import Augmentation, RandAugment, ResizedCrop, Workload
from paceline.job import resolve
from paceline.learning.arrays import KEYS
from paceline.learning.npz import KEYS as FILE_KEYS
from paceline.program.outcome import Hooks
from paceline.records import checkpoints
from paceline.replicas import fingerprints
from paceline.sim.engine import simulate as run_programs

FILE = Path(__file__).parent / "every_option.yaml"
OWN = """
from torch import nn

def make(input_shape, classes, momentum=0.1):
    norm = nn.BatchNorm1d(24, momentum=momentum)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 24), norm, nn.ReLU(), nn.Linear(24, classes))
"""
SGDS = {"name": "sgd", "lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 1e-4, "decay": "all", "clip": 2}
STEPS = {
    "name": "multistep",
    "milestones": [1.5, 2],
    "gamma": 0.2,
    "warm_up": 0.5,
    "warm_up_from": 0.02,
    "final_lr": 0.01,
}
LEFT_OUT = {
    # Only the second scenario has init, since a file of weights fits one model, and batch, in place of total_batch.
    Workload: {"init", "batch"},
    TrainSpec: {"phantom", "emulate_network"},  # one excludes emulate, the other needs root; tests/runtime/test_star.py
    Budget: {"steps", "rounds"},  # the budget is one of the three
    # Not an option; what faults do is in tests/sim/ and tests/runtime/; for `validate`, see tests/studies/; callbacks
    # change nothing: tests/face/test_callbacks.py.
    Scenario: {"recorded", "faults", "validation", "callbacks"},
}


def documents() -> dict[str, dict]:
    """The scenario, and one with the other optimizer, learning rate, rule and checkpoints.

    Its model is the user's own, with an argument that is null. Data and initial weights are named by relative paths.
    """
    adamw, sgd = yaml.read_mapping(FILE), yaml.read_mapping(FILE)
    sgd["workload"] |= {"optimizer": SGDS, "lr_schedule": STEPS, "loaders": 1, "batch": 16}
    sgd["strategy"] = {
        "preset": "qsr",
        "alpha": 0.15,
        "power": 3.0,
        "init_t": "0.5 epochs",
        "init_h": 2,
    }  # the cubic rule
    sgd["checkpoint"] |= {"optimizer": "none"}
    del sgd["workload"]["total_batch"]
    sgd["workload"]["augment"] = {
        "crop": 1,
        "flip": True,
        "mixup": 1,
    }  # of its data it is not known how they follow from bytes
    sgd["workload"] |= {"model": {"name": "own_model:make", "momentum": None}, "data": "own.npz", "init": "own.pt"}
    return {"adamw": adamw, "sgd": sgd}


def test_every_key_is_said():
    """A new key must be entered in the file above, or be left out with a reason."""
    adamw, sgd = documents().values()
    work = adamw["workload"]
    said = [
        *((Scenario, adamw), (Workload, work), (AdamWSpec, work["optimizer"]), (CosineStepSpec, work["lr_schedule"])),
        *((SGDSpec, sgd["workload"]["optimizer"]), (MultistepSpec, sgd["workload"]["lr_schedule"])),
        *((Augmentation, work["augment"]), (Budget, adamw["budget"]), (Report, adamw["report"])),
        *((ResizedCrop, work["augment"]["resized_crop"]), (RandAugment, work["augment"]["randaugment"])),
        *((CheckpointSpec, adamw["checkpoint"]), (TrainSpec, adamw["train"])),
    ]
    for section, keys in said:
        assert section.model_fields.keys() - LEFT_OUT.get(section, set()) == keys.keys(), section.__name__


def continued(folder: Path, name: str, directory: Path, settings: list[str]) -> tuple[str, int]:
    """(hash of the parameters, steps) where a simulation goes on from a run's second checkpoint."""
    job = resolve(load(folder / f"{name}.yaml", settings), folder)
    saved = sorted((directory / "checkpoints").glob("round_*"))[1]
    workers = job.problem.workers(job.plan, range(2), shared_process=True)
    for w in workers:
        w.restore(checkpoints.resumed(saved, w.index, job.scenario.checkpoint.optimizer, w.snapshot()))
    state = State(**checkpoints.read_meta(saved)["state"])
    hooks = Hooks()
    outcomes = run_programs(job.programs(workers, state), job.timing, hooks)
    return fingerprints([w.digest() for w in workers], False)["params_sha256"], outcomes[0].result.step


def write_weights(path: Path) -> None:
    """Weights of the user's own model, which no seed of a scenario gives."""
    names: dict[str, Any] = {}
    exec(OWN, names)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(12)
        torch.save(names["make"]((64,), 10).state_dict(), path)


def test_every_option_works_in_both_worlds(tmp_path, monkeypatch):
    found = documents()
    (tmp_path / "own_model.py").write_text(OWN)
    arrays = (getattr(DIGITS, key) for key in KEYS)
    np.savez(tmp_path / "own.npz", **dict(zip(FILE_KEYS, arrays, strict=True)))
    weights = tmp_path / "own.pt"
    write_weights(weights)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for name, document in found.items():
        (tmp_path / f"{name}.yaml").write_text(yaml.dump(document))
    paceline("train", *(f"{name}.yaml" for name in found), "--out", "real", cwd=tmp_path)
    monkeypatch.chdir(elsewhere)
    for name in found:
        full = simulate(tmp_path / f"{name}.yaml", out=tmp_path / "simulated" / name)
        clock = simulate(tmp_path / f"{name}.yaml", timing_only=True)
        assert list(clock.metrics["seconds"]) == list(full.metrics["seconds"]), name
        assert list(clock.metrics.columns) == list(full.metrics.columns), name
        (virtual, predicted), (real, measured) = read(tmp_path / "simulated" / name), read(tmp_path / "real" / name)
        assert [len(line["step_losses"]) for line in predicted] == [0] + [line["H"] for line in predicted[1:]], name
        assert [{**line, "seconds": 0} for line in predicted] == [{**line, "seconds": 0} for line in measured], name
        assert virtual["params_sha256"] == real["params_sha256"], name
        again = simulate(tmp_path / "real" / name / "scenario.yaml")
        assert again.summary["params_sha256"] == real["params_sha256"], f"{name}: the record is not the run"
        steps = [(line["step"], "test_loss" in line, "m_norm" in line) for line in predicted]
        assert (steps[0], steps[-1]) == ((0, True, True), (24, True, True)), name
        assert (False, True) in {(tested, normed) for _, tested, normed in steps}, "lines without an evaluation"
        folders = [sorted((tmp_path / run / name / "checkpoints").glob("round_*")) for run in ("real", "simulated")]
        assert [f.name for f in folders[0]] == [f.name for f in folders[1]], name
        kept = [{k for k in checkpoints.read_worker(folders[0][1], w) if k.startswith("optimizer")} for w in (0, 1)]
        assert [len(names) for names in kept] == [3 if name == "adamw" else 0, 0], "shared, and none"
        # Resumed in a process of its own for each worker, or in a simulation: the same again.
        for later in folders[0][2:]:
            rmtree(later)
        settings = ["budget.epochs=3"]
        weights.rename(tmp_path / "away")  # a resumed run needs no initial weights
        paceline("train", "--resume", f"../real/{name}", "--set", *settings, cwd=elsewhere)
        (tmp_path / "away").rename(weights)
        sha256, step = continued(tmp_path, name, tmp_path / "simulated" / name, settings)
        assert (read(tmp_path / "real" / name)[0]["params_sha256"], 36) == (sha256, step)


def test_every_key_is_documented():
    text = (DOCS / "scenarios.md").read_text()
    for section in (
        Scenario,
        Workload,
        SGDSpec,
        AdamWSpec,
        Augmentation,
        ResizedCrop,
        RandAugment,
        Budget,
        Report,
        CheckpointSpec,
        TrainSpec,
        CosineStepSpec,
        MultistepSpec,
    ):
        for key in section.model_fields.keys() - {"recorded", "name"}:
            assert f"`{key}`" in text or f"{key}: " in text, f"{section.__name__}.{key}"
