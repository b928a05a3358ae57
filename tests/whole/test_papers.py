"""The papers' own settings, simulated from their scenario files (timing only): the published counts and ratios."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys

import pytest
from typer.testing import CliRunner

import paceline
from kit.paths import ROOT, SCENARIOS
from paceline.cli import app
from paceline.config import yaml
from paceline.config.scenario import load
from paceline.job import resolve
from paceline.program.errors import ScenarioError
from paceline.studies.points import read_list

PAPERS = sorted(SCENARIOS.glob("papers/*.yaml"))
PAGE = (ROOT / "docs" / "papers.md").read_text()


@pytest.mark.parametrize("path", [*sorted(SCENARIOS.glob("*.yaml")), *PAPERS], ids=lambda path: path.stem)
def test_every_scenario_resolves(path):
    job = resolve(load(path), path.parent)
    assert job.plan.first_round().H >= 1
    assert job.workers == job.scenario.cluster.size


# -- the page ---------------------------------------------------------------------------------------------------------


def runs_of_the_page() -> dict[str, tuple[list[str], str, str, int]]:
    """Letter -> (command, number as written, its unit, rounds), of what the page's commands are said to print."""
    blocks = "\n".join(re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)).replace("\\\n", " ")
    found = re.findall(r"^(paceline simulate .*?)\s+# ([A-Z]): ([\d.]+) (s|h), (\d+) rounds$", blocks, re.MULTILINE)
    assert len(found) == blocks.count("paceline simulate"), "a command without its outcome"
    return {letter: (shlex.split(line)[1:], number, unit, int(n)) for line, letter, number, unit, n in found}


def printed(number: float, like: str) -> str:
    """The number with as many decimals as `like` has."""
    return f"{number:.{len(like.partition('.')[2])}f}"


def test_the_pages_figures_are_what_its_commands_print(tmp_path, monkeypatch):
    """A paper's comparison needs no secret: both sides are files, and the commands on the page give its figures."""
    (tmp_path / "scenarios").symlink_to(SCENARIOS)
    monkeypatch.chdir(tmp_path)
    seconds, rounds = {}, {}
    for letter, (command, number, unit, count) in runs_of_the_page().items():
        done = CliRunner().invoke(app, command)
        assert done.exit_code == 0, done.output
        found = re.search(r"written to\s+(\S+)", done.output)
        assert found, done.output
        summary = json.loads((tmp_path / found[1] / "summary.json").read_text())
        seconds[letter], rounds[letter] = summary["seconds"], summary["rounds"]
        assert printed(seconds[letter] / {"s": 1, "h": 3600}[unit], number) == number, letter
        assert rounds[letter] == count, letter
    cells = re.findall(r"\| ([\d.]+)( h| %|) \(([^)]*)\)", PAGE)
    assert len(cells) == 9 + 8 + 10
    for number, unit, formula in cells:
        value = eval(formula, {}, seconds) * {" h": 1 / 3600, " %": 100, "": 1}[unit]
        assert printed(value, number) == number, formula
    (price, exchange), (again, farther), (same, predicted) = (
        _taken_apart(seconds, rounds, *pair) for pair in ("AB", "CD", "EF")
    )
    assert (price, exchange) == pytest.approx((0.748, 0.279), abs=5e-4)
    assert (again, farther) == pytest.approx((0.755, 0.569), abs=5e-4)
    assert (same, predicted) == pytest.approx((price, 1.75 * exchange), rel=1e-4), "a ring over 8 machines, not 2"


def _taken_apart(seconds: dict[str, float], rounds: dict[str, int], parallel: str, local: str) -> tuple[float, float]:
    """Seconds of (a step's computing, an exchange), from a run with one in every step and one with fewer."""
    exchange = (seconds[parallel] - seconds[local]) / (rounds[parallel] - rounds[local])
    return seconds[parallel] / rounds[parallel] - exchange, exchange


SIDES = {  # what may differ between the sides of a comparison, and from which file
    "qsr_vit_b_imagenet_2x8": {"workload.optimizer", "strategy"},
    "qsr_vit_b_imagenet_8x8": {"workload.optimizer", "strategy"},
    "qsr_resnet152_imagenet": {"strategy"},
    "biased_resnet20_cifar10": {"cluster.workers", "strategy", "budget"},
    "lshdp_vit_l_16_total_64": {"strategy"},
    "lshdp_vit_l_16_4nodes_1gbit": {"workload.batch", "cluster.workers", "strategy", "budget"},
}


@pytest.mark.parametrize("claim", SIDES)
def test_sides_differ_in_what_is_compared_alone(claim):
    sides = [yaml.read_mapping(path) for path in PAPERS if path.stem.startswith(claim)]
    assert len(sides) >= 2
    first = _flat(sides[0])
    for other in map(_flat, sides[1:]):
        assert {key for key in first.keys() | other.keys() if first.get(key) != other.get(key)} <= SIDES[claim]


def _flat(document: dict) -> dict:
    deep = {f"{key}.{inner}": value for key in ("workload", "cluster") for inner, value in document[key].items()}
    return deep | {key: value for key, value in document.items() if key not in ("workload", "cluster")}


