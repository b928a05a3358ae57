"""The memory that a rank takes: what is predicted of it, and that nothing of a model's size is copied needlessly."""

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from kit.learning import make, make_plan
from paceline.config.profile import Profile, merge_profiles, save_profile, workload_key
from paceline.config.scenario import Scenario
from paceline.job import resolve
from paceline.learning import heap
from paceline.program.effects import AllGather, AllReduce, ReduceScatter
from paceline.program.traffic import received
from paceline.records import checkpoints
from paceline.runtime.reduction import Pool
from paceline.simulating import simulate

MLP = {"name": "mlp", "hidden": [512, 256]}
P = 64 * 512 + 512 + 512 * 256 + 256 + 256 * 10 + 10  # its parameters


def test_a_snapshot_is_the_workers_own_memory_and_a_checkpoint_is_written_from_it(tmp_path):
    _, w = make(make_plan([16, 16]), "mlp", optimizer={"name": "sgd", "lr": 0.1, "momentum": 0.9})
    assert np.shares_memory(w.snapshot()["optimizer.momentum"], w.moments["momentum"])
    large = np.ones(4_000_000, np.float32)
    tracemalloc.start()
    checkpoints.write_worker(tmp_path, 0, 1, {"params": large})
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < large.nbytes / 4
    (file,) = tmp_path.rglob("worker_0.safetensors")
    assert file.stat().st_mode == (file.parent.stat().st_mode & 0o666) | 0o100000, "others may read it as other files"


def test_a_long_evaluation_begins_by_giving_free_memory_back(monkeypatch):
    asked = []
    monkeypatch.setattr(heap, "_TRIM", asked.append)
    for batches, expected in (([16], [0]), ([16, 16], [])):  # the share of one of two is less than a block
        w, *_ = make(make_plan(batches), "mlp", warm=False)
        w.evaluate(w.buffers).run()
        assert asked == expected
        asked.clear()


def test_exchanges_of_all_sizes_share_a_buffer():
    pool, kind = Pool(), np.dtype(np.float32)
    small, large = pool.take("incoming", 10, kind), pool.take("incoming", 100, kind)
    again = pool.take("incoming", 10, kind)
    assert (len(small), len(large), len(again)) == (10, 100, 10)
    assert np.shares_memory(large, again)
    assert not np.shares_memory(large, pool.take("outgoing", 10, kind))


def test_buffers_of_a_collective():
    m = 1 << 20
    assert [received(AllReduce, m, n) for n in (1, 2, 4)] == [0, m / 2, 3 * m / 4]
    assert received(AllReduce, 1000, 4) == 4000, "a small one is gathered whole"
    assert [received(ReduceScatter, m, n) for n in (2, 4)] == [0, 3 * m / 4]
    assert received(AllGather, m, 4) == 0, "parts arrive where they are used"
    assert received(AllReduce, m, 2, narrow=True) == 1.5 * m


def scenario(strategy, profile=None, **workload):
    optimizer = {"name": "sgd", "lr": 0.1, "momentum": 0.9}
    cluster = {"workers": [{"count": 2, "speed": "1000 samples/s"}]} | ({"profile": str(profile)} if profile else {})
    workload = {"model": MLP, "data": "digits", "batch": 64, "optimizer": optimizer} | workload
    document = {"workload": workload, "cluster": cluster, "strategy": strategy, "budget": {"steps": 8}}
    return Scenario.model_validate(document)


def predicted(strategy, **more):
    found = simulate(scenario(strategy, **more), timing_only=True).summary["memory_predicted"]
    assert all(len(set(each)) == 1 for each in found.values()), "both workers alike"
    return {name: each[0] for name, each in found.items()}


def test_what_is_predicted_of_the_process():
    flat = predicted({"preset": "sync_sgd", "placement": {"replicated": {"overlap": False}}})
    assert flat["data"] == (1437 + 360) * (4 * 64 + 8)
    assert flat["exchange"] == 4 * (P + 2) / 2
    assert flat["fresh"] == 4 * (P + 2)
    assert "process" not in flat, "no profile has measured it"
    cut = predicted({"preset": "sync_sgd", "placement": {"replicated": {"unit_bytes": "100 kB"}}})
    assert cut["exchange"] == 4 * (512 * 256 + 256 + 256 * 10 + 10 + 2) / 2, "the largest unit's: the last two layers"
    local = predicted({"preset": "local_sgd", "H": 4})
    assert (local["fresh"], local["exchange"], local["vectors"]) == (0, 4 * (P + 2) / 2, 0)
    assert predicted({"preset": "diloco", "H": 4})["vectors"] == 16 * (P + 2)
    pixels = scenario({"preset": "sync_sgd"}, data={"name": "cifar10"}, model="resnet20")
    assert resolve(pixels, Path()).problem.data_bytes == 60_000 * (3072 + 8), "bytes, as they are stored"
    images = scenario({"preset": "sync_sgd"}, data={"name": "imagenet"}, model="resnet20")
    assert resolve(images, Path()).problem.data_bytes == 8 * (1_281_167 + 50_000), "labels; images stay in their files"


def test_the_profile_says_what_libraries_take(tmp_path):
    strategy = {"preset": "sync_sgd"}
    key = workload_key(scenario(strategy).workload)
    times = {"cpu": {key: {"step": {64: "1 ms"}}}}
    old = Profile.model_validate({"devices": times, "memory": {"cpu": {key: 5, "other": 7}}})
    new = Profile.model_validate({"devices": times, "memory": {"cpu": {key: 20_000_000}}})
    merged = merge_profiles(old, new)
    assert merged.memory == {"cpu": {key: 20_000_000, "other": 7}}
    save_profile(tmp_path / "machine.yaml", merged)
    found = predicted(strategy, profile=tmp_path / "machine.yaml")
    assert found["process"] == 20_000_000


@pytest.mark.parametrize("wrong", [-1, "much"])
def test_memory_in_a_profile_is_checked(wrong):
    with pytest.raises(ValueError, match=r"memory\.cpu\.w"):
        Profile.model_validate({"devices": {}, "memory": {"cpu": {"w": wrong}}})
