"""Several hosts: how they are named, which worker gets which, what --dry-run shows, and namespaces as hosts."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from kit.cli import MLP, call, read, scenario
from kit.paths import ROOT
from paceline import folders, simulate
from paceline.config import yaml
from paceline.config.scenario import validate
from paceline.folders import of_this_host
from paceline.learning_problem import LearningProblem
from paceline.placement import NOWHERE, Where, ground_for
from paceline.program.errors import ScenarioError
from paceline.runtime import hosts as hosts_module
from paceline.runtime import launcher
from paceline.runtime.banners import Relay
from paceline.runtime.hosts import Host, Hosts, read_hostfile, read_hosts, slurm_hosts, slurm_names
from paceline.runtime.launcher import End
from paceline.runtime.mpirun import Here, Mpirun
from paceline.training import Training

SCRIPT = ROOT / "examples" / "hosts.sh"
TOOLS = ("ip", "unshare", "ssh", "ssh-keygen", "/usr/sbin/sshd")
MISSING = [tool for tool in TOOLS if not shutil.which(tool)]
if sys.platform != "linux" or os.geteuid() != 0:
    MISSING = ["Linux and root"]
on_hosts = pytest.mark.skipif(bool(MISSING), reason=f"namespaces as hosts need {', '.join(MISSING)}")


@pytest.fixture(autouse=True)
def no_slurm(monkeypatch):
    for name in [*os.environ]:
        if name.startswith("SLURM"):
            monkeypatch.delenv(name)


# --- how hosts are named ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("a:4,b:4", [("a", 4), ("b", 4)]),
        ("a", [("a", 1)]),
        ("a, b:2,a:2,a", [("a", 4), ("b", 2)]),
        ("gpu-01.lab.org:8,10.9.0.2:1", [("gpu-01.lab.org", 8), ("10.9.0.2", 1)]),
    ],
)
def test_hosts_by_an_option(text, found):
    assert read_hosts(text) == [Host(*each) for each in found]


@pytest.mark.parametrize("text", ["", "a:", "a:0", "a:x", "a,,b", "-o:1", "a:4:2", "a b"])
def test_hosts_that_make_no_sense(text):
    with pytest.raises(ScenarioError, match=r"--hosts .*: .* is not a host with a number of ranks; write NAME:RANKS"):
        read_hosts(text)


def test_a_hostfile_of_either_mpi(tmp_path):
    path = tmp_path / "hosts"
    path.write_text("# my hosts\na slots=4 max_slots=8  # the big one\n\nb:2\nc\nc\nd:1 user=me\n")
    assert read_hostfile(path) == [Host("a", 4), Host("b", 2), Host("c", 2), Host("d", 1)]
    path.write_text("a slots=2 b\n")
    with pytest.raises(ScenarioError, match=r"--hostfile .*hosts: line 1: 'b' says nothing about host a; write a line"):
        read_hostfile(path)
    path.write_text("a\nb slots=many\n")
    with pytest.raises(ScenarioError, match=r"--hostfile .*hosts: line 2: 'b' is not a host"):
        read_hostfile(path)
    path.write_text("# none\n")
    with pytest.raises(ScenarioError, match=r"names no host; write a line for each"):
        read_hostfile(path)
    with pytest.raises(ScenarioError, match="cannot be read"):
        read_hostfile(tmp_path / "missing")


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("c1", ["c1"]),
        ("c[1-3]", ["c1", "c2", "c3"]),
        ("login,gpu[08-10,12],n[1-2]-ib", ["login", "gpu08", "gpu09", "gpu10", "gpu12", "n1-ib", "n2-ib"]),
        ("r[1-2]n[01,3]", ["r1n01", "r1n3", "r2n01", "r2n3"]),
        ("", []),
    ],
)
def test_names_in_a_list_of_slurms(text, names):
    assert slurm_names(text) == names


# What sbatch sets for a batch script, by its manual page; a batch script has SLURM_PROCID, and is not a rank.
BATCH = {"SLURM_JOB_ID": "65541", "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NTASKS": "5"}


@pytest.mark.parametrize(
    ("variables", "found"),
    [
        ({}, None),
        ({"SLURM_JOB_NODELIST": "c[1-3]", "SLURM_TASKS_PER_NODE": "2(x2),1"}, [("c1", 2), ("c2", 2), ("c3", 1)]),
        ({"SLURM_JOB_NODELIST": "c[1-2]", "SLURM_TASKS_PER_NODE": "4(x2)"}, [("c1", 4), ("c2", 4)]),
        ({"SLURM_JOB_NODELIST": "c[1-2]"}, [("c1", 1), ("c2", 1)]),
        # A batch script of one node runs on it; a shell of salloc may run elsewhere.
        ({"SLURM_JOB_NODELIST": "c1", "SLURM_TASKS_PER_NODE": "4", "SLURMD_NODENAME": "c1"}, None),
        ({"SLURM_JOB_NODELIST": "c1", "SLURM_TASKS_PER_NODE": "4"}, [("c1", 4)]),
    ],
)
def test_the_hosts_of_a_slurm_job(variables, found, monkeypatch):
    for name, value in (BATCH | variables if variables else {}).items():
        monkeypatch.setenv(name, value)
    assert slurm_hosts() == (None if found is None else [Host(*each) for each in found])


# --- which worker gets which host -------------------------------------------------------------------------------------

SPEED = {"speed": "1000 samples/s"}
PLAIN = {"workers": [{"count": 3, **SPEED}]}
NODES = {"nodes": [{"count": 1, "devices": [{"count": 2, **SPEED}]}, {"count": 1, "devices": [SPEED]}]}
NAMED = {"workers": [{"node": name, **SPEED} for name in "xyx"]}


def training(cluster: dict, title: str = "s") -> Training:
    document = scenario(3, MLP, {"preset": "sync_sgd"}, 3, cluster=cluster)
    return Training(title, validate(document, title), Path(f"{title}.yaml"), Path("run"))


def nodes(cluster: dict, hosts: str, **more: object) -> list[str]:
    found = [training(cluster)]
    return [*ground_for(Where(hosts), found, found, more.get("ranks"), more.get("members")).nodes]


@pytest.mark.parametrize(
    ("cluster", "hosts", "found"),
    [
        (PLAIN, "a:2,b:2", "aab"),
        (PLAIN, "a,b,c", "abc"),
        (NODES, "a:2,b", "aab"),
        (NODES, "b:4,a:4,c", "bba"),
        (NAMED, "a:2,b:2", "aba"),
    ],
)
def test_node_k_is_host_k_and_plain_workers_fill_the_hosts(cluster, hosts, found):
    assert nodes(cluster, hosts) == [*found]


@pytest.mark.parametrize(
    ("cluster", "hosts", "says"),
    [
        (PLAIN, "a,b", r"s: 3 workers, but --hosts has room for 2 \(a:1, b:1\); write how many each takes, like a:4"),
        (NODES, "a:4", r"s: cluster describes 2 nodes, but --hosts names 1 \(a:4\); node k of the scenario is host k"),
        (NODES, "a,b:2", r"s: node 0 has 2 workers, but --hosts gives its host a 1 \(a:1, b:2\); .*like a:2"),
    ],
)
def test_hosts_that_do_not_fit(cluster, hosts, says):
    with pytest.raises(ScenarioError, match=says):
        nodes(cluster, hosts)


def test_other_things_that_do_not_fit(monkeypatch, tmp_path):
    with pytest.raises(ScenarioError, match="-n 4: the hosts get a rank for each of 3 workers; leave out -n"):
        nodes(PLAIN, "a:4", ranks=4)
    found = [training(NODES), training(NAMED, "t")]
    with pytest.raises(ScenarioError, match="t: its workers are on other hosts than those of another scenario"):
        ground_for(Where("a:2,b:2"), found, found, None, None)
    with pytest.raises(ScenarioError, match="--hosts and --hostfile both name the hosts"):
        Where("a", tmp_path / "f").find()
    with pytest.raises(ScenarioError, match="-x passes variables to other hosts"):
        ground_for(Where(passed=("HOME",)), found, found, None, None)
    with pytest.raises(ScenarioError, match="-x NOT_SET_AT_ALL: this variable is not set here"):
        Hosts(("a",), ("NOT_SET_AT_ALL",)).check()
    monkeypatch.setenv("SLURM_JOB_NODELIST", "c[1-2]")
    with pytest.raises(ScenarioError, match=r"the Slurm job has room for 2 .*sbatch --ntasks-per-node"):
        ground_for(NOWHERE, [training(PLAIN)], [training(PLAIN)], None, None)


def test_those_that_are_left_stay_on_their_hosts():
    """Also where the scenario that goes on numbers its nodes from 0 again."""
    assert nodes(NAMED, "a:2,b:2", members=[1, 2]) == ["b", "a"]
    two = [training(NODES), training(PLAIN, "t")]
    assert [*ground_for(Where("a:2,b:2"), two, two, None, [0, 2]).nodes] == ["a", "b", "b"]
    assert ground_for(NOWHERE, two, two, None, None) == Here(3)


def test_the_command_line_for_either_mpi(monkeypatch):
    """Open MPI hands on its own variables by itself, and a home belongs to its host."""
    for name in hosts_module.USUAL:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", "/bin")
    where, set_here = Hosts(("b", "a", "a", "b"), ("MINE",)), ("OMP_NUM_THREADS", "OMPI_MCA_btl", "HOME")
    line = where.command(Mpirun("mpirun", "openmpi"), ["x"], set_here=set_here)
    parts = "-n 1 --host b:1 x : -n 2 --host a:2 x : -n 1 --host b:1 x"
    assert " ".join(line) == f"mpirun --bind-to none -x OMP_NUM_THREADS -x PATH -x MINE {parts}"
    line = where.command(Mpirun("mpirun", "mpich"), ["x"], set_here=set_here)
    names = "OMP_NUM_THREADS,OMPI_MCA_btl,PATH,MINE"
    assert " ".join(line) == f"mpirun -genvlist {names} -n 4 -hosts b:1,a:2,b:1 x"


# --- hosts that are lost ----------------------------------------------------------------------------------------------

DASHES = b"-" * 60 + b"\n"
DAEMON = [
    b"ssh: connect to host b port 22: No route to host\n",
    DASHES,
    b"A daemon failed to report back after being spawned.\n",
    b"  Local host:    a\n",
    b"  Remote host:   b\n",
    DASHES,
]
HYDRA = [
    b"ssh: Could not resolve hostname b: Temporary failure in name resolution\n",
    b"[mpiexec@a] ui_cmd_cb (pmiserv_pmci.c:51): Launch proxy failed.\n",
    b"[mpiexec@a] main (mpiexec.c:270): process manager error waiting for completion\n",
]


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        (DAEMON, "host b is lost or cannot be reached (No route to host)"),
        (DAEMON[1:], "host b is lost or cannot be reached"),
        (HYDRA, "host b is lost or cannot be reached (Temporary failure in name resolution)"),
        ([b"root@b: Permission denied (publickey).\r\n"], "host b is lost or cannot be reached (Permission denied"),
        # A connection of mpirun's own that breaks is not a lost host.
        ([b"[a:351] UNSUPPORTED DAEMON ERROR STATE: NO PATH TO TARGET\n"], ""),
        ([b"[mpiexec@a] control_cb (x.c:1): assert (!closed) failed\n"], "a host is lost or cannot be reached"),
    ],
)
def test_a_lost_host_is_one_line(lines, says):
    relay = Relay()
    assert [*relay.kept([b"first\n", *lines, b"last\n"])] == [b"first\n", b"last\n"]
    assert relay.host.startswith(says)


def test_a_missing_program_is_one_line():
    relay = Relay()
    said = [
        DASHES,
        b"it could not access\n",
        b"an executable:\n",
        b"\n",
        b"   Executable: /x/python\n",
        b"   Node: b\n",
    ]
    assert [*relay.kept([*said, DASHES])] == []
    assert relay.no_start.startswith("/x/python cannot be run on host b; Paceline and its Python must be at the same")


def test_a_host_that_does_not_come_back_is_left_out(tmp_path, monkeypatch, capsys):
    """Its workers are, with the rest of its ranks; the others stay where they are."""
    monkeypatch.chdir(tmp_path)
    document = scenario(3, MLP, {"preset": "local_sgd"}, 9, cluster=NAMED)
    Path("s.yaml").write_text(yaml.dump(document | {"recovery": {"max_restarts": 3, "min_workers": 1}}))
    told: list[tuple[str, ...]] = []

    def played(arguments, ranks, threads, on, shrink):
        told.append(tuple(on.nodes))
        lost = End(255, "host a is lost or cannot be reached", (0, 2), again=True)
        if len(told) == 1:
            Path("run").mkdir()
            Path("run/scenario.yaml").write_text(Path("s.yaml").read_text() + "\nrecorded: {}\n")
            from paceline.records.progress import Progress

            Progress(Path("run"), 3, 1.0).close()
        if len(told) == 3:
            Path("run/summary.json").write_text("{}")
        return lost if len(told) < 3 else End(0)

    monkeypatch.setattr(launcher, "run_job", played)
    status, _, err = call(monkeypatch, capsys, "train", "s.yaml", "--out", "run", "--hosts", "a:2,b")
    assert (status, told) == (0, [("a", "b", "a"), ("a", "b", "a"), ("b",)]), err
    assert err.splitlines()[-1].endswith("s begins again, since no checkpoint was saved, without worker 0, worker 2")


def test_a_host_that_is_not_there_is_a_mistake_of_the_command_line(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "s.yaml").write_text(yaml.dump(scenario(2, MLP, {"preset": "local_sgd"}, 4)))
    lost = End(255, "host b is lost or cannot be reached", (1,), again=True, no_host=True)
    monkeypatch.setattr(launcher, "run_job", lambda *_, **__: lost)
    status, _, err = call(monkeypatch, capsys, "train", "s.yaml", "--hosts", "a,b")
    assert (status, [*tmp_path.iterdir()]) == (2, [tmp_path / "s.yaml"])
    assert err.startswith("paceline: host b is lost or cannot be reached; nothing was written; begin again with")


# --- paths by host ----------------------------------------------------------------------------------------------------


def test_a_path_by_host(monkeypatch, tmp_path):
    monkeypatch.setattr(folders, "own_names", lambda: ("b.lab.org", "b"))
    paths = {"a": "/a", "b": "/b", "default": "/d"}
    assert of_this_host(paths, "k") == "/b"
    assert of_this_host({**paths, "b.lab.org": "/whole"}, "k") == "/whole"
    assert of_this_host({"a": "/a", "default": "/d"}, "k") == "/d"
    assert of_this_host({"b": {"train": "x", "test": "y"}}, "k") == {"train": "x", "test": "y"}
    for other in ("/x", None, {"train": "x", "test": "y"}):
        assert of_this_host(other, "k") == other
    assert of_this_host({"b": "/b"}, "k", own=True) == {"b": "/b"}, "a user's function may want a mapping"
    assert of_this_host(paths, "k", own=True) == "/b"
    with pytest.raises(
        ScenarioError, match=r"k: has no path for host b.lab.org, only for a; add one, or default: PATH"
    ):
        of_this_host({"a": "/a"}, "k")


@pytest.mark.parametrize("kind", ["text", "npz"])
def test_any_data_takes_a_path_by_host(kind, tmp_path):
    here = socket.gethostname()
    (tmp_path / "text.txt").write_text("to be or not to be " * 200)
    x, y = np.zeros((8, 1, 8, 8), np.float32), np.arange(8) % 2
    np.savez(tmp_path / "made.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    file = {"text": "text.txt", "npz": "made.npz"}[kind]
    name = {"text": "text", "npz": "data.npz"}[kind]
    data = {"name": name, "path": {here: file, "default": "/nowhere"}}
    document = scenario(2, {"name": "mlp", "hidden": [4]}, {"preset": "sync_sgd"}, 3)
    document["workload"] |= {"data": data, "init": {here: "w.safetensors"}}
    problem = LearningProblem(validate(document, "s"), tmp_path)
    assert problem.data.shape.test > 0
    with pytest.raises(ScenarioError, match=r"workload.init: w.safetensors: no such file"):
        problem.check_initial()
    document["workload"]["data"]["path"] = {"elsewhere": file}
    with pytest.raises(ScenarioError, match=r"workload.data.path: has no path for host .*, only for elsewhere"):
        _ = LearningProblem(validate(document, "s"), tmp_path).data


@pytest.mark.parametrize("option", ["--dry-run", "--hosts=a:1,b:1", "--hostfile=h", "-x=MINE"])
def test_ranks_that_run_already_are_not_placed(option, monkeypatch, capsys):
    monkeypatch.setenv("OMPI_COMM_WORLD_RANK", "0")
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "2")
    status, _, err = call(monkeypatch, capsys, "train", "quickstart", option)
    assert status == 2
    assert "are about ranks that Paceline starts; leave out mpirun or srun" in err


# --- --dry-run --------------------------------------------------------------------------------------------------------


def test_a_dry_run_shows_what_would_start_and_writes_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    cluster = {"nodes": [{"count": 2, "devices": [SPEED, {"torch_device": "cuda", **SPEED}]}]}
    document = scenario(4, MLP, {"preset": "local_sgd"}, 9, cluster=cluster)
    Path("s.yaml").write_text(yaml.dump(document | {"budget": {"epochs": 2}}))
    monkeypatch.setattr(launcher, "run_job", lambda *_, **__: pytest.fail("it starts"))
    status, out, err = call(monkeypatch, capsys, "train", "s.yaml", "--dry-run", "--hosts", "a:2,b:2")
    assert status == 0, err
    rows = [line.split()[:5] for line in out.splitlines() if line.strip()[:1].isdigit()]
    assert rows == [[str(r), str(r), "aabb"[r], ["cpu", "cuda:0"][r % 2], "1"] for r in range(4)]
    shown = yaml.parse(out.partition("# s: the ranks")[0], "shown")
    assert (shown["workload"]["model"]["name"], shown["budget"]["epochs"]) == ("mlp", 2)
    assert "rounds, " in out.partition("training: ")[2]
    assert "-n 2 --host a:2" in out.splitlines()[-1]
    assert "kB" in out or "MB" in out
    assert os.listdir(tmp_path) == ["s.yaml"]
    status, out, _ = call(monkeypatch, capsys, "train", "s.yaml", "--dry-run")
    assert (status, out.splitlines()[-1].partition(" -n ")[2][:2]) == (0, "4 ")
    status, _, err = call(monkeypatch, capsys, "train", "s.yaml", "--dry-run", "--hosts", "a:2")
    assert (status, err.count("\n")) == (2, 1)


# --- namespaces as hosts ----------------------------------------------------------------------------------------------


def cluster_of(count: int, devices: int) -> dict:
    node = {"count": count, "devices": [{"count": devices, "speed": "4000 samples/s"}]}
    return {"nodes": [node], "network": {"bandwidth": "1 Gbit/s"}}


def on_namespaces(folder: Path, hosts: int, script: str, seconds: float) -> subprocess.CompletedProcess[str]:
    """Run a shell script on the first of some hosts. In it, $PACELINE is the command."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PACELINE": f"{sys.executable} -m paceline"}
    line = ["sh", str(SCRIPT), str(hosts), "sh", "-ec", script]
    return subprocess.run(
        line, cwd=folder, env=environment, capture_output=True, text=True, timeout=seconds, check=False
    )


