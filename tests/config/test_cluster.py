"""From the cluster section to devices: the catalogue, where a device's times come from, and what is refused."""

from __future__ import annotations

import re
from typing import Any

import pytest

import paceline
from kit.cli import MLP, scenario
from kit.paths import DOCS
from paceline.algorithms.costs import ModelCost, Works
from paceline.config import yaml
from paceline.config.catalogue import catalogue
from paceline.config.cluster import EFFICIENCY, build_timing
from paceline.config.machines import Cluster, WorkerGroup
from paceline.config.profile import MeasuredNetwork, MeasuredPairs, Profile, save_profile, workload_key
from paceline.config.scenario import validate
from paceline.config.timing import Device, Link, Timing
from paceline.printing import show_catalogue
from paceline.program.effects import Work
from paceline.program.errors import ScenarioError

PAGE = DOCS / "clusters.md"
SPEED = {"speed": "10 samples/s"}
TWO_LEVEL = {"shape": "two_level", "link": "ib-edr"}
INSIDE = "cluster: network: shape two_level needs inside, like inside: {bandwidth"
COST = ModelCost(parameters=1000, buffers=0, flops=1e9, activations=1e4)
PROFILE = Profile.model_validate({"devices": {"rtx3090": {"mlp": {"step": {16: "1 ms", 32: "2 ms"}}}}})


def timing(profile: Profile | None = None, precision: str = "fp32", **cluster: Any) -> Timing:
    described = Cluster.model_validate(cluster)
    return build_timing(described, profile, "mlp", 0, precision, lambda batch: Works(COST, batch, 0).step)


def device(profile: Profile | None = None, precision: str = "fp32", **group: Any) -> Device:
    return timing(profile, precision, workers=[group]).devices[0]


# --- the catalogue ----------------------------------------------------------------------------------------------------


def test_the_catalogue_has_what_is_promised():
    gpus = "a100-40g a100-80g h100-sxm h100-pcie h200 v100-16g v100-32g rtx2080ti rtx3090 rtx4090 t4 l4 a10 rtx-a6000"
    others = "mi250x mi300x epyc-7742 epyc-9654 xeon-8380 xeon-6148"
    links = "1gbe 10gbe 25gbe 40gbe 100gbe ib-edr ib-hdr ib-ndr pcie3x16 pcie4x16 pcie5x16 nvlink2 nvlink3 nvlink4"
    assert {*gpus.split(), *others.split()} <= set(catalogue().devices)
    assert set(links.split()) <= set(catalogue().links)


@pytest.mark.parametrize("name", catalogue().devices)
def test_every_device_has_its_source_and_makes_sense(name):
    entry = catalogue().devices[name]
    assert entry.maker in entry.source
    assert entry.peaks["fp32"] > 5e11
    assert list(entry.peaks.values()) == sorted(entry.peaks.values()), "from fp32 to fp16 a device gets no slower"
    if entry.flops:
        assert entry.host_link in catalogue().links
        assert entry.memory
        assert entry.memory_bandwidth > 10 * catalogue().links[entry.host_link].bandwidth / 2
    else:
        assert entry.cores
        assert entry.clock
        assert entry.host_link is None


def test_a_cpu_has_cores_times_clock_times_flops_per_cycle():
    peaks = {name: catalogue().devices[name].peaks["fp32"] for name in ("epyc-7742", "xeon-6148")}
    assert peaks == pytest.approx({"epyc-7742": 64 * 2.25e9 * 2 * 2 * 8, "xeon-6148": 20 * 2.4e9 * 2 * 2 * 16})


def test_pcie_is_lanes_times_rate_times_line_code():
    for generation, rate in ((3, 8e9), (4, 16e9), (5, 32e9)):
        link = catalogue().links[f"pcie{generation}x16"]
        assert link.bandwidth == pytest.approx(16 * rate * 128 / 130 / 8, rel=1e-4)


def test_the_catalogue_is_listed(capsys):
    show_catalogue()
    lines = capsys.readouterr().out.splitlines()
    known = {**catalogue().devices, **catalogue().links, **catalogue().nodes}
    for name, entry in known.items():
        (line,) = (line for line in lines if line.startswith(f"{name} "))
        assert line.rstrip().endswith(entry.source)


