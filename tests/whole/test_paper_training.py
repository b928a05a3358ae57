"""The papers' scenarios train, in small: the files of their data are replaced by a few of the same format."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import paceline
from kit.cli import paceline as command
from kit.cli import read
from kit.paths import SCENARIOS
from paceline.analysis.run import Run

PAPERS = SCENARIOS / "papers"
VIT = "workload.model={name: vit, patch: 8, dim: 16, depth: 1, heads: 2}"
RESNET = "workload.model={name: resnet20, width: 0.25}"
QSR = [
    *("workload.data.name=images", "workload.data.size=32", "workload.total_batch=16", "workload.micro_batch=4"),
    *("cluster.nodes.0.count=1", "cluster.nodes.0.devices.0.count=2", "workload.loaders=2"),
    *("budget={epochs: 2, epoch: 4 steps}", "report={log: 1 round, step_losses: true}"),
]
RUNS = {
    "qsr_vit_b_imagenet_2x8": [VIT, *QSR, "workload.lr_schedule.warm_up=2 steps", "strategy.h_base=3"],
    "qsr_vit_b_imagenet_2x8_parallel": [VIT, *QSR, "workload.lr_schedule.warm_up=2 steps"],
    "qsr_resnet152_imagenet": [
        *(RESNET, *QSR, "workload.lr_schedule.warm_up=1", "report.batch_norm={re_estimated: 2}"),
    ],
    "qsr_resnet152_imagenet_parallel": [
        *(RESNET, *QSR, "workload.lr_schedule.warm_up=1", "report.batch_norm={re_estimated: 2}"),
    ],
    "lshdp_vit_l_16_total_64": [
        "workload.model={name: vit, patch: 56, dim: 16, depth: 1, heads: 2}",
        *("workload.data.verify=false", "workload.batch=2", "strategy.total=8", "budget={steps: 3}"),
        "report={log: 1 round, step_losses: true}",
    ],
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """By the first part of a scenario's name: a folder of JPEG files of two classes, and CIFAR-10's binary files."""
    random, folder = np.random.default_rng(0), tmp_path_factory.mktemp("data")
    for part, count in (("train", 20), ("val", 3)):
        for kind in ("ant", "bee"):
            (folder / "images" / part / kind).mkdir(parents=True)
            for i in range(count):
                values = random.integers(0, 256, (50, 40 + i, 3), np.uint8)
                Image.fromarray(values).save(folder / "images" / part / kind / f"{i}.jpg")
    (folder / "cifar").mkdir()
    for name in (*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"):
        rows = random.integers(0, 256, (8, 1 + 3 * 32 * 32), np.uint8)
        rows[:, 0] %= 10
        rows.tofile(folder / "cifar" / name)
    return {"qsr": folder / "images", "lshdp": folder / "cifar"}


@pytest.fixture(scope="module")
def runs(data: dict[str, Path]) -> Callable[[str], tuple[Run, list[str]]]:
    """By a scenario's name: its simulation in small, and the settings."""

    @cache
    def run(name: str) -> tuple[Run, list[str]]:
        settings = [*RUNS[name], f"workload.data.path={data[name.split('_')[0]]}"]
        return paceline.simulate(PAPERS / f"{name}.yaml", settings=settings), settings

    return run


@pytest.mark.parametrize("name", RUNS)
def test_a_papers_scenario_trains(name, runs):
    run, settings = runs(name)
    steps, classes = (3, 1000) if name.startswith("lshdp") else (8, 2)
    losses = [loss for line in run.lines for loss in line["step_losses"]]
    assert (run.summary["steps"], len(losses), len(set(losses))) == (steps, steps, steps)
    assert np.isfinite(losses).all()
    assert losses[0] == pytest.approx(np.log(classes), rel=0.7)
    assert (len(run.lines) < steps) == (run.scenario["strategy"]["preset"] == "qsr"), (
        "a sync after every step, or fewer"
    )
    clock = paceline.simulate(PAPERS / f"{name}.yaml", settings=settings, timing_only=True)
    assert list(clock.metrics["seconds"]) == list(run.metrics["seconds"])


@pytest.mark.long  # test_options.py compares most of it in make test
def test_the_recipe_with_everything_gives_the_same_bits_for_real(runs, tmp_path):
    """Mixup, RandAugment, resized crops of files, and loaders: worker by worker the same images in both worlds."""
    name = "qsr_vit_b_imagenet_2x8"
    run, settings = runs(name)
    arguments = [part for setting in settings for part in ("--set", setting)]
    command("train", PAPERS / f"{name}.yaml", *arguments, "--out", "real", cwd=tmp_path)
    summary, lines = read(tmp_path / "real")
    assert summary["params_sha256"] == run.summary["params_sha256"]
    assert [line["step_losses"] for line in lines] == [line["step_losses"] for line in run.lines]
