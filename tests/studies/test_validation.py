"""`validate`: its definitions by hand, its rounds with made-up machines, its record, and one run from end to end."""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from kit.cli import MLP, call, scenario
from kit.cli import paceline as run_cli
from paceline.analysis.measurements import prediction
from paceline.analysis.prediction_figure import Predicted, predictions
from paceline.analysis.run import Run
from paceline.analysis.where import KINDS, covered, seconds_by_kind
from paceline.config import yaml
from paceline.config.metrics import Target
from paceline.config.units import read_share
from paceline.marked_page import END
from paceline.program.errors import ScenarioError
from paceline.studies.judgement import also, clock, judge, widened
from paceline.studies.validation import Case, Rounds, run
from paceline.studies.validation_record import Record
from paceline.validating import ValidateOptions, prepare
from paceline.validation_report import BEGIN, Report


def real(seconds: float, accuracies: Iterable[float] = ()) -> dict[str, Any]:
    reports = [[seconds * (i + 1) / 4, {"accuracy": x, "mse": 1 - x}] for i, x in enumerate(accuracies)]
    return {"seconds": seconds, "samples": 10, "idle": [0.1, 0.3], "sent": [5.0, 7.0], "memory": [], "reports": reports}


def said(seconds: float, width: float = 0.5) -> dict[str, Any]:
    bounds = {"low": seconds - width, "high": seconds + width, "typical": 3, "warnings": []}
    return real(seconds) | bounds | {"reports": [seconds / 4, seconds / 2], "memory": [8.0]}


def kept(
    rounds: list[tuple[float, float, float]], family: str = "ddp", group: str = "g", **more: Any
) -> dict[str, Any]:
    """A case's part of the record. rounds: predicted, A and B of each."""
    found = [{"predicted": said(p), "a": real(a), "b": real(b)} for p, a, b in rounds]
    return {"base": "", "family": family, "group": group, "error": "", "rounds": found, **more}


def test_the_definitions():
    found = clock(kept([(9, 10, 10.5), (8, 10.2, 10.6), (10, 99, 10.4)])["rounds"])
    a, b, measured = 10.2, 10.5, 10.45
    assert (found.predicted, found.measured) == pytest.approx((9, measured))
    assert found.error == pytest.approx(9 / measured - 1)
    assert found.ab == pytest.approx((b - a) / measured)
    assert found.excess == pytest.approx((1 - 9 / measured) - (b - a) / measured)
    assert found.inside == 5 / 6, "each run against the interval of its own round"
    assert found.per_sample == pytest.approx((0.9, measured / 10))


def test_the_interval_is_that_of_the_simulations_and_of_what_the_rounds_differ_by():
    one = clock(kept([(9, 10, 10)])["rounds"])
    assert (one.low, one.high, one.inside) == (pytest.approx(8.5), pytest.approx(9.5), 0.0)
    alike = clock(kept([(9, 10, 10)] * 4)["rounds"])
    assert (alike.low, alike.high) == (pytest.approx(8.5), pytest.approx(9.5))
    bare = kept([(9, 10, 10), (10, 10, 10)])["rounds"]
    for each in bare:
        each["predicted"] |= dict.fromkeys(("low", "high"), each["predicted"]["seconds"])
    apart = 3.0777 * 2**0.5 * (math.log(10 / 9) / 2**0.5)  # Student's quantile, and the deviation, of two numbers
    for seconds, ends in zip((9, 10), widened(bare), strict=True):
        assert ends == pytest.approx((seconds * math.exp(-apart), seconds * math.exp(apart)), rel=1e-4)


@pytest.mark.parametrize(
    ("rounds", "excess", "judged"),
    [
        ([(10, 10.0, 10.2)], 0.0, True),  # an error within what equal runs differ by is none
        ([(8, 9.6, 10.4)], 0.2 - 0.08, True),
        ([(5, 9.0, 11.0)], 0.5 - 0.1, False),  # of a larger difference, a tenth counts
    ],
)
def test_the_excess(rounds, excess, judged):
    (found,) = judge({"x": kept(rounds)}).verdicts
    assert found.clock.excess == pytest.approx(excess, abs=1e-12)
    assert (found.judged is not None) == judged


