"""Inputs that a user could give, from slightly wrong to hostile, and what the command line may do with them.

A Case is files and a command line. `fault` runs it and says what is wrong with how it ended; nothing, if it succeeded
or refused in one clear line and left every file as it was.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SERVER = Path(__file__).with_name("server.py")
LINE = 400  # characters of an error
CONTROL = ("Cc", "Cf", "Cs", "Zl", "Zp")  # characters that steer a terminal, or are none
# Errors of a run that has begun: what it had logged stays.
MIDWAY = re.compile(
    r"not finished after the limit|no other worker takes over|do not fit together|not finite|no finite|is not a finite"
)

# An error in a sweep's table that Paceline did not raise itself.
SURPRISE = re.compile(r'(?:^|[,"])(?!Scenario|Protocol|Paceline)\w+(?:Error|Exception): [^,]*', re.MULTILINE)


@dataclass(frozen=True)
class Case:
    """files: what lies in the working folder, path -> content. arguments: of `paceline`."""

    files: dict[str, bytes]
    arguments: tuple[str, ...]

    def script(self) -> str:
        """Shell commands that run the case by hand, in an empty folder."""
        lines = []
        for path, data in self.files.items():
            folder = f"mkdir -p {shlex.quote(os.path.dirname(path))}; " if "/" in path else ""
            lines.append(f"{folder}echo {base64.b64encode(data).decode()} | base64 -d > {shlex.quote(path)}")
        return "\n".join([*lines, f"paceline {shlex.join(self.arguments)}"])

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """As Hypothesis shows it: `script` has the rest."""
        printer.text(f"a case of paceline {shlex.join(self.arguments)!r:.300}")


@dataclass(frozen=True)
class End:
    """How a run ended. status: minus a signal's number where one ended it. before, after: hashes by file.

    table: a sweep's.
    """

    status: int
    out: str
    err: str
    before: dict[str, str]
    after: dict[str, str]
    table: str = ""


class Runner:
    """Runs cases in the children of one server process. A context manager."""

    def __enter__(self) -> Runner:
        self._folder = Path(tempfile.mkdtemp(prefix="paceline-fuzz-"))
        self.work = self._folder / "work"
        threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        ours = [name for name in os.environ if name.startswith(("SLURM_", "OMPI_", "PMI"))]
        environment = {k: v for k, v in os.environ.items() if k not in ours} | threads | {"COLUMNS": "100"}
        self._server = subprocess.Popen(
            [sys.executable, str(SERVER)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        return self

    def __exit__(self, *_: object) -> None:
        assert self._server.stdin
        assert self._server.stdout
        self._server.stdin.close()
        self._server.wait(timeout=60)
        self._server.stdout.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def run(self, case: Case) -> End:
        """Run a case in a folder of its own."""
        assert self._server.stdin
        assert self._server.stdout
        self.prepare(case)
        before = hashes(self.work)
        run = {"folder": str(self._folder), "arguments": case.arguments}
        self._server.stdin.write(json.dumps(run) + "\n")
        self._server.stdin.flush()
        status = int(self._server.stdout.readline())
        said = [(self._folder / name).read_text(errors="replace") for name in ("out", "err")]
        table = self.work / "table.csv"
        rows = table.read_text(errors="replace") if table.is_file() else ""
        return End(status, said[0], said[1], before, hashes(self.work), rows)

    def prepare(self, case: Case) -> None:
        """Make the working folder, with the case's files."""
        shutil.rmtree(self.work, ignore_errors=True)
        self.work.mkdir()
        for path, data in case.files.items():
            (self.work / path).parent.mkdir(parents=True, exist_ok=True)
            (self.work / path).write_bytes(data)


def hashes(folder: Path) -> dict[str, str]:
    """What lies in a folder: path -> SHA-256, of folders the empty text."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        for path in sorted(folder.rglob("*"))
        if "__pycache__" not in path.parts
    }


def fault(end: End) -> str:
    """What is wrong with how a run ended; empty where nothing is."""
    lines = end.err.split("\n")
    lines = lines[:-1] if lines[-1] == "" else lines
    if "Traceback (most recent call last)" in end.err + end.out:
        return f"traceback: {lines[-1]}"
    if end.status not in (0, 2):
        return f"status {end.status}: {end.err[-300:]}"
    if surprise := SURPRISE.search(end.table):
        return f"in the table: {surprise[0]}"
    lost = [path for path, content in end.before.items() if end.after.get(path) != content]
    if end.status == 2 and lost:
        return f"refused, but changed {', '.join(lost)}"
    if end.status == 2:
        errors = [line for line in lines if not line.startswith("paceline: warning: ")]
        if len(errors) != 1:
            return f"{len(errors)} lines for an error: {end.err[:600]!r}"
        if end.after != end.before and not MIDWAY.search(errors[0]):
            return f"refused, but wrote {', '.join(end.after.keys() - end.before)}: {errors[0]}"
    for line in lines:
        if not line.startswith("paceline: "):
            return f"not ours: {line[:300]!r}"
        if len(line) > LINE:
            return f"{len(line)} characters: {line[:200]!r}"
        if any(unicodedata.category(c) in CONTROL for c in line):
            return f"control characters: {line!r}"
    return ""
