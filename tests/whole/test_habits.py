"""The files for contributors: CI runs Make targets that exist, CITATION.cff names the paper of every method."""

from __future__ import annotations

import re
import tomllib
from typing import Any

import yaml

from kit.paths import ROOT
from paceline.algorithms.presets import PRESETS


def read(name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((ROOT / name).read_text())
    return found


def test_ci_runs_targets_of_the_makefile():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    (job,) = read(".github/workflows/ci.yml")["jobs"].values()
    commands = [step["run"] for step in job["steps"] if "run" in step]
    assert {"make test", "make check"} <= set(commands)
    assert {command.removeprefix("make ") for command in commands} <= targets
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["requires-python"] == ">=" + job["strategy"]["matrix"]["python"][0]


def test_the_citation_names_the_paper_of_every_preset():
    citation = read("CITATION.cff")
    assert citation["cff-version"] == "1.2.0"
    assert "version" not in citation, "pyproject.toml has it"
    papers = {name: paper for paper in citation["references"] for name in paper["notes"].split(", ")}
    assert papers.keys() == PRESETS.keys()
    for name, preset in PRESETS.items():
        text, paper = re.sub(r"\s+", " ", preset.__doc__ or ""), papers[name]
        assert f"{paper['authors'][0]['family-names']}{' et al.' * (len(paper['authors']) > 1)}," in text, name
        for found in re.findall(r"arXiv (\d{4}\.\d{5})", text):
            assert paper["identifiers"] == [{"type": "other", "value": f"arXiv:{found}"}], name


def test_the_bug_template_asks_for_scenario_version_and_run_directory():
    asked = {
        field["id"] for field in read(".github/ISSUE_TEMPLATE/bug.yml")["body"] if field["validations"]["required"]
    }
    assert asked >= {"scenario", "version", "run"}
