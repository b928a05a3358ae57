"""A star of nodes on one machine: network namespaces around a switch, each node's port shaped to a rate.

    with Star(4, "1gbit") as star:
        star.run([sys.executable, "program.py"], timeout=300)

Needs Linux, root, iproute2 (`ip`, `tc`) and Open MPI; `missing()` says what is not there. One rank runs on each node.
What a node sends is shaped, and what it receives by its peers' ports: both directions run at the same time. Everything
lives in namespaces of its own and is removed at the end, also on failure: the host's network is not touched.

TCP's congestion control is Reno unless told otherwise. It fills a port as Linux's default does, Cubic, which the kernel
lets no process choose within a namespace. Where the host's is BBR, which paces each connection by the rate that it had
lately, bursts among several connections leave ports idle (benchmarks/exchange_order.py has the figures).
"""

from __future__ import annotations

import os
import platform
import shutil
import signal
import subprocess
from collections.abc import Sequence
from types import FrameType
from typing import Any

from paceline.program.errors import ScenarioError
from paceline.runtime.mpirun import environment, find_mpirun

SUBNET = "10.9.0"  # of the namespaces' own network, which nothing else sees


def missing() -> str | None:
    """Why no star can be made here, if so."""
    if platform.system() != "Linux" or os.geteuid() != 0:
        return "network namespaces need Linux and root"
    if not shutil.which("ip") or not shutil.which("tc"):
        return "ip and tc are missing; install iproute2"
    try:
        find_mpirun("openmpi")
    except ScenarioError as error:
        return str(error)
    name = f"paceline-{os.getpid()}-probe"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True, check=False)
    subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)
    return made.stderr.strip() or "no namespace can be made" if made.returncode else None


class Star:
    """`nodes` nodes, each of which sends at most `rate`, as tc writes it ("1gbit").

    congestion: TCP's congestion control; None: the host's.
    """

    def __init__(self, nodes: int, rate: str, congestion: str | None = "reno") -> None:
        self._rate, self._congestion = rate, congestion
        self._switch = f"paceline-{os.getpid()}-switch"
        self._nodes = [f"paceline-{os.getpid()}-node{i}" for i in range(1, nodes + 1)]
        self._before: Any = None

    def __enter__(self) -> Star:
        self._before = signal.signal(signal.SIGTERM, _leave)  # so that being ended removes the namespaces as well
        try:
            self._make()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for name in (*self._nodes, self._switch):
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)
        signal.signal(signal.SIGTERM, self._before)

    def _make(self) -> None:
        switch = self._switch
        _do(f"ip netns add {switch}")
        _do(f"ip -n {switch} link set lo up")
        _do(f"ip -n {switch} link add br0 type bridge")
        _do(f"ip -n {switch} addr add {SUBNET}.254/24 dev br0")
        _do(f"ip -n {switch} link set br0 up")
        for i, node in enumerate(self._nodes, 1):
            _do(f"ip netns add {node}")
            _do(f"ip -n {switch} link add port{i} type veth peer name eth0 netns {node}")
            _do(f"ip -n {switch} link set port{i} master br0")
            _do(f"ip -n {switch} link set port{i} up")
            _do(f"ip -n {node} addr add {SUBNET}.{i}/24 dev eth0")
            _do(f"ip -n {node} link set lo up")
            _do(f"ip -n {node} link set eth0 up")
            if self._congestion is not None:
                _do(f"ip netns exec {node} sysctl -q net.ipv4.tcp_congestion_control={self._congestion}")
            _do(f"tc -n {node} qdisc add dev eth0 root tbf rate {self._rate} burst 128kb latency 100ms")

    def run(self, program: Sequence[str], timeout: float, threads: int = 1) -> None:
        """Run `program` as one rank on each node, with `threads` processor threads.

        CalledProcessError where it fails, TimeoutExpired after `timeout` seconds.
        """
        mpirun, ranks = find_mpirun("openmpi"), len(self._nodes)
        line = ["ip", "netns", "exec", self._switch, mpirun.path, "--bind-to", "none"]
        # The first two let ranks of other namespaces reach mpirun; the others choose TCP over the shaped ports.
        line += ["--pmixmca", "ptl_base_if_include", f"{SUBNET}.0/24", "--pmixmca", "ptl_base_remote_connections", "1"]
        line += ["--mca", "pml", "ob1", "--mca", "btl", "tcp,self", "--mca", "btl_tcp_if_include", f"{SUBNET}.0/24"]
        for node in self._nodes:
            line += ["-np", "1", "ip", "netns", "exec", node, *program, ":"]
        settings = environment(mpirun, ranks, threads)
        process = subprocess.Popen(line[:-1], env=settings, stdin=subprocess.DEVNULL)
        try:
            status = process.wait(timeout)
        finally:
            process.terminate()
            process.wait()
        if status:
            raise subprocess.CalledProcessError(status, line)


def _leave(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


def _do(command: str) -> None:
    done = subprocess.run(command.split(), capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{command}: {done.stderr.strip()}")
