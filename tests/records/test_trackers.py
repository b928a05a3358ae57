"""TensorBoard and wandb-shaped trackers: what they show is what the run's record has, at its own times."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pytest

import paceline
from kit.cli import MLP, scenario
from paceline.config import yaml

pytest.importorskip("tensorboard")
DOCUMENT = scenario(2, MLP, {"preset": "local_sgd", "H": 3}, 6) | {"checkpoint": {"every": "2 rounds"}}


def written(folder: Path, document: dict[str, Any]) -> Path:
    path = folder / "small.yaml"
    path.write_text(yaml.dump(document))
    return path


def events(folder: Path) -> Any:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder), size_guidance={"scalars": 0, "tensors": 0})
    found.Reload()
    return found


def test_tensorboard_shows_the_record_at_virtual_times(tmp_path):
    document = DOCUMENT | {"callbacks": [{"name": "tensorboard", "every": 2}]}
    run = paceline.simulate(written(tmp_path, document), out=tmp_path / "run")
    found = events(tmp_path / "run" / "tensorboard")
    places = [tuple(place) for place in run.metrics[["seconds", "step"]].to_numpy().tolist()]
    for name in ("train_loss", "test_loss", "accuracy", "lr", "H", "samples", "epoch"):
        shown = found.Scalars(f"report/{name}")
        assert [(event.wall_time, event.step) for event in shown] == places
        assert [event.value for event in shown] == pytest.approx(run.metrics[name].tolist())
    rate = found.Scalars("round/samples_per_second")
    assert [event.step for event in rate] == [6, 12, 18], "every second round"
    assert rate[0].value == pytest.approx(40 / (run.summary["seconds"] / 6), rel=1e-6)
    text = found.Tensors("scenario")[0].tensor_proto.string_val[0].decode()
    assert "preset: local_sgd" in text
    from tensorboard.plugins.hparams.metadata import parse_session_start_info_plugin_data

    (content,) = found.PluginTagToContent("hparams").values()
    settings = parse_session_start_info_plugin_data(content).hparams
    assert settings["workload.optimizer.lr"].number_value == 0.05
    assert settings["strategy.preset"].string_value == "local_sgd"


def test_tensorboard_forgets_what_a_lost_worker_undid(tmp_path):
    lost = {"recovery": {"max_restarts": 1}, "faults": [{"name": "loss", "worker": 1, "at": "3 rounds"}]}
    run = paceline.simulate(written(tmp_path, DOCUMENT | lost), out=tmp_path / "run", callbacks=["tensorboard"])
    assert run.summary["recoveries"][0]["redone"] == 1
    assert [event.step for event in events(tmp_path / "run" / "tensorboard").Scalars("round/H")] == [
        3,
        6,
        9,
        12,
        15,
        18,
    ]


def test_its_folder_belongs_to_the_run(tmp_path):
    """It is replaced with the run. Without a run's directory, a folder is asked for, and each run has one in it."""
    path = written(tmp_path, DOCUMENT)
    for _ in range(2):
        paceline.simulate(path, out=tmp_path / "run", callbacks=["tensorboard"], force=True, timing_only=True)
    assert len(list((tmp_path / "run" / "tensorboard").iterdir())) == 1
    with pytest.raises(paceline.ScenarioError, match="give a folder"):
        paceline.simulate(path, callbacks=["tensorboard"])
    own = {"name": "tensorboard", "folder": str(tmp_path / "all")}
    paceline.simulate(path, callbacks=[own], timing_only=True)
    assert [event.step for event in events(tmp_path / "all" / "small").Scalars("round/H")] == [3, 6, 9, 12, 15, 18]


def stand_in(name: str, definable: bool = True) -> tuple[types.ModuleType, list[Any]]:
    """A module of wandb's shape that keeps what it is told."""
    module, said = types.ModuleType(name), list[Any]()

    def init(project: str, name: str | None = None, config: dict[str, Any] | None = None, tags: Any = None) -> None:
        said.append(("init", {"project": project, "name": name, "config": config, "tags": tags}))

    vars(module).update(init=init, log=lambda data: said.append(("log", data)), finish=lambda: said.append(("finish",)))
    if definable:
        vars(module)["define_metric"] = lambda name, **options: said.append(("define", name, options))
    return module, said


