"""How a job with ULFM ends where Open MPI would let ranks wait for ever."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from kit.paths import ROOT
from paceline.runtime import job_signs

LOST = """
import os, signal, time
if os.environ["OMPI_COMM_WORLD_RANK"] == "1":
    time.sleep(0.2)
    os.kill(os.getpid(), signal.SIGKILL)
from paceline.runtime.launcher import abort_on_error
with abort_on_error():
    pass
"""


def test_a_rank_that_is_lost_before_the_others_know_it_ends_the_job(tmp_path):
    """With ULFM the others would wait for it in MPI_Init for ever."""
    code = (
        f"from paceline.runtime.launcher import run_job; print(run_job([], 2, program=['-c', {LOST!r}], shrink=True))"
    )
    line = [sys.executable, "-c", code]
    done = subprocess.run(
        line, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=100, check=False
    )
    assert "lost='a rank was lost before the ranks had found one another'" in done.stdout, done.stderr


def test_a_rank_that_ends_the_job_ends_it(tmp_path, monkeypatch):
    """With the rank's own status, also where MPI_Abort ends nothing; else with mpirun's."""
    monkeypatch.setattr(job_signs, "GRACE", 0.2)
    monkeypatch.setenv(job_signs.FOLDER, str(tmp_path))
    with subprocess.Popen(["sleep", "60"]) as mpirun:
        job_signs.begun()
        assert job_signs.all_begin(mpirun, 1, tmp_path)
        job_signs.ends(3)
        assert job_signs.all_begin(mpirun, 2, tmp_path), "a rank that ends the job is not lost"
        assert job_signs.exit_status(mpirun, tmp_path) == 3
        assert mpirun.poll() is not None
    with subprocess.Popen(["sh", "-c", "exit 5"]) as mpirun:
        assert job_signs.exit_status(mpirun, tmp_path) == 5


def test_without_a_folder_nothing_is_told(monkeypatch):
    monkeypatch.delenv(job_signs.FOLDER, raising=False)
    job_signs.begun()
    monkeypatch.setenv(job_signs.FOLDER, "/nowhere/at/all")
    job_signs.ends(1)


@pytest.mark.skipif(not os.path.exists("/proc/self/task"), reason="Linux tells which processes a process has started")
def test_a_process_that_ends_before_the_ranks_have_begun(tmp_path, monkeypatch):
    monkeypatch.setattr(job_signs, "PATIENCE", 3)
    with subprocess.Popen(["sh", "-c", "sleep 3 & sleep 0.3 & wait"]) as mpirun:
        assert not job_signs.all_begin(mpirun, 2, tmp_path)
        mpirun.kill()
