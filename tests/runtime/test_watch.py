"""Stalls are noticed: which rank is missing, where the others are, what follows."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from kit.cli import scenario
from paceline.config import yaml
from paceline.config.scenario import DeadlineSpec
from paceline.program.effects import AllReduce
from paceline.program.outcome import Outcome
from paceline.records.directory import SIGNS, STACKS
from paceline.runtime.watch import Watch

EFFECT = AllReduce(np.zeros(1000, np.float32), phase="parameters")
DEADLINE = DeadlineSpec(factor=4.0, floor="0.8 s")  # a sign of life each 0.1 s


class Driver:
    """A rank that has been waiting, or computing, for so many seconds."""

    def __init__(self, waiting: object, seconds: float = 0.0) -> None:
        self.waiting, self.since = waiting, time.perf_counter() - seconds
        self.slowest, self.outcome, self.computing = 0.0, Outcome(0), 0.0

    def clock(self, now: float) -> float:
        return now


class Rank:
    """A watched rank of three, whose thread looks only when it is told to."""

    def __init__(self, rank: int, folder: Path, driver: Driver, asked: bool = False, deadline=DEADLINE) -> None:
        self.said, self.ended, self.driver = list[str](), list[str](), driver
        self.watch = Watch(rank, range(3), deadline, folder, lambda: asked, self.said.append, self.ended.append)
        (folder / SIGNS).mkdir(exist_ok=True)

    def look(self) -> None:
        self.watch._look(self.driver)


def aged(folder: Path, rank: int, seconds: float) -> None:
    """Let a rank's sign of life be so old."""
    path = folder / SIGNS / str(rank)
    then = path.stat().st_mtime - seconds
    os.utime(path, (then, then))


@pytest.fixture
def ranks(tmp_path) -> list[Rank]:
    """Ranks 0 and 1 wait for rank 2, which is silent."""
    made = [Rank(rank, tmp_path, Driver(EFFECT)) for rank in range(3)]
    for rank in made:
        rank.look()
    aged(tmp_path, 2, 7.0)
    for rank in made[:2]:
        rank.driver = Driver(EFFECT, 5.0)
    return made


def test_the_missing_rank_is_named_once(ranks, tmp_path):
    for _ in range(3):
        for rank in ranks[:2]:
            rank.look()
    assert ranks[1].said == [], "one rank speaks for all that wait"
    (line,) = ranks[0].said
    what = r"AllReduce of 4 KB \(parameters\)"  # the seconds follow the clock on the wall
    assert re.match(
        rf"{what} has taken \d+\.\d s\. Missing: rank 2 \(worker 2, host \S+\), silent for \d+\.\d s, then in {what}",
        line,
    )
    assert "most recent call first" in (tmp_path / STACKS / "0").read_text()
    ranks[0].driver.waiting = None
    ranks[0].look()
    assert ranks[0].said[1:] == ["the run goes on, after a wait for rank 2"]


def test_a_rank_that_computes_is_told_from_one_that_is_silent(ranks):
    ranks[2].driver = Driver(None, 6.0)
    ranks[2].look()
    for rank in ranks:
        rank.look()
    assert "rank 2 (worker 2, host " in ranks[0].said[0]
    assert re.search(r"\), computing for \d+\.\d s\. Waiting on", ranks[0].said[0])
    assert ranks[2].said == []


def test_a_deadline_follows_what_collectives_have_taken(tmp_path):
    slow = Rank(0, tmp_path, Driver(EFFECT, 5.0))
    slow.driver.slowest = 1.5  # four times that is 6 s
    slow.look()
    assert slow.said == []
    for _ in range(16):
        slow.look()
    assert len(slow.said) == 1, "it was long ago"
    assert "Missing: rank 1 (worker 1), which gave no sign of life; rank 2" in slow.said[0]
    early = Rank(0, tmp_path, Driver(EFFECT, 0.7))
    early.look()
    assert early.said == []


def test_a_stall_ends_the_run_where_it_should(ranks, tmp_path):
    wanted = Rank(0, tmp_path, Driver(EFFECT, 5.0), deadline=DeadlineSpec(factor=4.0, floor="0.8 s", then="end"))
    wanted.look()
    assert (len(wanted.ended), wanted.said) == (1, [])
    asked = Rank(0, tmp_path, Driver(EFFECT, 5.0), asked=True)
    asked.look()
    assert "Stopped as asked, without the round's end" in asked.ended[0]
    for rank in (1, 2):
        ranks[rank].look()
    alone = Rank(0, tmp_path, Driver(EFFECT, 5.0), deadline=DeadlineSpec(factor=4.0, floor="0.8 s", then="end"))
    alone.look()
    assert alone.ended == [], "all ranks are there: there is nothing to treat as lost"


