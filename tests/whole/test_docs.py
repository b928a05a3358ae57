"""The pages: every program and command in them is run or checked and prints what they say, and links hold."""

from __future__ import annotations

import copy
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer

from kit.paths import DOCS, ROOT
from paceline.cli import app
from paceline.config import yaml
from paceline.config.scenario import validate
from paceline.config.strategy import build_strategy
from paceline.runtime.mpirun import environment, find_mpirun

BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.M | re.S)
PAGES = ["README.md", "CONTRIBUTING.md", "examples/README.md", *(f"docs/{path.name}" for path in DOCS.glob("*.md"))]
# Blocks that are not run, by how they begin, and why.
NOT_RUN = {
    "model = paceline.load(": "it takes a trained run; tests/face/test_export.py does the same",
    'sync = paceline.LocalSync(model, optimizer, "biased': "a part of a user's loop; examples/own_loop.py is run",
    "for _ in range(rounds):": "a method's core, to be read; the tutorial's programs are run",
}


def blocks(page: str) -> list[tuple[str, str]]:
    """(language, text) of each block of a page. Languages are spelled in one way."""
    found = BLOCK.findall((ROOT / page).read_text())
    assert (ROOT / page).read_text().count("```") == 2 * len(found), page
    return found


def output_of(command: str, folder: Path, timeout: float = 120) -> str:
    mpirun = find_mpirun()
    programs = {"python": sys.executable, "mpirun": mpirun.path}
    words, settings = [programs.get(word, word) for word in shlex.split(command)], environment(mpirun, 2, 1)
    words = [sys.executable, "-m", *words] if words[0] == "paceline" else words
    done = subprocess.run(words, cwd=folder, env=settings, capture_output=True, text=True, timeout=timeout, check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    shown = re.sub(r"^sweep \w+: \d+ of \d+\n", "", done.stdout, flags=re.M)  # progress
    return re.sub(r"passed in [\d.]+s", "passed in 0.02s", re.sub(r" +$", "", shown, flags=re.M))


def commands(page: str) -> list[tuple[str, str]]:
    """(command, what it prints) of each block of a page that is one."""
    pattern = re.compile(r"\$ (.*)\n((?:.*\n)*)")
    return [pattern.fullmatch(text).groups() for language, text in blocks(page) if language == "console"]  # type: ignore[union-attr,misc]


def kinds(page: str) -> list[tuple[str, str, str]]:
    """(what is done with it, text, what it prints) of each block of a page, in order.

    Blocks in sh are commands: test_commands_and_their_options_exist reads them, and tests/whole/test_papers.py runs its
    page's.
    """
    found: list[tuple[str, str, str]] = []
    given = blocks(page)
    for number, (language, text) in enumerate(given):
        after = given[number + 1] if number + 1 < len(given) else ("", "")
        first = text.splitlines()[0]
        if not language or text.startswith(tuple(NOT_RUN)) or language == "sh":
            continue
        if language == "console":
            command, expected = re.fullmatch(r"\$ (.*)\n((?:.*\n)*)", text).groups()  # type: ignore[union-attr]
            found.append(("run" if expected else "try", command, expected))
        elif re.fullmatch(r"# [\w.]+", first):
            found.append(("file", text, ""))
        elif language == "yaml":
            found.append(("fragment", text, ""))
        elif language == "python" and after[0] == "text":
            found.append(("run", text, after[1]))
        elif language == "python":
            found.append(("define", text, ""))
        else:
            assert language == "text", f"{page}: a block in {language or 'no language'}"
            assert number, f"{page}: output of nothing"
            assert given[number - 1][0] == "python", f"{page}: output of nothing"
    return found


def test_each_block_that_is_not_run_exists():
    every = [text for page in PAGES for _, text in blocks(page)]
    assert [begin for begin in NOT_RUN if not any(text.startswith(begin) for text in every)] == []
    assert len(NOT_RUN) < 6


RUNNING = [page for page in PAGES if any(kind == "run" for kind, _, _ in kinds(page))]


@pytest.mark.parametrize("page", RUNNING)
def test_page_prints_what_it_says(page, tmp_path):
    for name in ("scenarios", "profiles"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "quickstart.yaml").write_text(
        (ROOT / "scenarios" / "quickstart.yaml").read_text().replace("../profiles", "profiles")
    )
    for number, (kind, text, expected) in enumerate(kinds(page)):
        if kind == "file":
            (tmp_path / text.splitlines()[0].removeprefix("# ")).write_text(text)
        elif kind == "run" and "\n" in text:
            script = tmp_path / f"block_{number}.py"
            script.write_text(text)
            assert output_of(f"python {script.name}", tmp_path) == expected
        elif kind == "run":
            assert output_of(text, tmp_path) == expected, text


def test_enough_blocks_are_run():
    counted = {page: sum(kind == "run" for kind, _, _ in kinds(page)) for page in RUNNING}
    assert counted["docs/tutorial.md"] == 6
    assert sum(counted.values()) >= 17


@pytest.mark.parametrize("page", PAGES)
def test_definitions_are_python(page):
    for kind, text, _ in kinds(page):
        if kind == "define":
            exec(compile(text, page, "exec"), {})


@pytest.mark.long
@pytest.mark.parametrize(
    "command", [text for page in PAGES for kind, text, _ in kinds(page) if kind == "try" and "FOLDER" not in text]
)
def test_commands_to_try_work(command, tmp_path):
    (tmp_path / "scenarios").symlink_to(ROOT / "scenarios")
    (tmp_path / "profiles").symlink_to(ROOT / "profiles")
    assert output_of(command, tmp_path, timeout=900)


# What a part of a scenario is put into.
AROUND: dict[str, Any] = {
    "workload": {"model": "mlp", "data": "digits", "batch": 32, "optimizer": {"name": "sgd", "lr": 0.1}},
    "cluster": {"workers": [{"speed": "900 samples/s", "count": 4}], "network": {"link": "1gbe"}},
    "strategy": {"preset": "local_sgd"},
    "budget": {"epochs": 300},
}


@pytest.mark.parametrize("page", PAGES)
def test_parts_of_scenarios_are_valid(page):
    for kind, text, _ in kinds(page):
        if kind != "fragment":
            continue
        lines = text.splitlines(keepends=True)
        alternatives = lines if all(line.startswith("strategy:") for line in lines) else [text]
        for each in alternatives:
            document = copy.deepcopy(AROUND)
            for key, value in yaml.parse(each, page).items():
                if isinstance(value, dict) and key != "strategy":
                    if {"workers", "nodes"} & value.keys():
                        del document[key]["workers"]
                    document[key] = document.get(key, {}) | value
                else:
                    document[key] = value
            build_strategy(validate(document, page).strategy)


def test_a_part_that_is_wrong_is_noticed():
    with pytest.raises(Exception, match="worker"):
        validate(AROUND | {"faults": [{"name": "straggler", "wroker": 1, "factor": 4}]}, "page")


COMMANDS: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]


