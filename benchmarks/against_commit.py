"""Is anything slower than it was? The benchmarks of two commits, in turns, and the ratio of their times.

Usage: python benchmarks/against_commit.py COMMIT [--turns 9] [NAME ...]; by default sim_effects, cohort,
runtime_effects. Prints, and writes benchmarks/results/against_commit.json. `--small` alone runs one small turn of HEAD
against itself, and writes nothing.

Both commits are laid in folders of their own, and each runs its own benchmark there with this Python. In a turn each
side runs every benchmark once, the other side first in every second turn. A ratio is now's time over then's in the same
turn, so that a busy machine slows both; its median and quartiles are over the turns. Above 1 is slower.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import statistics
import subprocess
import sys
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "against_commit.json"
NAMES = ("sim_effects", "cohort", "runtime_effects")
TIMES = ("microseconds", "microseconds_per_round", "paceline_ms_per_step")  # keys of times in results files


def lay(commit: str, folder: Path) -> Path:
    """The commit's files in `folder`."""
    packed = subprocess.run(["git", "archive", commit], cwd=ROOT, capture_output=True, check=True).stdout
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        archive.extractall(folder, filter="tar")  # links within the tree stay links
    return folder


def run(tree: Path, name: str, *options: str) -> None:
    """Run one benchmark of a tree."""
    path = tree / "benchmarks" / f"{name}.py"
    environment = os.environ | {"PYTHONPATH": str(tree)}
    subprocess.run([sys.executable, path, *options], cwd=tree, env=environment, check=True, stdout=subprocess.DEVNULL)


def times(document: Any, place: str = "") -> Iterator[tuple[str, float]]:
    """(where it stands, time) of every time in a results file."""
    if isinstance(document, list):
        for row in document:
            yield from times(row, " ".join(filter(None, (place, _name(row)))))
    elif isinstance(document, dict):
        for key, value in document.items():
            if key in TIMES and isinstance(value, dict):  # a table of names and times
                yield from ((name, float(time)) for name, time in value.items())
            elif key in TIMES:
                yield place, float(value)
            else:
                yield from times(value, place if key == "rows" else f"{place} {key}".strip())


def _name(row: Any) -> str:
    """What tells a row of cohort.json from the others."""
    kind = ("workers", "classes", "preset", "H", "sigma")
    return ", ".join(f"{key} {row[key]}" for key in kind if key in row) if isinstance(row, dict) else ""


def measured(tree: Path, name: str) -> dict[str, float]:
    """The times that a tree's results file holds."""
    document = json.loads((tree / "benchmarks" / "results" / f"{name}.json").read_text())
    return {f"{name}: {place}": value for place, value in times(document)}


def spread(ratios: Sequence[float]) -> dict[str, Any]:
    """The ratios of one time, over the turns."""
    quartiles = statistics.quantiles(ratios, n=4, method="inclusive") if len(ratios) > 1 else [ratios[0]] * 3
    return {"ratio": round(quartiles[1], 3), "quartiles": [round(quartiles[0], 3), round(quartiles[2], 3)]}


def compare(then: Path, now: Path, names: Sequence[str], turns: int) -> dict[str, Any]:
    """time -> its ratio and quartiles."""
    found: dict[str, list[float]] = {}
    for turn in range(turns):
        for name in names:
            for tree in (then, now) if turn % 2 else (now, then):
                run(tree, name)
            before, after = measured(then, name), measured(now, name)
            for place in before.keys() & after.keys():
                found.setdefault(place, []).append(after[place] / before[place])
        print(f"turn {turn + 1} of {turns}", flush=True)
    return {place: spread(found[place]) for place in sorted(found)}


def main() -> None:
    parser = argparse.ArgumentParser(description="Benchmarks of two commits in turns.")
    parser.add_argument("commit", nargs="?", default="HEAD")
    parser.add_argument("names", nargs="*", default=NAMES)
    parser.add_argument("--turns", type=int, default=9)
    parser.add_argument("--small", action="store_true", help="one small turn of HEAD against itself")
    options = parser.parse_args()
    with TemporaryDirectory() as folder:
        then, now = lay(options.commit, Path(folder, "then")), lay("HEAD", Path(folder, "now"))
        if options.small:
            run(now, "sim_effects", "--small")
            assert measured(then, "sim_effects") == measured(now, "sim_effects") != {}
            print("both commits can be laid and run")
            return
        rows = compare(then, now, options.names, options.turns)
    for place, row in rows.items():
        print(f"{row['ratio']:6.3f} ({row['quartiles'][0]:.3f} to {row['quartiles'][1]:.3f})  {place}")
    commits = {
        name: subprocess.run(["git", "rev-parse", "--short", revision], cwd=ROOT, capture_output=True, text=True)
        for name, revision in (("then", options.commit), ("now", "HEAD"))
    }
    about = {name: done.stdout.strip() for name, done in commits.items()} | {"turns": options.turns}
    RESULTS.write_text(json.dumps({**about, "now's time over then's": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
