"""From the scenario's `cluster:` to a Timing: one device per worker, the network, the noise.

A worker's time per step comes from its own `speed` or `step_time`, else from the profile. What the scenario says of
the network goes before what the profile measured.
"""

from __future__ import annotations

from ..algorithms.errors import ScenarioError
from .machines import Cluster, WorkerGroup
from .profile import Profile
from .timing import Device, Network, Noise, Timing


def build_timing(cluster: Cluster, profile: Profile | None, workload: str, seed: int) -> Timing:
    """The described cluster. workload: the key under which profiles file this model, data and optimizer."""
    devices: list[Device] = []
    for number, group in enumerate(cluster.workers):
        try:
            device = _device(group, profile, workload)
        except ValueError as error:
            raise ScenarioError(f"cluster.workers[{number}]: {error}") from None
        devices += [device] * group.count
    given, measured = cluster.network, profile.network if profile else None
    network = Network(
        given.shape,
        given.bandwidth or (measured.bandwidth if measured else float("inf")),
        given.latency if given.latency is not None else (measured.latency if measured else 0.0),
    )
    return Timing(tuple(devices), network, Noise(cluster.noise.sigma, seed))


def _device(group: WorkerGroup, profile: Profile | None, workload: str) -> Device:
    if group.speed is not None:
        return Device(group.device, speed=group.speed, slowdown=group.slowdown)
    if isinstance(group.step_time, dict):
        table = tuple(sorted((float(batch), seconds) for batch, seconds in group.step_time.items()))
        return Device(group.device, {"step": table}, slowdown=group.slowdown)
    if group.step_time is not None:
        # One time for a step, whatever its batch: two equal points make a level line.
        return Device(group.device, {"step": ((1, group.step_time), (2, group.step_time))}, slowdown=group.slowdown)
    if profile is None:
        raise ValueError(
            "how fast is it? give speed (like 900 samples/s), step_time (like 2 ms) or a cluster.profile "
            "(`paceline profile SCENARIO` measures this machine)"
        )
    return Device(group.device, profile.tables(group.device, workload), slowdown=group.slowdown)
