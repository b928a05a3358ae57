"""A star of nodes on one machine: network namespaces around a switch, each node's port shaped to a rate.

    launch(arguments, 4, on=Star(nodes=(0, 1, 2, 3), rates=(125e6,) * 4))

It needs Linux, root, iproute2 (`ip`, `tc`), util-linux (`unshare`) and Open MPI. What a node sends is shaped, and what
it receives is shaped by the ports of the others, so both directions run at the same time. No latency is added.

Rule: nothing has to be removed. The mpirun runs in a network namespace of its own, which is the switch, and in a mount
namespace of its own, where the nodes' namespaces have their names. The kernel removes all of it with the job's last
process, however that ends. The host's network is not touched.

TCP's congestion control is Reno unless told otherwise. It fills a port as Linux's default does, Cubic, which the kernel
lets no process choose within a namespace. Where the host's is BBR, which paces each connection by the rate that it had
lately, bursts among several connections leave ports idle (benchmarks/exchange_order.py has the figures).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network
from typing import ClassVar

from ..program.errors import ScenarioError
from .mpirun import Mpirun, find_mpirun, tolerance
from .ranks import MpiKind

NETWORK = IPv4Network("10.9.0.0/16")  # of the namespaces, which nothing else sees
ON_STAR = "PACELINE_STAR"  # the environment variable by which ranks know that they are on one
TOOLS = {
    "ip": "iproute2",
    "tc": "iproute2",
    "unshare": "util-linux",
    "nsenter": "util-linux",
}  # and the packages that have them
PIECE = 16_384  # bytes that a port sends at a time
LEAST_BURST = 2 * PIECE  # bytes that may pass at once after a pause
BURST = 250e-6  # the same in seconds at the port's rate, where that is more
NAMES = "/var/run/netns"  # where `ip` keeps the names of namespaces

# How a rank starts on its node: $1 is the node's name, which becomes its host name.
ON_NODE = 'echo "$1" > /proc/sys/kernel/hostname; shift; exec "$@"'


@dataclass(frozen=True)
class Star:
    """Which rank runs on which node, and how fast the nodes' ports are."""

    nodes: tuple[int, ...]  # the node of each rank; nodes are numbered from 0
    rates: tuple[float, ...]  # bytes/s that each node's port sends
    congestion: str | None = "reno"  # TCP's congestion control; None: the host's
    kind: ClassVar[MpiKind | None] = "openmpi"
    here: ClassVar[bool] = True
    marks: ClassVar[Mapping[str, str]] = {ON_STAR: "1"}

    def check(self) -> None:
        """ScenarioError where this star cannot be laid here."""
        if reason := self.obstacle():
            raise ScenarioError(f"--emulate-network: {reason}")

    def obstacle(self) -> str | None:
        """Why this star cannot be laid here, if so. It is laid once to find out."""
        if sys.platform != "linux" or os.geteuid() != 0:
            return "network namespaces need Linux and root"
        for tool, package in TOOLS.items():
            if not shutil.which(tool):
                return f"{tool} is missing; install {package}"
        try:
            find_mpirun("openmpi")
        except ScenarioError as error:
            return str(error)
        tried = subprocess.run(self.around(["true"]), capture_output=True, text=True, check=False)
        said = tried.stderr.strip().splitlines() or [f"status {tried.returncode}"]
        return f"namespaces cannot be made and shaped here ({said[-1]})" if tried.returncode else None

    def command(
        self, mpirun: Mpirun, program: Sequence[str], shrink: bool = False, set_here: Iterable[str] = ()
    ) -> list[str]:
        """The command line that lays the star and runs `program` in one process per rank, each on its node.

        shrink: the others go on when one is lost. The ranks have this process's whole environment.
        """
        line = [mpirun.path, "--bind-to", "none", *(tolerance(mpirun) if shrink else [])]
        # The first two let ranks of other namespaces reach mpirun; the others choose TCP over the shaped ports.
        line += ["--pmixmca", "ptl_base_if_include", str(NETWORK), "--pmixmca", "ptl_base_remote_connections", "1"]
        line += ["--mca", "pml", "ob1", "--mca", "btl", "tcp,self", "--mca", "btl_tcp_if_include", str(NETWORK)]
        for node in self.nodes:
            name = f"node{node}"
            inside = ["ip", "netns", "exec", name, "unshare", "--uts", "sh", "-ec", ON_NODE, "sh", name]
            line += ["-np", "1", *inside, *program, ":"]
        return self.around(line[:-1])

    def around(self, line: Sequence[str]) -> list[str]:
        """The command line that lays the star and then becomes `line`, on the switch."""
        return ["unshare", "--mount", "--net", "sh", "-ec", self._laying(), "sh", *line]

    def _laying(self) -> str:
        """The shell script that lays the star."""
        bits = NETWORK.prefixlen
        lines = [
            f"mkdir -p {NAMES}",
            f"mount -t tmpfs none {NAMES}",  # so that even the names are only here
            "ip link set lo up",
            "ip link add br0 type bridge",
            f"ip addr add {NETWORK[-2]}/{bits} dev br0",
            "ip link set br0 up",
        ]
        for i, rate in enumerate(self.rates):
            node, shaped = f"node{i}", " ".join(_shaped(rate))
            lines += [
                f"ip netns add {node}",
                f"ip link add port{i} type veth peer name eth0 netns {node}",
                f"ip link set port{i} master br0 up",
                f"ip -n {node} addr add {NETWORK[i + 1]}/{bits} dev eth0",
                f"ip -n {node} link set lo up",
                f"ip -n {node} link set eth0 up gso_max_size {PIECE}",
                f"tc -n {node} qdisc add dev eth0 {shaped}",  # what the node sends
                f"tc qdisc add dev port{i} {shaped}",  # what it receives
            ]
            if self.congestion is not None:
                chosen = f"echo {self.congestion} > /proc/sys/net/ipv4/tcp_congestion_control"
                lines.append(f"ip netns exec {node} sh -c '{chosen}'")
        return "\n".join([*lines, 'exec "$@"'])


def _shaped(rate: float) -> list[str]:
    """What `tc` is told of a port that sends so many bytes/s."""
    burst = max(LEAST_BURST, round(rate * BURST))
    return ["root", "tbf", "rate", f"{round(8 * rate)}bit", "burst", f"{burst}", "latency", "100ms"]


@dataclass(frozen=True)
class Port:
    """The port of the node on which this process runs, as a child of the mpirun on the switch. node: its number."""

    node: int
    rate: float  # bytes/s

    def slow(self, factor: float) -> None:
        """Make both of its directions `factor` times slower than described. OSError where `tc` fails."""
        shaped = _shaped(self.rate / factor)
        sends = ["tc", "qdisc", "change", "dev", "eth0", *shaped]
        receives = ["nsenter", f"--net=/proc/{os.getppid()}/ns/net", "tc", "qdisc", "change", "dev", f"port{self.node}"]
        for line in (sends, [*receives, *shaped]):
            done = subprocess.run(line, capture_output=True, text=True, check=False)
            if done.returncode:
                raise OSError(f"{' '.join(line)}: {done.stderr.strip()}")
