"""Models out of runs and into them: `paceline export`, `Run.model` and `workload.init`."""

from __future__ import annotations

import hashlib
import json
import pickle
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import paceline
from kit import users
from kit.cli import MLP, call, scenario
from kit.learning import DIGITS
from paceline.config import yaml
from paceline.config.scenario import load
from paceline.job import resolve
from paceline.learning.evaluation import Evaluation
from paceline.program.errors import ScenarioError

SAVED = {"checkpoint": {"every": "1 round"}, "report": {"every": "1 round", "start": True}}
TIED = {"model": "kit.users:tied", "data": "kit.users:points"}
FSDP = {"preset": "fsdp", "placement": {"sharded": {"unit_bytes": 1}}}

pytestmark = pytest.mark.usefixtures("torch_as_it_was")


def write(path: Path, document: dict) -> Path:
    path.write_text(yaml.dump(document))
    return path


def digits(strategy: dict, workers: int = 2) -> dict:
    """A scenario of two rounds, with a checkpoint after each."""
    return scenario(workers, MLP, strategy, 2, **SAVED)


def tied(strategy: dict, workers: int = 2, **more: object) -> dict:
    """The same of a model with tied and frozen parameters, and buffers."""
    made = digits(strategy, workers)
    return {**made, "workload": {**made["workload"], **TIED, **more}}


RUNS = {
    "local": tied({"preset": "local_sgd", "H": 2}),
    "sharded": tied({"preset": "fsdp"}, 3),
    "offloaded": tied({"preset": "lsdp"}),
    "units": digits(FSDP, 3),
    "lshdp": digits({"preset": "lshdp", "total": 16}),
}


@pytest.fixture
def seen(monkeypatch) -> dict:
    """What the workers' models answered in the last evaluation: first place in the test set -> (places, outputs)."""
    found, add = {}, Evaluation._add

    def judged(self, outputs, chosen):
        found[chosen[0]] = chosen, outputs.clone()
        return add(self, outputs, chosen)

    monkeypatch.setattr(Evaluation, "_add", judged)
    return found


