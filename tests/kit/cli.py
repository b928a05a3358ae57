"""The command line as a user starts it, small scenarios to give it, and reading the runs that it writes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from paceline.__main__ import main
from paceline.runtime.job_folders import job_folders
from paceline.runtime.mpirun import command, environment, find_mpirun
from paceline.runtime.ranks import MpiKind

MLP = {"name": "mlp", "hidden": [32, 16], "dropout": 0.2}
MOMENTUM = {"name": "sgd", "lr": 0.05, "momentum": 0.9, "nesterov": True, "weight_decay": 1e-4}


def scenario(
    workers: int, model: dict[str, Any], strategy: dict[str, Any], rounds: int, **more: object
) -> dict[str, Any]:
    """A scenario on digits in which each worker is half as fast as the one before; `more` replaces sections."""
    return {
        "seed": 5,
        "workload": {"model": model, "data": "digits", "batch": 8, "optimizer": MOMENTUM},
        "cluster": {"workers": [{"speed": f"{1000 / 2**w} samples/s"} for w in range(workers)]},
        "strategy": strategy,
        "budget": {"rounds": rounds},
        "report": {"every": "2 rounds", "trace": True},
        **more,
    }


def paceline(*arguments: object, cwd: Path, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run a command in a process of its own. check: fail unless it succeeds."""
    line = [sys.executable, "-m", "paceline", *map(str, arguments)]
    done = subprocess.run(line, cwd=cwd, capture_output=True, text=True, timeout=300, check=False)
    if check:
        assert done.returncode == 0, done.stdout + done.stderr
    return done


def under_mpirun(
    ranks: int, *arguments: object, cwd: Path, kind: MpiKind | None = None, timeout: float = 120
) -> subprocess.CompletedProcess[str]:
    """Run a command on so many ranks, as a user does who starts mpirun. kind: whose mpirun; None: the one to use."""
    mpirun = find_mpirun(kind)
    line = command(mpirun, [sys.executable, "-m", "paceline", *map(str, arguments)], ranks)
    with job_folders(mpirun.kind) as folders:
        settings = environment(mpirun, ranks, 1) | folders.variables
        return subprocess.run(line, cwd=cwd, env=settings, capture_output=True, text=True, timeout=timeout, check=False)


def call(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: object
) -> tuple[Any, str, str]:
    """Run a command in this process: (exit status, standard output, standard error)."""
    monkeypatch.setattr(sys, "argv", ["paceline", *map(str, arguments)])
    with pytest.raises(SystemExit) as end:
        main()
    out, err = capsys.readouterr()
    return end.value.code or 0, out, err


def read(directory: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A run's summary and its metrics lines."""
    lines = [json.loads(text) for text in (directory / "metrics.jsonl").read_text().splitlines()]
    return json.loads((directory / "summary.json").read_text()), lines