@pytest.mark.parametrize("name", catalogue().nodes)
def test_every_node_is_made_of_what_is_in_the_catalogue(name):
    entry = catalogue().nodes[name]
    assert catalogue().devices[entry.device].flops
    assert entry.inside in catalogue().links
    assert entry.cpu is None or catalogue().devices[entry.cpu].cores
    assert name.startswith("dgx")
    assert "NVIDIA DGX" in entry.source


def test_a_nodes_type_gives_its_devices_memory_and_links():
    found = timing(nodes=[{"type": "dgx-1-32g", "count": 2}], network=TWO_LEVEL)
    assert found.nodes == (0,) * 8 + (1,) * 8
    assert {each.name for each in found.devices} == {"v100-32g"}
    assert found.devices[0].host_memory == 512e9 / 8
    assert found.devices[0].host_memory_bandwidth == 2 * 76.8e9 / 8
    assert found.devices[0].host_link == catalogue().links["pcie3x16"].bandwidth
    assert found.network.inside == Link(150e9)
    assert Cluster.model_validate({"nodes": [{"type": "dgx-2", "count": 3}]}).size == 48


def test_what_a_scenario_says_itself_is_taken_before_a_nodes_type():
    own = {"type": "dgx-1-32g", "devices": [{"device": "v100-32g", "count": 4, **SPEED}], "host_memory": "1 GB"}
    found = timing(nodes=[own], network=TWO_LEVEL | {"inside": "nvlink3"})
    assert len(found.devices) == 4
    assert found.devices[0].speed
    assert found.devices[0].host_memory == 1e9 / 4
    assert found.network.inside == Link(300e9)
    assert timing(nodes=[own]).network.inside is None, "a star has no ports inside of nodes"


# --- prices -----------------------------------------------------------------------------------------------------------


def test_the_roofline_is_the_longer_of_computing_and_touching():
    slow = Device("d", flops=1e12, memory_bandwidth=1e9, slowdown=2.0)
    assert slow.seconds(Work("backward", 8, flops=3e12, bytes=2e9)) == 6.0
    assert slow.seconds(Work("update", 0, flops=1e12, bytes=5e9)) == 10.0
    # Its flops and bytes are the unit's own: no fraction of them is taken.
    assert slow.seconds(Work("forward", 8, flops=3e12, unit=1, fraction=0.1)) == 6.0


def test_the_hosts_update_is_priced_by_its_memory():
    work = Work("host update", 0, flops=1e12, bytes=4e9)
    assert device(host_memory_bandwidth="2 GB/s", **SPEED).seconds(work) == 2.0
    assert device(**SPEED).seconds(work) == 0.4, "nothing is known: by its bytes at 10 GB/s"
    assert device(device="a100-40g").seconds(work) == 0.4, "nothing is known of its host, whose memory is not the GPU's"
    assert device(device="epyc-7742").seconds(work) == pytest.approx(4e9 / 204.8e9), "it is its own host"
    assert device(device="gpu", flops="1 Tflop/s", memory_bandwidth="2 GB/s").seconds(work) == 2.0
    assert Device("d", {"host update": ((0, 3.0),)}, speed=1.0, host_memory_bandwidth=1.0).seconds(work) == 3.0


def test_a_datasheets_device_needs_no_profile():
    found = device(device="a100-40g", efficiency=0.5)
    step = Works(COST, 64, 0).step
    assert found.step_seconds(64) == pytest.approx(max(step.flops / (0.5 * 19.5e12), step.bytes / 1555e9))
    assert (found.memory, found.host_link) == (40e9, 31.508e9)
    assert device(device="a100-40g", precision="bf16", efficiency=0.5).flops == 156e12
    assert device(device="a100-40g").flops == EFFICIENCY * 19.5e12
    own = device(device="a100-40g", flops="1 Tflop/s", memory="8 GB", host_link="pcie3x16", memory_bandwidth="1 GB/s")
    assert (own.flops, own.memory, own.host_link, own.memory_bandwidth) == (EFFICIENCY * 1e12, 8e9, 15.754e9, 1e9)