def test_the_judgement_leaves_out_what_is_not_judged_or_has_failed():
    cases = {
        "one": kept([(9, 10, 10), (9, 10, 10)], "ddp"),
        "two": kept([(7, 10, 10)], "ddp"),
        "three": kept([(10, 10, 10)], "fsdp"),
        "noisy": kept([(5, 10, 12)], "fsdp"),
        "broken": kept([(5, 10, 10)], "fsdp", error="it fell"),
        "never": kept([], error="no such device"),
    }
    found = judge(cases)
    assert found.mean == pytest.approx((0.1 + 0.3 + 0) / 3)
    assert found.worst == pytest.approx(0.3)
    assert found.families == pytest.approx({"ddp": 0.2, "fsdp": 0.0})
    assert found.inside == 2 / 8, "of all real runs of judged cases"
    assert (found.unjudged, found.failed) == (("noisy",), ("broken", "never"))
    assert (found.holds(0.31), found.holds(0.29)) == (True, False)
    nothing = judge({"noisy": cases["noisy"]})
    assert (nothing.mean, nothing.inside, nothing.holds(1.0)) == (None, None, False)


def test_the_order_counts_pairs_of_a_group_that_really_differ():
    cases = {
        "a": kept([(10, 10, 10)]),
        "b": kept([(11, 10.2, 10.6)]),  # 4 % slower than a: as fast, for all that is known
        "c": kept([(9.5, 11, 11)]),  # 10 % slower than a, and predicted to be faster
        "d": kept([(14, 15, 15)]),
        "other": kept([(1, 90, 90)], group="h"),  # another machine
    }
    found = judge(cases)
    assert (found.order.pairs, found.order.right) == (4, 3)
    assert found.order.wrong == (("a", "c"),)
    assert (found.order_clear.pairs, found.order_clear.right) == (3, 3)
    cases["d"]["rounds"][0]["predicted"]["seconds"] = 9
    assert judge(cases).order_clear.wrong == (("a", "d"), ("b", "d"), ("c", "d"))


def test_what_else_is_compared():
    case = kept([(8, 10, 12), (8, 10, 12)])
    for each in case["rounds"]:
        each["a"], each["b"] = real(10, (0.5, 0.97, 0.98)), real(12, (0.5, 0.97, 0.98))
    found = also(case, Target.read("96%"))
    assert found["idle"] == pytest.approx((0.2, 0.2))
    assert found["sent"] == (7.0, 7.0)
    assert found["memory"] == (8.0, None), "not every run measures it"
    assert found["to_target"] == (4.0, 5.5), "the report of that number, in both"
    for target in ("accuracy>=96 %", "accuracy>=0.96", "mse<=0.04"):
        assert also(case, Target.read(target)) == found
    for target in ("99%", "mse<=0.01", "iou>=0.5"):
        assert also(case, Target.read(target))["to_target"] == (None, None)


class Made:
    """A made-up machine. real: (case, which, round) -> seconds. trouble: what is raised, by what was asked for."""

    def __init__(self, real=lambda case, which, round: 10.0, trouble: dict[tuple[str, str], Exception] | None = None):
        self.asked: list[tuple[str, str, int]] = []
        self._real, self.trouble = real, trouble or {}
        self.traced: list[float] = []  # seconds of the next traced runs; then they take as long as any

    def _ask(self, what: str, case: Case, round: int) -> None:
        if (what, case.name) in self.trouble:
            raise self.trouble[what, case.name]
        self.asked.append((what, case.name, round))

    def profile(self, case, round):
        self._ask("profile", case, round)

    def predict(self, case, round):
        self._ask("predict", case, round)
        return said(10.0)

    def train(self, case, which, round):
        self._ask(which, case, round)
        return real(self._real(case.name, which, round))

    def where(self, case, prediction, round):
        self._ask("where", case, round)
        return {"predicted": [], "measured": [], "seconds": [10.0, self.traced.pop(0) if self.traced else 10.0]}


def cases_of(*needs: tuple[str, str]) -> list[Case]:
    return [Case(name, "ddp", "g", need, "base") for name, need in needs]


def started(path: Path, cases: list[Case]) -> Record:
    record = Record(path / "validation.json", {})
    for case in cases:
        record.begin(case.name, case.base, case.family, case.group)
    return record