@on_hosts
def test_two_hosts_train_together(tmp_path):
    """Each reads its own path, the record names both, and the numbers are those of a simulation."""
    x, y = np.arange(16 * 8, dtype=np.float32).reshape(16, 8) / 128, np.arange(16) % 2
    for name in "ab":
        np.savez(tmp_path / f"on_{name}.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    document = scenario(2, {"name": "mlp", "hidden": [4]}, {"preset": "local_sgd", "H": 4}, 2, cluster=cluster_of(2, 1))
    paths = {"a": "on_a.npz", "b": "on_b.npz", socket.gethostname(): "on_a.npz"}
    document["workload"]["data"] = {"name": "data.npz", "path": paths}
    document |= {"record": {"host": True}, "report": {"every": "1 round"}}
    (tmp_path / "s.yaml").write_text(yaml.dump(document))
    done = on_namespaces(tmp_path, 2, "$PACELINE train s.yaml --hosts a,b --out run --quiet", 120)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    record = yaml.read_mapping(tmp_path / "run" / "scenario.yaml")["recorded"]
    assert record["history"][0]["hosts"] == ["a", "b"]
    simulated = simulate(tmp_path / "s.yaml").summary
    assert read(tmp_path / "run")[0]["params_sha256"] == simulated["params_sha256"]


SIX = "$PACELINE train s.yaml --hosts a:2,b:2,c:2 --quiet --out run"
LOST = "--set 'faults=[{name: loss, worker: 3, at: 6 rounds}]'"
# All processes of host b end at once, those of its ssh server included.
HOST_DIES = "(until ls run/checkpoints/round_000004; do sleep 0.1; done; kill -9 $(ip netns pids b)) > dies 2>&1 & "


@pytest.mark.long
@on_hosts
@pytest.mark.parametrize(
    ("script", "how", "lost", "workers"),
    [
        (f"{SIX} --max-restarts 1 {LOST}", "restart", None, 6),
        (f"{SIX} --shrink --min-workers 4 --max-restarts 1 {LOST}", "shrink", [3], 5),
        (f"{HOST_DIES} {SIX} --max-restarts 3 --min-workers 4", "restart", [2, 3], 4),
    ],
)
def test_six_ranks_on_three_hosts_go_on(script, how, lost, workers, tmp_path):
    document = scenario(
        6, {"name": "mlp", "hidden": [16]}, {"preset": "local_sgd", "H": 8}, 12, cluster=cluster_of(3, 2)
    )
    (tmp_path / "s.yaml").write_text(yaml.dump(document | {"checkpoint": {"every": "2 rounds"}}))
    done = on_namespaces(tmp_path, 3, script, 280)
    assert done.returncode == 0, done.stdout + done.stderr
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    recovery = summary["recoveries"][-1]
    assert (recovery["how"], summary["workers"], summary["rounds"]) == (how, workers, 12), done.stderr
    assert lost is None or recovery["lost"] == lost


@pytest.mark.long
@on_hosts
def test_what_keeps_hosts_from_training_together(tmp_path):
    document = scenario(
        2, {"name": "mlp", "hidden": [16]}, {"preset": "local_sgd", "H": 4}, 2, cluster=cluster_of(2, 1)
    )
    (tmp_path / "s.yaml").write_text(yaml.dump(document))
    script = "$PACELINE train s.yaml --hosts a,d --out run"
    done = on_namespaces(tmp_path, 2, script, 120)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("paceline: host d is lost or cannot be reached (")
    assert done.stderr.count("\n") == 1
    # Host a has another file system in the folder of the run.
    (tmp_path / "apart").mkdir()
    done = on_namespaces(
        tmp_path, 2, "mount -t tmpfs none apart; $PACELINE train s.yaml --hosts a,b --out apart/run", 99
    )
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert "apart/run: host b does not see what host a writes in" in done.stderr
    assert sorted(os.listdir(tmp_path)) == ["apart", "s.yaml"]