def test_what_says_how_long_work_takes():
    measured = {"profile": PROFILE, "device": "rtx3090"}
    assert device(**measured).step_seconds(16) == 1e-3
    assert device(**measured, **SPEED).step_seconds(16) == 1.6
    assert device(**measured, step_time="3 ms").step_seconds(16) == 3e-3
    assert device(**measured, flops="1 Tflop/s").flops == EFFICIENCY * 1e12
    assert device(PROFILE, device="a100-40g").flops == EFFICIENCY * 19.5e12, "not in the profile: by its datasheet"
    assert device(**measured).memory == 24e9, "measured, but its memory is the catalogue's"


@pytest.mark.parametrize(
    ("group", "message"),
    [
        ({"device": "a100-40gb"}, "did you mean 'a100-40g'?"),
        ({"device": "thing"}, "how fast is it? give speed"),
        ({"device": "v100-16g"}, "no bf16 peak of v100-16g, only fp32, fp16; give flops, speed or step_time"),
        (
            {"device": "rtx3090", "efficiency": 0.5, "profile": PROFILE},
            "efficiency has no effect together with the profile",
        ),
        ({"device": "thing", "profile": PROFILE}, "device 'thing' is not in the profile, which has rtx3090"),
    ],
)
def test_devices_without_a_price_are_refused(group, message):
    profile = group.pop("profile", None)
    with pytest.raises(ScenarioError, match=r"^cluster\.workers\[0\]: ") as error:
        device(profile, "bf16", **group)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("group", "message"),
    [
        ({"flops": "20 Tflop/s", **SPEED}, "speed and flops are both given; keep one"),
        ({"efficiency": 0.5, **SPEED}, "efficiency has no effect together with speed"),
        ({"memory_bandwidth": "1 GB/s", "step_time": "1 ms"}, "memory_bandwidth has no effect together with step_time"),
        ({"efficiency": 0}, "efficiency: "),
        ({"efficiency": 1.1}, "efficiency: "),
        ({"memory": "0 GB"}, "memory: '0 GB' must be above 0, like '24 GB'"),
        ({"memory": 24}, "memory: 24 is not a quantity with a unit"),
        ({"flops": "-1 Tflop/s"}, "flops: '-1 Tflop/s' must be above 0"),
        ({"flops": "20 TFLOPS"}, "unit 'TFLOPS'; write one of flop/s"),
        ({"host_link": "pcie4x17"}, "host_link: 'pcie4x17' is not a link of the catalogue; did you mean 'pcie4x16'?"),
        ({"host_link": "0 GB/s"}, "host_link: '0 GB/s' must be above 0"),
        ({"host_link": 16}, "host_link: 16 is not a quantity with a unit"),
        ({"torch_device": "tpu"}, "torch_device: "),
        ({"host_memroy": "1 GB"}, "host_memroy: unknown key; did you mean 'host_memory'?"),
    ],
)
def test_worker_mistakes_name_the_key(group, message):
    document = scenario(2, MLP, {"preset": "sync_sgd"}, 3) | {"cluster": {"workers": [group]}}
    with pytest.raises(ScenarioError, match=r"cluster\.workers\[0\]") as error:
        validate(document, "here")
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("cluster", "message"),
    [
        ({}, "cluster: give workers, or nodes"),
        ({"workers": [SPEED], "nodes": [{"devices": [SPEED]}]}, "cluster: workers and nodes are both given; keep one"),
        ({"nodes": []}, "cluster.nodes: no nodes; list at least one, like"),
        ({"nodes": [{"devices": []}]}, "cluster.nodes[0].devices: no devices; list at least one"),
        (
            {"nodes": [{"count": 2}]},
            "cluster.nodes[0]: give devices, like [{device: a100-40g, count: 8}], or",
        ),
        ({"nodes": [{"type": "dgx-3"}]}, "cluster.nodes[0].type: 'dgx-3' is not a node of the catalogue; did you mean"),
        (
            {"nodes": [{"type": "dgx-2"}, {"devices": [SPEED]}], "network": TWO_LEVEL},
            "cluster: network: shape two_level",
        ),
        (
            {"nodes": [{"type": "dgx-2"}, {"type": "dgx-h100"}], "network": TWO_LEVEL},
            "cluster: network: shape two_level",
        ),
        ({"nodes": [{"count": 0, "devices": [SPEED]}]}, "cluster.nodes[0].count: "),
        ({"nodes": [{"devices": [SPEED | {"node": 1}]}]}, "cluster.nodes[0].devices: node has no effect here"),
        ({"nodes": [{"devices": [SPEED], "host_link": "pci"}]}, "cluster.nodes[0].host_link: 'pci' is not a link"),
        (
            {"workers": [SPEED], "network": {"link": "1gb"}},
            "cluster.network.link: '1gb' is not a link of the cat",
        ),
        (
            {"workers": [SPEED], "network": {"link": "1gbe", "bandwidth": "1 GB/s"}},
            "cluster.network: link and bandwidth are both given; keep one",
        ),
    ],
)
def test_cluster_mistakes_name_the_key(cluster, message):
    with pytest.raises(ScenarioError) as error:
        validate(scenario(2, MLP, {"preset": "sync_sgd"}, 3) | {"cluster": cluster}, "here")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