def test_nothing_is_left_of_signs(tmp_path):
    for seconds in (0, 0.3):  # with one sign, and with several
        watch = Watch(0, [0], DEADLINE, tmp_path, lambda: False, print, print)
        watch.begin(Driver(None))
        time.sleep(seconds)
        assert (tmp_path / SIGNS).exists()
        watch.close()
        assert not (tmp_path / SIGNS).exists()


def test_a_folder_that_is_gone_ends_nothing(tmp_path):
    watch = Watch(0, [0], DEADLINE, tmp_path / "gone", lambda: False, print, print)
    watch.begin(Driver(None))
    time.sleep(0.3)
    watch.close()


@pytest.mark.long
@pytest.mark.parametrize("then", ["wait", "end", "stop"])
def test_a_stopped_rank(then, tmp_path):
    """SIGSTOP of a rank: named within the deadline. It goes on with the same bits, ends, or is stopped by a signal."""
    document = scenario(2, {"name": "mlp", "hidden": [4]}, {"preset": "local_sgd", "H": 2}, 1500)
    document["checkpoint"] = {"every": "50 rounds"}
    document["deadline"] = {"factor": 5, "floor": "2 s", "then": "end" if then == "end" else "wait"}
    (tmp_path / "s.yaml").write_text(yaml.dump(document))
    command = [sys.executable, "-m", "paceline", "train", "s.yaml", "--out", "run", "--quiet"]
    job = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    try:
        while not [*tmp_path.glob("run/checkpoints/round_*")]:
            time.sleep(0.05)
            assert job.poll() is None
        victim = process_of(1, tmp_path)
        os.kill(victim, signal.SIGSTOP)
        time.sleep(5)
        if then == "wait":
            os.kill(victim, signal.SIGCONT)
        elif then == "stop":
            job.send_signal(signal.SIGTERM)
        _, errors = job.communicate(timeout=200)
    finally:
        job.kill()
    assert "Missing: rank 1 (worker 1, host " in errors
    assert (tmp_path / "run" / STACKS / "0").exists()
    if then == "wait":
        assert (job.returncode, "the run goes on" in errors) == (0, True)
    else:
        assert job.returncode != 0
        assert "was saved; go on from it with: paceline train --resume run" in errors


def process_of(rank: int, folder: Path) -> int:
    """The number of this rank's process, among those that run in the folder."""
    for path in Path("/proc").glob("[0-9]*"):
        try:
            variables = (path / "environ").read_bytes().split(b"\0")
            if (path / "cwd").resolve() == folder and f"OMPI_COMM_WORLD_RANK={rank}".encode() in variables:
                return int(path.name)
        except OSError:
            continue
    raise AssertionError(f"no process of rank {rank}")


def test_a_worker_is_named_by_the_number_that_the_user_knows(ranks):
    """After a shrink, ranks are counted again."""
    ranks[0].watch._members = [0, 2, 3]
    ranks[0].look()
    assert "Missing: rank 2 (worker 3, host " in ranks[0].said[0]


def test_a_stalled_rank_is_killed_where_the_others_go_on(tmp_path, monkeypatch):
    killed = list[tuple[int, int]]()
    monkeypatch.setattr("paceline.runtime.watch.os.kill", lambda *call: killed.append(call))
    ending = DeadlineSpec(factor=4.0, floor="0.8 s", then="end")
    for missing, ends in ((2, 0), (0, 1)):
        made = [Rank(rank, tmp_path, Driver(EFFECT), deadline=ending) for rank in range(3)]
        for rank in made:
            rank.watch._kills = True
            rank.look()
        aged(tmp_path, missing, 7.0)
        waiting = next(rank for number, rank in enumerate(made) if number != missing)
        waiting.driver = Driver(EFFECT, 5.0)
        waiting.look()
        assert len(waiting.ended) == ends, "without rank 0 none goes on"
    assert killed == [(os.getpid(), signal.SIGKILL)]