@pytest.mark.parametrize("definable", [True, False])
def test_a_module_of_that_shape_logs_along_the_runs_seconds(tmp_path, monkeypatch, definable):
    module, said = stand_in("tracky", definable)
    monkeypatch.setitem(sys.modules, "tracky", module)
    module.__spec__ = types.SimpleNamespace(name="tracky")  # type: ignore[assignment]
    entry = {"name": "wandb", "module": "tracky", "project": "mine", "tags": ["small"], "every": 3}
    run = paceline.simulate(written(tmp_path, DOCUMENT | {"callbacks": [entry]}), out=tmp_path / "run")
    what = said[0][1]
    assert (what["project"], what["name"], what["tags"]) == ("mine", "run", ["small"])
    assert json.loads(json.dumps(what["config"]))["strategy"]["preset"] == "local_sgd"
    defined = [
        ("define", "seconds", {}),
        *(("define", f"{n}/*", {"step_metric": "seconds"}) for n in ("report", "round")),
    ]
    assert said[1:4] == defined if definable else said[1][0] == "log"
    logged = [data for kind, *rest in said for data in rest if kind == "log"]
    reports = [data for data in logged if "report/test_loss" in data]
    assert [data["seconds"] for data in reports] == run.metrics["seconds"].tolist()
    assert [data["report/accuracy"] for data in reports] == run.metrics["accuracy"].tolist()
    assert [data["round"] for data in logged if "round/H" in data] == [3, 6]
    assert said[-1] == ("finish",)


def test_an_argument_that_init_does_not_take(tmp_path, monkeypatch):
    module, _ = stand_in("tracky")
    monkeypatch.setitem(sys.modules, "tracky", module)
    module.__spec__ = types.SimpleNamespace(name="tracky")  # type: ignore[assignment]
    with pytest.raises(paceline.ScenarioError, match=r"callbacks\[0\]\.tag: tracky.init has no .*did you mean 'tags'"):
        paceline.simulate(
            written(tmp_path, DOCUMENT), callbacks=[{"name": "wandb", "module": "tracky", "tag": "small"}]
        )


@pytest.mark.long
def test_wandb_itself_offline(tmp_path):
    """The real package, without a network: its own file of the run holds what was logged."""
    pytest.importorskip("wandb")
    path = written(tmp_path, DOCUMENT | {"callbacks": ["wandb"]})
    line = [sys.executable, "-m", "paceline", "simulate", path, "--out", tmp_path / "run"]
    quiet = {"WANDB_MODE": "offline", "WANDB_SILENT": "true", "WANDB_DIR": str(tmp_path)}
    subprocess.run(list(map(str, line)), check=True, timeout=300, env=os.environ | quiet, cwd=tmp_path)
    (log,) = tmp_path.glob("wandb/offline-run-*/run-*.wandb")
    data = log.read_bytes()
    for words in (b"report/accuracy", b"round/samples_per_second", b"local_sgd"):
        assert words in data, words


def test_a_real_run_that_goes_on_keeps_its_zero(tmp_path, monkeypatch):
    """Events lie at the start of the run plus its clock, also in a process that begins later."""
    from paceline.config.callbacks import TensorBoardSpec
    from paceline.program.callbacks import RunStart
    from paceline.records import tensorboard_tracker

    clock = types.SimpleNamespace(time=lambda: 1000.0)
    monkeypatch.setattr(tensorboard_tracker, "time", clock)
    for begun, round, earlier in ((1000.0, 0, 0.0), (1040.0, 2, 40.0)):
        clock.time = lambda begun=begun: begun
        tracker = tensorboard_tracker.TensorBoardTracker(TensorBoardSpec(name="tensorboard"), "", tmp_path)
        tracker.on_start(RunStart("run", {"seed": 1}, tmp_path, False, round, 3 * round, earlier))
        for step in (1, 2, 3):
            tracker.on_report({"step": 3 * (round + step), "seconds": earlier + step, "train_loss": 1.0})
        tracker.on_end({})
    shown = [(e.wall_time, e.step) for e in events(tmp_path / "tensorboard").Scalars("report/train_loss")]
    assert shown == [(1001.0, 3), (1002.0, 6), (1041.0, 9), (1042.0, 12), (1043.0, 15)]
