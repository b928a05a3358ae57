"""The scenarios of scenarios/validation: they are what make.py makes, and every pair of values occurs among them."""

from __future__ import annotations

import runpy
from itertools import combinations

import pytest

from kit.paths import SCENARIOS
from paceline.config.profile import Profile, save_profile, workload_key
from paceline.config.scenario import load
from paceline.emulated_network import described_star
from paceline.job import resolve

FOLDER = SCENARIOS / "validation"
MADE = runpy.run_path(str(FOLDER / "make.py"))
CASES = [*MADE["covering"](), *MADE["LARGE"]]
STEPS = {"step": {1: "1 ms", 128: "128 ms"}}  # as `paceline profile` measures them: up to twice the batch


def test_the_files_are_what_make_makes():
    paths = [*FOLDER.glob("*.yaml"), *FOLDER.glob("profiled/*.yaml")]
    assert {str(path.relative_to(FOLDER)): path.read_text() for path in paths} == MADE["files"]()


def test_every_pair_of_values_occurs():
    """Read from the files' names, so that nothing of make.py but the factors is believed."""
    factors = [list(map(str, values)) for values in MADE["FACTORS"]]
    every = [path.stem.split("-") for path in FOLDER.glob("*.yaml")]
    cases = [case for case in every if len(case) == 5 and case[1] in ("2", "4")]
    assert (len(cases), len(every)) == (36, 44)
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
    assert (scenario.report.every is not None) == (case.model == "mlp" and case.workers == 2)
    profiled_for_it = scenario.validation.profile_of
    if case.workers > 2:
        assert profiled_for_it is not None
        other = load(FOLDER / profiled_for_it)
        assert (other.cluster.size, other.train) == (4, scenario.train)
        assert (other.workload, other.cluster.network) == (
            scenario.workload.model_copy(update={"lr_schedule": other.workload.lr_schedule}),
            scenario.cluster.network,
        )
    else:
        assert profiled_for_it is None


@pytest.mark.parametrize("lent", MADE["LENT"], ids=lambda lent: lent.ending)
def test_a_case_with_a_lent_profile_differs_from_what_is_profiled(lent):
    scenario = load(FOLDER / f"{lent.case.name}-{lent.ending}.yaml")
    other = load(FOLDER / scenario.validation.profile_of)
    facts = [(s.cluster.size, s.strategy.model_extra.get("H"), s.workload.batch) for s in (scenario, other)]
    differs = {"from-8": (2, (32, 8), 32), "batch-96": (2, None, (96, 64)), "from-2": ((4, 2), None, facts[0][2])}
    for found, other_found, wanted in zip(*facts, differs[lent.ending], strict=True):
        assert (found, other_found) == (wanted if isinstance(wanted, tuple) else (wanted, wanted))
    assert (scenario.workload.model, scenario.cluster.network) == (other.workload.model, other.cluster.network)
