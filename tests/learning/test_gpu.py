"""What needs a CUDA device: workers on it, alone and together with workers on the CPU. No bits are promised there."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import torch

from kit.paths import SCENARIOS
from kit.placements import ADAMW, PLACEMENTS, SGD, parameters, plan_of, train_all, workers_of
from paceline.algorithms.aggregations import Parameters
from paceline.algorithms.placements import Replicated
from paceline.config import yaml
from paceline.learning.recipe import Recipe

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]


def on(device: str, plan, **more):
    """The plan's workers, on the GPU those whose device has memory of its own."""
    staged = [device == "cuda"] * plan.workers
    return workers_of(plan, device=device, staged=staged, **more)


@pytest.mark.parametrize("place", PLACEMENTS)
def test_every_placement_trains_as_on_the_cpu(place):
    """In float64, whose rounding is far below what a mistake would change."""
    results = []
    for device in ("cpu", "cuda"):
        plan = plan_of(PLACEMENTS[place], (9, 5), 10, lr=1e-3)
        workers = on(device, plan, optimizer=ADAMW, recipe=Recipe(precision="fp64"))
        train_all(plan, workers)
        results.append(parameters(workers))
    assert np.abs(results[0] - results[1]).max() < 1e-7


def test_local_steps_train_as_on_the_cpu():
    results = []
    for device in ("cpu", "cuda"):
        plan = plan_of(Replicated(), (9, 5), 10, aggregation=Parameters())
        workers = on(device, plan, optimizer=SGD, recipe=Recipe(precision="fp64"))
        train_all(plan, workers)
        results.append(parameters(workers))
    assert np.abs(results[0] - results[1]).max() < 1e-7


def test_an_offloaded_model_leaves_the_device_almost_empty():
    sizes = {}
    for place in ("ddp", "lsdp"):
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        plan = plan_of(PLACEMENTS[place], (4,), 2)
        workers = on("cuda", plan, args={"patch": 2, "dim": 512, "depth": 8, "heads": 4}, optimizer=ADAMW)
        train_all(plan, workers)
        sizes[place] = workers[0].memory()["device"]
        del workers
    assert sizes["lsdp"] < sizes["ddp"] / 2


@pytest.mark.parametrize("preset", ["sync_sgd", "local_sgd", "fsdp", "fsdp_offload", "lsdp"])
def test_a_cpu_and_a_gpu_train_together(preset, tmp_path):
    document = yaml.read_mapping(SCENARIOS / f"{preset}.yaml")
    first, second = document["cluster"]["workers"]
    document["cluster"]["workers"] = [first | {"torch_device": "cuda"}, second]
    document |= {"budget": {"steps": 20}, "report": {"every": "10 steps"}}
    (tmp_path / "mixed.yaml").write_text(yaml.dump(document))
    command = [sys.executable, "-m", "paceline", "train", "mixed.yaml", "--out", "run"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["steps"] >= 20
    assert np.isfinite(summary["train_loss"])
    assert summary["memory_measured"]["device"][0] > 0
