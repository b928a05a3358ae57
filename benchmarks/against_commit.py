"""Is anything slower than at an earlier commit? Today's benchmarks on both, in turns, and the ratio of their times.

    python -m benchmarks.against_commit COMMIT [NAME...] [--turns 9] [--seconds 20] [--small]

By default cohort, sim_effects and runtime_effects. Both commits are laid in folders of their own, and HEAD's benchmarks
take the place of the earlier commit's, so that both are measured by the same code; what an earlier commit cannot run is
said. In a turn each side runs every benchmark once, for about so many seconds each, the other side first in every
second turn. A ratio is now's cost over then's in the same turn; above 1 is slower.
"""

from __future__ import annotations

import argparse
import io
import os
import shutil
import subprocess
import sys
import tarfile
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory

from . import page
from .form import ROOT, Result, Row, commit, compare, machine

NAMES = ("cohort", "sim_effects", "runtime_effects")
THEN, NOW = "then", "now"


def lay(revision: str, folder: Path) -> Path:
    """The commit's files in `folder`."""
    packed = subprocess.run(["git", "archive", revision], cwd=ROOT, capture_output=True, check=True).stdout
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        archive.extractall(folder, filter="tar")  # links within the tree stay links
    return folder


def run(tree: Path, name: str, seconds: float, small: bool) -> dict[tuple[str, str], tuple[float, str]]:
    """(case, way) -> (median cost, its unit) of one benchmark of a tree; nothing where it cannot run there."""
    results = tree / "found.json"
    command = [sys.executable, "-m", "benchmarks", name, "--seconds", str(seconds), "--out", str(results)]
    environment = os.environ | {"PYTHONPATH": str(tree)}
    done = subprocess.run(
        command + ["--small"] * small, cwd=tree, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        print(f"{name} does not run in {tree.name}: {(done.stderr.strip().splitlines() or ['?'])[-1]}", flush=True)
        return {}
    rows = Result.model_validate_json(results.read_text()).rows
    return {(row.case, way): (cost, row.unit) for row in rows for way, cost in row.costs.items()}


def compared(then: Path, now: Path, names: list[str], turns: int, seconds: float, small: bool) -> list[Row]:
    """A row for each cost that both can measure."""
    found: dict[tuple[str, str, str], dict[str, list[float]]] = {}
    units: dict[tuple[str, str, str], str] = {}
    for turn in range(turns):
        for name in names:
            costs = {}
            for side, tree in ((NOW, now), (THEN, then))[:: -1 if turn % 2 else 1]:
                costs[side] = run(tree, name, seconds, small)
            for key in costs[NOW].keys() & costs[THEN].keys():
                place = (name, *key)
                for side in (THEN, NOW):
                    found.setdefault(place, {THEN: [], NOW: []})[side].append(costs[side][key][0])
                units[place] = costs[NOW][key][1]
        print(f"turn {turn + 1} of {turns}", flush=True)
    return [
        compare(f"{name}: {case}: {way}", NOW, THEN, taken, "time", unit=units[name, case, way])
        for (name, case, way), taken in sorted(found.items())
    ]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.against_commit", description="Two commits in turns.")
    parser.add_argument("commit")
    parser.add_argument("names", nargs="*", default=NAMES)
    parser.add_argument("--turns", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=20, help="of a benchmark in a turn, about")
    parser.add_argument("--small", action="store_true", help="one small turn that writes nothing")
    options = parser.parse_args()
    where = machine()
    with TemporaryDirectory() as folder:
        then, now = lay(options.commit, Path(folder, THEN)), lay("HEAD", Path(folder, NOW))
        shutil.rmtree(then / "benchmarks")
        shutil.copytree(now / "benchmarks", then / "benchmarks")
        turns = 1 if options.small else options.turns
        rows = compared(then, now, list(options.names), turns, options.seconds, options.small)
    for line in page.told(rows):
        print(line)
    if not rows:
        sys.exit("nothing could be compared")
    if options.small:
        return
    Result(
        benchmark="against_commit",
        about=(__doc__ or "").partition("\n")[0],
        date=date.today(),
        commit=commit(),
        machine=where,
        rows=tuple(rows),
        figures={THEN: commit(options.commit), NOW: commit()},
    ).write()
    page.write()


if __name__ == "__main__":
    main()
