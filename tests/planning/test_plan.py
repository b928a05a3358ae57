"""`paceline plan` as a user meets it: what it answers, what it writes, and what it says where nothing can be had."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import paceline
from kit.cli import call
from paceline.config import yaml
from paceline.planning.answer import Answer
from paceline.planning.judge import Judge
from paceline.planning.plan import plan
from paceline.program.errors import ScenarioError

ROOT = Path(__file__).parent.parent.parent
LAB = ["--model", "resnet20", "--data", "cifar10", "--workers", "2 x a6000, epyc-7742", "--link", "1gbe"]
MIXED: dict[str, Any] = {
    "workload": {"model": {"name": "mlp", "hidden": [256]}, "batch": 32, "optimizer": {"lr": 0.1}},
    "cluster": {
        "workers": [{"device": "fast", "count": 2, "speed": "9000 samples/s"}, {"device": "slow", "speed": 1000}],
        "network": {"bandwidth": "1 Gbit/s", "latency": "100 us"},
    },
    "strategy": {"preset": "sync_sgd"},
    "budget": {"epochs": 2},
}
MIXED["cluster"]["workers"][1]["speed"] = "1000 samples/s"


class Raises:
    """A function that raises."""

    def __init__(self, error: type[BaseException]) -> None:
        self.error = error

    def __call__(self, *arguments: Any) -> None:
        raise self.error


def baseline(answer: Answer, name: str) -> float:
    """The seconds of an epoch of a baseline."""
    (row,) = [row for row in answer.rows if name in row.roles]
    return row.epoch


def test_the_cards_of_a_mixed_lab_get_batches_by_speed() -> None:
    """huggingface/pytorch-image-models#580: 200 each gave about 2000 images/s, 300 and 200 about 2500.

    The slower cards take 0.4 s for their 200, and the faster ones do 300 in this time.
    """
    workers = [
        {"device": "rtx-a6000", "count": 2, "speed": "750 samples/s", "node": 0},
        {"device": "rtx2080ti", "count": 2, "speed": "500 samples/s", "max_batch": 200, "node": 0},
    ]
    document = {
        "workload": {  # about the 5.3 million parameters of EfficientNet-B0
            "model": {"name": "mlp", "hidden": [2048, 2500]},
            "data": {"name": "sized", "train": 1281167},
            "batch": 200,
            "optimizer": {"lr": 0.1},
        },
        "cluster": {"workers": workers, "network": {"link": "pcie3x16"}},
        "strategy": {"preset": "sync_sgd"},
        "budget": {"epochs": 1},
    }
    answer = plan(document)
    best = answer.rows[0]
    assert best.batches == {"rtx-a6000": 300, "rtx2080ti": 200}
    assert best.way.H == 1
    assert 1281167 / best.epoch == pytest.approx(2500, rel=0.01)
    assert 1281167 / baseline(answer, "sync on all") == pytest.approx(2000, rel=0.01)


def test_what_cpus_are_worth_next_to_gpus() -> None:
    """Biased Local SGD's cluster (arXiv 2508.08540): 2 CPUs, 8 GPUs, a CPU's step takes as long as 32 of a GPU's.

    By samples, a round of 32 GPU steps has 8 x 32 batches of the GPUs and 2 of the CPUs.
    """
    answer = plan(ROOT / "scenarios" / "papers" / "biased_resnet20_cifar10_2cpu_8gpu.yaml")
    best = answer.rows[0]
    assert (best.left_out, best.way.preset, best.way.H) == ({"cpu": 2}, "sync_sgd", 1)
    assert answer.worth["cpu"] == pytest.approx(2 / (8 * 32), rel=1e-6)
    assert baseline(answer, "sync on all") / best.epoch == pytest.approx(25.6)
    assert answer.decision.startswith("leave the cpu out: an epoch on all workers takes 25.6 times as long")
    assert answer.documents[0]["budget"] == {"epochs": pytest.approx(66.0, rel=0.01)}  # as many samples as before


def test_the_winner_is_a_scenario_that_simulates_as_predicted() -> None:
    answer = paceline.plan(MIXED)
    assert len(answer.frame) == len(answer.rows) == len(answer.scenarios)
    for row, scenario in zip(answer.rows, answer.scenarios, strict=True):
        run = paceline.simulate(scenario, timing_only=True)
        assert run.summary["seconds"] / run.summary["samples"] == pytest.approx(row.measured.seconds, rel=0.05)


def test_methods_that_change_are_predicted_as_a_whole() -> None:
    """QSR's H grows as the learning rate falls; post-local SGD is synchronous until it falls."""
    workload = MIXED["workload"] | {"lr_schedule": {"name": "cosine", "warm_up": 4}}
    answer = plan(MIXED | {"workload": workload, "budget": {"epochs": 40}}, keep=["workers"])
    told = {row.way.preset: n for n, row in enumerate(answer.rows)}
    row = answer.rows[told["qsr"]]
    run = paceline.simulate(answer.scenarios[told["qsr"]], timing_only=True)
    assert run.summary["seconds"] / run.summary["samples"] == pytest.approx(row.measured.seconds, rel=0.05)
    assert run.summary["samples"] / run.summary["rounds"] == pytest.approx(row.way.gap, rel=0.25)


