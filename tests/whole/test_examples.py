"""The examples: each is short, runs as its first lines say, and learns what it is to learn."""

from __future__ import annotations

import subprocess
import sys

import pytest

from kit.paths import ROOT
from paceline import simulate
from paceline.analysis.run import Run

EXAMPLES = ROOT / "examples"
# What the run must reach: the last report's metric, and its bounds.
REACHED = {
    "language_model": ("perplexity", 1, 14),  # of 256 bytes; text of this kind has some 25 that are frequent
    "own_loss": ("recall_of_rare", 0.75, 1),
    "own_member": ("accuracy", 0.9, 1),
    "regression": ("mae", 0, 0.65),  # of deviations; the mean alone gives 0.85
    "segmentation": ("iou", 0.75, 1),  # the ground alone gives 0.43
}
LENGTHS = {".py": 60, ".yaml": 10}
WORKLOADS = ("language_model", "regression", "segmentation")
# Dropout is in all models. The micro-batches of a batch of 16 have 6, 5 and 5 examples.
PRESETS = ("local_sgd", "qsr", "diloco", "fsdp", "lshdp")


def test_all_examples_are_here_and_short():
    files = sorted(path for suffix in LENGTHS for path in EXAMPLES.glob(f"*{suffix}"))
    assert {path.stem for path in files} == {*REACHED, "own_loop"}
    for path in files:
        assert len(path.read_text().splitlines()) <= LENGTHS[path.suffix], path.name


@pytest.mark.parametrize("name", REACHED)
def test_an_example_learns(name):
    key, least, most = REACHED[name]
    assert least <= simulate(EXAMPLES / f"{name}.yaml").lines[-1][key] <= most


def test_a_loop_of_ones_own():
    done = subprocess.run(
        [sys.executable, "own_loop.py"], cwd=EXAMPLES, capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert [line.partition(":")[0] for line in done.stdout.splitlines()] == ["10 Gbit/s", "100 Mbit/s"]


def settings(preset: str, workers: int) -> list[str]:
    """Workers of unequal speed, a batch in unequal micro-batches."""
    strategy = {
        "local_sgd": "{preset: local_sgd, H: 4}",
        "qsr": "{preset: qsr, alpha: 0.002, h_base: 2}",
        "diloco": "{preset: diloco, H: 3}",
        "fsdp": "{preset: fsdp, placement: {sharded: {unit_bytes: 4096}}}",
        "lshdp": "{preset: lshdp, placement: {offloaded: {unit_bytes: 4096}}}",
    }[preset]
    speeds = ", ".join(f"{{speed: {4000 // (place + 1)} samples/s}}" for place in range(workers))
    return [
        *(f"strategy={strategy}", f"cluster.workers=[{speeds}]", "workload.micro_batch=6", "budget={steps: 8}"),
        *("report={every: 4 steps}", "seed=3"),
    ]


@pytest.mark.long
@pytest.mark.parametrize("workers", [2, 3])
@pytest.mark.parametrize("name", WORKLOADS)
def test_both_worlds_have_the_same_bits(name, workers, tmp_path):
    for preset in PRESETS:
        chosen = [f"--set={setting}" for setting in settings(preset, workers)]
        scenario = EXAMPLES / f"{name}.yaml"
        for command in ("simulate", "train"):
            out = tmp_path / f"{preset}-{command}"
            done = subprocess.run(
                [sys.executable, "-m", "paceline", command, scenario, *chosen, "--out", out],
                capture_output=True,
                text=True,
                timeout=300,
                check=False,
            )
            assert done.returncode == 0, done.stderr
        simulated, trained = (Run.load(tmp_path / f"{preset}-{command}") for command in ("simulate", "train"))
        assert trained.summary["params_sha256"] == simulated.summary["params_sha256"], preset
        numbers = [
            [{k: v for k, v in line.items() if k != "seconds"} for line in run.lines] for run in (simulated, trained)
        ]
        assert numbers[0] == numbers[1], preset
