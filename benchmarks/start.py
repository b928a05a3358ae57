"""How long does `paceline train` take apart from training, next to a bare mpirun of Python processes that import torch?

On 2 and 4 ranks of 1 thread: a small MLP on digits, and ResNet20 on CIFAR-10's files with random content, one round
each. A row compares the whole command, without training and evaluation, with `mpirun python -c "import torch,
mpi4py.MPI"`, which is the limit. Bar for the MLP: half as much again. On 2 ranks there is also a row for each stage of
the command. A stage begins where the one before is over on all ranks; stamped.py notes when. The figures are medians in
seconds.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from time import monotonic
from typing import Any

from paceline.config import yaml
from paceline.runtime.job_folders import job_folders
from paceline.runtime.mpirun import command, environment, find_mpirun

from .form import ROOT, compare, rounded
from .harness import Found, Run, alternate
from .local_sgd import write_images

SECONDS = 150
TURNS = 9
BARS = {"mlp on digits": 1.5}  # the warm-up of ResNet20 is long: it takes a step and evaluates a batch
TRAIN, TEST = 50_000, 2_000
BARE, WHOLE = "bare mpirun, torch and MPI", "paceline train without training"
TRAINED = ("training", "evaluation")  # the stages that are not start or end


def scenario(model: Any, data: Any, ranks: int) -> dict[str, Any]:
    """One round of 8 steps on equal workers."""
    optimizer = {"name": "sgd", "lr": 0.01, "momentum": 0.9}
    return {
        "workload": {"model": model, "data": data, "batch": 64, "optimizer": optimizer},
        "cluster": {"workers": [{"speed": "1 samples/s", "count": ranks}]},
        "strategy": {"preset": "local_sgd", "H": 8},
        "budget": {"rounds": 1},
    }


def bare(ranks: int) -> float:
    """Seconds of an mpirun of processes that import what training needs, and end."""
    mpirun = find_mpirun()
    begin = monotonic()
    with job_folders(mpirun.kind) as folders:
        line = command(mpirun, [sys.executable, "-c", "import torch, mpi4py.MPI"], ranks)
        subprocess.run(line, env=environment(mpirun, ranks, 1) | folders.variables, check=True)
    return monotonic() - begin


class Command:
    """`paceline train` of a scenario, started again and again."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.stages: list[dict[str, float]] = []  # of each time: seconds by stage

    def __call__(self) -> float:
        """Seconds that the command takes without those of TRAINED."""
        with tempfile.TemporaryDirectory() as name:
            folder, run = Path(name), Path(name, "run")
            line = [sys.executable, "-m", "benchmarks.stamped", "train", str(self.path), "--quiet", f"--out={run}"]
            begin = monotonic()
            subprocess.run(line, env=os.environ | {"STAMPS": name}, cwd=ROOT, check=True)
            end = monotonic()
            stamps = [json.loads(file.read_text()) for file in folder.glob("*.json")]
            summary = json.loads((run / "summary.json").read_text())
        self.stages.append(stages(begin, end, stamps, summary))
        return sum(seconds for name, seconds in self.stages[-1].items() if name not in TRAINED)


def stages(
    begin: float, end: float, stamps: list[dict[str, tuple[float, float]]], summary: Mapping[str, Any]
) -> dict[str, float]:
    """Seconds by stage, in order: they add up to those of the command. stamps: of each process."""
    (launcher,) = (each for each in stamps if "mpirun" in each)
    ranks = [each for each in stamps if "mpirun" not in each]

    def over(name: str, place: int) -> float:
        return max(each[name][place] for each in ranks)

    borders = {
        "launcher": launcher["mpirun"][0],
        "mpirun and Python": over("process", 0),
        "imports of Paceline": over("MPI", 0),
        "MPI_Init": over("MPI", 1),
        "scenario": over("libraries", 0),
        "torch": over("libraries", 1),
        "data and model": over("warm-up", 0),
        "warm-up": over("warm-up", 1),
        "run directory": over("run", 0),
        "training": over("run", 0) + summary["seconds"],
        "evaluation": over("run", 0) + summary["seconds"] + summary["evaluation_seconds"],
        "checkpoint, records": over("process", 1),
        "end of ranks, mpirun and launcher": end,
    }
    edges = [begin, *borders.values()]
    return {name: after - before for name, before, after in zip(borders, edges, edges[1:], strict=False)}


def measure(run: Run) -> Found:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cases: dict[str, tuple[dict[str, Any], Any]] = {"mlp on digits": ({"name": "mlp", "hidden": [32]}, "digits")}
        if not run.small:
            write_images(folder, TRAIN, TEST)
            cases["resnet20"] = {"name": "resnet20"}, {"name": "cifar10", "path": name, "verify": False}
        commands: dict[tuple[str, int], Command] = {}
        for case, (model, data) in cases.items():
            for ranks in (2,) if run.small else (2, 4):
                path = folder / f"{case} on {ranks}.yaml"
                path.write_text(yaml.dump(scenario(model, data, ranks)))
                commands[case, ranks] = Command(path)
        blocks = {f"{case}, {ranks} ranks": trained for (case, ranks), trained in commands.items()}
        bares = {f"{BARE}, {ranks} ranks": lambda ranks=ranks: bare(ranks) for _, ranks in commands}
        taken = alternate({**blocks, **bares}, iter((0,)) if run.small else run.turns(TURNS))
    found = Found()
    for (case, ranks), trained in commands.items():
        title = f"{case}, {ranks} ranks"
        limit = taken[f"{BARE}, {ranks} ranks"]
        told = trained.stages[-len(limit) :]  # without the turn that warms up
        costs = {name: [each[name] for each in told] for name in told[0]}
        whole = {WHOLE: taken[title], BARE: limit}
        found.rows.append(compare(title, WHOLE, BARE, whole, "time", bar=BARS.get(case), limit=BARE))
        for name in costs if ranks == 2 else ():
            found.rows.append(compare(title, name, BARE, {**costs, BARE: limit}, "time"))
        found.figures[title] = {name: rounded(statistics.median(seconds)) for name, seconds in costs.items()}
    return found