def test_a_learning_rate_in_steps_is_told_in_epochs() -> None:
    workload = MIXED["workload"] | {"lr_schedule": {"name": "multistep", "milestones": [300]}}
    answer = plan(MIXED | {"workload": workload, "budget": {"steps": 600}})
    document = answer.documents[0]
    epochs = document["budget"]["epochs"]
    assert epochs == pytest.approx(600 * 96 / 1438, rel=0.01)
    assert document["workload"]["lr_schedule"]["milestones"] == [pytest.approx(epochs / 2, rel=1e-4)]


def test_other_traffic_is_simulated_event_by_event() -> None:
    flow = {"from": 0, "to": 2, "bandwidth": "900 Mbit/s"}
    answer = plan(MIXED | {"cluster": MIXED["cluster"] | {"background": [flow]}}, keep=["method"])
    assert answer.rows[0].epoch > plan(MIXED, keep=["method"]).rows[0].epoch


def test_what_is_kept_stays() -> None:
    scenario = MIXED | {"strategy": {"preset": "slowmo", "H": 6}}
    answer = plan(scenario, keep=["method", "H", "workers"])
    assert {(row.way.preset, row.way.H) for row in answer.rows if "front" in row.roles} == {("slowmo", 6)}
    assert not any(row.left_out for row in answer.rows)
    assert answer.documents[0]["strategy"]["preset"] == "slowmo"
    larger = plan(MIXED, max_batch_total=400, keep=["method"])
    assert max(sum(row.way.division.shares.batches) for row in larger.rows) == 400
    assert {row.way.H for row in larger.rows} == {1}


@pytest.mark.parametrize(
    "strategy",
    [
        {"preset": "qsr", "alpha": 0.1, "h_base": 3, "power": 3.0},
        {"preset": "qsr", "alpha": 0.1, "placement": "offloaded"},
        {"preset": "post_local_sgd", "t": "10 epochs", "H": 5, "weights": "equal"},
        {"preset": "post_local_sgd", "t": "0.25 epochs", "placement": "offloaded"},
    ],
)
def test_methods_that_change_are_kept(strategy: dict[str, Any]) -> None:
    workload = MIXED["workload"] | {"lr_schedule": {"name": "cosine"}}
    scenario = MIXED | {"workload": workload, "budget": {"epochs": 40}, "strategy": strategy}
    answer = plan(scenario, keep=["method", "H", "workers"])
    number = next(n for n, row in enumerate(answer.rows) if row.way.options.wire == "bf16" and "front" in row.roles)
    own = answer.documents[number]["strategy"]
    usual = {"h_base": 4} if strategy["preset"] == "qsr" else {"H": 16}
    place = strategy.get("placement", "replicated")
    assert own.items() >= (usual | strategy | {"placement": {place: {"wire": "bf16"}}}).items()
    run = paceline.simulate(answer.scenarios[number], timing_only=True)
    row = answer.rows[number]
    assert run.summary["seconds"] / run.summary["samples"] == pytest.approx(row.measured.seconds, rel=0.05)
    several = plan(scenario, keep=["method", "workers"])
    assert {row.way.preset for row in several.rows if "front" in row.roles} == {strategy["preset"]}
    assert len({row.way.H for row in several.rows if "front" in row.roles}) > 1


