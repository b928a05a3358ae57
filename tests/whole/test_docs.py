"""The pages: the tutorial's programs print what it says, the README shows the scenario that it names, links hold."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from kit.paths import DOCS, ROOT
from paceline.runtime.mpirun import environment, find_mpirun

BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.M | re.S)
PAGES = ["README.md", "CONTRIBUTING.md", *(f"docs/{path.name}" for path in sorted(DOCS.glob("*.md")))]


def output_of(command: str, folder: Path) -> str:
    mpirun = find_mpirun()
    programs = {"python": sys.executable, "mpirun": mpirun.path}
    words, settings = [programs.get(word, word) for word in shlex.split(command)], environment(mpirun, 2, 1)
    words = [sys.executable, "-m", *words] if words[0] == "paceline" else words
    done = subprocess.run(words, cwd=folder, env=settings, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return re.sub(r"passed in [\d.]+s", "passed in 0.02s", done.stdout)


def test_tutorial_prints_what_it_says(tmp_path):
    scenario = (ROOT / "scenarios" / "quickstart.yaml").read_text()
    (tmp_path / "quickstart.yaml").write_text(scenario.replace("../profiles", str(ROOT / "profiles")))
    ran = 0
    for language, text in BLOCK.findall((DOCS / "tutorial.md").read_text()):
        if language == "python":
            (tmp_path / re.match(r"# (\w+\.py)\n", text)[1]).write_text(text)
        elif language == "console":
            command, expected = re.match(r"\$ (.*)\n((?:.*\n)*)", text).groups()
            assert output_of(command, tmp_path) == expected, command
            ran += 1
    assert ran == 6


@pytest.mark.parametrize(
    ("page", "commands"), [("extending", 2), ("own_loop", 1), ("own_work", 1), ("planning", 1), ("unequal_workers", 2)]
)
def test_page_prints_what_it_says(page, commands, tmp_path):
    ran = 0
    for language, text in BLOCK.findall((DOCS / f"{page}.md").read_text()):
        if language in ("python", "yaml"):  # others than files are parts of one
            if named := re.match(r"# ([\w.]+)\n", text):
                (tmp_path / named[1]).write_text(text)
        elif language == "console":
            command, expected = re.match(r"\$ (.*)\n((?:.*\n)*)", text).groups()
            if not expected:  # it is one to try
                continue
            printed = re.sub(r" +$", "", output_of(command, tmp_path), flags=re.M)
            assert printed == expected, command
            ran += 1
    assert ran == commands


def test_readme_example_prints_what_it_says():
    text = (ROOT / "README.md").read_text()
    code, expected = re.search(r"```python\n(.*?)```\n\n```text\n(.*?)```", text, re.S).groups()
    assert len(code.splitlines()) <= 12
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120, check=True
    )
    assert done.stdout == expected


def test_readme_shows_the_quickstart():
    (shown,) = re.findall(r"```yaml\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    assert shown == (ROOT / "scenarios" / "quickstart.yaml").read_text()


def test_every_page_is_in_the_index():
    index = (DOCS / "index.md").read_text()
    assert not [page for page in DOCS.glob("*.md") if page.name != "index.md" and f"({page.name})" not in index]


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", (ROOT / page).read_text()):
        assert ((ROOT / page).parent / target).exists(), f"{page}: {target}"


def test_core_is_short():
    """The files that README names as the core, to be read in one sitting."""
    core = ("program/effects", "program/lockstep", "algorithms/loop", "algorithms/rounds", "algorithms/aggregations")
    files = [ROOT / f"{name}.py" for name in (*core, "algorithms/presets")]
    assert sum(len(path.read_text().splitlines()) for path in files) <= 950


def test_design_quotes_its_figures():
    """Each results file that the design page names exists."""
    named = set(re.findall(r"`(\w+\.json)`", (DOCS / "design.md").read_text()))
    assert named
    assert all((ROOT / "benchmarks" / "results" / name).is_file() for name in named)
