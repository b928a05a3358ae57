"""Every key of the cluster section moves the simulated clock, or is listed here with the reason why it does not.

The keys are taken from the schema, so a new one fails here until it is entered in CHANGES or NO_TIME.
"""

from __future__ import annotations

from typing import Any

import pytest

import paceline
from kit.cli import MLP, scenario
from paceline.config.machines import Cluster
from paceline.config.profile import Profile, save_profile, workload_key
from paceline.config.scenario import Scenario, _sections, validate
from paceline.config.sections import Section
from paceline.job import resolve
from paceline.program.effects import Compute, Move, Phantom, Program, Work, nothing
from paceline.program.outcome import Hooks
from paceline.sim.engine import simulate

NETWORK = {"bandwidth": "1 Gbit/s", "latency": "50 us"}


def two(first: dict[str, Any] | None = None, network: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    """Two equal workers; `first` changes the first one."""
    workers = [{"device": "a100-80g"} | (first or {}), {"device": "a100-80g"}]
    return {"workers": workers, "network": NETWORK | (network or {})} | more


def nodes(device: dict[str, Any] | None = None, **node: Any) -> dict[str, Any]:
    """Two nodes of two workers each; the first node is changed."""
    devices = [{"device": "a100-80g", "count": 2} | (device or {})]
    return {"nodes": [{"devices": devices} | node, {"devices": devices}], "network": NETWORK}


def levels(first: str = "left", **inside: Any) -> dict[str, Any]:
    """Four workers in two nodes, joined in two levels."""
    workers = [{"device": "a100-80g", "node": node} for node in (first, "left", "right", "right")]
    level = {"bandwidth": "1 GB/s", "latency": "5 us"} | inside
    return {"workers": workers, "network": NETWORK | {"shape": "two_level", "inside": level}}


def three(**network: Any) -> dict[str, Any]:
    """Three workers: of two, several algorithms are one and the same."""
    return {"workers": [{"device": "a100-80g", "count": 3}], "network": NETWORK | network}


def matrix(bandwidth: str) -> dict[str, Any]:
    row = ["1 Gbit/s"] * 3
    return {"workers": three()["workers"], "network": {"shape": "matrix", "matrix": [[bandwidth] * 3, row, row]}}


def with_background(**flow: Any) -> dict[str, Any]:
    """Background traffic next to that of three workers; the first has the slowest port."""
    workers = [{"device": "a100-80g", "port": f"{1 + w} Gbit/s"} for w in range(3)]
    background = {"from": 0, "to": 1, "bandwidth": "900 Mbit/s", "bytes": "10 kB", "every": "300 us"} | flow
    return {"workers": workers, "network": {"latency": "50 us"}, "background": [background]}


def measured(name: str) -> dict[str, Any]:
    return {"workers": [{"device": "measured", "count": 2}], "network": NETWORK, "profile": name}


# key -> the cluster before and after the change (before: two() where it is not said).
CHANGES: dict[str, dict[str, Any] | tuple[dict[str, Any], dict[str, Any]]] = {
    "Cluster.workers": two({"device": "t4"}),
    "Cluster.nodes": (nodes(), {"nodes": nodes()["nodes"][:1], "network": NETWORK}),
    "Cluster.network": two(network={"bandwidth": "2 Gbit/s"}),
    "Cluster.background": (with_background(), with_background() | {"background": []}),
    "BackgroundSpec.sender": (with_background(), with_background(**{"from": 2})),
    "BackgroundSpec.receiver": (with_background(to=2), with_background(**{"from": 2, "to": 0})),
    "BackgroundSpec.bandwidth": (with_background(), with_background(bandwidth="100 Mbit/s")),
    "BackgroundSpec.bytes": (with_background(), with_background(bytes="1 kB")),
    "BackgroundSpec.every": (with_background(), with_background(every="1 s")),
    "BackgroundSpec.start": (with_background(), with_background(start="1 s")),
    "Cluster.profile": (measured("a.yaml"), measured("b.yaml")),
    "Cluster.noise": two(noise={"sigma": 0.5}),
    "NoiseSpec.source": (measured("a.yaml"), measured("a.yaml") | {"noise": {"source": "profile"}}),
    "NoiseSpec.worker_sigma": two(noise={"worker_sigma": 0.5}),
    "NoiseSpec.run_sigma": two(noise={"run_sigma": 0.5}),
    "NoiseSpec.network_sigma": two(noise={"network_sigma": 0.5}),
    "NoiseSpec.seed": (two(noise={"sigma": 0.5}), two(noise={"sigma": 0.5, "seed": 9})),
    "NoiseSpec.sigma": (two(noise={"sigma": 0.5}), two(noise={"sigma": 0.4})),
    "WorkerGroup.device": two({"device": "t4"}),
    "WorkerGroup.count": two({"count": 2}),
    "WorkerGroup.speed": two({"speed": "900 samples/s"}),
    "WorkerGroup.step_time": two({"step_time": "9 ms"}),
    "WorkerGroup.flops": two({"flops": "1 Gflop/s"}),
    "WorkerGroup.efficiency": two({"efficiency": 1e-3}),
    "WorkerGroup.slowdown": two({"slowdown": 2}),
    "WorkerGroup.memory_bandwidth": two({"memory_bandwidth": "1 GB/s"}),
    "WorkerGroup.torch_device": (two({"host_link": "1 GB/s"}), two({"host_link": "1 GB/s", "torch_device": "cuda"})),
    "WorkerGroup.host_link": two({"host_link": "1 GB/s"}),
    "WorkerGroup.host_memory_bandwidth": two({"host_memory_bandwidth": "1 GB/s"}),
    "WorkerGroup.port": two({"port": "500 Mbit/s"}),
    "WorkerGroup.node": (levels(), levels(first="alone")),
    "NodeGroup.type": ({"nodes": [{"type": "dgx-1-32g"}]}, {"nodes": [{"type": "dgx-a100-640g"}]}),
    "NodeGroup.count": (nodes(), nodes(count=2)),
    "NodeGroup.devices": (nodes(), nodes({"device": "t4"})),
    "NodeGroup.host_link": (nodes(), nodes(host_link="1 GB/s")),
    "NodeGroup.host_memory_bandwidth": (nodes(), nodes(host_memory_bandwidth="1 GB/s")),
    "NetworkSpec.shape": two(network={"shape": "bus"}),
    "NetworkSpec.link": (
        two(network={"bandwidth": None, "link": "1gbe"}),
        two(network={"bandwidth": None, "link": "10gbe"}),
    ),
    "NetworkSpec.bandwidth": two(network={"bandwidth": "2 Gbit/s"}),
    "NetworkSpec.latency": two(network={"latency": "60 us"}),
    "NetworkSpec.efficiency": two(network={"efficiency": 0.7}),
    "NetworkSpec.inside": (levels(), levels(bandwidth="2 GB/s")),
    "NetworkSpec.matrix": (matrix("1 Gbit/s"), matrix("500 Mbit/s")),
    "NetworkSpec.collective": (three(), three(collective="tree")),
    "NetworkSpec.reduce_bandwidth": (three(collective="ring"), three(collective="ring", reduce_bandwidth="1 GB/s")),
    "LinkSpec.bandwidth": (levels(), levels(bandwidth="2 GB/s")),
    "LinkSpec.latency": (levels(), levels(latency="50 us")),
    "LinkSpec.efficiency": (levels(), levels(efficiency=0.5)),
}
NO_TIME = {
    "WorkerGroup.memory": "a limit: what does not fit is refused, what fits is as fast",
    "WorkerGroup.host_memory": "a limit, too",
    "NodeGroup.host_memory": "a limit, too",
    "WorkerGroup.max_batch": "bounds what the split by_batch gives a worker; tests/algorithms/test_balance.py",
}


def keys(section: type[Section]) -> dict[str, None]:
    """Section.key of everything that can be written in a section, and below it."""
    found: dict[str, None] = {}
    for name, field in section.model_fields.items():
        found[f"{section.__name__}.{name}"] = None
        for inner in _sections(field.annotation):
            found |= keys(inner)
    return found


def described(cluster: dict[str, Any]) -> Scenario:
    return validate(scenario(2, MLP, {"preset": "sync_sgd"}, 4) | {"cluster": cluster}, "here")


def moving() -> Program[None]:
    """What a placement in host memory adds to a step: parameters are moved, and the host updates them."""
    yield from Move(Phantom(10**6), "device")
    yield from Compute(Work("host update", 0, bytes=1e6), nothing, on="host")


def clock(cluster: dict[str, Any], host: bool) -> float:
    """The simulated seconds of a training, or of work next to host memory."""
    if not host:
        return float(paceline.simulate(described(cluster), timing_only=True).summary["seconds"])
    timing = resolve(described(cluster), folder=None).timing  # type: ignore[arg-type]
    programs = [moving() for _ in timing.devices]
    return max(outcome.seconds for outcome in simulate(programs, timing, Hooks()))


@pytest.fixture
def profiles(tmp_path, monkeypatch):
    """Two profiles in the working folder, one of a machine twice as fast."""
    monkeypatch.chdir(tmp_path)
    key = workload_key(described(two()).workload)
    for name, seconds in (("a.yaml", "2 ms"), ("b.yaml", "1 ms")):
        document = {"devices": {"measured": {key: {"step": {8: seconds}}}}}
        document["residuals"] = {"measured": {key: [0.9, 1.0, 1.5]}}
        save_profile(tmp_path / name, Profile.model_validate(document))


def test_every_key_is_known_here():
    assert set(CHANGES) | set(NO_TIME) == set(keys(Cluster))
    assert not set(CHANGES) & set(NO_TIME)


@pytest.mark.parametrize("key", CHANGES)
@pytest.mark.usefixtures("profiles")
def test_the_clock_reacts(key):
    change = CHANGES[key]
    before, after = change if isinstance(change, tuple) else (two(), change)
    host = "host_" in key
    assert clock(before, host) != clock(after, host)


@pytest.mark.parametrize("key", NO_TIME)
def test_what_takes_no_time_is_there(key):
    """The reason must stay true: if such a key begins to move the clock, it belongs into CHANGES."""
    values = {"max_batch": 900}
    section, name = key.split(".")
    changed = {name: values.get(name, "900 GB")}
    before, after = (two(), two(changed)) if section == "WorkerGroup" else (nodes(), nodes(**changed))
    assert clock(before, host=False) == clock(after, host=False)
    assert clock(before, host=True) == clock(after, host=True)