def test_the_command_answers_without_a_file(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    options = ("--json", "new/a.json", "--figures", ".", "--tolerance", "0")
    status, out, _ = call(monkeypatch, capsys, "plan", *LAB, "--batch", 64, *options)
    assert status == 0
    assert "what matters most: " in out
    table = out[out.index("way ") : out.index("what matters most: ")].splitlines()
    assert max(map(len, table)) <= 120
    assert "0 of 1 epyc-7742" in out
    assert "the epyc-7742: " in out
    assert all(Path(f"{name}.png").stat().st_size > 10_000 for name in ("front", "allocation", "communication"))
    found = json.loads(Path("new/a.json").read_text())
    assert found["rows"][0]["roles"].startswith("recommended")
    document = yaml.parse(Path("runs/plan/plan.yaml").read_text(), "plan.yaml")
    assert document == found["rows"][0]["scenario"]
    assert (
        call(monkeypatch, capsys, "simulate", "runs/plan/plan.yaml", "--timing-only", "--set", "budget.epochs=0.1")[0]
        == 0
    )
    assert call(monkeypatch, capsys, "plan", "runs/plan/plan.yaml", "--quiet")[0] == 0  # its own file is replaced
    Path("runs/plan/plan.yaml").write_text("mine")
    status, _, err = call(monkeypatch, capsys, "plan", *LAB)
    assert (status, Path("runs/plan/plan.yaml").read_text()) == (2, "mine")
    assert "name another folder" in err


def test_a_narrow_terminal_gets_two_tables(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "80")
    status, out, _ = call(monkeypatch, capsys, "plan", *LAB, "--batch", 64, "--keep", "workers", "--keep", "method")
    plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", out)
    tables = [line.rstrip() for line in plain[plain.index("   way") : plain.index("what matters most: ")].splitlines()]
    assert status == 0
    assert max(map(len, tables)) <= 80
    headings = [line.split() for line in tables if "way" in line or "batch" in line]
    assert headings == [["way", "time", "per", "sync", "bound", "by"], ["workers", "batch", "H", "idle", "memory"]]


def test_what_training_would_warn_of_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    status, _, err = call(monkeypatch, capsys, "plan", ROOT / "scenarios" / "quickstart.yaml", "--keep", "workers")
    assert status == 0
    assert "batch 160 is extrapolated" in err


def test_a_plan_elsewhere_finds_the_scenario_s_files(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "lab").mkdir()
    images, labels = np.zeros((60, 64), np.float32), np.arange(60) % 10
    np.savez(tmp_path / "lab" / "own.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
    document = MIXED | {"workload": MIXED["workload"] | {"data": "own.npz"}}
    (tmp_path / "lab" / "lab.yaml").write_text(yaml.dump(document))
    monkeypatch.chdir(tmp_path)
    assert call(monkeypatch, capsys, "plan", "lab/lab.yaml", "--quiet")[0] == 0
    assert call(monkeypatch, capsys, "simulate", "runs/plan/plan.yaml", "--timing-only")[0] == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "plan what? name a scenario, or write --model, --workers and --link"),
        (
            ["--model", "vit_l_16", "--workers", "a7000", "--link", "10gbe"],
            "'a7000' is not a device of the catalogue; did you mean",
        ),
        (
            ["--model", "vit_l_16", "--workers", "0 x a6000", "--link", "10gbe"],
            "write a number and a device, like 2 x rtx-a6000",
        ),
        (
            ["--model", "vit_l_16", "--workers", "a6000", "--link", "10gb"],
            "is not a link of the catalogue; did you mean",
        ),
        (["--model", "vit_l_17", "--workers", "a6000", "--link", "10gbe"], "no model 'vit_l_17'"),
        (
            ["--model", "vit_h_14", "--workers", "2 x gtx-nothing", "--link", "10gbe"],
            "is not a device of the catalogue",
        ),
        (["lab.yaml", "--for", "speed"], "--for speed: write throughput"),
        (["lab.yaml", "--keep", "batch"], "--keep batch: write method, H or workers"),
        (["lab.yaml", "--link", "10gbe"], "--link: the scenario says it"),
        (["lab.yaml", "--tolerance", "x"], "--tolerance: "),
        (
            ["lab.yaml", "--set", "strategy.preset=qsr", "--set", "strategy.alpha=0.1", "--keep", "H"],
            "--keep H: H changes",
        ),
        (["lab.yaml", "--max-batch-total", 0], "--max-batch-total"),
        (
            ["lab.yaml", "--max-batch-total", 2, "--keep", "workers"],
            "--max-batch-total 2: each of 3 workers takes a sample in a step at least; write 3 or more",
        ),
        (
            [
                "lab.yaml",
                "--set",
                "strategy.preset=slowmo",
                "--set",
                "cluster.workers=[{speed: 9 samples/s}]",
                "--keep",
                "method",
            ],
            "no way to train is possible within memory and --keep method; ask for less",
        ),
        (["lab.yaml", "--set", "cluster.workers.0.count=1000000000"], "a plan is for 100000 at most"),
        (["small.yaml"], "nothing fits into the workers' memory, small with 0.954 MiB has the most"),
    ],
)
def test_what_cannot_be_had_is_said_in_one_line(
    arguments: list[object],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("lab.yaml").write_text(yaml.dump(MIXED))
    small = MIXED | {"cluster": {"workers": [{"device": "small", "speed": "10 samples/s", "memory": "1 MB"}]}}
    small["workload"] = MIXED["workload"] | {"model": {"name": "mlp", "hidden": [2048, 2048]}}
    Path("small.yaml").write_text(yaml.dump(small))
    status, _, err = call(monkeypatch, capsys, "plan", *arguments)
    assert status == 2
    assert said in err
    assert len(err.strip().splitlines()) == 1
    assert not Path("runs").exists()


def test_what_is_kept_or_cannot_be_is_no_decision() -> None:
    kept = plan(MIXED | {"strategy": {"preset": "local_sgd", "H": 4}}, keep=["method", "workers"])
    assert kept.reasons
    assert not any("use the slow" in reason.text or "between two syncs" in reason.text for reason in kept.reasons)
    one = plan(MIXED, max_batch_total=2)
    assert one.decision == (
        "leave the slow out: an epoch on all workers is not possible within memory and --max-batch-total"
    )
    assert one.note == "a step has 2 samples, and 96 in the scenario: the learning rate may have to follow"


def test_every_sample_counts_alike() -> None:
    """Weights by what the workers' batches are, where their steps are unequal, too; see docs/unequal_workers.md."""
    answer = plan(MIXED, keep=["workers"])
    splits = [document["strategy"] for document in answer.documents if "split" in document["strategy"]]
    paces = {bool(s["split"]["by_batch"].get("paces")): s["weights"] for s in splits if "by_batch" in s["split"]}
    assert paces == {True: "batches", False: "samples"}


def test_what_brings_less_than_the_tolerance_is_not_recommended() -> None:
    """The exchange is a small part of the time, so that bf16 would save a little of it."""
    cluster = MIXED["cluster"] | {"network": {"bandwidth": "10 Gbit/s", "latency": "10 us"}}
    answer = plan(MIXED | {"cluster": cluster})
    best, front = answer.rows[0].way, [row.way for row in answer.rows if "front" in row.roles]
    assert (best.placement, best.options.wire) == ("replicated", "fp32")
    assert {way.options.wire for way in front if way.team.size > 1 and way is not best} == {"bf16"}
    assert plan(MIXED | {"cluster": cluster}, tolerance=0).rows[0].way.options.wire == "bf16"


def test_an_interrupt_gives_the_best_so_far(monkeypatch: pytest.MonkeyPatch) -> None:
    from paceline.planning.values import Values

    whole, calls = Values.without_noise, list[int]()

    def interrupted(self: Values, way: Any) -> float | None:
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return whole(self, way)

    monkeypatch.setattr(Values, "without_noise", interrupted)
    answer = plan(MIXED)
    assert not answer.whole
    assert answer.rows[0].roles[0] == "recommended"
    assert not answer.reasons
    monkeypatch.undo()
    monkeypatch.setattr(Judge, "baselines", Raises(KeyboardInterrupt))
    later = plan(MIXED)
    assert not later.whole
    assert [row.roles for row in later.rows] == [("recommended",)]
    assert len(later.documents) == 1
    with pytest.raises(ScenarioError, match="write throughput"):
        plan(MIXED, objective="accuracy")
