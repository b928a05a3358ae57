"""The JSON schema of a scenario, and what `paceline explain` reads from it, from signatures and from docstrings."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from kit.cli import call
from kit.paths import DOCS, QUICKSTART, SCENARIOS, TESTS
from paceline.algorithms.presets import PRESETS
from paceline.algorithms.strategy import AXES
from paceline.config import yaml
from paceline.config.explanations import explain
from paceline.config.scenario import StrategySpec
from paceline.config.schema import scenario_schema
from paceline.config.schema_words import keys
from paceline.config.strategy import build_strategy
from paceline.program.errors import ScenarioError

SCHEMA = scenario_schema()
FILES = [path for path in SCENARIOS.rglob("*.yaml") if "sweeps" not in path.parts and "published" not in path.parts]


def resolved(schema: dict[str, Any]) -> dict[str, Any]:
    return SCHEMA["$defs"][schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema


def test_every_scenario_is_valid_under_the_schema():
    validation = pytest.importorskip("jsonschema")
    validation.Draft202012Validator.check_schema(SCHEMA)
    validator = validation.Draft202012Validator(SCHEMA)
    assert len(FILES) > 70
    for path in (*FILES, TESTS / "whole" / "every_option.yaml"):
        document = json.loads(json.dumps(yaml.read_mapping(path)))
        assert not list(validator.iter_errors(document)), path


@pytest.mark.parametrize(
    ("key", "value", "valid"),
    [
        ("strategy", {"preset": "qsr"}, False),
        ("strategy", {"preset": "qsr", "alpha": 0.02, "h_bas": 3}, False),
        ("strategy", {"preset": "own.methods:mine", "anything": 3}, True),
        ("strategy", {"schedule": {"fixed": {"G": 2}}}, False),
        ("strategy", {"schedule": "fixd"}, False),
        ("strategy", {"preset": "local_sgd", "schedule": {"own:Seesaw": {"long": 6}}}, True),
        ("strategy", {"aggregation": {"until": {"t": "3 epochs", "b": {"slowmo": {"inner": "parameters"}}}}}, True),
        ("strategy", {"aggregation": {"slowmo": {"inner": "gradients"}}}, False),
        ("budget", {"epoch": "samples", "steps": "many"}, False),
        ("report", {"every": "1 epoch", "norm": True}, False),
        ("health", False, True),
    ],
)
def test_what_is_wrong_is_not_valid(key, value, valid):
    validation = pytest.importorskip("jsonschema")
    document = yaml.read_mapping(QUICKSTART) | {key: value}
    assert validation.Draft202012Validator(SCHEMA).is_valid(document) == valid


def test_the_schema_is_described_and_names_what_there_is():
    """By hand, since jsonschema need not be installed."""
    work = resolved(SCHEMA["properties"]["workload"])
    assert work["properties"]["batch"]["description"].startswith("samples per worker and step")
    assert work["additionalProperties"] is False
    assert "model_seed" in work["properties"]
    strategy = SCHEMA["$defs"]["StrategySpec"]
    assert strategy["properties"]["preset"]["anyOf"][0]["enum"] == [*PRESETS]
    own = strategy["properties"]["preset"]["anyOf"][1]["pattern"]
    assert re.search(own, "package.module:Name")
    assert not re.search(own, "qsr")
    for axis, members in AXES.items():
        assert SCHEMA["$defs"][axis]["anyOf"][2]["properties"].keys() == members.keys()
    quantity = resolved(resolved(SCHEMA["properties"]["cluster"])["properties"]["network"])["properties"]["latency"]
    spelled = quantity["anyOf"][0]["pattern"]
    assert re.search(spelled, "50 us")
    assert not re.search(spelled, "50")
    json.dumps(SCHEMA, allow_nan=False)


def test_schema_and_explain_are_commands(monkeypatch, capsys):
    status, out, _ = call(monkeypatch, capsys, "schema")
    assert status == 0
    assert json.loads(out) == SCHEMA
    status, out, _ = call(monkeypatch, capsys, "explain", "qsr")
    assert status == 0
    for text in (
        "H = max(h_base, floor((alpha / lr)^power))",
        "Gu et al., ICLR 2024, arXiv 2310.14423",
        "strategy: {preset: qsr, alpha: 0.02}",
        "qsr, a member of schedule",
    ):
        assert text in out
    assert re.search(r"alpha +a number +must be given", out)
    assert re.search(r"h_base +a whole number +4", out)


def test_every_preset_has_a_source_and_a_line_that_builds_it():
    for name in PRESETS:
        told = explain(name)[0]
        assert told.sources, name
        line = yaml.parse(told.line, "line")
        built = build_strategy(StrategySpec.model_validate(line["strategy"]))
        assert build_strategy(StrategySpec.model_validate(told.axes)) == built, name


def test_every_member_has_a_line_that_builds_it():
    for axis, members in AXES.items():
        for name in members:
            told = next(each for each in explain(name) if each.title == f"{name}, a member of {axis}")
            line = yaml.parse(told.line, "line")["strategy"]
            fitting = {"aggregation": "gradients"} if axis == "placement" else {"aggregation": "parameters"}
            assert build_strategy(StrategySpec.model_validate(fitting | line)), name


def test_every_key_has_a_line_in_which_it_stands():
    for path in keys():
        (told,) = explain(path) if "." in path else explain(path)[-1:]
        node = yaml.parse(told.line, "line")
        for step in path.split("."):
            node = node[0] if isinstance(node, list) else node
            assert step in node, (path, told.line)
            node = node[step]
        assert told.rows[0].takes, path


@pytest.mark.parametrize(
    ("name", "title"),
    [
        ("cosine", "cosine, a choice of workload.lr_schedule"),
        ("adamw", "adamw, a choice of workload.optimizer"),
        ("straggler", "straggler, a choice of faults"),
        ("budget.epoch", "budget.epoch, a key of a scenario"),
        ("micro_batch", "workload.micro_batch, a key of a scenario"),
        ("cluster.workers[0].count", "cluster.workers.count, a key of a scenario"),
    ],
)
def test_keys_and_choices_are_found(name, title):
    assert explain(name)[0].title == title


def test_an_unknown_name_is_one_line_with_a_near_miss(monkeypatch, capsys):
    for name, hint in (("qrs", "did you mean 'qsr'?"), ("workload.bach", "did you mean 'workload.batch'?")):
        status, _, err = call(monkeypatch, capsys, "explain", name)
        assert status == 2
        assert hint in err
        assert len(err.splitlines()) == 1
    with pytest.raises(ScenarioError, match="name is a key of several sections; write one of workload"):
        explain("name")


def test_own_methods_are_explained(tmp_path: Path, monkeypatch, capsys):
    (tmp_path / "explained_methods.py").write_text(
        "from dataclasses import dataclass\n"
        "from paceline.algorithms.schedules import Schedule\n"
        "@dataclass(frozen=True)\n"
        "class Seesaw(Schedule):\n"
        '    """Short and long rounds in turn."""\n'
        "    short: int  # steps of the first round\n"
        "    long: int = 8\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    (told,) = explain("explained_methods:Seesaw")
    assert told.title == "explained_methods:Seesaw, a member of schedule"
    assert told.text == "Short and long rounds in turn."
    assert told.rows[0] == ("short", "a whole number", "must be given", "steps of the first round")
    assert told.line == "strategy: {schedule: {'explained_methods:Seesaw': {short: 4}}}"
    status, _, err = call(monkeypatch, capsys, "explain", "explained_methods:Sesaw")
    assert (status, len(err.splitlines())) == (2, 1)
    assert "has no 'Sesaw'; did you mean 'Seesaw'?" in err


def test_the_docs_name_both_commands():
    text = (DOCS / "scenarios.md").read_text()
    assert "paceline explain" in text
    assert "paceline schema" in text
