"""python -m benchmarks.kills [PART...]: see benchmarks/kills/__init__.py."""

from __future__ import annotations

import argparse
import importlib
import sys
import tempfile
import time
from datetime import date
from pathlib import Path

from ..form import commit, machine
from .form import FILE, Result, Trial, keep, table, told, write_page

# In the order of the page. Without names, all are run except for the soak, which takes as long as it is told.
PARTS = ("ranks", "pauses", "pairs", "everything", "damage", "cost", "soak")


def run(name: str, count: int | None, seed: int, out: Path | None, folder: Path) -> bool:
    """Run one part, print what it found, and keep it; whether all that it claims held."""
    module, where, begin = importlib.import_module(f"benchmarks.kills.{name}"), machine(), time.perf_counter()
    about = (module.__doc__ or "").partition("\n")[0]
    print(f"{name}: {about}", flush=True)
    trial = Trial(
        module.COUNT if count is None else count, seed, folder / name, lambda line: print(f"  {line}", flush=True)
    )
    trial.folder.mkdir()
    found = module.measure(trial)
    result = Result(
        about=about,
        date=date.today(),
        commit=commit(),
        machine=where,
        seed=seed,
        count=trial.count,
        seconds=round(time.perf_counter() - begin, 1),
        claims=tuple(found.claims),
        rows=tuple(found.rows),
    )
    for line in (*table(result.rows), "", *told(result), f"{result.seconds:.0f} s"):
        trial.tell(line)
    if out is not None:
        keep(name, result, out)
    return all(claim.holds for claim in result.claims)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.kills", description="Kill trainings, and see what is lost."
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    parser.add_argument(
        "--count", type=int, help="runs of a part (minutes of the soak); nothing is written without --out"
    )
    parser.add_argument("--seed", type=int, default=1, help="of the moments and ranks")
    parser.add_argument("--out", type=Path, help="write the results here instead of benchmarks/results/kills.json")
    parser.add_argument("--keep", type=Path, help="a new folder for the runs, which stay")
    options = parser.parse_args()
    unknown = [name for name in options.parts if name not in PARTS]
    if unknown:
        parser.error(f"no part {unknown[0]!r}; write {', '.join(PARTS)}")
    out = options.out or (FILE if options.count is None else None)
    with tempfile.TemporaryDirectory(prefix="kills-") as temporary:
        folder = options.keep or Path(temporary)
        folder.mkdir(exist_ok=True)
        held = [run(name, options.count, options.seed, out, folder) for name in options.parts or PARTS[:-1]]
    if out == FILE:
        write_page()
    return 0 if all(held) else 1


if __name__ == "__main__":
    sys.exit(main())
