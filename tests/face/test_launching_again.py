"""Restarts after a lost worker: what the next ranks are told, and the last line. The ranks are played by a function."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from kit.cli import MLP, call, scenario
from paceline.algorithms.rounds import State
from paceline.config import yaml
from paceline.crew import Crew
from paceline.program.errors import PacelineError
from paceline.records import checkpoints, progress
from paceline.records.recoveries import How, Recovery, numbers
from paceline.restart import Restart
from paceline.runtime import launcher
from paceline.runtime.launcher import End

KILLED = End(137, "rank 1 was ended by signal 9", (1,))
OTHER = End(137, "rank 0 was ended by signal 9", (0,))
CRASHED = End(139, "rank 2 was ended by signal 11", (2,), again=True)
WELL = End(0)


def begins(run: Path) -> None:
    run.mkdir(exist_ok=True)
    (run / "scenario.yaml").write_text((run.parent / "s.yaml").read_text() + "\nrecorded: {}\n")


def steps(run: Path, round: int = 0, seconds: float = 0.0) -> None:
    begins(run)
    progress.Progress(run, round, seconds).close()


def saves(run: Path, round: int) -> None:
    steps(run, round + 1, 7.0)
    parts = [checkpoints.write_worker(run, w, round, {"params": np.zeros(1, np.float32)}) for w in range(3)]
    checkpoints.commit(run, parts, State(round=round), 6.0)


def finishes(run: Path) -> None:
    saves(run, 9)
    (run / "summary.json").write_text("{}")


class Played:
    """Stands for run_job: does what each job in turn does, and keeps what it was told."""

    def __init__(self, *jobs: tuple[Callable[[], object] | None, End]) -> None:
        self.jobs, self.told, self.ranks = list(jobs), list[list[str]](), list[int]()

    def __call__(self, arguments: list[str], ranks: int, threads: int, on: object, shrink: bool) -> End:
        self.told.append(arguments)
        self.ranks.append(ranks)
        does, end = self.jobs.pop(0)
        if does is not None:
            does()
        return end

    def restarts(self) -> list[Restart | None]:
        values = [[each.partition("=")[2] for each in told if each.startswith("--restart=")] for told in self.told]
        return [Restart.read(value[0]) if value else None for value in values]


@pytest.fixture
def train(tmp_path, monkeypatch, capsys):
    """Runs a command among scenarios s and t, in which the ranks are played."""
    monkeypatch.chdir(tmp_path)
    document = scenario(3, MLP, {"preset": "local_sgd"}, 9) | {"recovery": {"max_restarts": 2}}
    for name in ("s", "t"):
        Path(f"{name}.yaml").write_text(yaml.dump(document))

    def run(*arguments: str, jobs: Played) -> tuple[int, list[str]]:
        monkeypatch.setattr(launcher, "run_job", jobs)
        status, _, err = call(monkeypatch, capsys, "train", *arguments)
        assert not jobs.jobs
        return status, err.splitlines()

    return run


RUN = Path("run")


def test_a_lost_worker_and_a_checkpoint(train):
    jobs = Played((lambda: saves(RUN, 4), KILLED), (lambda: finishes(RUN), WELL))
    status, lines = train("s.yaml", "--out", "run", jobs=jobs)
    assert status == 0
    assert lines == ["paceline: restart 1 of 2: rank 1 was ended by signal 9; s goes on from round_000004"]
    first, second = jobs.restarts()
    assert first is None
    assert second is not None
    assert (second.training, second.begun, second.saved, second.round, second.lost) == (0, True, True, 5, [1])
    assert second.at == pytest.approx(7.0, abs=5.0)
    entry = second.recovery(RUN, 3, 4, 6.0)
    assert (entry.how, entry.lost, entry.redone, entry.start) == ("restart", (1,), 1, entry.seconds)
    assert second.recovery(RUN, 3, 4, 99.0).at == 99.0, "the clock never goes back"


def test_where_nothing_was_saved_and_where_nothing_was_written(train):
    jobs = Played((None, KILLED), (lambda: steps(RUN, 2), KILLED), (lambda: finishes(RUN), WELL))
    assert train("s.yaml", "--out", "run", jobs=jobs)[1] == [
        "paceline: restart 1 of 2: rank 1 was ended by signal 9; s begins again, since no checkpoint was saved",
        "paceline: restart 2 of 2: rank 1 was ended by signal 9; s begins again, since no checkpoint was saved",
    ]
    _, second, third = jobs.restarts()
    assert second is not None
    assert third is not None
    assert (second.begun, second.saved, second.round) == (False, False, 0)
    assert (third.begun, third.saved, third.round) == (True, False, 2)


def test_the_last_line_comes_at_the_end(train):
    killed = (lambda: saves(RUN, 4), KILLED)
    status, lines = train("s.yaml", "--out", "run", jobs=Played(killed, (None, KILLED), (None, OTHER)))
    assert status == 137
    assert [line.partition(":")[2][:13] for line in lines[:-1]] == [" restart 1 of", " restart 2 of"]
    assert lines[-1] == (
        "paceline: rank 0 was ended by signal 9; the run has restarted 2 times (max_restarts); round_000004 was saved; "
        "go on from it with: paceline train --resume run"
    )


def test_a_finished_scenario_is_not_trained_again(train):
    def first() -> None:
        finishes(RUN / "s")
        saves(RUN / "t", 2)

    Path("run").mkdir()
    (RUN / "s.yaml").write_text(Path("s.yaml").read_text())
    jobs = Played((first, KILLED), (None, End(2, said=True)))
    status, lines = train("s.yaml", "t.yaml", "--out", "run", "--force", jobs=jobs)
    assert lines == [
        "paceline: restart 1 of 2: rank 1 was ended by signal 9; t goes on from round_000002",
        "paceline: s is finished; round_000002 was saved; go on from it with: paceline train --resume run/t",
    ]
    assert (status, jobs.restarts()[1].training) == (2, 1)


def test_what_begins_again_and_what_comes_then(train):
    Path("run").mkdir()
    (RUN / "s.yaml").write_text(Path("s.yaml").read_text())
    none = ("--max-restarts", "0")
    jobs = Played((lambda: steps(RUN / "s", 1), KILLED))
    assert train("s.yaml", "t.yaml", "--out", "run", *none, jobs=jobs)[1] == [
        "paceline: rank 1 was ended by signal 9; no checkpoint was saved; begin again with: paceline train s.yaml "
        "t.yaml --set=recovery.max_restarts=0 --out=run --force"
    ]
    jobs = Played((lambda: saves(RUN / "s", 1), KILLED))
    assert train("s.yaml", "t.yaml", "--out", "run", "--force", *none, jobs=jobs)[1] == [
        "paceline: rank 1 was ended by signal 9; round_000001 was saved; go on from it with: paceline train --resume "
        "run/s; then go on with: paceline train t.yaml --set=recovery.max_restarts=0 --out=run/t --force"
    ]


@pytest.mark.parametrize(
    ("end", "written", "said"),
    [
        (End(2, said=True), None, []),
        (End(2, said=True, goes_on=True), saves, []),
        (End(2, said=True), saves, ["round_000004 was saved; go on from it with: paceline train --resume run"]),
        (End(1, said=True), saves, ["round_000004 was saved; go on from it with: paceline train --resume run"]),
        (
            End(130, "rank 1 was ended by signal 9", (1,), stopped=True),
            saves,
            ["rank 1 was ended by signal 9; round_000004 was saved; go on from it with: paceline train --resume run"],
        ),
        (
            CRASHED,
            None,
            [
                "rank 2 was ended by signal 11; it was lost before its first step, and would not get there again; "
                "nothing was written; begin again with: paceline train s.yaml --out=run"
            ],
        ),
    ],
)
def test_what_is_not_started_again(end, written, said, train):
    """A mistake of the user's, results that could not be written, a stop, a crash that would come again."""
    jobs = Played((None if written is None else lambda: written(RUN, 4), end))
    status, lines = train("s.yaml", "--out", "run", jobs=jobs)
    assert (status, lines) == (end.status, [f"paceline: {line}" for line in said])


