"""From the scenario's `cluster:` to a Timing: one device per worker and its node, the network, the noise.

A worker's time per step comes from its own `speed` or `step_time`, else from the profile. What the scenario says of
the network goes before what the profile measured.
"""

from __future__ import annotations

from typing import Any

from ..algorithms.errors import ScenarioError
from .machines import Cluster, WorkerGroup
from .profile import Profile
from .timing import Device, Network, Noise, Timing


def build_timing(cluster: Cluster, profile: Profile | None, workload: str, seed: int) -> Timing:
    """The described cluster. workload: the key under which profiles file this model, data and optimizer."""
    devices: list[Device] = []
    nodes: list[int] = []
    names: dict[str | int, int] = {}  # of the nodes that have one
    found = 0
    for number, group in enumerate(cluster.workers):
        try:
            device = Device(group.device, **_times(group, profile, workload), **_hardware(group))
        except ValueError as error:
            raise ScenarioError(f"cluster.workers[{number}]: {error}") from None
        devices += [device] * group.count
        for _ in range(group.count):
            node = found if group.node is None else names.setdefault(group.node, found)
            nodes.append(node)
            found = max(found, node + 1)
    given, measured = cluster.network, profile.network if profile else None
    network = Network(
        given.shape,
        given.bandwidth or (measured.bandwidth if measured else float("inf")),
        given.latency if given.latency is not None else (measured.latency if measured else 0.0),
    )
    return Timing(tuple(devices), network, Noise(cluster.noise.sigma, seed), tuple(nodes))


def _hardware(group: WorkerGroup) -> dict[str, Any]:
    """What a device is, but for its times."""
    names = ("slowdown", "memory", "host_memory", "host_link", "torch_device")
    return {name: getattr(group, name) for name in names}


def _times(group: WorkerGroup, profile: Profile | None, workload: str) -> dict[str, Any]:
    """Where a device's times come from."""
    if group.speed is not None:
        return {"speed": group.speed}
    if isinstance(group.step_time, dict):
        return {"tables": {"step": tuple(sorted((float(size), seconds) for size, seconds in group.step_time.items()))}}
    if group.step_time is not None:
        # One time for a step, whatever its batch: two equal points make a level line.
        return {"tables": {"step": ((1, group.step_time), (2, group.step_time))}}
    if profile is None:
        raise ValueError(
            "how fast is it? give speed (like 900 samples/s), step_time (like 2 ms) or a cluster.profile "
            "(`paceline profile SCENARIO` measures this machine)"
        )
    return {"tables": profile.tables(group.device, workload)}
