"""How a job with ULFM ends where Open MPI would let ranks wait for ever."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from kit.paths import ROOT
from paceline.runtime import job_signs
from paceline.runtime.banners import Relay
from paceline.runtime.job_signs import Signs

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


def signs(*lines: bytes) -> Signs:
    noted = Signs()
    assert all(map(noted.note, lines))
    return noted


def test_a_rank_that_ends_the_job_ends_it(monkeypatch):
    """With the rank's own status, also where MPI_Abort ends nothing; else with mpirun's."""
    monkeypatch.setattr(job_signs, "GRACE", 0.2)
    with subprocess.Popen(["sleep", "60"]) as mpirun:
        assert job_signs.all_begin(mpirun, 1, signs(b"paceline sign: begun\n"))
        ending = signs(b"paceline sign: begun\n", b"paceline sign: ends 3\n")
        assert job_signs.all_begin(mpirun, 2, ending), "a rank that ends the job is not lost"
        assert job_signs.exit_status(mpirun, ending, survives=True) == 3
        assert mpirun.poll() is not None
    with subprocess.Popen(["sh", "-c", "exit 5"]) as mpirun:
        assert job_signs.exit_status(mpirun, signs(), survives=True) == 5


def test_an_error_that_is_fatal_ends_the_job(monkeypatch):
    monkeypatch.setattr(job_signs, "FATAL_GRACE", 0.2)
    relay = Relay()
    assert [*relay.kept([b"[c:00000] *** An error occurred in Socket closed\n"])] == []
    with subprocess.Popen(["sleep", "60"]) as mpirun:
        assert job_signs.exit_status(mpirun, relay.signs, survives=False) == 1
    assert relay.lost == "a rank was lost, and its connections have closed"


def test_a_rank_of_another_host_is_lost_when_no_sign_comes(monkeypatch):
    monkeypatch.setattr(job_signs, "SILENT", 0.2)
    with subprocess.Popen(["sleep", "60"]) as mpirun:
        assert not job_signs.all_begin(mpirun, 2, signs(b"paceline sign: starts\n", b"paceline sign: begun\n"))
        mpirun.kill()


def test_ranks_give_signs_only_where_they_are_noted(monkeypatch, capfd):
    monkeypatch.delenv(job_signs.TOLD, raising=False)
    job_signs.begun()
    assert capfd.readouterr().err == ""
    monkeypatch.setenv(job_signs.TOLD, "1")
    job_signs.starts()
    job_signs.ends(3)
    relay = Relay()
    assert [*relay.kept(line.encode() for line in [*capfd.readouterr().err.splitlines(True), "other\n"])] == [
        b"other\n"
    ]
    assert (relay.signs.begun, relay.signs.ending) == (0, 3)


@pytest.mark.skipif(not os.path.exists("/proc/self/task"), reason="Linux tells which processes a process has started")
def test_a_process_that_ends_before_the_ranks_have_begun(monkeypatch):
    monkeypatch.setattr(job_signs, "PATIENCE", 3)
    with subprocess.Popen(["sh", "-c", "sleep 3 & sleep 0.3 & wait"]) as mpirun:
        assert not job_signs.all_begin(mpirun, 2, signs())
        mpirun.kill()