@pytest.mark.parametrize("name", RUNS)
def test_a_model_loaded_from_an_export_answers_as_the_trained_workers_did(name, tmp_path, monkeypatch, capsys, seen):
    """To the last bit, in a plain module with strict names, whatever each worker keeps of the model."""
    path, out = write(tmp_path / "s.yaml", RUNS[name]), tmp_path / "new" / "model.safetensors"
    run = paceline.simulate(path, out=tmp_path / "run")
    monkeypatch.setitem(sys.modules, "mpi4py", None)
    status, text, err = call(monkeypatch, capsys, "export", tmp_path / "run", "--out", out)
    assert (status, err) == (0, "")
    assert text.endswith("parameters, after round 2\n")
    if RUNS[name]["workload"]["model"] == MLP:
        plain, x = resolve(load(path), tmp_path).problem.fresh_model(), DIGITS.test_x
    else:
        plain, x = users.tied((users.WIDTH,), users.CLASSES), users.points()[2]
    plain.load_state_dict(load_file(out))
    model = run.model()
    assert not any(module.training for module in model.modules())
    for places, outputs in seen.values():
        with torch.no_grad():
            assert torch.equal(plain.eval()(torch.from_numpy(x[places])), outputs)
            assert torch.equal(model(torch.from_numpy(x[places])), outputs)


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A folder with a scenario, its run of two rounds, and the models exported after each."""
    folder = tmp_path_factory.mktemp("trained")
    run = paceline.simulate(write(folder / "s.yaml", RUNS["local"]), out=folder / "run")
    for round in (1, 2):
        model = run.model(round)
        save_file({name: t.clone() for name, t in model.state_dict().items()}, folder / f"{round}.safetensors")
        torch.save(model.state_dict(), folder / f"{round}.pt")
    return folder


def test_an_export_says_what_it_is(trained, tmp_path, monkeypatch, capsys):
    out = tmp_path / "first.safetensors"
    assert call(monkeypatch, capsys, "export", trained / "run", "--round", 1, "--out", out)[0] == 0
    expected = load_file(trained / "1.safetensors")
    assert {name: t.dtype for name, t in load_file(out).items()} == {name: t.dtype for name, t in expected.items()}
    assert all(torch.equal(t, expected[name]) for name, t in load_file(out).items())
    assert not torch.equal(expected["layer.weight"], load_file(trained / "2.safetensors")["layer.weight"])
    assert torch.equal(expected["body.weight"], expected["back.weight"])
    with safe_open(out, "pt") as file:
        metadata = file.metadata()
    line = paceline.load(trained / "run").lines[1]
    assert (metadata["round"], json.loads(metadata["metrics"]), line["round"]) == ("1", line, 1)
    again = tmp_path / "again.yaml"
    again.write_text(metadata["scenario"])
    assert load(again) == load(trained / "s.yaml")
    assert "recorded" not in metadata["scenario"], "which names folders of the machine"
    assert out.stat().st_mode == again.stat().st_mode, "others may read it, as any file"
    assert call(monkeypatch, capsys, "export", trained / "run", "--out", out, "--force")[0] == 0
    assert torch.equal(load_file(out)["layer.weight"], load_file(trained / "2.safetensors")["layer.weight"])


def test_re_estimated_statistics_are_those_of_the_evaluation(tmp_path, seen):
    made = tied({"preset": "local_sgd", "H": 2}, 3)
    made["report"] = {"batch_norm": {"re_estimated": 6}}
    run = paceline.simulate(write(tmp_path / "s.yaml", made), out=tmp_path / "run")
    evaluated = dict(seen)
    model = run.model()
    for places, outputs in evaluated.values():
        with torch.no_grad():
            assert torch.equal(model(torch.from_numpy(users.points()[2][places])), outputs)


@pytest.mark.parametrize("file", ["2.safetensors", "2.pt"])
def test_a_run_begins_where_the_exported_one_ended(file, trained, tmp_path):
    """The loss before its first step is the other run's last one, to the last bit; sharded, too."""
    path = write(trained / f"from-{file}.yaml", tied({"preset": "fsdp"}, init=file, model_seed=99))
    last = paceline.load(trained / "run").lines[-1]
    run = paceline.simulate(path, out=tmp_path / "run")
    assert run.lines[0]["test_loss"] == last["test_loss"]
    assert run.lines[-1]["test_loss"] != last["test_loss"]
    assert torch.equal(run.model().still.weight, load_file(trained / "2.safetensors")["still.weight"]), "frozen"
    sha256 = hashlib.sha256((trained / file).read_bytes()).hexdigest()
    assert run.scenario["recorded"]["init"] == {"path": file, "sha256": sha256}
    assert paceline.simulate(path, timing_only=True).summary["seconds"] == run.summary["seconds"]


def test_a_run_is_not_repeated_with_another_file(trained, tmp_path, monkeypatch):
    made = tied({"preset": "local_sgd", "H": 2}, init="weights.safetensors")
    file = tmp_path / "weights.safetensors"
    file.write_bytes((trained / "1.safetensors").read_bytes())
    first = paceline.simulate(write(tmp_path / "s.yaml", made), out=tmp_path / "run")
    monkeypatch.chdir("/")
    record = tmp_path / "run" / "scenario.yaml"
    assert paceline.simulate(record).summary["params_sha256"] == first.summary["params_sha256"]
    file.write_bytes((trained / "2.safetensors").read_bytes())
    with pytest.raises(ScenarioError, match=r"weights\.safetensors: is not the file that the run began with"):
        paceline.simulate(record)
    file.rename(tmp_path / "other.safetensors")
    paceline.simulate(record, settings=["workload.init=other.safetensors"])
    with pytest.raises(ScenarioError, match=r"workload\.init: weights\.safetensors: no such file"):
        paceline.simulate(record)
    job = resolve(load(record), record.parent)
    job.problem.workers(job.plan, [0], shared_process=True, resumed=True)
    assert job.record()["recorded"]["init"] == first.scenario["recorded"]["init"]


class Code:
    """What a file must not do when it is read."""

    def __reduce__(self):
        return Path.write_text, (Path("was_run"), "")


def spoilt(found: dict) -> dict[str, dict]:
    """Changed state_dicts, by what the error says of them."""
    less = {name: t for name, t in found.items() if name != "norm.running_mean"}
    return {
        "it lacks 'norm.running_mean'": less,
        "'body.weight' and 'back.weight' differ": {**found, "back.weight": found["body.weight"] + 1},
        "the model has no 'module.a'": {**found, "module.a": torch.zeros(1)},
        "'layer.bias' has shape (7,), expected (3,)": {**found, "layer.bias": torch.zeros(7)},
        "'layer.bias' is torch.int64, expected torch.float32": {**found, "layer.bias": torch.zeros(3).long()},
        "lacks 'layer.weight'; it lacks 'layer.bias'; it lacks 'body.weight' and 11 more": {"a": found["layer.bias"]},
    }


