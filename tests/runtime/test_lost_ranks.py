"""Workers that are lost while they train: the others go on, with the numbers of a run begun where they go on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from kit.cli import MLP, paceline, read, scenario
from kit.paths import ROOT, TESTS
from paceline import simulate
from paceline.config import yaml
from paceline.config.scenario import load
from paceline.handover import Division, Handover
from paceline.job import resolve
from paceline.program.lockstep import lockstep
from paceline.program.outcome import Hooks
from paceline.records.checkpoints import read_meta, read_worker
from paceline.recovering import next_job
from paceline.resuming import state_of

RECOVERY = {"shrink": True, "min_workers": 1}
LOCAL = {"preset": "local_sgd", "H": 3}
WIDE = {"name": "mlp", "hidden": [300, 200]}  # too large for its parameters to be gathered whole


def train(deaths: str, *arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    """`paceline train` with ranks that are killed; see kit/losses.py."""
    path = os.pathsep.join(filter(None, (str(ROOT), str(TESTS), os.environ.get("PYTHONPATH"))))
    line = [sys.executable, "-m", "kit.losses", deaths, "train", *map(str, arguments)]
    variables = os.environ | {"PYTHONPATH": path}
    return subprocess.run(line, cwd=cwd, env=variables, capture_output=True, text=True, timeout=200, check=False)


def written(folder: Path, name: str, *arguments: Any, **more: Any) -> Path:
    document = scenario(*arguments, **({"recovery": RECOVERY, "checkpoint": {"every": "1 round"}} | more))
    path = folder / f"{name}.yaml"
    path.write_text(yaml.dump(document))
    return path


def assert_kept(summary: dict[str, Any]) -> None:
    """The copies of the last two syncs are as large as predicted. They also hold random streams and small buffers."""
    for made, predicted in zip(
        *(summary[f"memory_{word}"]["syncs"] for word in ("measured", "predicted")), strict=True
    ):
        assert predicted < made < predicted + 20_000


def begun_again(path: Path, directory: Path, gone: int, at: int) -> str:
    """The parameters' hash of a run that is begun from a checkpoint, without one of the workers that wrote it."""
    job = resolve(load(path), path.parent)
    following = next_job(job, [gone])
    members = [worker for worker in range(job.workers) if worker != gone]
    handover = Handover(Division.of(job.plan), following.plan, members)
    saved = directory / "checkpoints" / f"round_{at:06d}"
    workers = following.problem.workers(following.plan, range(following.workers), shared_process=True)
    for w in workers:
        w.restore(handover.snapshot(w.index, lambda worker: read_worker(saved, worker), w.snapshot()))
    state = handover.state(state_of(read_meta(saved)["state"], saved))
    lockstep(following.programs(workers, state), Hooks())
    return workers[0].digest()


def assert_joined(path: Path, summary: dict[str, Any], join: dict[str, Any]) -> None:
    """All workers have gone on from the first sync after the loss, with the numbers of a simulation."""
    at = summary["recoveries"][0]["from_round"]
    found = (join["how"], join["lost"], join["workers"], join["from_round"], join["redone"])
    assert found == ("join", [1], 2, at + 1, 0)
    assert join["seconds"] == join["start"] > 0
    assert (summary["workers"], summary["resumed_at_round"]) == (2, at + 1)
    loss = {"name": "loss", "worker": 1, "at": f"{at} rounds", "during": "exchange"}
    predicted = simulate(path, settings=[f"faults={json.dumps([loss])}"]).summary
    assert predicted["params_sha256"] == summary["params_sha256"]


def test_the_others_go_on_without_a_lost_worker(tmp_path):
    """One mpirun trains three scenarios, and each loses a worker in another place. In the last one it joins again."""
    overlapping = {"preset": "lsdp"}  # exchanges and copies are started
    paths = [
        written(tmp_path, "local", 4, MLP, LOCAL, 8),
        written(tmp_path, "wide", 3, WIDE, {"preset": "sync_sgd"}, 6),
        written(tmp_path, "units", 2, MLP, overlapping, 5, recovery=RECOVERY | {"respawn": True}),
    ]
    done = train("3/1/step/4,1/3/exchange/7,2/5/started/9", *paths, "--out", "runs", "--quiet", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    for path, lost in zip(paths, (3, 1, 1), strict=True):
        directory = tmp_path / "runs" / path.stem
        summary, lines = read(directory)
        recovery, *joins = summary["recoveries"]
        assert (recovery["how"], recovery["lost"]) == ("shrink", [lost]), path.stem
        assert (summary["replicas_agree"], summary["finished"]) == (True, True)
        if path.stem == "units":
            assert_joined(path, summary, *joins)
            continue
        assert not joins
        assert_kept(summary)
        at = recovery["from_round"]
        assert 0 < at < summary["rounds"]
        assert begun_again(path, directory, lost, at) == summary["params_sha256"], path.stem
        rounds, seconds = ([line[key] for line in lines] for key in ("round", "seconds"))
        assert (rounds, seconds) == (sorted(set(rounds)), sorted(seconds)), "the clock goes on"


@pytest.mark.long
def test_the_next_scenario_has_all_its_workers_again(tmp_path):
    """What has been trained by the remaining ranks is not trained again."""
    both = {"shrink": True, "min_workers": 1, "max_restarts": 1}
    faults = {"first": [{"name": "loss", "worker": 2, "at": "2 rounds"}], "second": []}
    paths = [written(tmp_path, name, 3, MLP, LOCAL, 6, recovery=both, faults=faults[name]) for name in faults]
    done = paceline("train", *paths, "--out", "runs", "--quiet", cwd=tmp_path)
    assert "restart 1 of 1: a worker is lost; second begins again" in done.stderr
    (first, _), (second, _) = (read(tmp_path / "runs" / path.stem) for path in paths)
    assert (first["workers"], second["workers"]) == (2, 3)
    assert [entry["how"] for entry in first["recoveries"]] == ["shrink"]