def test_rounds_are_interleaved_and_share_profiles(tmp_path):
    cases, world, told = cases_of(("x", "1"), ("y", "2"), ("z", "1"), ("own", "")), Made(), []
    run(cases, world, started(tmp_path, cases), Rounds(2, 2), lambda *said: told.append(said))
    first = [
        *(("profile", "x", 1), ("predict", "x", 1), ("a", "x", 1), ("b", "x", 1), ("where", "x", 1)),
        *(("predict", "z", 1), ("a", "z", 1), ("b", "z", 1), ("where", "z", 1)),
        *(("profile", "y", 1), ("predict", "y", 1), ("a", "y", 1), ("b", "y", 1), ("where", "y", 1)),
        *(("predict", "own", 1), ("a", "own", 1), ("b", "own", 1), ("where", "own", 1)),
    ]
    again = [(what, case, 2) for what, case, _ in first if what != "where"]
    assert world.asked == [*first, *again]
    assert told[0] == ("round 1: profile x", 0, 8)
    assert told[-1] == ("round 2: train B own", 7, 8)


def test_a_case_whose_real_runs_differ_is_repeated(tmp_path):
    def seconds(case: str, which: str, round: int) -> float:
        if case == "restless":
            return 10.0 if which == "a" else 14.0
        return 13.0 if (case, which, round) == ("settles", "b", 1) else 10.0

    cases, world = cases_of(("calm", ""), ("settles", ""), ("restless", "")), Made(seconds)
    record = started(tmp_path, cases)
    run(cases, world, record, Rounds(1, 4))
    assert [len(record.case(case.name)["rounds"]) for case in cases] == [1, 3, 4], "medians need a third round"
    assert judge(record.document["cases"]).unjudged == ("restless",)
    asked = len(world.asked)
    run(cases, world, record, Rounds(1, 4))
    assert len(world.asked) == asked


def test_a_traced_run_that_was_delayed_is_traced_again(tmp_path):
    (case,), world = cases_of(("x", "")), Made()
    world.traced = [17.0, 18.0, 9.5]
    record = started(tmp_path, [case])
    run([case], world, record, Rounds(4, 4))
    assert [round for what, _, round in world.asked if what == "where"] == [1, 2, 3]
    assert record.case("x")["where"]["seconds"][1] == 9.5


def test_an_interrupted_validation_goes_on_where_it_stopped(tmp_path):
    cases, world = cases_of(("x", "1"), ("y", "1")), Made(trouble={("b", "y"): KeyboardInterrupt()})  # type: ignore[dict-item]
    with pytest.raises(KeyboardInterrupt):
        run(cases, world, started(tmp_path, cases), Rounds(2, 2))
    before, world.trouble = list(world.asked), {}
    record = started(tmp_path, cases)
    run(cases, world, record, Rounds(2, 2))
    assert world.asked[len(before) :][:3] == [("b", "y", 1), ("where", "y", 1), ("profile", "x", 2)]
    whole = Made()
    run(cases, whole, started(tmp_path / "whole", cases), Rounds(2, 2))
    assert sorted(world.asked) == sorted(whole.asked)
    assert json.loads(record.path.read_text())["cases"] == record.document["cases"]


def test_a_failing_case_keeps_its_error_and_is_tried_again_by_the_next_command(tmp_path):
    cases, world = cases_of(("x", ""), ("y", "")), Made(trouble={("a", "x"): ScenarioError("no\nsuch thing")})
    record = started(tmp_path, cases)
    run(cases, world, record, Rounds(2, 2))
    assert record.case("x")["error"] == "no such thing"
    assert len(record.case("y")["rounds"]) == 2
    report = Report(judge(record.document["cases"]), record.document["cases"], 0.96, None, {})
    assert report.status == 1
    assert "failed: x: no such thing" in list(report.sentences())
    world.trouble = {}
    record = started(tmp_path, cases)
    run(cases, world, record, Rounds(2, 2))
    found = judge(record.document["cases"])
    assert not found.failed
    statuses = [Report(found, record.document["cases"], 0.96, within, {}).status for within in (None, 0.1)]
    assert statuses == [0, 0]
    record.case("x")["rounds"] = kept([(5, 10, 10)])["rounds"]
    assert Report(judge(record.document["cases"]), record.document["cases"], 0.96, 0.1, {}).status == 1