def test_weights_that_do_not_fit_are_refused_in_one_line(trained, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    found = load_file(trained / "2.safetensors")
    made = tied({"preset": "local_sgd", "H": 2}, init="w.safetensors")
    path = write(tmp_path / "s.yaml", made)

    def refused(says: str, *settings: str) -> None:
        status, _, err = call(monkeypatch, capsys, "simulate", path, "--out", "run", *settings)
        assert (status, err.count("\n")) == (2, 1), err
        assert says in err
        assert not (tmp_path / "run").exists()

    refused("workload.init: w.safetensors: no such file")
    for says, tensors in spoilt(found).items():
        save_file({name: t.clone() for name, t in tensors.items()}, "w.safetensors")
        refused(says)
    Path("w.safetensors").write_bytes(b"nothing")
    refused("workload.init: w.safetensors: cannot be read")
    others = {"'model' is a mapping": {"model": found}, "holds a list": [1], "cannot be read as": {"a": Code()}}
    for says, document in others.items():
        torch.save(document, "w.pt")
        refused(says, "--set", "workload.init=w.pt")
    Path("p.pt").write_bytes(pickle.dumps(Code()))  # before torch 1.6, files were plain pickles
    refused("cannot be read as a state_dict", "--set", "workload.init=p.pt")
    assert not Path("was_run").exists()


def test_a_tied_tensor_may_be_stored_once(trained, tmp_path):
    """As safetensors' own save_model stores it, under either name."""
    found = load_file(trained / "2.safetensors")
    runs = []
    for name in ("body.weight", "back.weight"):
        save_file({key: t for key, t in found.items() if key != name}, tmp_path / "w.safetensors")
        path = write(tmp_path / "s.yaml", tied({"preset": "local_sgd", "H": 2}, init="w.safetensors"))
        runs.append(paceline.simulate(path).lines[0]["test_loss"])
    assert runs == [paceline.load(trained / "run").lines[-1]["test_loss"]] * 2


def test_what_cannot_be_exported_is_said_in_one_line(trained, tmp_path, monkeypatch, capsys):
    paceline.simulate(trained / "s.yaml", timing_only=True, out=tmp_path / "clock")
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun" / "scenario.yaml").write_bytes((trained / "run" / "scenario.yaml").read_bytes())
    kept = tmp_path / "kept.safetensors"
    kept.write_text("mine")
    new, run = tmp_path / "new.safetensors", trained / "run"
    for arguments, says in (
        ((tmp_path / "none", "--out", new), "holds no run"),
        ((tmp_path / "clock", "--out", new), "timing-only"),
        ((tmp_path / "begun", "--out", new), "no checkpoint"),
        ((run, "--round", 7, "--out", new), "no checkpoint of round 7; it has [1, 2]"),
        ((run, "--round", "x", "--out", new), "--round"),
        ((run, "--out", kept), "exists already; write --force"),
        ((run, "--out", tmp_path / "model.pt"), "ends in .safetensors"),
        ((run, "--out", tmp_path / "model"), "ends in .safetensors"),
        ((run,), "--out"),
    ):
        status, out, err = call(monkeypatch, capsys, "export", *arguments)
        assert (status, out, err.count("\n")) == (2, "", 1), err
        assert says in err
    assert (kept.read_text(), new.exists(), (tmp_path / "model.pt").exists()) == ("mine", False, False)
    with pytest.raises(ScenarioError, match="the run has no directory"):
        paceline.simulate(trained / "s.yaml").model()


def test_a_damaged_checkpoint_gives_no_model(trained, capsys):
    run = paceline.load(trained / "run")
    path = run.directory / "checkpoints" / "round_000002" / "worker_1.safetensors"
    written = path.read_bytes()
    path.write_bytes(written[:-1] + bytes([written[-1] ^ 1]))
    try:
        with pytest.raises(ScenarioError, match=r"worker_1\.safetensors: is damaged"):
            run.model(2)
        assert torch.equal(run.model().layer.weight, run.model(1).layer.weight)
        assert "worker_1.safetensors: is damaged" in capsys.readouterr().err
    finally:
        path.write_bytes(written)
