"""What needs a CUDA device: workers on it, alone and together with workers on the CPU. No bits are promised there."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import torch

from kit.paths import SCENARIOS
from kit.placements import ADAMW, PLACEMENTS, SGD, VIT, parameters, plan_of, train_all, workers_of
from paceline.algorithms.aggregations import Parameters
from paceline.algorithms.placements import Offloaded, Replicated, Sharded, ShardedOffloaded
from paceline.config import yaml
from paceline.learning.recipe import Recipe

DROPOUT = VIT | {"dropout": 0.2}
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


@pytest.mark.parametrize("aggregation", [None, Parameters()])
def test_fp16_tries_steps_again_and_learns_as_fp32_does(aggregation):
    """The first scale overflows. Later the parameters are as near those of fp32 as fp16 can be."""
    place, found = Replicated(overlap=False), {}
    for precision in ("fp32", "fp16"):
        recipe = Recipe(precision=precision, loss_scale=2.0**40 if precision == "fp16" else None)
        plan = plan_of(place, (16, 16), 10, lr=0.01, aggregation=aggregation)
        workers = on("cuda", plan, optimizer=SGD, recipe=recipe)
        train_all(plan, workers)
        found[precision] = parameters(workers)
    for w in workers:
        scale, _ = w.snapshot()["loss_scale"]
        assert 1 <= scale < 2.0**40
    assert 0 < np.abs(found["fp16"] - found["fp32"]).max() < 0.02


def test_a_retried_step_draws_the_same_dropout_on_the_gpu():
    """Two workers whose first scales differ end with the same scale, parameters and random streams."""
    plan = plan_of(Replicated(overlap=False), (16,), 1, aggregation=Parameters())
    ends, scale = [], 2.0**40
    for _ in range(2):
        workers = on("cuda", plan, args=DROPOUT, optimizer=SGD, recipe=Recipe(precision="fp16", loss_scale=scale))
        train_all(plan, workers)
        ends.append({name: array.copy() for name, array in workers[0].snapshot().items()})
        scale = ends[0]["loss_scale"][0]
    assert ends[0]["loss_scale"][0] == ends[1]["loss_scale"][0] < 2.0**40
    for name in ("device_rng", "rng"):
        assert np.array_equal(ends[0][name], ends[1][name]), name
    assert np.abs(ends[0]["params"] - ends[1]["params"]).max() < 1e-5, "other dropout would change more"


# Adafactor divides each gradient by its own size. Where a gradient is 0 apart from rounding, as that of an
# attention key's bias is, the step is as large as any other, and rounding decides where it goes.
@pytest.mark.parametrize(("name", "most"), [("NAdam", 1e-7), ("RMSprop", 1e-7), ("Adafactor", 1e-5)])
def test_optimizers_by_import_path_step_on_the_gpu_as_on_the_cpu(name, most):
    spec, results = {"name": f"torch.optim:{name}", "lr": 1e-3}, []
    for device in ("cpu", "cuda"):
        plan = plan_of(Replicated(), (9, 5), 5, lr=1e-3)
        workers = on(device, plan, optimizer=spec, recipe=Recipe(precision="fp64"))
        train_all(plan, workers)
        saved = workers[0].snapshot()
        workers[0].restore({key: array.copy() for key, array in saved.items()})
        results.append(parameters(workers))
    assert np.abs(results[0] - results[1]).max() < most


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


@pytest.mark.parametrize("place", [Replicated, Sharded, Offloaded, ShardedOffloaded])
@pytest.mark.parametrize("kind", ["unet", "resnet"])
def test_a_model_of_blocks_trains_as_on_the_cpu(place, kind):
    """Torch's backward is paused in another thread there: that of the device."""
    results = []
    for device in ("cpu", "cuda"):
        plan = plan_of(place(unit_bytes=0), (9, 5), 5, lr=1e-3)
        options = {"model": "kit.blocks:make", "args": {"kind": kind}, "recipe": Recipe(precision="fp64")}
        workers = on(device, plan, optimizer=SGD, **options)
        train_all(plan, workers)
        results.append(parameters(workers))
    assert np.abs(results[0] - results[1]).max() < 1e-7