def test_a_resumed_run_restarts_from_where_it_resumed(train, tmp_path):
    """`--round` holds until this command has saved a checkpoint: those of later rounds are of another past."""
    from paceline import simulate

    document = scenario(3, {"name": "mlp", "hidden": [4]}, {"preset": "local_sgd"}, 6)
    document |= {"recovery": {"max_restarts": 2}, "checkpoint": {"every": "2 rounds"}}
    Path("s.yaml").write_text(yaml.dump(document))
    simulate("s.yaml", out="run")

    def later() -> None:
        saves(RUN, 3)

    jobs = Played((None, KILLED), (later, KILLED), (lambda: finishes(RUN), WELL))
    _, lines = train("--resume", "run", "--round", "2", jobs=jobs)
    rounds = [[each for each in told if each.startswith("--round")] for told in jobs.told]
    assert rounds == [["--round=2"], ["--round=2"], []]
    assert [line.rpartition(" ")[2] for line in lines] == ["round_000002", "round_000003"]


def test_a_worker_that_does_not_start_any_more(train):
    """It is left out, as long as enough of them remain: its number is told as it was when the command began."""
    steps_of = (lambda: saves(RUN, 4), KILLED)
    jobs = Played(steps_of, (None, CRASHED), (lambda: goes_on_without(2), OTHER), (None, OTHER), (None, OTHER))
    status, lines = train("s.yaml", "--out", "run", "--min-workers", "2", "--max-restarts", "9", jobs=jobs)
    assert status == 137, lines
    assert lines[1:] == [
        "paceline: restart 2 of 9: rank 2 was ended by signal 11; s goes on from round_000004, without worker 2",
        *(f"paceline: restart {n} of 9: rank 0 was ended by signal 9; s goes on from round_000004" for n in (3, 4)),
        "paceline: rank 0 was ended by signal 9; 1 worker remains, and min_workers is 2; round_000004 was saved; "
        "go on from it with: paceline train --resume run",
    ]
    _, first, second, third, _ = jobs.restarts()
    assert first is not None
    assert second is not None
    assert third is not None
    assert (first.lost, first.gone, second.lost, second.gone) == ([1], [], [2], [2])
    assert (third.lost, third.gone) == ([0], []), "the run's record is without it by now"
    assert second.round == first.round == 5
    assert second.at >= first.at