# -- Biased Local SGD -------------------------------------------------------------------------------------------------


def test_biased_local_sgd_leaves_nobody_idle_and_uses_two_thirds_of_the_data():
    run = paceline.simulate(SCENARIOS / "papers/biased_resnet20_cifar10_2cpu_8gpu.yaml", timing_only=True)
    assert (run.summary["rounds"], run.summary["steps"], len(run.lines)) == (200, 6400, 100)
    assert run.summary["samples"] / 100 / 50_000 == pytest.approx(0.660, abs=5e-4)
    assert max(run.summary["idle_share"]) == pytest.approx(0, abs=1e-9)


# -- QSR --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("amount", "unit", "warm_up", "rounds"), [(20, "epochs", 2, 135), (450, "steps", 45, 136)])
def test_qsr_needs_not_be_told_where_the_warm_up_of_its_scenario_ends(amount, unit, warm_up, rounds):
    """A preset's obvious use is the method: in the schedule's own warm-up, which counts in the budget's unit."""
    settings = [f"budget={{{unit}: {amount}}}", f"workload.lr_schedule.warm_up={warm_up}"]
    plain, told, longer = (
        paceline.simulate(SCENARIOS / "qsr.yaml", timing_only=True, settings=[*settings, *more]).summary["rounds"]
        for more in ([], [f"strategy.init_t={warm_up} {unit}"], ["strategy.init_h=5"])
    )
    assert plain == told == rounds
    assert longer < rounds


def test_qsr_for_resnet_saves_communication():
    path = SCENARIOS / "papers/qsr_resnet152_imagenet.yaml"
    run = paceline.simulate(path, timing_only=True, settings=["cluster.nodes.0.devices.0.count=1"]).summary
    assert run["steps"] == 62_400
    assert run["rounds"] == 24_792, "H_base is 2, and H grows"


# -- LSHDP ------------------------------------------------------------------------------------------------------------


def test_lshdp_with_equal_totals_step_by_step():
    """Throughput over the flat DDP, and over FSDP that overlaps or not; the broadcast at the beginning left out."""
    modes = read_list(SCENARIOS / "sweeps/lshdp_modes_total_64.yaml")
    alternating = {"strategy.placement": {"sharded": {"wire": "fp16", "overlap": False}}, "strategy.mode": "equal"}
    table = paceline.sweep(
        SCENARIOS / "papers/lshdp_vit_l_16_total_64.yaml", {"budget.steps": [2, 3]}, [*modes, alternating], jobs=1
    )
    assert set(table["samples"] / table["steps"]) == {64}
    seconds = table["seconds"].to_numpy().reshape(-1, 2) @ [-1, 1]
    ddp, ddp_fp, fsdp, fsdp_offload, lsdp, lshdp, fsdp_alternating = seconds / seconds[5]
    assert (ddp, fsdp, fsdp_alternating) == pytest.approx((1.359, 1.303, 1.799), abs=5e-4)
    assert min(ddp, ddp_fp, fsdp, fsdp_offload, lsdp) > lshdp == 1


# -- a preset whose obvious use is hardly the method ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            ["strategy={preset: local_sgd}", "cluster.workers=[{count: 2, speed: 9 samples/s}]"],
            "H is auto, which among",
        ),
        (["strategy={preset: fednova}", "cluster.workers=[{count: 2, speed: 9 samples/s}]"], "H is auto, which among"),
        (["strategy={preset: diloco}"], "the whole budget is one round of 450 steps"),
        (["strategy={preset: qsr, alpha: 5}"], "the whole budget is one round of 450 steps"),
        (["strategy={preset: diloco}", "budget={rounds: 1}"], ""),
        (["strategy={preset: sync_sgd}", "budget={steps: 1}"], ""),
        (["strategy={preset: fednova}"], ""),
    ],
)
def test_local_steps_that_come_to_none_or_to_one_round_are_said(settings, said):
    job = resolve(load(SCENARIOS / "local_sgd.yaml", settings), SCENARIOS)
    assert [said in line for line in job.warnings] == [True] * bool(said)


def test_a_reference_epoch_without_a_round_is_refused_before_anything_runs():
    settings = ["strategy.H=5000"]
    with pytest.raises(ScenarioError, match="strategy: a reference epoch has no round"):
        resolve(load(SCENARIOS / "papers/biased_resnet20_cifar10_2cpu_8gpu.yaml", settings), SCENARIOS)


# -- all of them ------------------------------------------------------------------------------------------------------


def test_the_papers_run_without_torch_and_torchvision():
    program = f"""
import sys
import paceline
for path in {[str(path) for path in PAPERS[::5]]}:
    run = paceline.simulate(path, timing_only=True, settings=["budget={{steps: 20}}", "workload.lr_schedule=constant"])
    assert run.summary["seconds"] > 0
found = {{"torch", "torchvision", "mpi4py"}} & set(sys.modules)
sys.exit(f"imported {{found}}" if found else 0)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
