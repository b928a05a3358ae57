"""From the cluster section to devices: where a price comes from, and what is refused."""

from __future__ import annotations

import pytest

from paceline.config.cluster import build_timing
from paceline.config.machines import Cluster
from paceline.config.timing import Device, Timing


def timing(**cluster) -> Timing:
    return build_timing(Cluster.model_validate(cluster), None, "mlp", 0)


def test_workers_share_a_node_by_its_name():
    speed = {"speed": "10 samples/s"}
    workers = [speed, {"count": 2, "node": "left"} | speed, {"count": 2} | speed, {"node": "left"} | speed]
    assert timing(workers=workers).nodes == (0, 1, 1, 2, 3, 1)
    assert timing(workers=[{"count": 3} | speed]).nodes == (0, 1, 2)
    with pytest.raises(ValueError, match="2 nodes for 1 devices"):
        Timing((Device("a"),), nodes=(0, 1))


def test_a_worker_has_its_memory_and_its_real_device():
    group = {"speed": "10 samples/s", "memory": "24 GB", "host_memory": "64 GB", "host_link": "8 GB/s"}
    device = timing(workers=[group | {"torch_device": "cuda"}]).devices[0]
    assert (device.memory, device.host_memory, device.host_link, device.torch_device) == (24e9, 64e9, 8e9, "cuda")
    plain = timing(workers=[{"speed": "10 samples/s"}]).devices[0]
    assert (plain.memory, plain.host_memory, plain.host_link, plain.torch_device) == (None, None, None, "cpu")