# --- nodes ------------------------------------------------------------------------------------------------------------


def test_workers_share_a_node_by_its_name():
    workers = [SPEED, {"count": 2, "node": "left"} | SPEED, {"count": 2} | SPEED, {"node": "left"} | SPEED]
    assert timing(workers=workers).nodes == (0, 1, 1, 2, 3, 1)
    assert timing(workers=[{"count": 3} | SPEED]).nodes == (0, 1, 2)
    with pytest.raises(ValueError, match="2 nodes for 1 devices"):
        Timing((Device("a"),), nodes=(0, 1))


def test_nodes_are_laid_out_one_after_the_other():
    mixed = {"count": 2, "devices": [{"device": "a", **SPEED}, {"device": "b", "count": 2, **SPEED}]}
    found = timing(nodes=[mixed, {"devices": [{"device": "c", **SPEED}]}])
    assert [device.name for device in found.devices] == ["a", "b", "b", "a", "b", "b", "c"]
    assert found.nodes == (0, 0, 0, 1, 1, 1, 2)
    assert len({id(device) for device in found.devices}) == 3, "equal workers share one Device"


def test_a_nodes_workers_share_its_host():
    host = {"host_memory": "80 GB", "host_memory_bandwidth": "200 GB/s", "host_link": "pcie4x16"}
    devices = [{"count": 3, **SPEED}, {"host_memory": "1 GB", "host_link": "5 GB/s", **SPEED}]
    first, *_, last = timing(nodes=[{"devices": devices} | host]).devices
    assert (first.host_memory, first.host_memory_bandwidth, first.host_link) == (20e9, 50e9, 31.508e9)
    assert (last.host_memory, last.host_memory_bandwidth, last.host_link) == (1e9, 50e9, 5e9)


def test_a_worker_has_its_memory_and_its_real_device():
    group = {"speed": "10 samples/s", "memory": "24 GB", "host_memory": "64 GB", "host_link": "8 GB/s"}
    found = device(**group, torch_device="cuda")
    assert (found.memory, found.host_memory, found.host_link, found.torch_device) == (24e9, 64e9, 8e9, "cuda")
    plain = device(**SPEED)
    assert (plain.memory, plain.host_memory, plain.host_link, plain.torch_device) == (None, None, None, "cpu")


# --- whole scenarios --------------------------------------------------------------------------------------------------


def run(tmp_path, cluster: dict[str, Any], rounds: int = 4, **workload: Any) -> paceline.Run:
    document = scenario(2, MLP, {"preset": "sync_sgd"}, rounds)
    document["cluster"] = cluster
    document["workload"] |= workload
    return paceline.simulate(validate(document, "here"), timing_only=True, out=tmp_path / "run", force=True)


def test_named_devices_and_a_named_link_are_all_that_a_scenario_needs(tmp_path):
    workers = [{"device": "a100-40g", "count": 2}, {"device": "rtx3090", "count": 2}]
    result = run(tmp_path, {"workers": workers, "network": {"link": "1gbe"}}, rounds=5)
    free = run(tmp_path, {"workers": workers}, rounds=5)
    given = run(tmp_path, {"workers": workers, "network": {"bandwidth": "1 Gbit/s"}}, rounds=5)
    assert result.summary["seconds"] == given.summary["seconds"] > 1.2 * free.summary["seconds"]
    prices = result.scenario["recorded"]["prices"]
    source = "19.5 Tflop/s x efficiency 0.4, 1555 GB/s (NVIDIA A100 Tensor Core GPU datasheet)"
    assert prices[0] == f"a100-40g: {source}"
    assert len(prices) == 2
    again = validate(result.scenario, "the run's own")
    repeated = paceline.simulate(again, timing_only=True)
    assert repeated.summary["seconds"] == result.summary["seconds"]


