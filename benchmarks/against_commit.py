"""How much of an earlier commit's time do its benchmarks take today? Both commits in turns.

    python -m benchmarks.against_commit COMMIT NAME... [--turns 9] [--seconds 20] [--small]

compares any commit, and prints what it finds. `python -m benchmarks against_commit` compares those in BARS.

Both commits are laid in folders of their own, and HEAD's benchmarks take the place of the earlier commit's, so that
both are measured by the same code; what an earlier commit cannot run is said. In a turn each side runs every benchmark
once, for about so many seconds each, the other side first in every second turn. A ratio is now's cost over then's in
the same turn; above 1 is slower.
"""

from __future__ import annotations

import argparse
import io
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from . import page
from .form import ROOT, Result, Row, compare
from .harness import Found, Run, Skipped

SECONDS = 200
TURNS = 3


class Cost(NamedTuple):
    """What is compared: one way of one case, in one unit."""

    benchmark: str
    case: str
    way: str
    unit: str


class Bar(NamedTuple):
    """The most that a way may take, as a share of what it took at a commit."""

    commit: str
    cost: Cost  # its case is how the case's name begins
    most: float


# At 443890b each worker of a sweep's scenario was described on its own; at 3261159 each local step was a timer.
BARS = (
    Bar("443890b", Cost("sweep", "noise-free, H = 1", "paceline sweep", "ms of processor"), 0.57),
    Bar("443890b", Cost("sweep", "noisy, H = 8", "paceline sweep", "ms of processor"), 0.38),
    Bar("3261159", Cost("sim_effects", "64 workers, a step", "local SGD, H = 32", "us"), 1 / 5),
)


def lay(revision: str, folder: Path) -> Path:
    """The commit's files in `folder`. Skipped where this is not a clone that has the commit."""
    done = subprocess.run(["git", "archive", revision], cwd=ROOT, capture_output=True, check=False)
    if done.returncode:
        raise Skipped(f"git archive {revision}: {done.stderr.decode().strip()}")
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        archive.extractall(folder, filter="tar")  # links within the tree stay links
    return folder


def measured(tree: Path, name: str, run: Run) -> dict[Cost, float]:
    """The median costs that one benchmark finds in a tree; nothing where it cannot run there."""
    results = tree / "found.json"
    results.unlink(missing_ok=True)
    command = [sys.executable, "-m", "benchmarks", name, "--seconds", str(run.seconds), "--out", str(results)]
    environment = os.environ | {"PYTHONPATH": str(tree)}
    done = subprocess.run(
        command + ["--small"] * run.small, cwd=tree, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode or not results.exists():
        last = (done.stderr.strip() or done.stdout.strip() or "?").splitlines()[-1]
        print(f"{name} does not run in {tree.name}: {last}", flush=True)
        return {}
    rows = Result.model_validate_json(results.read_text()).rows
    return {Cost(name, row.case, way, row.unit): cost for row in rows for way, cost in row.costs.items()}


def compared(commit: str, names: Sequence[str], turns: int, run: Run) -> dict[Cost, Row]:
    """A row for each cost that both commits can measure. run: of each benchmark in each turn."""
    found: dict[Cost, dict[str, list[float]]] = {}
    now, then = "now", f"at {commit}"
    with TemporaryDirectory() as folder:
        trees = {now: lay("HEAD", Path(folder, "now")), then: lay(commit, Path(folder, "then"))}
        shutil.rmtree(trees[then] / "benchmarks")
        shutil.copytree(trees[now] / "benchmarks", trees[then] / "benchmarks")
        for turn in range(turns):
            for name in names:
                costs = {side: measured(trees[side], name, run) for side in (list(trees)[:: -1 if turn % 2 else 1])}
                for cost in costs[now].keys() & costs[then].keys():
                    taken = found.setdefault(cost, {now: [], then: []})
                    for side in trees:
                        taken[side].append(costs[side][cost])
    return {
        cost: compare(f"{cost.benchmark}: {cost.case}: {cost.way}", now, then, taken, "time", unit=cost.unit)
        for cost, taken in sorted(found.items())
    }


def measure(run: Run) -> Found:
    """The commits in BARS. A benchmark takes the least number of its own turns in each of ours."""
    found = Found()
    for commit in dict.fromkeys(bar.commit for bar in BARS):
        bars = [bar for bar in BARS if bar.commit == commit]
        names = list(dict.fromkeys(bar.cost.benchmark for bar in bars))
        rows = compared(commit, names, 1 if run.small else TURNS, replace(run, seconds=1.0))
        for bar in bars:
            there = [row for cost, row in rows.items() if is_of(cost, bar.cost)]
            found.rows += [row.model_copy(update={"bar": bar.most}) for row in there]
            found.skipped += [] if there else [f"{', '.join(bar.cost)} at {commit}: one of the two does not run it"]
    return found


def is_of(cost: Cost, asked: Cost) -> bool:
    """Whether `asked` is that cost."""
    return cost._replace(case="") == asked._replace(case="") and cost.case.startswith(asked.case)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.against_commit", description="Two commits in turns.")
    parser.add_argument("commit")
    parser.add_argument("names", nargs="+", metavar="NAME", help=", ".join(page.NAMES))
    parser.add_argument("--turns", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=20, help="of a benchmark in a turn, about")
    parser.add_argument("--small", action="store_true", help="one small turn")
    options = parser.parse_args()
    turns = 1 if options.small else options.turns
    try:
        rows = compared(options.commit, options.names, turns, Run(options.small, options.seconds))
    except Skipped as reason:
        sys.exit(str(reason))
    for line in page.told(list(rows.values())):
        print(line)
    if not rows:
        sys.exit("nothing could be compared")


if __name__ == "__main__":
    main()
