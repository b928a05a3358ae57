"""With any input, the command line succeeds, or refuses in one clear line and leaves every file as it was."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings

from kit.fuzz.inputs import PROFILE, QUICK, cases, document_text
from kit.fuzz.runner import Case, Runner, fault
from paceline.algorithms.rounds import State
from paceline.records import checkpoints


@pytest.fixture(scope="module")
def runner() -> Iterator[Runner]:
    with Runner() as found:
        yield found


@pytest.fixture(scope="module")
def run(runner, tmp_path_factory) -> dict[str, bytes]:
    """The files of a right run: its last checkpoint is of two workers after five rounds."""
    scenario = copy.deepcopy(QUICK) | {"budget": {"steps": 80}, "report": {"every": "16 steps", "trace": True}}
    files = {"scenario.yaml": document_text(scenario).encode(), "profile.yaml": PROFILE.encode()}
    end = runner.run(Case(files, ("simulate", "scenario.yaml", "--timing-only", "--out", "run")))
    assert (end.status, fault(end)) == (0, ""), end.err
    directory = runner.work / "run"
    arrays = {"params": np.ones(9, np.float32), "optimizer.momentum": np.ones(8, np.float32)}
    written = [checkpoints.write_worker(directory, worker, 5, arrays) for worker in range(2)]
    checkpoints.commit(directory, written, State(5, 80, 6080, 16), 1.5)
    return {str(p.relative_to(directory)): p.read_bytes() for p in sorted(directory.rglob("*")) if p.is_file()}


def fuzz(runner: Runner, run: dict[str, bytes], number: int, examples: int) -> None:
    """Run so many inputs; a failing one is made smaller, and shown as shell commands."""

    @seed(number)
    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
        print_blob=False,
    )
    @given(cases(run))
    def holds(case: Case) -> None:
        found = fault(runner.run(case))
        assert not found, f"{found}\nIn an empty folder:\n{case.script()}"

    check: Callable[[], None] = holds
    check()


def test_any_input(runner, run):
    fuzz(runner, run, 0, 300)


@pytest.mark.long
@pytest.mark.parametrize("number", range(1, 21))
def test_any_input_at_length(number, runner, run):
    fuzz(runner, run, number, 500)
