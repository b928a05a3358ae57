"""Several hosts: which there are, by an option, a file or Slurm, and the command line that starts ranks on them.

    run_job(arguments, 3, on=Hosts(("a", "a", "b")))

The mpirun starts its part on each other host by ssh, or by srun within a job of Slurm.
"""

from __future__ import annotations

import os
import re
import socket
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import ClassVar

from ..program.errors import ScenarioError
from .mpirun import Mpirun, tolerance
from .ranks import MpiKind

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
# What ranks on other hosts get of the launcher's environment, next to what Paceline sets.
USUAL = ("PATH", "LD_LIBRARY_PATH", "VIRTUAL_ENV", "CONDA_PREFIX")
GIVEN = ("OMPI_", "PRTE_", "PMIX_", "OPAL_")  # Open MPI hands these on by itself
OWN = ("HOME",)  # differ from host to host
_SLURM_TASKS = re.compile(r"(\d+)(?:\(x(\d+)\))?")


@dataclass(frozen=True)
class Host:
    """A host, and how many ranks it takes."""

    name: str
    slots: int


@dataclass(frozen=True)
class Hosts:
    """Which rank runs on which host. Host names are those by which the mpirun reaches them."""

    nodes: tuple[str, ...]  # the host of each rank
    passed: tuple[str, ...] = ()  # further environment variables that the ranks get
    kind: ClassVar[MpiKind | None] = None
    here: ClassVar[bool] = False
    marks: ClassVar[Mapping[str, str]] = {}

    def check(self) -> None:
        """ScenarioError where a variable that is to be passed on is not set."""
        for name in self.passed:
            if name not in os.environ:
                raise ScenarioError(f"-x {name}: this variable is not set here")

    def command(
        self, mpirun: Mpirun, program: Sequence[str], shrink: bool = False, set_here: Iterable[str] = ()
    ) -> list[str]:
        """The command line that runs `program` in one process per rank, each on its host.

        shrink: the others go on when one is lost. set_here: the environment variables that Paceline sets.
        """
        usual = [name for name in USUAL if name in os.environ]
        names = list(dict.fromkeys((*set_here, *usual, *self.passed)))
        runs = [(host, len([*those])) for host, those in groupby(self.nodes)]
        if mpirun.kind == "mpich":
            names = [name for name in names if name not in OWN]
            hosts = ",".join(f"{host}:{ranks}" for host, ranks in runs)
            return [mpirun.path, "-genvlist", ",".join(names), "-n", str(len(self.nodes)), "-hosts", hosts, *program]
        line = [mpirun.path, "--bind-to", "none", *(tolerance(mpirun) if shrink else [])]
        for name in names:
            line += [] if name in OWN or name.startswith(GIVEN) else ["-x", name]
        for host, ranks in runs:  # a part for each, since mpirun changes the order of hosts within one
            line += ["-n", str(ranks), "--host", f"{host}:{ranks}", *program, ":"]
        return line[:-1]


def read_hosts(text: str) -> list[Host]:
    """The hosts in a text like "a:4,b:4". A host without a number takes one rank; one that comes again takes more.

    ScenarioError where it makes no sense.
    """
    return _together(_host(entry.strip(), (), f"--hosts {text}") for entry in text.split(","))


def read_hostfile(path: Path) -> list[Host]:
    """The hosts in a file: a line for each, like `a slots=4` (Open MPI) or `a:4` (MPICH). # begins a comment.

    ScenarioError where it cannot be read or makes no sense.
    """
    try:
        lines = [line.partition("#")[0].split() for line in path.read_text().splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not a text"
        raise ScenarioError(f"--hostfile {path}: cannot be read: {why}") from None
    hosts = [
        _host(words[0], words[1:], f"--hostfile {path}: line {number}")
        for number, words in enumerate(lines, 1)
        if words
    ]
    if not hosts:
        raise ScenarioError(f"--hostfile {path}: names no host; write a line for each, like: a slots=4")
    return _together(hosts)


def slurm_hosts() -> list[Host] | None:
    """The hosts of the Slurm job in which this process runs; None where it runs in none, or has this host alone.

    The job's tasks are its slots: `sbatch --nodes=2 --ntasks-per-node=4`. Source: the output environment variables of
    sbatch's manual page.
    """
    text, tasks = os.environ.get("SLURM_JOB_NODELIST", ""), os.environ.get("SLURM_TASKS_PER_NODE", "")
    names = slurm_names(text)
    if not names or (len(names) == 1 and names[0] in {os.environ.get("SLURMD_NODENAME"), *own_names()}):
        return None
    counts = list[int]()
    for count, times in _SLURM_TASKS.findall(tasks):
        counts += [int(count)] * int(times or 1)
    if len(counts) != len(names):
        counts = [1] * len(names)
    return [Host(name, slots) for name, slots in zip(names, counts, strict=True)]


def slurm_names(text: str) -> list[str]:
    """The names in a list of Slurm's, like "login,gpu[01-03,7]"."""
    return [name for entry in re.findall(r"(?:[^,\[]|\[[^\]]*\])+", text) for name in _expanded(entry)]


def own_names() -> tuple[str, str]:
    """The name of this host, whole and without its domain."""
    name = socket.gethostname()
    return name, name.partition(".")[0]


def _expanded(entry: str) -> list[str]:
    head, bracket, rest = entry.partition("[")
    if not bracket:
        return [head]
    inside, _, tail = rest.partition("]")
    numbers = list[str]()
    for each in inside.split(","):
        first, _, last = each.partition("-")
        numbers += [f"{number:0{len(first)}}" for number in range(int(first), int(last or first) + 1)]
    return [f"{head}{number}{more}" for number in numbers for more in _expanded(tail)]


def _host(entry: str, words: Sequence[str], where: str) -> Host:
    name, colon, number = entry.partition(":")
    for word in words:
        key, equals, value = word.partition("=")
        if not (key and equals and value):
            raise ScenarioError(
                f"{where}: {word!r} says nothing about host {name}; write a line for each host, like: {name} slots=4"
            )
        if key == "slots":
            colon, number = equals, value
    if not NAME.fullmatch(name) or (colon and not (number.isdecimal() and int(number))):
        raise ScenarioError(f"{where}: {entry!r} is not a host with a number of ranks; write NAME:RANKS, like a:4")
    return Host(name, int(number) if colon else 1)


def _together(hosts: Iterable[Host]) -> list[Host]:
    slots: Counter[str] = Counter()
    for host in hosts:
        slots[host.name] += host.slots
    return [Host(name, number) for name, number in slots.items()]
