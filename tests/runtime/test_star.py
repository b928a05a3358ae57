"""--emulate-network: the star that a cluster describes, what is refused, and ranks on a star of namespaces."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from kit.cli import MLP, call, paceline, read, scenario
from kit.paths import ROOT
from paceline.config import yaml
from paceline.config.machines import Cluster
from paceline.config.network import build_network
from paceline.config.profile import MeasuredNetwork, MeasuredPairs
from paceline.config.scenario import validate
from paceline.emulated_network import check_star, described_star, star_for
from paceline.program.errors import ScenarioError
from paceline.runtime import star as star_module
from paceline.runtime.mpirun import Mpirun
from paceline.runtime.star import ON_STAR, Star

STAR = Star((0, 1), (2e6, 4e6))
OBSTACLE = STAR.obstacle()
on_a_star = pytest.mark.skipif(OBSTACLE is not None, reason=f"no star can be laid here: {OBSTACLE}")
SPEED = {"speed": "1000 samples/s"}
GIGABIT = {"bandwidth": "1 Gbit/s"}
INSIDE = {"shape": "two_level", "inside": "10 GB/s", **GIGABIT}


def document(**cluster: object) -> dict:
    """A scenario that asks for the star; it has two workers and 1 Gbit/s unless `cluster` says otherwise."""
    described = {"workers": [{"count": 2, **SPEED}], "network": GIGABIT, **cluster}
    return scenario(2, MLP, {"preset": "sync_sgd"}, 3, cluster=described, train={"emulate_network": True})


@pytest.mark.parametrize(
    ("cluster", "expected"),
    [
        ({}, Star((0, 1), (125e6, 125e6))),
        ({"network": {"link": "10gbe", "efficiency": 0.5}}, Star((0, 1), (1.25e9, 1.25e9))),
        ({"workers": [SPEED, {"port": "200 Mbit/s", "count": 2, **SPEED}]}, Star((0, 1, 2), (125e6, 25e6, 25e6))),
        (
            {"workers": [{"node": name, **SPEED} for name in "aba"], "network": INSIDE},
            Star((0, 1, 0), (125e6, 125e6)),
        ),
    ],
)
def test_the_star_that_a_cluster_describes(cluster, expected):
    """A node per worker, or per node of a two-level network. The ports have the whole bandwidth."""
    assert described_star(Cluster.model_validate(document(**cluster)["cluster"])) == expected


@pytest.mark.parametrize(
    ("cluster", "message"),
    [
        ({"network": {}}, "how fast are the ports"),
        ({"network": {"shape": "bus", **GIGABIT}}, "shape is bus; only star and two_level"),
        ({"workers": [{"node": "a", "count": 2, **SPEED}]}, "workers share a node"),
        ({"background": [{"from": 0, "to": 1, **GIGABIT}]}, "background traffic cannot be laid"),
    ],
)
def test_what_cannot_be_laid_is_one_line(cluster, message, tmp_path, monkeypatch, capsys):
    path = tmp_path / "other.yaml"
    path.write_text(yaml.dump(document(**cluster)))
    for line in (["train", path, "--out", tmp_path / "run"], ["profile", path, "--out", tmp_path / "p.yaml"]):
        status, _, err = call(monkeypatch, capsys, *line)
        assert (status, err.count("\n")) == (2, 1), err
        assert f"--emulate-network: {message}" in err or f"--emulate-network: cluster.network.{message}" in err
    assert [each.name for each in tmp_path.iterdir()] == ["other.yaml"]


@pytest.mark.parametrize("lacks", ["root", "tc"])
def test_without_the_privilege_nothing_is_written(lacks, tmp_path, monkeypatch, capsys):
    path = tmp_path / "plain.yaml"
    path.write_text(yaml.dump({**document(), "train": {}}))
    monkeypatch.setattr(os, "geteuid", lambda: 1000 if lacks == "root" else 0)
    monkeypatch.setattr(star_module.shutil, "which", lambda name, **_: None if name == lacks else f"/bin/{name}")
    for line in (["train", path, "--out", tmp_path / "run"], ["profile", path, "--out", tmp_path / "p.yaml"]):
        status, _, err = call(monkeypatch, capsys, *line, "--emulate-network")
        assert (status, err.count("\n")) == (2, 1), err
        assert ("need Linux and root" if lacks == "root" else "tc is missing; install iproute2") in err
    assert [each.name for each in tmp_path.iterdir()] == ["plain.yaml"]


def test_the_ranks_of_one_mpirun_have_one_star(monkeypatch, capsys):
    one, plain = validate(document(), "one"), validate({**document(), "train": {}}, "plain")
    slower = validate(document(network={"bandwidth": "1 Mbit/s", "latency": "1 ms"}), "slower")
    assert star_for([("a", one), ("b", one)], 2) == Star((0, 1), (125e6, 125e6))
    assert star_for([("a", plain), ("b", plain)], 9) is None
    assert capsys.readouterr().err == ""
    assert star_for([("c", slower)]) == Star((0, 1), (125e3, 125e3))
    assert "adds no latency: cluster.network describes 1000 us" in capsys.readouterr().err
    for other in (plain, slower):
        with pytest.raises(ScenarioError, match="a and b need different networks"):
            star_for([("a", one), ("b", other)])
    with pytest.raises(ScenarioError, match="-n 3, but the star has a place for each of 2 workers"):
        star_for([("a", one)], 3)
    monkeypatch.delenv(ON_STAR, raising=False)
    check_star(plain)
    with pytest.raises(ScenarioError, match="started by another mpirun"):
        check_star(one)
    monkeypatch.setenv(ON_STAR, "1")
    check_star(one)


def test_each_rank_starts_on_its_node():
    line = Star((0, 1, 0), (1e6, 2e6)).command(Mpirun("mpirun", "openmpi"), ["program"])
    assert [line[i + 1] for i, word in enumerate(line) if word == "exec"] == ["node0", "node1", "node0"]
    (script,) = [word for word in line if "bridge" in word]
    assert [word for word in script.split() if word.endswith("bit")] == ["8000000bit"] * 2 + ["16000000bit"] * 2


def measured(hosts: tuple[str, ...], places: tuple[int, ...]) -> MeasuredNetwork:
    pairs = MeasuredPairs.of(hosts, places, [[0, 1e-5], [2e-5, 0]], [[0, 1e8], [2e8, 0]])
    return MeasuredNetwork.model_validate({"latency": "20 us", "bandwidth": "1 GB/s", "pairs": pairs.model_dump()})


def test_a_matrix_comes_from_the_profile():
    """As it was measured between hosts, where each worker was alone on one; read again as it was written."""
    cluster = Cluster.model_validate(document(network={"shape": "matrix", "efficiency": 0.5})["cluster"])
    found = build_network(cluster.network, measured(("a", "b"), (1, 0)), [None, None], (), None)
    assert found.matrix == ((0.0, 1e8), (0.5e8, 0.0))
    with pytest.raises(ScenarioError, match="3 ranks ran on 2 hosts, and within a host it has no bandwidth"):
        build_network(cluster.network, measured(("a", "b"), (0, 1, 1)), [None] * 3, (), None)


PROGRAM = """
import json, sys, time
from pathlib import Path
from paceline.runtime.launcher import abort_on_error
with abort_on_error():
    import os
    from mpi4py import MPI
    from paceline.runtime import pairs
    pairs.BUDGET = 0.2
    found = pairs.measure_pairs(MPI.COMM_WORLD)
    assert pairs.measure_pairs(MPI.COMM_SELF) is None
    folder = Path(sys.argv[1])
    (folder / f"pid{MPI.COMM_WORLD.rank}").write_text(str(os.getpid()))
    if MPI.COMM_WORLD.rank == 0:
        (folder / "half").write_text(json.dumps(vars(found)))
        (folder / "half").rename(folder / "pairs")
    time.sleep(60)
