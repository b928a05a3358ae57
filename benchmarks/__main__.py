"""Run benchmarks: each alternates with its baseline and writes its ratios into benchmarks/results/NAME.json.

    python -m benchmarks [NAME...] [--small] [--seconds N] [--out FILE]

Without names, all of them, each in a process of its own; they take less than an hour together. docs/performance.md is
filled in from all results files. `--small` tries each for a few seconds and writes nothing. `--seconds` is the budget
of each, instead of its own. `--out`, with one name, writes its results into a file of yours instead, small or not.
"""

from __future__ import annotations

import argparse
import importlib
import subprocess
import sys
from datetime import date
from pathlib import Path
from time import perf_counter

from . import page
from .form import Result, commit, machine
from .harness import Run, Skipped


def run(name: str, small: bool, seconds: float | None, out: Path | None) -> None:
    """Run one benchmark, print its rows, write its results."""
    module, where, begin = importlib.import_module(f"benchmarks.{name}"), machine(), perf_counter()
    about = (module.__doc__ or "").partition("\n")[0]
    print(f"{name}: {about}", flush=True)
    try:
        found = module.measure(Run(small, module.SECONDS if seconds is None else seconds))
    except Skipped as reason:
        print(f"  skipped: {reason}")
        return
    for line in page.told(found.rows):
        print(f"  {line}")
    for line in found.skipped:
        print(f"  skipped: {line}")
    print(f"  {perf_counter() - begin:.0f} s", flush=True)
    result = Result(
        benchmark=name,
        about=about,
        date=date.today(),
        commit=commit(),
        machine=where,
        rows=tuple(found.rows),
        figures=found.figures,
        skipped=tuple(found.skipped),
    )
    if out is not None:
        result.write(out)
    elif not small:
        result.write()
        page.write()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Run benchmarks, each in turns.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(page.NAMES))
    parser.add_argument("--small", action="store_true", help="a try of a few seconds that writes nothing")
    parser.add_argument("--seconds", type=float, help="that each may take for its turns")
    parser.add_argument("--out", type=Path, help="write the results of one benchmark here instead")
    options = parser.parse_args()
    unknown = [name for name in options.names if name not in page.NAMES]
    if unknown:
        parser.error(f"no benchmark {unknown[0]!r}; write {', '.join(page.NAMES)}")
    if len(options.names) == 1:
        run(options.names[0], options.small, options.seconds, options.out)
        return 0
    if options.out is not None:
        parser.error("--out is for one benchmark; name it")
    more = ["--small"] * options.small + ([] if options.seconds is None else ["--seconds", str(options.seconds)])
    failed = [
        name
        for name in options.names or page.NAMES
        if subprocess.run([sys.executable, "-m", "benchmarks", name, *more]).returncode
    ]
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