def test_a_stop_between_two_jobs(train):
    def stops() -> None:
        raise KeyboardInterrupt

    status, lines = train("s.yaml", "--out", "run", jobs=Played((lambda: saves(RUN, 4), KILLED), (stops, WELL)))
    assert (status, lines[-1]) == (
        130,
        "paceline: stopped; round_000004 was saved; go on from it with: paceline train --resume run",
    )


def test_ranks_that_end_without_a_result(train):
    """After a shrink, Open MPI's mpirun may end with status 0 although all ranks are lost."""
    none = ("--max-restarts", "1")
    jobs = Played((lambda: saves(RUN, 4), End(0, "worker 0 is lost", (0,), said=True)), (None, WELL))
    assert train("s.yaml", "--out", "run", *none, jobs=jobs) == (
        1,
        [
            "paceline: restart 1 of 1: worker 0 is lost; s goes on from round_000004",
            "paceline: the ranks ended without a result; the run has restarted once (max_restarts); round_000004 was "
            "saved; go on from it with: paceline train --resume run",
        ],
    )


@pytest.mark.parametrize("saved", [True, False])
def test_those_that_a_shrink_has_left_are_started_again(saved, train):
    def shrinks() -> None:
        saves(RUN, 4) if saved else steps(RUN)
        goes_on_without(1, "shrink")

    lost = End(1, "worker 2 is lost", (2,), said=True)  # which is rank 1 by then
    jobs = Played((shrinks, lost), (lambda: finishes(RUN), WELL))
    assert train("s.yaml", "--out", "run", "--shrink", "--min-workers", "2", "-n", "3", jobs=jobs)[0] == 0
    restart = jobs.restarts()[1]
    assert restart is not None
    assert (jobs.ranks, restart.lost, restart.gone, restart.members) == ([3, 2], [2], [], [0, 2])


def goes_on_without(worker: int, how: How = "restart") -> None:
    """What ranks write that were told to leave a worker out, or that have done so by themselves."""
    document = yaml.read_mapping(Path("s.yaml"))
    del document["cluster"]["workers"][worker]
    entry = Recovery(how=how, lost=(worker,), workers=2, at=7.0, from_round=4, redone=1, seconds=1.0)
    document["recovery"] = {"max_restarts": 9, "min_workers": 2}
    document["recorded"] = {"history": [{"from_round": 0}, {"from_round": 4, "recovery": entry.noted()}]}
    (RUN / "scenario.yaml").write_text(yaml.dump(document))
    progress.Progress(RUN, 4, 8.0).close()


def test_the_workers_of_a_node_are_gone_together():
    crew, nodes = Crew(5), ("a", "a", "b", "c", "c", "c")  # and a rank without a worker
    assert crew.on_host((1,), nodes) == [0, 1]
    assert crew.on_host((4, 2), nodes) == [2, 3, 4]
    assert crew.on_host((4, 7), range(5)) == [4]
    crew.gone |= {0, 1}
    assert crew.go_on(()) == [0, 1]
    assert crew.numbers((0, 2, 7)) == [2, 4]
    crew.gone.add(4)
    recovery = Recovery(how="restart", lost=(0, 1), workers=3, at=1.0, from_round=1, redone=0, seconds=1.0)
    assert crew.go_on((recovery,)) == [2]
    assert crew.now == [2, 3]


JOINS = ("--set", "recovery={shrink: true, min_workers: 2, respawn: true}")