"""


@on_a_star
def test_hosts_of_a_star_are_told_apart_and_measured(tmp_path):
    """No direction is faster than the slower of its two ports. All ends when the launcher is killed."""
    (tmp_path / "program.py").write_text(PROGRAM)
    code = (
        f"from paceline.runtime.launcher import *; from paceline.runtime.star import Star; launch([{str(tmp_path)!r}], "
    )
    code += f"3, program=[{str(tmp_path / 'program.py')!r}], on=Star((0, 1, 0), (2e6, 4e6)))"
    launcher = subprocess.Popen([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(ROOT)})
    try:
        _until(lambda: (tmp_path / "pairs").exists() or launcher.poll() is not None)
        found = json.loads((tmp_path / "pairs").read_text())
        assert (found["hosts"], found["places"]) == (["node0", "node1"], [0, 1, 0])
        for matrix, least, most in ((found["latency"], 0, 60), (found["bandwidth"], 0, 2.2e6)):
            assert matrix[0][0] == matrix[1][1] == 0
            assert least < matrix[0][1] < most
            assert least < matrix[1][0] < most
    finally:
        launcher.send_signal(signal.SIGKILL)
        launcher.wait()
    pids = [int((tmp_path / f"pid{rank}").read_text()) for rank in range(3)]
    _until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids))


def _until(met, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not met():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@on_a_star
def test_training_on_a_star(tmp_path):
    path = tmp_path / "phantoms.yaml"
    path.write_text(yaml.dump({**document(), "train": {"phantom": True}}))
    done = paceline("train", path, "--emulate-network", "--out", "run", cwd=tmp_path)
    assert done.stderr == ""
    summary, _ = read(tmp_path / "run")
    assert summary["finished"]
    recorded = yaml.read_mapping(tmp_path / "run" / "scenario.yaml")
    assert recorded["train"] == {"emulate": False, "phantom": True, "emulate_network": True}
