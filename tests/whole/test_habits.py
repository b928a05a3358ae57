"""The files for contributors: CI runs Make targets that exist, CITATION.cff names the paper of every method. And habits
of all sources: none unpickles, evaluates text or fetches anything.
"""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from typing import Any

import pytest
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


# What makes running code of data, or fetches data: modules, and functions by their full names.
MODULES = {
    "pickle",
    "marshal",
    "shelve",
    "dill",
    "cloudpickle",
    "joblib",
    "urllib",
    "http",
    "ftplib",
    "requests",
    "torch.hub",
}
CALLS = {"eval", "exec", "compile", "os.system", "os.popen", "shutil.unpack_archive", "pandas.read_pickle"}
YAML = {"yaml.unsafe_load", "yaml.full_load", "yaml.load_all", "yaml.UnsafeLoader", "yaml.FullLoader", "yaml.Loader"}
SAFE = {"torch.load": ("weights_only", True), "numpy.load": ("allow_pickle", False)}
# What a command hands to itself alone (docs/security.md), and the class of an error.
ITS_OWN = {"paceline/sweeping.py", "sim/said.py", "benchmarks/ranks.py", "paceline/weights_file.py"}


def faults(source: str) -> Iterator[str]:
    """What a source does that none of ours may: its name, for each place."""
    tree, names = ast.parse(source), dict[str, str]()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            module = node.module if isinstance(node, ast.ImportFrom) and not node.level else None
            for alias in node.names:
                whole = alias.name if isinstance(node, ast.Import) else f"{module}.{alias.name}"
                names[alias.asname or alias.name] = whole
                yield from (name for name in MODULES if f"{whole}.".startswith(f"{name}."))
    for node in ast.walk(tree):
        if isinstance(node, ast.Name | ast.Attribute):
            first, *rest = ast.unparse(node).split(".")
            found = ".".join([names.get(first, first), *rest])
            if found in YAML:
                yield found
        if isinstance(node, ast.Call):
            first, *rest = ast.unparse(node.func).split(".")
            found = ".".join([names.get(first, first), *rest])
            given = {word.arg: getattr(word.value, "value", None) for word in node.keywords}
            if found in CALLS or ("shell", True) in given.items():
                yield found
            if found in SAFE and SAFE[found] not in given.items():
                yield f"{found} without {SAFE[found]}"
            if rest[-1:] == ["extractall"] and "filter" not in given:
                yield found


def test_no_source_unpickles_evaluates_or_fetches():
    sources = {path.relative_to(ROOT).as_posix(): path for path in ROOT.glob("*/**/*.py")}
    ours = {
        name: path for name, path in sources.items() if name.split("/")[0] not in ("tests", ".venv", "build", "dist")
    }
    assert len(ours) > 200
    found = {name: list(faults(path.read_text())) for name, path in ours.items()}
    assert {name: what for name, what in found.items() if what and name not in ITS_OWN} == {}
    assert {name: set(found[name]) for name in ITS_OWN} == {name: {"pickle"} for name in ITS_OWN}


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from pickle import loads as read",
        "import urllib.request",
        "from torch.hub import load",
        "eval(text)",
        "import torch\ntorch.load(path)",
        "import torch as t\nt.load(path, weights_only=False)",
        "import numpy as np\nnp.load(path)",
        "import numpy as np\nnp.load(path, allow_pickle=True)",
        "import yaml\nyaml.load(text, yaml.Loader)",
        "from yaml import UnsafeLoader as L\nprint(L)",
        "import subprocess\nsubprocess.run(line, shell=True)",
        "archive.extractall(folder)",
    ],
)
def test_a_habit_is_noticed(source):
    assert list(faults(source))