def test_a_changed_case_begins_anew(tmp_path):
    (case,) = cases_of(("x", ""))
    record = started(tmp_path, [case])
    run([case], Made(), record, Rounds(1, 1))
    again = Record(record.path, {})
    assert not again.begin("x", "base", "ddp", "g")
    assert again.begin("x", "other", "ddp", "g")
    assert again.case("x")["rounds"] == []


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 0, "cases": {}}', '{"format": 2, "cases": {"x": 1}}'])
def test_another_file_is_not_a_record(text, tmp_path):
    path = tmp_path / "validation.json"
    path.write_text(text)
    with pytest.raises(ScenarioError, match="is not the record of a validation"):
        Record(path, {})
    assert path.read_text() == text
    assert Record(path, {}, force=True).document["cases"] == {}


def test_a_prediction_is_the_median_of_its_simulations():
    draws = [3.0, 1.0, 2.0, 5.0, 4.0]
    runs = [{**real(s, (0.5,)), "computing": [s, 2 * s], "memory": [1.0]} for s in draws]
    found = prediction(runs, [10, 11, 12, 13, 14])
    assert (found["seconds"], found["typical"], found["draws"]) == (3.0, 10, draws)
    assert (found["low"], found["high"]) == pytest.approx((1.4, 4.6)), "80 % lie between them"
    assert found["computing"] == [3.0, 6.0]
    assert found["reports"] == [0.75]


def test_each_moment_counts_once():
    assert covered([(0, 2), (1, 3), (5, 6), (5.5, 5.7)]) == 4
    lanes = {
        "compute": [("step", 0.0, 4.0), ("evaluate", 8.0, 9.0)],
        "host": [("host update", 4.0, 4.5)],
        "to host": [("move", 3.0, 5.0)],
        # 3 to 6 in part next to the computation and the move; then evaluation, with the wait before it
        "network": [
            *(("gradients", 3.0, 6.0), ("wait", 6.0, 6.5), ("gradients", 6.5, 7.0)),
            *(("wait", 9.0, 9.5), ("evaluate", 9.5, 9.7)),
        ],
        "rounds": [("round 0", 0.0, 7.5)],
    }
    (found,) = seconds_by_kind(_run([lanes], seconds=8.0))
    assert tuple(found) == KINDS
    assert list(found.values()) == pytest.approx([4.0, 0.5, 0.5, 1.5, 0.5, 1.0])
    assert math.fsum(found.values()) == pytest.approx(8.0)
    with pytest.raises(ValueError, match="has no trace"):
        seconds_by_kind(_run([], seconds=1.0))


def _run(lanes: list[Any], seconds: float) -> Run:
    found = Run({"seconds": seconds, "engine": "mpi"}, [], {})
    found.lanes = lanes
    return found


def test_the_figure_has_a_row_for_each_case():
    figure = predictions([Predicted(f"case {i}", 9.0, 8.0, 10.0, [10.0, 11.0], [9.0], 10.0) for i in range(3)])
    (ax,) = figure.axes
    assert [label.get_text() for label in ax.get_yticklabels()] == [f"case {i}  10 s" for i in range(3)]


@pytest.mark.parametrize(("text", "share"), [("10%", 0.1), ("0.1", 0.1), (" 96 %", 0.96), ("100%", 1.0)])
def test_shares(text, share):
    assert read_share(text) == pytest.approx(share)


@pytest.mark.parametrize("text", ["", "10", "0", "-1%", "nan", "10%%", "a"])
def test_what_is_not_a_share(text):
    with pytest.raises(ValueError, match="write it like 10%"):
        read_share(text)


@pytest.fixture
def tiny(tmp_path) -> Path:
    """A scenario that cannot be simulated without a profile."""
    path = tmp_path / "tiny.yaml"
    document = scenario(2, MLP, {"preset": "sync_sgd"}, 6, cluster={"workers": [{"device": "cpu", "count": 2}]})
    path.write_text(yaml.dump(document))
    return path


def test_what_is_profiled_for_a_case(tiny, tmp_path):
    def needs(*documents: tuple[str, dict[str, Any]], **options: Any) -> list[str]:
        paths = []
        for name, changes in documents:
            paths.append(tmp_path / f"{name}.yaml")
            paths[-1].write_text(yaml.dump(yaml.read_mapping(tiny) | changes))
        return [each.case.need for each in prepare(paths, ValidateOptions(tmp_path, Rounds(1, 1), **options))]

    plain, local, wide = (
        ("plain", {}),
        ("local", {"strategy": {"preset": "local_sgd", "H": 4}, "budget": {"rounds": 3}, "seed": 8}),
        ("wide", {"cluster": {"workers": [{"device": "cpu", "count": 3}]}}),
    )
    lent = ("lent", {**wide[1], "validation": {"profile_of": "plain.yaml"}})
    first, second, third, fourth = needs(plain, local, wide, lent)
    assert first == second == fourth != third
    profile = tmp_path / "profile.yaml"
    profile.write_text("devices: {}")
    assert needs(plain, wide, profile=profile) == ["", ""]


