"""Every benchmark runs in its small size, so that one that broke shows before its figure is needed.

Their times are not looked at, and no results file is written.
"""

import subprocess
import sys

import pytest

from kit.paths import ROOT

FOLDER = ROOT / "benchmarks"
PROGRAMS = [path for path in sorted(FOLDER.glob("*.py")) if "__main__" in path.read_text()]


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: path.stem)
def test_benchmark(path):
    before = {file: file.read_bytes() for file in FOLDER.glob("results/*.json")}
    done = subprocess.run(
        [sys.executable, path, "--small"], capture_output=True, text=True, timeout=240, check=False, cwd=FOLDER.parent
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.strip()
    assert {file: file.read_bytes() for file in FOLDER.glob("results/*.json")} == before
