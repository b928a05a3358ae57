"""Which worker of a real run computes on which host: --hosts, --hostfile, or the hosts of a Slurm job.

Rule: node k of the scenario is host k. Where the scenario has plain workers, they fill the hosts in their order.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from .config.machines import Cluster
from .emulated_network import star_for
from .program.errors import ScenarioError
from .runtime.hosts import Host, Hosts, read_hostfile, read_hosts, slurm_hosts
from .runtime.mpirun import Ground, Here
from .training import Training


@dataclass(frozen=True)
class Where:
    """Where a command's ranks are to run, as the user says it."""

    hosts: str | None = None  # like "a:4,b:4"
    hostfile: Path | None = None
    passed: tuple[str, ...] = ()  # further environment variables that ranks on other hosts get

    def find(self) -> tuple[str, list[Host]] | None:
        """(what names the hosts, the hosts); None for this machine. ScenarioError where they make no sense."""
        if self.hosts is not None and self.hostfile is not None:
            raise ScenarioError("--hosts and --hostfile both name the hosts; leave out one of them")
        if self.hosts is not None:
            return "--hosts", read_hosts(self.hosts)
        if self.hostfile is not None:
            return "--hostfile", read_hostfile(self.hostfile)
        found = slurm_hosts()
        return None if found is None else ("the Slurm job", found)

    def flags(self) -> list[str]:
        """The options as the command line spells them."""
        named = {"--hosts": self.hosts, "--hostfile": self.hostfile}
        return [f"{name}={value}" for name, value in named.items() if value is not None] + [
            word for name in self.passed for word in ("-x", name)
        ]


class Start(NamedTuple):
    """How the ranks are started once."""

    arguments: list[str]  # of `paceline`
    ground: Ground  # where they run
    threads: int  # per rank
    shrink: bool  # whether the others go on without a lost one


NOWHERE = Where()  # the user names no host


def ground_for(
    where: Where,
    begun: Sequence[Training],
    left: Sequence[Training],
    ranks: int | None,
    members: Sequence[int] | None,
) -> Ground:
    """Where the ranks of one mpirun run.

    begun: the trainings as they were when the command began. left: as they are now; of the first one there may be
        fewer workers. ranks: how many the user wants. members: the workers of the first one that are left, by their
        numbers when the command began; None: all.

    ScenarioError where the hosts do not fit the scenarios.
    """
    star = star_for([(training.title, training.scenario) for training in left], ranks)
    if star is not None:
        if where.flags():
            raise ScenarioError("--emulate-network lays a star on this machine; leave out --hosts, --hostfile and -x")
        return star
    found = where.find()
    if found is None:
        if where.passed:
            raise ScenarioError(
                "-x passes variables to other hosts; name them by --hosts or --hostfile, or leave it out"
            )
        return Here(ranks or max(training.scenario.cluster.size for training in left))
    placed = [_placed(training.title, training.scenario.cluster, *found) for training in begun]
    if members is not None:
        placed[0] = tuple(placed[0][worker] for worker in members)
    longest = max(placed, key=len)
    if ranks not in (None, len(longest)):
        raise ScenarioError(f"-n {ranks}: the hosts get a rank for each of {len(longest)} workers; leave out -n")
    for training, nodes in zip(begun, placed, strict=True):
        if members is None and nodes != longest[: len(nodes)]:
            raise ScenarioError(
                f"{training.title}: its workers are on other hosts than those of another scenario; train them in two "
                "commands"
            )
    return Hosts((*placed[0], *longest[len(placed[0]) :]), where.passed)


def _placed(title: str, cluster: Cluster, source: str, hosts: Sequence[Host]) -> tuple[str, ...]:
    """The host of each worker. source: what names the hosts."""
    named = ", ".join(f"{host.name}:{host.slots}" for host in hosts[:8]) + (", ..." if len(hosts) > 8 else "")
    if cluster.nodes is None and all(group.node is None for group in cluster.workers or ()):
        room = sum(host.slots for host in hosts)
        if cluster.size > room:
            raise ScenarioError(
                f"{title}: {cluster.size} workers, but {source} has room for {room} ({named}); {_more(source)}"
            )
        seats = (host.name for host in hosts for _ in range(host.slots))
        return tuple(name for name, _ in zip(seats, range(cluster.size), strict=False))
    nodes = [place.node for place in cluster.places]
    needed = Counter(nodes)
    if len(needed) > len(hosts):
        raise ScenarioError(
            f"{title}: cluster describes {len(needed)} nodes, but {source} names {len(hosts)} ({named}); node k of the "
            "scenario is host k: name as many hosts"
        )
    for node, workers in sorted(needed.items()):
        host = hosts[node]
        if host.slots < workers:
            raise ScenarioError(
                f"{title}: node {node} has {workers} workers, but {source} gives its host {host.name} {host.slots} "
                f"({named}); {_more(source, f'{host.name}:{workers}')}"
            )
    return tuple(hosts[node].name for node in nodes)


def _more(source: str, like: str = "a:4") -> str:
    if source == "the Slurm job":
        return "ask for more with sbatch --ntasks-per-node"
    return f"write how many each takes, like {like}"
