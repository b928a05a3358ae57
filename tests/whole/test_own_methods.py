"""Members of the axes, presets and learning rates of a user's own, named in a scenario by their import paths."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from kit.cli import MLP, call, paceline, scenario
from paceline import simulate, sweep
from paceline.batch_sizes import BatchSizeOptions, _check
from paceline.config import yaml
from paceline.config.scenario import load
from paceline.studies.validation import Rounds
from paceline.validating import ValidateOptions, prepare

OWN = '''
import dataclasses
from dataclasses import dataclass
from typing import Literal

import numpy as np

from paceline.algorithms.aggregations import Parameters
from paceline.algorithms.learning_rates import Decay
from paceline.algorithms.placements import Replicated
from paceline.algorithms.presets import local_sgd
from paceline.algorithms.sampling import Sampling
from paceline.algorithms.schedules import Schedule
from paceline.algorithms.splits import Shares, Split
from paceline.algorithms.strategy import Strategy
from paceline.program.streams import stream


@dataclass(frozen=True)
class Seesaw(Schedule):
    short: int = 2
    long: int = 6
    inner: Schedule | None = None

    def __post_init__(self):
        if not 1 <= self.short <= self.long:
            raise ValueError(f"short {self.short} must be at least 1 and at most long {self.long}")

    def steps(self, now):
        return self.long if now.rounds % 2 else self.short


class FirstTwice(Split):
    """The first worker takes twice the batch."""

    def shares(self, batch, devices, holds=None):
        return Shares((2 * batch, *(batch,) * (len(devices) - 1)), (1.0,) * len(devices))


class Half(Sampling):
    """With replacement, from the first half of the examples."""

    def __init__(self, part: float = 0.5):
        self.part = part

    def indices(self, seed, examples, worker, position, count):
        return stream(seed, "half", worker, position).integers(0, int(examples * self.part), count)


@dataclass(frozen=True)
class Twice(Parameters):
    """The mean of the parameters, taken twice."""

    def round(self, w, place, r):
        yield from Parameters.round(self, w, place, r)
        return (yield from place.average(w, 1.0))


@dataclass(frozen=True)
class Plain(Replicated):
    """Whole steps only."""

    def by_units(self, synchronous, units):
        return False


@dataclass(frozen=True)
class Halves(Decay):
    """lr, halved after the share `at` of the way."""

    at: float = 0.5

    def __call__(self, progress):
        return self.lr * (0.5 if self.behind(progress) >= self.at else 1.0)


def seesaw(long: int = 6) -> Strategy:
    return dataclasses.replace(local_sgd(), schedule=Seesaw(long=long))


def two_step(first: Schedule, then: int = 3) -> Schedule:
    return Seesaw(1, then)


def a_number(h: int = 3):
    return h


def untyped(h=3):
    return Seesaw()


class Unrelated:
    pass


@dataclass(frozen=True)
class Wrong(Seesaw):
    answer: Literal["half", "none", "raises", "fails"] = "half"

    def __post_init__(self):
        if self.answer == "fails":
            raise KeyError("nothing there")

    def steps(self, now):
        if self.answer == "raises":
            return 1 // now.rounds
        return 2.5 if self.answer == "half" else 0


class Uneven(Split):
    def shares(self, batch, devices, holds=None):
        return Shares((batch,), (1.0,))


class Lazy(Split):
    def shares(self, batch, devices, holds=None):
        return Shares((batch,) * len(devices), (0.5,) * len(devices))


class Outside(Sampling):
    def indices(self, seed, examples, worker, position, count):
        return np.full(count, examples)


def forgetful(lr: float):
    asked = []

    def rate(progress):
        asked.append(progress)
        return lr / len(asked)

    return rate


def endless(lr: float):
    return lambda progress: float("inf")


def no_rate(period: int = 3):
    return None
'''
LOCAL = {"preset": "local_sgd"}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A project: a scenario and, next to it, the user's module. It is forgotten afterwards."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "own_methods.py").write_text(OWN)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    yield tmp_path
    sys.modules.pop("own_methods", None)


def write(folder: Path, strategy: dict[str, Any], **workload: Any) -> Path:
    document = scenario(2, MLP, strategy, 4)
    document["workload"] |= workload
    path = folder / "own.yaml"
    path.write_text(yaml.dump(document))
    return path


EVERYTHING = {
    "split": "own_methods:FirstTwice",
    "schedule": {"own_methods:Seesaw": {"long": 4}},
    "sampling": {"own_methods:Half": 0.25},
    "aggregation": {"own_methods:Twice": "samples"},
    "placement": {"own_methods:Plain": {"wire": "bf16"}},
}
RATE = {"name": "own_methods:Halves", "at": 0.25, "warm_up": 1}


def test_a_scenario_names_members_of_all_axes_and_its_record_repeats_the_run(folder):
    path, settings = write(folder, EVERYTHING, lr_schedule=RATE), ["report={every: 1 rounds}"]
    run = simulate(path, out=folder / "first", settings=settings)
    assert run.metrics.H.tolist() == [2, 4, 2, 4]
    assert run.metrics.samples.tolist() == [48, 144, 192, 288]
    assert run.metrics.lr.tolist() == [0.05, 0.025, 0.025, 0.025]
    assert run.summary["syncs"]["parameters"] == 8
    again = simulate(folder / "first" / "scenario.yaml", out=folder / "second")
    assert again.summary["params_sha256"] == run.summary["params_sha256"]
    timed = simulate(path, timing_only=True, engine="cohort", settings=settings)
    assert timed.summary["seconds"] == run.summary["seconds"]


def test_an_own_preset_is_what_it_is_made_of(folder):
    own = simulate(write(folder, {"preset": "own_methods:seesaw", "long": 4}))
    spelled = simulate(write(folder, {**LOCAL, "schedule": {"own_methods:Seesaw": {"long": 4}}}))
    assert own.summary["params_sha256"] == spelled.summary["params_sha256"]


def test_members_inside_of_members_and_identities(folder):
    """A seesaw whose two lengths are equal is `fixed`, also where it is an argument of a built-in member."""
    then = {"then": {"t": "3 rounds", "a": {"own_methods:Seesaw": {"short": 4, "long": 4}}, "b": {"fixed": 2}}}
    own = simulate(write(folder, {**LOCAL, "schedule": then}))
    then["then"]["a"] = {"fixed": 4}
    assert own.summary["params_sha256"] == simulate(write(folder, {**LOCAL, "schedule": then})).summary["params_sha256"]


def test_every_command_finds_own_methods(folder, monkeypatch, capsys):
    path = write(folder, EVERYTHING, lr_schedule=RATE)
    table = sweep(path, {"strategy.schedule": [{"own_methods:Seesaw": n} for n in (1, 2)]}, jobs=1)
    assert not table.error.any()
    assert len(set(table.seconds)) == 2
    (prepared,) = prepare([path], ValidateOptions(folder / "v", Rounds(1, 1)))
    assert prepared.case.family == "of its own"
    _check(load(path), folder, BatchSizeOptions(folder / "profile.yaml", None, None, ()))
    for name in ("a", "b"):
        assert call(monkeypatch, capsys, "simulate", path, "--out", name)[0] == 0
    status, out, _ = call(monkeypatch, capsys, "compare", "a", "b")
    assert status == 0
    assert "same numbers" in out


def schedule(value: Any) -> dict[str, Any]:
    return {**LOCAL, "schedule": value}


@pytest.mark.parametrize(
    ("strategy", "message"),
    [
        (
            schedule("own_methods:Sesaw"),
            "strategy.schedule: schedule 'own_methods:Sesaw': own_methods has no 'Sesaw'",
        ),
        (
            schedule("own_method:Seesaw"),
            "schedule 'own_method:Seesaw': no module named 'own_method'",
        ),
        (
            schedule({"own_methods:Seesaw": {"longer": 6}}),
            "Seesaw.longer: unknown argument; did you mean 'long'",
        ),
        (schedule({"own_methods:Seesaw": {"long": "soon"}}), "own_methods:Seesaw.long: 'soon': write a whole number"),
        (
            schedule({"own_methods:Seesaw": {"long": 1}}),
            "schedule.own_methods:Seesaw: short 2 must be at least 1",
        ),
        (schedule({"own_methods:two_step": {}}), "own_methods:two_step.first: is missing"),
        (
            schedule("own_methods:Unrelated"),
            "Unrelated is not a schedule; derive it from paceline.algorithms.",
        ),
        (schedule("own_methods:FirstTwice"), "own_methods:FirstTwice is not a schedule"),
        (
            schedule("own_methods:a_number"),
            "own_methods:a_number returns 3, which is not a schedule",
        ),
        (schedule("own_methods:untyped"), "'own_methods:untyped': argument h has no type that a scenario can write"),
        (schedule("os:system"), "os is a module of Python's standard library"),
        (schedule({"own_methods:Wrong": {"answer": "half"}}), "strategy.schedule: Wrong.steps gave 2.5 for round 0"),
        (schedule({"own_methods:Wrong": {"answer": "none"}}), "strategy.schedule: Wrong.steps gave 0 for round 0"),
        (schedule({"own_methods:Wrong": {"answer": "raises"}}), "Wrong.steps failed at round 0: ZeroDivisionError"),
        (schedule({"own_methods:Wrong": {"answer": "fails"}}), "strategy.schedule.own_methods:Wrong failed: KeyError"),
        ({**LOCAL, "split": "own_methods:Uneven"}, "strategy.split: it gives 1 batches and 1 paces for 2 workers"),
        ({**LOCAL, "split": "own_methods:Lazy"}, "strategy.split: it gives paces from 0.5 to 0.5"),
        ({**LOCAL, "sampling": "own_methods:Outside"}, "strategy.sampling: Outside.indices gave array"),
        ({"preset": "own_methods:seesaw", "longer": 3}, "strategy.longer: unknown argument; did you mean 'long'?"),
        (
            {"preset": "own_methods:a_number"},
            "strategy.preset: own_methods:a_number returns 3; return a ",
        ),
        (
            {"preset": "own_methods:nothing"},
            "strategy.preset: preset 'own_methods:nothing': own_methods has no",
        ),
    ],
)
def test_a_mistake_is_one_line_and_nothing_is_written(folder, monkeypatch, capsys, strategy, message):
    refused(monkeypatch, capsys, write(folder, strategy), message)


def refused(monkeypatch: Any, capsys: Any, path: Path, message: str) -> None:
    status, _, err = call(monkeypatch, capsys, "simulate", path, "--out", "run")
    assert status == 2
    assert message in err
    assert len(err.splitlines()) == 1
    assert not Path("run", "summary.json").exists()


@pytest.mark.parametrize(
    ("rate", "message"),
    [
        ({"name": "own_methods:Halves", "ta": 1}, "workload.lr_schedule.ta: unknown argument; did you mean"),
        ({"name": "own_methods:Halves", "lr": 1.0}, "workload.lr_schedule.lr: is the optimizer's"),
        ("own_methods:endless", "workload.lr_schedule: own_methods:endless gave inf at 0; return a number, 0 or more"),
        ("own_methods:forgetful", "own_methods:forgetful gave 0.0125 and then 0.01 at "),
        ("own_methods:no_rate", "workload.lr_schedule: own_methods:no_rate does not take lr"),
        (
            "own_methods:nothing",
            "workload.lr_schedule: lr_schedule 'own_methods:nothing': own_methods has no",
        ),
        (3, "workload.lr_schedule: has no name; write one of constant, multistep"),
        (
            {"name": "foo"},
            "write one of constant, multistep, cosine, linear, cosine_step, package.module:Name",
        ),
    ],
)
def test_a_wrong_learning_rate_is_one_line(folder, monkeypatch, capsys, rate, message):
    refused(monkeypatch, capsys, write(folder, LOCAL, lr_schedule=rate), message)


def test_a_module_that_does_not_import_is_one_line(folder, monkeypatch, capsys):
    (folder / "own_methods.py").write_text("import no_such_library")
    refused(monkeypatch, capsys, write(folder, schedule("own_methods:Seesaw")), "module named 'no_such_library', which")


@pytest.mark.long
def test_ranks_train_with_own_methods_and_resume_to_the_same_bits(folder):
    path = write(folder, EVERYTHING, lr_schedule=RATE)
    whole = simulate(path)
    paceline("train", path, "--out", "real", "--set", "checkpoint.every=2 rounds", cwd=folder)
    from paceline import load as load_run

    assert load_run(folder / "real").summary["params_sha256"] == whole.summary["params_sha256"]
    last = max((folder / "real" / "checkpoints").glob("round_*"))
    for file in last.iterdir():
        file.unlink()
    last.rmdir()
    paceline("train", "--resume", "real", cwd=folder)
    assert load_run(folder / "real").summary["params_sha256"] == whole.summary["params_sha256"]