def test_bad_input_is_one_line_and_writes_nothing(tiny, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for arguments, message in (
        (["nowhere.yaml"], "nowhere.yaml: no such file"),
        ([tiny, "--within", "10"], "'10' is not a share above 0% and up to 100%; write it like 10% or 0.1"),
        ([tiny, "--profile", "nowhere.yaml"], "--profile nowhere.yaml: no such file"),
        ([tiny, "--page", tiny], "tiny.yaml: has no lines"),
        ([tiny, "--page", tmp_path], "cannot be read: Is a directory; name another file"),
        ([tiny, "--set", "workload.bach=3"], "unknown key; did you mean 'batch'?"),
        ([tiny, "--set", "faults=[{name: straggler, worker: 0, factor: 2}]"], "validate predicts runs without them"),
        ([tiny, "--set", "validation.profile_of=nowhere.yaml"], "nowhere.yaml: no such file"),
    ):
        status, out, err = call(monkeypatch, capsys, "validate", *arguments)
        assert (status, out, len(err.splitlines())) == (2, "", 1)
        assert message in err
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.yaml"]


PROFILE = """
devices:
  cpu: {"mlp(dropout=0.2, hidden=[32, 16]) on digits, sgd with momentum, 1 thread": {step: {8: 1 ms, 16: 2 ms}}}
residuals:
  cpu: {"mlp(dropout=0.2, hidden=[32, 16]) on digits, sgd with momentum, 1 thread": [0.8, 1.0, 1.4]}
network: {latency: 20 us, bandwidth: 1 GB/s}
"""


def test_from_end_to_end(tiny, tmp_path):
    (tmp_path / "profile.yaml").write_text(PROFILE)
    line = ["validate", tiny, "--rounds", 1, "--max-rounds", 1, "--profile", "profile.yaml", "--out", "out"]
    line += ["--json", "report.json", "--target", "1%", "--page", "page.md"]
    (tmp_path / "page.md").write_text(f"# Mine\n{BEGIN}\nold\n{END}\nAfter\n")
    first = run_cli(*line, cwd=tmp_path)
    assert "excess over" in first.stdout
    again = run_cli(*line, "--within", "0.0001%", cwd=tmp_path, check=False)
    assert again.returncode == 1, "1 ms was made up"
    assert first.stdout.partition("Seconds of")[2] in again.stdout.replace("within 1e-06: does not hold\n", "")
    (round,) = json.loads((tmp_path / "out" / "validation.json").read_text())["cases"]["tiny"]["rounds"]
    draws = round["predicted"]["draws"]
    assert (len(draws), len(set(draws)) > 10) == (40, True), "noise as the profile has it"
    assert round["predicted"]["sent"] == round["a"]["sent"] == round["b"]["sent"]
    assert min(round["a"]["memory"]) > 0
    before, tables, after = re.split(f"{BEGIN}|{END}", (tmp_path / "page.md").read_text())
    assert (before, tables.strip(), after) == (
        "# Mine\n",
        (tmp_path / "out" / "validation.md").read_text().strip(),
        "\nAfter\n",
    )
    report = json.loads((tmp_path / "report.json").read_text())
    where = report["cases"]["tiny"]["where"]
    for which, seconds in zip(("predicted", "measured"), where["seconds"], strict=True):
        for parts in where[which]:
            assert parts["computing"] > 0
            assert parts["exchange"] > 0
            assert math.fsum(parts.values()) == pytest.approx(seconds)
    (row,) = csv.DictReader((tmp_path / "out" / "validation.csv").read_text().splitlines())
    assert float(row["measured"]) == pytest.approx((round["a"]["seconds"] + round["b"]["seconds"]) / 2)
    assert all((tmp_path / "out" / f"validation.{suffix}").stat().st_size for suffix in ("md", "csv", "png"))
