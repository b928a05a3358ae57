"""LocalSync: the numbers of the scenario's own training, records that are runs, and what is refused."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

import paceline
from kit.cli import MOMENTUM, scenario
from kit.paths import TESTS
from paceline.records.directory import NOW, SIGNS
from paceline.runtime.job_folders import job_folders
from paceline.runtime.mpirun import command, environment, find_mpirun

MLP = {"name": "mlp", "hidden": [32]}
CONV = {"name": "resnet20", "width": 0.25}
ADAMW = {"name": "adamw", "lr": 0.003, "weight_decay": 0.1}
EQUAL = {"workers": [{"count": 2, "speed": "500 samples/s"}]}
AVERAGED = {"parameters": {"optimizer_state": "averaged"}}


def workload(model: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"model": model, "data": "digits", "batch": 16, "optimizer": MOMENTUM, **more}


SCENARIOS: dict[str, dict[str, Any]] = {
    "local_sgd": scenario(2, MLP, {"preset": "local_sgd", "H": 5}, 6),
    "qsr": scenario(
        2,
        MLP,
        {"preset": "qsr", "alpha": 0.08, "h_base": 2},
        1,
        budget={"epochs": 0.6},
        cluster=EQUAL,
        workload=workload(MLP, lr_schedule={"name": "cosine", "warm_up": 0.1, "final_lr": 0.001}),
        report={"every": "0.2 epochs"},
    ),
    "slowmo": scenario(2, CONV, {"preset": "slowmo", "H": 2, "beta": 0.7}, 2, workload=workload(CONV), cluster=EQUAL),
    "diloco": scenario(
        2,
        MLP,
        {"preset": "diloco", "H": 4, "split": {"by_steps": "floor"}, "weights": "samples"},
        4,
        workload=workload(MLP, optimizer=ADAMW),
    ),
    "averaged": scenario(
        2,
        MLP,
        {"preset": "local_sgd", "H": 4, "aggregation": AVERAGED},
        5,
        workload=workload(MLP, optimizer=ADAMW),
        report={"log": "1 rounds", "norms": True},
    ),
    "fednova": scenario(2, MLP, {"preset": "fednova", "H": 4}, 4),
    "biased": scenario(2, MLP, {"preset": "biased_local_sgd", "H": 4, "ratio": 2}, 30, report={"every": "10 rounds"}),
}
# Loops that end by themselves -> the rounds that they take.
ENDING = {"ends_inside_a_round": None, "ends_between_rounds": 4, "goes_on": 4}


def run(ranks: int, *program: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    """A user's program on so many ranks; on one without mpirun."""
    line = [sys.executable, *map(str, program)]
    mpirun = find_mpirun()
    with job_folders(mpirun.kind) as folders:
        settings = environment(mpirun, ranks, 1) | folders.variables
        line = command(mpirun, line, ranks) if ranks > 1 else line
        return subprocess.run(line, cwd=cwd, env=settings, capture_output=True, text=True, timeout=180, check=False)


def test_a_loop_has_the_numbers_of_its_scenario(tmp_path: Path) -> None:
    for name, document in SCENARIOS.items():
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(document))
    files = [f"{name}.yaml" for name in SCENARIOS]
    done = run(2, TESTS / "kit" / "own_loop.py", tmp_path / "own", *files, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    for name in SCENARIOS:
        own, simulated = paceline.load(tmp_path / "own" / name), paceline.simulate(tmp_path / f"{name}.yaml")
        found = paceline.compare(simulated, own)
        assert found.same, f"{name}: {found.difference}"
        assert not any((tmp_path / "own" / name / left).exists() for left in (SIGNS, NOW))
        assert own.summary["syncs"]["parameters"] == own.summary["rounds"]
    for name, rounds in ENDING.items():
        own = paceline.load(tmp_path / "own" / name)
        simulated = paceline.simulate(tmp_path / "own" / name / "scenario.yaml")
        assert own.summary["finished"]
        assert own.summary["rounds"] == (rounds or simulated.summary["rounds"])
        if name == "goes_on":  # its lines begin where it goes on
            assert simulated.summary["params_sha256"] == own.summary["params_sha256"]
        else:
            found = paceline.compare(simulated, own)
            assert found.same, f"{name}: {found.difference}"
    assert own.scenario["budget"]["steps"] == 16
    inside = paceline.load(tmp_path / "own" / "ends_inside_a_round")
    H = [line["H"] for line in inside.lines]
    assert sum(H) == 51
    assert H[0] == 2 < max(H), "QSR's rounds grow while torch's schedule lowers the rate"


def test_what_a_loop_cannot_do_is_told_in_a_line(tmp_path: Path) -> None:
    done = run(1, TESTS / "kit" / "own_loop_ends.py", "refused", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    said = dict(line.split(": ", 1) for line in done.stdout.splitlines())
    for name, words in {
        "sync_sgd": "use torch's DistributedDataParallel, or `paceline train`",
        "post_local": "use torch's DistributedDataParallel, or `paceline train`",
        "offloaded": "write placement: replicated",
        "no strategy": "give a strategy, like 'qsr'",
        "alpha": "strategy.alpha: is missing",
        "unknown": "strategy.h: unknown argument",
        "workers": "describes 3 workers and this mpirun has started 1",
        "schedule": "give steps=... or epochs=...",
        "looks ahead": "give LocalSync the lr_schedule",
        "examples": "give examples=...",
        "is_narrow": "leave the loop where sync.finished is true",  # after all steps have worked
        "changes_its_rate": "call its step() before sync.step()",
        "goes_too_far": "leave the loop where sync.finished is true",
        "forgets_a_step": "no sync.step() followed it",
        "gives_no_losses": "give sync.step() the loss of each example",
        "diverges": "step 1: the training loss is nan",
    }.items():
        assert words in said[name], (name, said[name])
    assert said["goes on alone"] == "44", "step 11 of 25, the same place of the epoch"


@pytest.mark.parametrize(
    ("way", "status", "words"),
    [
        ("raises", 1, "ZeroDivisionError: on purpose"),
        pytest.param("shorter", 2, "all loops must be equally long", marks=pytest.mark.long),
        pytest.param("stalls", 1, "Missing: rank 1 (worker 1, host ", marks=pytest.mark.long),
    ],
)
def test_a_rank_that_fails_ends_the_job(tmp_path: Path, way: str, status: int, words: str) -> None:
    done = run(2, TESTS / "kit" / "own_loop_ends.py", way, cwd=tmp_path)
    assert done.returncode == status, done.stdout + done.stderr
    assert words in done.stderr