def shrinks_to_join() -> None:
    """What the others write when worker 1 is lost, until they end so that it may join."""
    saves(RUN, 4)
    document = yaml.read_mapping(Path("s.yaml"))
    document["recovery"] = {"shrink": True, "min_workers": 2, "respawn": True}
    entry = Recovery(how="shrink", lost=(1,), workers=2, at=3.0, from_round=3, redone=0, seconds=1.0)
    document["recorded"] = {"history": [{"from_round": 0}, {"from_round": 3, "recovery": entry.noted()}]}
    (RUN / "scenario.yaml").write_text(yaml.dump(document))
    noted = progress.Progress(RUN, 3, 5.0)
    noted.note(4, 6.0, joins=True)
    noted.close()


def test_a_lost_worker_joins_again(train):
    jobs = Played((shrinks_to_join, WELL), (lambda: finishes(RUN), WELL))
    assert train("s.yaml", "--out", "run", *JOINS, jobs=jobs) == (
        0,
        [
            "paceline: worker 1 joins again, and all ranks with it are started again; s goes on from round_000004",
        ],
    )
    restart = jobs.restarts()[1]
    assert (restart.how, restart.saved, restart.round, restart.at) == ("join", True, 4, 6.0)
    assert (restart.lost, restart.gone) == ([1], [])
    stopped = Played((shrinks_to_join, End(0, stopped=True)))
    assert train("s.yaml", "--out", "run", "--force", *JOINS, jobs=stopped) == (
        0,
        ["paceline: round_000004 was saved; go on from it with: paceline train --resume run"],
    )


@pytest.mark.parametrize("fails", [KILLED, PacelineError("mpirun could not start the ranks: no network")])
def test_the_others_go_on_where_a_lost_worker_cannot_join(train, fails):
    def fail() -> None:
        if isinstance(fails, PacelineError):
            raise fails

    jobs = Played((shrinks_to_join, WELL), (fail, KILLED), (lambda: finishes(RUN), WELL))
    status, lines = train("s.yaml", "--out", "run", *JOINS, jobs=jobs)
    why = fails if isinstance(fails, PacelineError) else fails.lost
    assert (status, lines[1:]) == (
        0,
        [f"paceline: worker 1 could not join: {why}; s goes on from round_000004, without worker 1"],
    )
    restart = jobs.restarts()[2]
    assert (restart.how, restart.lost, restart.gone) == ("restart", [1], [1])
    assert restart.at >= 6.0


def test_the_numbers_of_workers_that_come_and_go():
    def entry(how: How, lost: tuple[int, ...], workers: int) -> Recovery:
        return Recovery(how=how, lost=lost, workers=workers, at=1.0, from_round=1, redone=0, seconds=1.0)

    away = [entry("shrink", (1,), 3), entry("shrink", (2,), 2)]
    assert numbers(4, away) == [0, 3]
    assert numbers(4, [*away, entry("join", (1, 2), 4)]) == [0, 1, 2, 3]
    assert numbers(4, [*away, entry("restart", (0,), 4)]) == [0, 1, 2, 3]
    without = [*away, entry("restart", (1, 2), 2)]  # they could not join
    assert numbers(4, [*without, entry("shrink", (3,), 1), entry("join", (3,), 2)]) == [0, 3]


def test_ranks_that_could_not_be_started(train):
    def fails() -> None:
        raise PacelineError("mpirun could not start the ranks: no network")

    assert train("s.yaml", "--out", "run", jobs=Played((fails, WELL))) == (
        2,
        ["paceline: mpirun could not start the ranks: no network (--traceback shows where)"],  # it passes through here
    )
    jobs = Played((lambda: saves(RUN, 4), KILLED), (fails, WELL))
    assert train("s.yaml", "--out", "run", jobs=jobs)[1][-1] == (
        "paceline: mpirun could not start the ranks: no network; round_000004 was saved; "
        "go on from it with: paceline train --resume run (--traceback shows where)"
    )


def test_progress_outlives_what_is_removed(tmp_path):
    assert progress.reached(tmp_path) is None
    noted = progress.Progress(tmp_path, 3, 1.5)
    assert progress.reached(tmp_path)[:2] == (3, 1.5)
    noted.note(4, 2.5)
    assert progress.reached(tmp_path)[:2] == (4, 2.5)
    assert progress.now(tmp_path) >= progress.reached(tmp_path).when
    progress.forget(tmp_path)
    noted.note(5, 3.5)
    noted.close()
    assert progress.reached(tmp_path) is None
    lost = progress.Progress(tmp_path / "nowhere", 0, 0.0)
    lost.note(1, 1.0)
    lost.close()
    assert abs(progress.now(tmp_path / "not" / "yet") - progress.now(tmp_path)) < 60, "ranks that were lost very early"
    assert sorted(os.listdir(tmp_path)) == []
