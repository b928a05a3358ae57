"""How long does `paceline plan` take, and how much does its search save against simulating every way?

The whole plan, with the table and what each decision brings: processor seconds of `paceline.plan` in this process,
after the imports. ViT-L/16 on 16 and on 512 workers of 3 kinds on 10 Gbit/s, whole space, with a learning rate that
falls, so that QSR and post-local SGD are tried as well; with the ordered all-reduce and with `reduction: fast`, which
tries all algorithms. Bars: 2 s and 30 s.

The memory of the command, which is to run on a laptop: its peak, as its process sees it.

The search alone against trying every way: the same nodes, a small model, 6 workers of 3 kinds. Both must choose the
same way.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from paceline.config import yaml
from paceline.config.scenario import validate
from paceline.planning.bounds import Bounds
from paceline.planning.judge import recommended
from paceline.planning.lab import Lab
from paceline.planning.plan import plan
from paceline.planning.request import document_of
from paceline.planning.space import Space
from paceline.planning.values import Values
from paceline.studies.front import exhaustive, leaves, search

from .form import Row, compare, rounded
from .harness import Found, Run, alternate, process_seconds

SECONDS = 60
BARS = {16: 2.0, 512: 30.0}  # seconds, by workers


def lab(workers: int, reduction: str, model: str = "vit_l_16") -> dict[str, Any]:
    """A scenario's document: half of the workers are fast, a quarter slow, a quarter CPUs."""
    half, quarter = workers // 2, workers // 4
    kinds = f"{half} x rtx-a6000, {quarter} x rtx2080ti, {quarter} x epyc-7742"
    document = document_of(model, kinds, "10gbe", workers * 32)
    document["workload"]["lr_schedule"] = "cosine"
    return document | {"reduction": reduction}


def whole(workers: int, reduction: str, run: Run) -> tuple[Row, dict[str, int]]:
    """A plan against its bar; how many ways it simulated."""
    document, simulated = lab(workers, reduction, "resnet20" if run.small else "vit_l_16"), list[int]()
    if run.small:
        document["workload"]["data"] = "cifar10"

    def planned() -> float:
        return process_seconds(lambda: simulated.append(plan(document).simulated))

    bar = BARS[workers]
    taken = alternate({"paceline.plan": planned, f"{bar:g} s": lambda: bar}, run.turns(3, least=1))
    all_reduce = "all algorithms of all-reduce" if reduction == "fast" else "the ordered all-reduce"
    case = f"{workers} workers of 3 kinds, whole space, {all_reduce}"
    row = compare(case, "paceline.plan", f"{bar:g} s", taken, "time", bar=1.0, unit="s of processor")
    return row, {f"ways simulated: {case}": simulated[-1]}


def against_every_way(run: Run) -> tuple[Row, dict[str, int]]:
    """The search against trying every way."""
    document = {
        "workload": {"model": {"name": "mlp", "hidden": [256, 128]}, "batch": 32, "optimizer": {"lr": 0.1}},
        "cluster": {
            "workers": [{"device": f"d{n}", "count": 2, "speed": f"{9000 // 3**n} samples/s"} for n in range(3)],
            "network": {"bandwidth": "1 Gbit/s", "latency": "50 us"},
        },
        "strategy": {"preset": "sync_sgd"},
        "budget": {"epochs": 1},
    }
    problem = Lab(validate(document, "lab"), Path())
    space = Space(steps=(8,), prefetch=(1,)) if run.small else Space()
    nodes = [root.node for root in Bounds(problem).roots(space, problem.teams(whole=False))]
    every = sum(1 for node in nodes for _ in leaves(node))
    chosen, simulated = list[object](), list[int]()

    def searched() -> None:
        values = Values(problem)
        chosen.append(recommended(search(nodes, values.seconds).front).key)
        simulated.append(len(values))

    def tried() -> None:
        chosen.append(recommended(exhaustive(nodes, Values(problem).seconds)).key)

    ways = {"search": lambda: process_seconds(searched), "every way": lambda: process_seconds(tried)}
    taken = alternate(ways, run.turns(3, least=1))
    assert len(set(chosen)) == 1, chosen
    case = f"6 workers of 3 kinds, {every} ways"
    row = compare(case, "search", "every way", taken, "speed", unit="s of processor")
    return row, {f"ways simulated: {case}": simulated[-1]}


def peak(workers: int) -> float:
    """The most memory that the command `paceline plan` takes, in MB, with all algorithms of all-reduce.

    The process says it itself: what the system says of a finished process counts its parent, before it became itself.
    """
    with TemporaryDirectory() as folder:
        scenario = Path(folder) / "lab.yaml"
        scenario.write_text(yaml.dump(lab(workers, "fast")))
        code = (
            f"from paceline.cli import app; app.run(['plan', {str(scenario)!r}, '--quiet', '--out', {folder!r}]);"
            "print(open('/proc/self/status').read())"
        )
        told = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    (line,) = (line for line in told.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024 / 1e6


def measure(run: Run) -> Found:
    found, share = Found(), run.share(5)
    for workers in (16,) if run.small else BARS:
        for reduction in ("ordered", "fast"):
            row, ways = whole(workers, reduction, share)
            found.rows.append(row)
            found.figures |= ways
    row, ways = against_every_way(share)
    found.rows.append(row)
    found.figures |= ways
    for workers in (16,) if run.small else BARS:
        found.figures[f"peak memory of the command, {workers} workers of 3 kinds, MB"] = rounded(peak(workers))
    return found