def test_the_documented_clusters_can_be_simulated(tmp_path, monkeypatch):
    texts = re.findall(r"```yaml\n(cluster:.*?)```", PAGE.read_text(), re.DOTALL)
    clusters = [yaml.parse(text, "docs")["cluster"] for text in texts]
    hosts, rates = ("a", "b", "c", "d"), [[0.0 if a == b else 1e8 for a in range(4)] for b in range(4)]
    latencies = [[0.0 if a == b else 1e-4 for a in range(4)] for b in range(4)]
    pairs = MeasuredPairs.of(hosts, range(4), latencies, rates)
    network = MeasuredNetwork(latency="1 ms", bandwidth="1 GB/s", pairs=pairs)
    step = {workload_key(validate(scenario(2, MLP, {"preset": "sync_sgd"}, 1), "here").workload): {"step": {8: "1 ms"}}}
    save_profile(tmp_path / "four_hosts.yaml", Profile(devices={"cpu": step}, network=network))
    monkeypatch.chdir(tmp_path)
    assert [run(tmp_path, cluster, rounds=2).summary["workers"] for cluster in clusters] == [4, 32, 32, 4]


def test_the_documented_keys_are_all_that_a_worker_has():
    documented = set(re.findall(r"^\| `(\w+)` \|", PAGE.read_text(), re.MULTILINE))
    assert documented | {"count", "node"} == set(WorkerGroup.model_fields)


def test_a_batch_that_was_not_measured_is_said_so_loudly(tmp_path, capsys):
    table = {"device": "gpu", "count": 2, "step_time": {16: "1 ms", 64: "3 ms"}}
    outside = run(tmp_path, {"workers": [table, {"device": "other", "step_time": {128: "1 ms"}}]}, batch=128)
    line = "gpu: batch 128 is extrapolated: its step times are known for 16 to 64 samples"
    assert capsys.readouterr().err == f"paceline: warning: {line}\n"
    assert outside.scenario["recorded"]["warnings"] == [line]
    for workers in ([table], [{"step_time": "1 ms"}], [SPEED], [{"device": "t4"}]):
        inside = run(tmp_path, {"workers": workers}, batch=64)
        assert "warnings" not in inside.scenario["recorded"]
    assert capsys.readouterr().err == ""


def test_what_nothing_but_its_bytes_prices_is_said():
    found = timing(workers=[{"host_link": "12 GB/s", **SPEED}])
    assert found.guesses() == []
    for phase in ("host update", "transform"):
        assert found.devices[0].seconds(Work(phase, bytes=1e9)) == 0.1
    assert found.guesses() == ["cpu: nothing says how long host update and transform take; priced by bytes, at 10 GB/s"]
    told = timing(workers=[{"host_link": "12 GB/s", "host_memory_bandwidth": "2 GB/s", **SPEED}])
    assert told.devices[0].seconds(Work("host update", bytes=1e9)) == 0.5
    assert told.guesses() == []


def test_emulated_workers_are_slowed_as_described_whichever_of_them_train_together():
    """A slow worker alone is as slow as next to a fast one, and as it was profiled and is predicted."""

    def slowness(*slowdowns, batches=(32, 32)):
        steps = [{"step": ((0.0, 0.0), (float(batch), 1e-3))} for batch in batches]
        devices = [Device("cpu", step, slowdown=k) for step, k in zip(steps, slowdowns, strict=False)]
        return Timing(tuple(devices)).slowness(32)

    assert slowness(2.0, 8.0) == (2, 8)
    assert slowness(8.0) == (8,)
    assert slowness(2.0, 2.0) == (2, 2)
    assert slowness(0.5, 2.0) == (1, 4), "no worker can be faster than this machine"
    assert slowness(1.0, 1.0, batches=(32, 8)) == (1, 4), "by their speeds where no slowdown is given"
