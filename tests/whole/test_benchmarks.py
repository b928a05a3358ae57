"""The harness of the benchmarks, their results files and the page made of them; and that each benchmark runs.

Every benchmark runs in its small size, so that one that broke shows before its figure is needed: the quick ones in
`make test`, the others in `make test-long`. Times are not looked at, and no results file is written.
"""

import importlib
import json
import subprocess
import sys

import pytest
from pydantic import ValidationError

from benchmarks import form, page
from benchmarks.against_commit import Cost, is_of
from benchmarks.form import Result, Row, compare, growth, load_all, spread
from benchmarks.harness import LEAST, Run, alternate
from kit.paths import ROOT
from paceline.marked_page import END

FOLDER = ROOT / "benchmarks"
QUICK = {"cohort", "sim_effects", "design", "runtime_effects"}  # about a second each
TAKEN = {"ours": [1.0, 2.0, 4.0], "theirs": [2.0, 2.0, 16.0], "least": [0.5, 1.0, 2.0]}


def run(*arguments):
    command = [sys.executable, "-m", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=600, check=False, cwd=ROOT)


def test_ratios_are_taken_turn_by_turn():
    row = compare("a case", "ours", "theirs", TAKEN, bar=1.5, limit="least", unit="ms")
    assert row.ratio == 2.0  # of 2, 1 and 4; the ratio of the medians is 1
    assert row.quartiles == (1.5, 3.0)
    assert row.turns == 3
    assert row.costs == {"ours": 2.0, "theirs": 2.0}
    assert row.limit.ratio == 4.0  # of 4, 2 and 8
    assert row.holds


def test_less_is_better_where_time_or_memory_is_compared():
    row = compare("a case", "ours", "theirs", TAKEN, "time", bar=0.4)
    assert (row.ratio, row.quartiles, row.holds) == (0.5, (0.375, 0.75), False)
    assert compare("a case", "ours", "theirs", TAKEN, "memory", bar=0.5).holds
    assert compare("a case", "ours", "theirs", TAKEN, "accuracy").ratio == 0.5
    assert compare("a case", "ours", "theirs", TAKEN).holds is None


def test_spread_of_a_single_turn():
    assert spread([3.0]) == (3.0, (3.0, 3.0))


def test_growth_is_the_slope_of_each_turn():
    row = growth("a case", "ours", [10, 100, 1000], [[1, 10, 100], [1, 100, 10_000], [2, 20, 200]], bar=1.05)
    assert (row.ratio, row.quartiles, row.holds) == (1.0, (1.0, 1.5), True)
    assert row.costs["1,000"] == 200


def test_blocks_take_turns_and_the_first_turn_warms_up():
    order = []
    blocks = {name: lambda name=name: order.append(name) or float(len(order)) for name in "ab"}
    assert alternate(blocks, iter((-1, 0, 1))) == {"a": [3.0, 6.0], "b": [4.0, 5.0]}
    assert order == ["b", "a", "a", "b", "b", "a"]


def test_turns_end_with_the_budget():
    assert list(Run(False, 0.0).turns(20)) == list(range(-1, LEAST))
    assert list(Run(False, 0.0).turns(3)) == [-1, 0, 1, 2]
    assert list(Run(False, 60.0).turns(20)) == list(range(-1, 20))
    assert list(Run(True, 60.0).turns(20)) == [-1, 0, 1]
    assert Run(False, 60.0).share(4).seconds == 15.0


def test_each_benchmark_is_run_and_all_fit_an_hour():
    made = {path.stem for path in FOLDER.glob("*.py") if "\ndef measure(" in path.read_text()}
    assert made == set(page.NAMES)
    modules = [importlib.import_module(f"benchmarks.{name}") for name in page.NAMES]
    assert all(module.__doc__.partition("\n")[0].strip()[-1] in ".?" for module in modules)
    # Up to an hour there is room for start-ups and for the last turn of each, which its budget does not count.
    assert sum(module.SECONDS for module in modules) <= 3400


def test_results_files_have_the_form():
    results = load_all()
    assert set(results) <= set(page.NAMES)
    for name, result in results.items():
        assert result.benchmark == name
        assert result.commit
        assert result.converted or all(row.quartiles for row in result.rows)


def test_what_is_not_of_the_form_is_refused():
    document = json.loads((form.RESULTS / "design.json").read_text())
    with pytest.raises(ValidationError, match="hurry"):
        Result.model_validate({**document, "hurry": 1})
    with pytest.raises(ValidationError, match="turns"):
        Row.model_validate({**document["rows"][0], "turns": 0})


def test_the_page_is_what_the_results_say():
    text = page.PAGE.read_text()
    assert text.partition(page.BEGIN)[2].partition(END)[0].strip("\n") == page.content(load_all())


def test_the_page_tells_missed_bars_skips_and_limits():
    row = compare("a case", "ours", "theirs", TAKEN, "time", bar=0.4, limit="least", unit="ms")
    result = load_all()["design"].model_copy(update={"rows": (row,), "skipped": ("SimGrid: missing",)})
    text = page.content({"design": result})
    line = "| a case | ours (2 ms) | theirs (2 ms) | 0.5 of its time | 0.375 to 0.75 | 3 | 0.4 (missed) | 0.25: least |"
    assert line in text.splitlines()
    assert "Not measured: SimGrid: missing" in text


def test_an_unknown_name_is_refused():
    done = run("benchmarks", "cohorts", "--small")
    assert done.returncode == 2
    assert "no benchmark 'cohorts'; write cohort, " in done.stderr


@pytest.mark.parametrize("name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.long) for n in page.NAMES])
def test_benchmark(name, tmp_path):
    before = {file: file.read_bytes() for file in (*FOLDER.glob("results/*.json"), page.PAGE)}
    done = run("benchmarks", name, "--small", "--out", tmp_path / "found.json")
    assert done.returncode == 0, done.stdout + done.stderr
    out = tmp_path / "found.json"
    if out.exists():
        found = Result.model_validate_json(out.read_text())
        assert found.rows or name == "time_to_accuracy"  # an epoch is too short to reach the target
    else:
        assert "skipped: " in done.stdout
    assert {file: file.read_bytes() for file in before} == before


def test_a_bar_against_an_earlier_commit_finds_its_cost():
    asked = Cost("sweep", "noisy, H = 8", "paceline sweep", "ms")
    assert is_of(asked._replace(case="noisy, H = 8: 1,000 scenarios"), asked)
    assert not is_of(asked._replace(case="noise-free, H = 1: 10,000 scenarios"), asked)
    assert not is_of(asked._replace(unit="s"), asked)


@pytest.mark.long
def test_any_two_commits_are_compared():
    done = run("benchmarks.against_commit", "HEAD", "design", "--small")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "design: a program: answer to a thread: now " in done.stdout