def spelled(page: str) -> list[str]:
    """Each command line of a page: in blocks, in indented lines, and in running text."""
    text = (ROOT / page).read_text().replace("\\\n", " ")
    text = re.sub(
        r"^```sh\n(.*?)^```", lambda block: re.sub(r"^", "    ", block[1], flags=re.M), text, flags=re.M | re.S
    )
    lines = re.findall(r"^(?:    |\$ )(?:[\w.=/-]+ )*?(paceline [a-z].*)$", text, re.M)
    return [line.split("  #")[0] for line in (*lines, *re.findall(r"`(paceline [a-z][^`]*)`", text, re.S))]


@pytest.mark.parametrize("page", PAGES)
def test_commands_and_their_options_exist(page):
    for line in spelled(page):
        words = re.split(r"\s+", line)
        command = words[1].rstrip(".,;:")
        assert command in COMMANDS, f"{page}: {line}"
        known = {name for param in COMMANDS[command].params for name in (*param.opts, *param.secondary_opts)}
        given = {word.split("=")[0].rstrip(".,;") for word in words[2:] if re.match(r"--?[a-z]", word)}
        assert given - {"--help"} <= known, f"{page}: {line}"
        for word in words[2:]:
            if re.fullmatch(r"(scenarios|examples)/[\w/.-]+\.yaml", word):
                assert (ROOT / word).exists(), f"{page}: {line}"


def test_the_readme_names_every_command():
    named = {re.split(r"\s+", line)[1] for line in spelled("README.md")}
    assert {name for name, command in COMMANDS.items() if not command.hidden} - named <= {"schema"}


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
    """The files that CONTRIBUTING.md names as the core, to be read in one sitting."""
    core = ("program/effects", "program/lockstep", "algorithms/loop", "algorithms/rounds", "algorithms/aggregations")
    files = [ROOT / f"{name}.py" for name in (*core, "algorithms/presets")]
    assert sum(len(path.read_text().splitlines()) for path in files) <= 950


def test_design_quotes_its_figures():
    """Each results file that the design page names exists."""
    named = set(re.findall(r"`(\w+\.json)`", (DOCS / "design.md").read_text()))
    assert named
    assert all((ROOT / "benchmarks" / "results" / name).is_file() for name in named)
