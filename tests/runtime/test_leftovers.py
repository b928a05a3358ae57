"""What killed jobs leave on a machine is gone after the next start; what living ones and others have stays."""

from __future__ import annotations

import mmap
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from kit.paths import ROOT
from paceline.runtime import job_folders as folders_module
from paceline.runtime.job_folders import BACKING, SEGMENTS, job_folders, remove_leftovers

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}
# A launcher with its folders, and an mpirun that inherits their locks. It prints their process numbers and the folders.
LAUNCHER = """
import subprocess, sys, tempfile
from pathlib import Path
from paceline.runtime import job_folders
job_folders.SHARED = Path(sys.argv[2])
with job_folders.job_folders(sys.argv[1]) as folders:
    mpirun = subprocess.Popen(["sleep", "60"], pass_fds=folders.locks)
    print(mpirun.pid, *dict.fromkeys(folders.variables.values()), flush=True)
    mpirun.wait()
"""


@pytest.fixture
def places(tmp_path, monkeypatch) -> tuple[Path, Path]:
    """The folder for temporary files and the one for shared memory."""
    found = tmp_path / "tmp", tmp_path / "shm"
    for place in found:
        place.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(found[0]))
    monkeypatch.setattr(folders_module, "SHARED", found[1])
    monkeypatch.delenv(BACKING, raising=False)
    return found


def begin(kind: str, places: tuple[Path, Path]) -> tuple[subprocess.Popen[str], int, list[Path]]:
    """(a launcher, the process number of its mpirun, its folders)."""
    line = [sys.executable, "-c", LAUNCHER, kind, str(places[1])]
    settings = ENVIRONMENT | {"TMPDIR": str(places[0])}
    job = subprocess.Popen(line, env=settings, stdout=subprocess.PIPE, text=True)
    (line,) = told(job, 1)
    number, *made = line.split()
    return job, int(number), list(map(Path, made))


def told(job: subprocess.Popen[str], lines: int) -> list[str]:
    """So many lines of what a process prints. No more of it is read."""
    assert job.stdout
    with job.stdout:
        return [job.stdout.readline() for _ in range(lines)]


def until(met, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not met():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def everything(places: tuple[Path, Path]) -> list[Path]:
    return [path for place in places for path in sorted(place.iterdir())]


def ended(number: int) -> bool:
    stat = Path(f"/proc/{number}/stat")
    return not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] == "Z"


def test_a_killed_jobs_folders_go_once_its_mpirun_has_ended_too(places):
    job, mpirun, made = begin("openmpi", places)
    assert sorted(path.parent for path in made) == sorted(places)
    for path in made:
        (path / "left").mkdir()
        (path / "left" / "segment").write_text("")
    remove_leftovers()
    assert everything(places) == made, "the job is alive"
    job.kill()
    job.wait()
    remove_leftovers()
    assert everything(places) == made, "its mpirun is"
    os.kill(mpirun, signal.SIGKILL)
    until(lambda: ended(mpirun))
    with job_folders("openmpi") as folders:
        assert {*everything(places)} == {*map(Path, folders.variables.values())}
        assert len(everything(places)) == 2
    assert everything(places) == []


def test_what_others_have_stays(places, tmp_path):
    """A run in a temporary folder, a link, another user's folder."""
    names = ["paceline-x1", "paceline-openmpi", "others"]
    mine = [places[0] / name for name in names]
    for path in mine:
        path.mkdir()
    (places[0] / "paceline-openmpi-link").symlink_to(mine[2])
    (places[0] / "paceline-openmpi-file").write_text("")
    if os.geteuid() == 0:
        foreign = places[1] / "paceline-openmpi-foreign"
        foreign.mkdir()
        os.chown(foreign, 65534, 65534)
    before = everything(places)
    with job_folders("mpich") as folders:
        assert BACKING not in folders.variables
    assert everything(places) == before


def test_open_mpis_own_folder_can_be_chosen(places, monkeypatch):
    monkeypatch.setenv(BACKING, "/elsewhere")
    with job_folders("openmpi") as folders:
        assert BACKING not in folders.variables
        assert len(everything(places)) == 1
    monkeypatch.delenv(BACKING)
    places[1].rmdir()  # a system without it
    with job_folders("openmpi") as folders:
        assert BACKING not in folders.variables


def segment(places: tuple[Path, Path], name: str) -> Path:
    path = places[1] / SEGMENTS.replace("*", name)
    path.write_bytes(bytes(mmap.PAGESIZE))
    return path


def test_mpichs_segments_go_with_the_job_that_left_them(places):
    """Not those that are older than the job, nor those that a process has open or mapped."""
    older = segment(places, "older")
    time.sleep(0.02)  # more than the file system's clock needs to go on
    job, mpirun, _ = begin("mpich", places)
    time.sleep(0.02)
    left, opened, mapped = (segment(places, name) for name in ("left", "opened", "mapped"))
    with opened.open("rb"), mapped.open("rb") as file:
        shared = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        file.close()
        for process in (job.pid, mpirun):
            os.kill(process, signal.SIGKILL)
        job.wait()
        until(lambda: ended(mpirun))
        remove_leftovers()
        assert not left.exists()
        folder, *others = everything(places)
        assert others == sorted([older, opened, mapped])
        assert folder.parent == places[0], "it stays as long as something may be the dead job's"
        shared.close()
    remove_leftovers()
    assert everything(places) == [older]


HOLDS = """
import os, sys, time
from paceline.runtime.launcher import abort_on_error
with abort_on_error():
    from mpi4py import MPI
    MPI.COMM_WORLD.Barrier()
    os.write(1, f"{os.getpid()}\\n".encode())
    time.sleep(60)
"""


def test_after_everything_was_killed_the_next_start_cleans_up(tmp_path):
    """Open MPI's files in /dev/shm and in the temporary folder, of ranks that no launcher and no mpirun outlives."""
    code = f"from paceline.runtime.launcher import launch; launch([], 2, program=['-c', {HOLDS!r}])"
    settings = ENVIRONMENT | {"TMPDIR": str(tmp_path)}
    job = subprocess.Popen([sys.executable, "-c", code], env=settings, stdout=subprocess.PIPE, text=True)
    ranks = [*map(int, told(job, 2))]
    variables = dict(each.split("=", 1) for each in Path(f"/proc/{ranks[0]}/environ").read_text().split("\0") if each)
    shared = Path(variables[BACKING])
    assert list(shared.iterdir())  # looked at now: once its job is dead, any start on this machine may remove it
    parent = int(Path(f"/proc/{ranks[0]}/stat").read_text().rpartition(")")[2].split()[1])
    for process in (*ranks, parent, job.pid):
        os.kill(process, signal.SIGKILL)
    job.wait()
    until(lambda: all(map(ended, (*ranks, parent))))
    (temporary,) = tmp_path.iterdir()
    assert list(temporary.iterdir())
    code = "from paceline.runtime.job_folders import *; remove_leftovers()"
    subprocess.run([sys.executable, "-c", code], env=settings, check=True, timeout=60)
    assert list(tmp_path.iterdir()) == []
    assert not shared.exists()
