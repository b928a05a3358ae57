"""A `paceline train` that is watched from outside: what it says and when, its ranks' processes, and its end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from paceline.config import yaml
from paceline.records.directory import METRICS, SUMMARY
from paceline.runtime.job_folders import BACKING
from paceline.runtime.ranks import MpiKind

from ..form import ROOT

LONGEST = 120.0  # seconds after which a run counts as hanging
LOOK = 0.002  # seconds between two looks at a run
MARK = "PACELINE_KILLS"  # the environment variable by which a job's processes are known
RUN = "run"  # the run's directory in the job's folder
SCENARIO = "scenario.yaml"
FOLDERS = (BACKING, "PRTE_MCA_prte_tmpdir_base")  # the variables that say where an mpirun keeps its files


class Hangs(Exception):
    """Something did not happen in time."""


class Job:
    """A run of a command in a folder, which has the scenario and the run's directory.

    arguments: of `paceline`.
    """

    def __init__(self, folder: Path, *arguments: str, kind: MpiKind = "openmpi") -> None:
        self.folder, self.run, self.mark = folder, folder / RUN, uuid.uuid4().hex
        self.said = list[tuple[float, str]]()  # (when, by time.time; the line) of standard error
        temporary = folder / "tmp"
        temporary.mkdir(exist_ok=True)
        paths = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
        settings = {**os.environ, "PYTHONPATH": paths, "TMPDIR": str(temporary), MARK: self.mark}
        line = [sys.executable, "-P", "-m", "benchmarks.kills.command", kind, *arguments]
        self.begun = time.time()
        self.process = subprocess.Popen(
            line, cwd=folder, env=settings, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr
        for line in self.process.stderr:
            self.said.append((time.time(), line.rstrip()))

    def ranks(self) -> dict[int, int]:
        """rank -> the number of its process, of those that live."""
        return {rank: process for process, rank in self._ranks()}

    def processes_of_ranks(self) -> list[int]:
        """The numbers of the living ranks' processes. A new worker's rank is one of another world's."""
        return [process for process, _ in self._ranks()]

    def _ranks(self) -> list[tuple[int, int]]:
        """(process, rank) of the living ranks."""
        found = {process: rank for process, variables in self._processes() if (rank := _rank(variables)) is not None}
        # A rank's own helper processes have its variables, too.
        return [(process, rank) for process, rank in found.items() if _parent(process) not in found]

    def living(self) -> list[int]:
        """The numbers of the job's living processes."""
        return [process for process, _ in self._processes()]

    def folders(self) -> set[Path]:
        """The folders that its mpirun was given for its files."""
        given = (variables.get(name) for _, variables in self._processes() for name in FOLDERS)
        return {Path(path) for path in given if path}

    def kill_all(self) -> None:
        """Kill the launcher, mpirun and all ranks, and return when none is left."""
        while living := self.living():
            for process in living:
                with suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
            if self.process.pid in living:
                self.process.wait()
            time.sleep(LOOK)
        self._reader.join()

    def mpirun(self) -> int:
        """The process number of the job's mpirun."""
        (found,) = (process for process, _ in self._processes() if _parent(process) == self.process.pid)
        return found

    def _processes(self) -> Iterator[tuple[int, dict[str, str]]]:
        """(process, environment) of the job's living processes."""
        for path in sorted(Path("/proc").glob("[0-9]*"), key=lambda path: int(path.name)):
            with suppress(OSError):
                text = (path / "environ").read_text(errors="replace")
                variables = {name: value for name, _, value in (pair.partition("=") for pair in text.split("\0"))}
                if variables.get(MARK) == self.mark and _state(int(path.name)) not in ("Z", "X", ""):
                    yield int(path.name), variables

    def until(self, met: Callable[[], Any], seconds: float = LONGEST) -> Any:
        """What `met` returns, once that is true. Hangs where it takes too long or the job ends before."""
        limit = time.monotonic() + seconds
        while not (found := met()):
            if self.process.poll() is not None:
                raise Hangs(f"the job ended with status {self.process.returncode}: {self.last}")
            if time.monotonic() > limit:
                raise Hangs(f"waited {seconds:.0f} s; the job said: {self.last}")
            time.sleep(LOOK)
        return found

    def until_reports(self, count: int) -> None:
        """Return when so many report lines are written."""
        path = self.run / METRICS
        self.until(lambda: path.exists() and path.read_bytes().count(b"\n") >= count)

    def heard(self, words: str = "", since: float = 0.0) -> float | None:
        """When the first line came that has these words, since a time; None where there is none yet."""
        return next((when for when, line in [*self.said] if when >= since and words in line), None)

    @property
    def last(self) -> str:
        """The last line that the job has said."""
        return self.said[-1][1] if self.said else "nothing"

    @property
    def text(self) -> str:
        """All that the job has said."""
        return "\n".join(line for _, line in self.said)

    def end(self, seconds: float = LONGEST) -> int:
        """The exit status. Hangs where it does not end in time; then it is killed."""
        try:
            status = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill_all()
            raise Hangs(f"no end after {seconds:.0f} s; the job said: {self.last}") from None
        self._reader.join()
        return status

    def __enter__(self) -> Job:
        return self

    def __exit__(self, *error: object) -> None:
        self.kill_all()
        self.process.wait()
        if self.process.stderr:
            self.process.stderr.close()


def begin(folder: Path, document: dict[str, Any], *more: str, kind: MpiKind = "openmpi") -> Job:
    """Train a scenario in a new folder."""
    folder.mkdir(parents=True)
    (folder / SCENARIO).write_text(yaml.dump(document))
    return Job(folder, "train", SCENARIO, "--out", RUN, "--quiet", *more, kind=kind)


def resume(folder: Path, kind: MpiKind = "openmpi") -> Job:
    """Go on with the run in a folder."""
    return Job(folder, "train", "--resume", RUN, "--quiet", kind=kind)


def whole(folder: Path, document: dict[str, Any], kind: MpiKind = "openmpi") -> dict[str, Any]:
    """The summary of a run that nothing happens to."""
    with begin(folder, document, kind=kind) as job:
        status = job.end()
        if status:
            raise RuntimeError(f"a run without faults ended with status {status}: {job.text}")
    return summary(folder)


def summary(folder: Path) -> dict[str, Any]:
    """The run's summary; empty where there is none."""
    path = folder / RUN / SUMMARY
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return found


def _rank(variables: dict[str, str]) -> int | None:
    for name in ("OMPI_COMM_WORLD_RANK", "PMI_RANK"):
        if variables.get(name, "").isdecimal():
            return int(variables[name])
    return None


def _stat(process: int) -> list[str]:
    """The fields of /proc/PID/stat from the state on; empty where the process is gone."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def _state(process: int) -> str:
    return (_stat(process) or [""])[0]


def _parent(process: int) -> int:
    return int((_stat(process) or ["", "0"])[1])
