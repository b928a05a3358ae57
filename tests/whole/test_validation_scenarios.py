"""The scenarios of scenarios/validation: they are what make.py makes, and every pair of values occurs among them."""

from __future__ import annotations

import runpy
from itertools import combinations

import pytest

from kit.paths import SCENARIOS
from paceline.config import yaml
from paceline.config.profile import Profile, save_profile, workload_key
from paceline.config.scenario import load
from paceline.emulated_network import described_star
from paceline.job import resolve

FOLDER = SCENARIOS / "validation"
MADE = runpy.run_path(str(FOLDER / "make.py"))
CASES = [*MADE["covering"](), *MADE["LARGE"]]
STEPS = {"step": {1: "1 ms", 128: "128 ms"}}  # as `paceline profile` measures them: up to twice the batch


def test_the_files_are_what_make_makes():
    assert {path.name: path.read_text() for path in FOLDER.glob("*.yaml")} == MADE["files"]()


def test_every_pair_of_values_occurs():
    """Read from the files' names, so that nothing of make.py but the factors is believed."""
    factors = [list(map(str, values)) for values in MADE["FACTORS"]]
    every = [path.stem.split("-") for path in FOLDER.glob("*.yaml")]
    cases = [case for case in every if case[1] in ("2", "4")]
    assert (len(cases), len(every)) == (36, 40)
    for a, b in combinations(range(5), 2):
        assert {(case[a], case[b]) for case in cases} == {(x, y) for x in factors[a] for y in factors[b]}


@pytest.fixture(scope="module")
def profiled(tmp_path_factory):
    """The settings that give a scenario a profile in which every device knows its workload."""
    folder = tmp_path_factory.mktemp("profiles")

    def settings(path):
        key = workload_key(load(path).workload)
        tables = {device: {key: STEPS} for device in ("cpu", "fast", "slow")}
        save_profile(folder / path.name, Profile.model_validate({"devices": tables}))
        return [f"cluster.profile={folder / path.name}"]

    return settings


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_case_is_what_its_name_says(case, profiled):
    path = FOLDER / f"{case.name}.yaml"
    job = resolve(load(path, profiled(path)), FOLDER)
    scenario, strategy = job.scenario, job.plan.strategy
    slowness = job.timing.slowness(scenario.workload.batch)
    assert (job.workers, scenario.workload.model.name) == (case.workers, case.model)
    assert max(slowness) == pytest.approx(4.0 if case.speeds == "unequal" else 1.0)
    assert scenario.strategy.preset == case.method.removesuffix("_flat")
    assert strategy.placement.overlap == (case.method != "sync_sgd_flat")
    train = scenario.train
    assert (train.phantom, train.emulate) == (case.workers > 2, case.workers == 2 and case.speeds == "unequal")
    assert train.emulate_network == (case.network == "star")
    if train.emulate_network:
        assert set(described_star(scenario.cluster).rates) == {125e6}
    assert not job.warnings
    assert yaml.read_mapping(path).get("report") is None
