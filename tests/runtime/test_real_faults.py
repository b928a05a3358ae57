"""The scenario's faults in real runs: what strikes, when, what it costs, what is noted, and what cannot be done."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import paceline as package
from kit.cli import MLP, paceline, read, scenario
from kit.paths import ROOT
from paceline.algorithms.rounds import State
from paceline.analysis.run import Run
from paceline.config import yaml
from paceline.config.faults import mark, read_faults, remaining
from paceline.config.scenario import validate
from paceline.job import resolve
from paceline.program.effects import Work
from paceline.program.errors import ScenarioError
from paceline.real_faults import check_real, rank_faults
from paceline.records import struck
from paceline.runtime.faults import FaultyEmulation, RankFaults
from paceline.runtime.star import Star

PAUSE = {"name": "pause", "duration": "200 ms"}
HARMLESS = [
    {"name": "straggler", "worker": 0, "factor": 1.5, "probability": 0.5},
    {"name": "slowdown", "worker": 1, "factor": 3, "start": "2 rounds", "end": "4 rounds"},
    {"name": "slowdown", "worker": 0, "factor": 3, "start": "5 ms", "end": "10 ms"},
    {"worker": 1, "at": "5 rounds", **PAUSE},
    {"worker": 0, "at": "8 ms", **PAUSE},
    {"worker": 0, "at": "6 rounds", "during": "exchange", **PAUSE},
    {"worker": 1, "at": "6 rounds", "during": "evaluation", **PAUSE},
    {"worker": 1, "at": "9 rounds", "during": "checkpoint", **PAUSE},
    {"worker": 0, "at": "0 s", "during": "start", **PAUSE},
]


def document(*faults: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Twelve rounds of four steps; an evaluation after each second one, a checkpoint after each third one."""
    plain = {"checkpoint": {"every": "3 rounds"}, "faults": [*faults], **more}
    return scenario(2, MLP, {"preset": "local_sgd", "H": 4}, 12, **plain)


def described(folder: Path, *faults: dict[str, Any], **more: Any) -> Path:
    path = folder / "s.yaml"
    path.write_text(yaml.dump(document(*faults, **more)))
    return path


def test_one_plan_for_both_worlds(tmp_path):
    """The same faults strike at the same rounds, and change no bit of what is learnt."""
    path = described(tmp_path, *HARMLESS)
    simulated = package.simulate(path, out=tmp_path / "simulated")
    paceline("train", path, "--out", "trained", "--quiet", cwd=tmp_path)
    trained = Run.load(tmp_path / "trained")
    assert trained.summary["params_sha256"] == simulated.summary["params_sha256"]
    told = [run.summary["faults"] for run in (simulated, trained)]
    assert [sorted(entry["fault"] for entry in each) for each in told] == [[*range(len(HARMLESS))]] * 2
    keys, in_seconds = ("fault", "name", "worker", "at", "during", "round"), (2, 4)
    counted = [
        sorted(str([entry.get(key) for key in keys]) for entry in each if entry["fault"] not in in_seconds)
        for each in told
    ]
    assert counted[0] == counted[1]
    for run in (simulated, trained):
        pauses = [[span for span in lanes["faults"] if span[0] == "pause"] for lanes in run.lanes]
        assert [len(each) for each in pauses] == [3, 3]
        assert all(stop - start >= 0.2 - 1e-9 for each in pauses for _, start, stop in each)
        # One pause is in an evaluation, which does not count. Those of the two workers might overlap in time.
        assert run.summary["seconds"] >= 3 * 0.2
        assert run.summary["evaluation_seconds"] >= 0.2
        names = [[span[0] for span in lanes["faults"] if span[0] != "pause"] for lanes in run.lanes]
        assert names == [["straggler", "slowdown"], ["slowdown"]]


FATAL = {"computing": 3, "start": 3, "exchange": 4, "evaluation": 5, "checkpoint": 6}  # and after how many rounds


@pytest.mark.long
@pytest.mark.parametrize(("name", "status"), [("loss", 137), ("exception", 1)])
def test_what_ends_a_run_strikes_once(name, status, tmp_path):
    """In everything that a rank does. Each resumed run is ended by the next fault; the bits are those without any."""
    faults = [
        {"name": name, "worker": place % 2, "at": f"{rounds} rounds", "during": during}
        for place, (during, rounds) in enumerate(FATAL.items())
    ]
    described(tmp_path, *faults)
    more = ["s.yaml", "--out", "run"]
    for during in FATAL:
        done = paceline("train", *more, "--quiet", cwd=tmp_path, check=False)
        assert done.returncode == status, done.stderr
        assert struck.read(tmp_path / "run")[-1]["during"] == during
        if name == "exception":
            assert f"during: {during}" in done.stderr
        more = ["--resume", "run"]
    paceline("train", *more, "--quiet", cwd=tmp_path)
    summary, lines = read(tmp_path / "run")
    assert [entry["during"] for entry in summary["faults"]] == [*FATAL]
    plain = package.simulate(tmp_path / "s.yaml", settings=["faults=[]"])
    assert summary["params_sha256"] == plain.summary["params_sha256"]
    assert [line["train_loss"] for line in lines] == [line["train_loss"] for line in plain.lines]
    again = paceline("train", "s.yaml", "--out", "run", "--quiet", "--force", cwd=tmp_path, check=False)
    assert again.returncode == status, "a new run is struck again"
    assert [entry["fault"] for entry in struck.read(tmp_path / "run")] == [0]


@pytest.mark.long
@pytest.mark.parametrize(
    ("workers", "recovery", "redone"),
    [
        (2, {"max_restarts": 2}, [2, 3]),
        (4, {"shrink": True, "min_workers": 1}, [0, 0]),
        (4, {"shrink": True, "min_workers": 3, "max_restarts": 1}, [0, 3]),
    ],
)
def test_one_plan_for_both_worlds_over_losses(workers, recovery, redone, tmp_path):
    """A kill, then an exception. Both worlds do the same rounds again, and are struck by each fault once."""
    last = workers - 2
    faults = [
        {"name": "loss", "worker": 1, "at": "5 rounds"},
        {"name": "exception", "worker": last, "at": "9 rounds", "during": "checkpoint"},
        {"name": "slowdown", "worker": 0, "factor": 2, "start": "2 rounds"},
        {"name": "pause", "worker": 0, "at": "4 rounds", "duration": "200 ms"},
        {"name": "pause", "worker": workers - 1, "at": "10 rounds", "duration": "200 ms"},
    ]
    path = tmp_path / "s.yaml"
    more = {"checkpoint": {"every": "3 rounds"}, "faults": faults, "recovery": recovery}
    path.write_text(yaml.dump(scenario(workers, MLP, {"preset": "local_sgd", "H": 4}, 12, **more)))
    simulated = package.simulate(path, out=tmp_path / "simulated")
    paceline("train", path, "--out", "trained", "--quiet", cwd=tmp_path)
    trained = Run.load(tmp_path / "trained")
    assert trained.summary["params_sha256"] == simulated.summary["params_sha256"]
    for key, same in (
        ("faults", ("fault", "name", "worker", "at", "during", "round")),
        ("recoveries", ("how", "lost", "workers", "from_round", "redone")),
    ):
        told = [[[entry.get(each) for each in same] for entry in run.summary[key]] for run in (simulated, trained)]
        assert told[0] == told[1]
    assert [entry["redone"] for entry in trained.summary["recoveries"]] == redone
    assert [entry["lost"] for entry in trained.summary["recoveries"]] == [[1], [last]]


@pytest.mark.long
@pytest.mark.skipif(Star((0, 1), (2e6, 4e6)).obstacle() is not None, reason="no star can be laid here")
def test_a_link_of_a_star_is_slow_for_a_time(tmp_path):
    cluster = {"workers": [{"speed": "1000 samples/s", "count": 2}], "network": {"bandwidth": "20 Mbit/s"}}
    document = scenario(2, {"name": "mlp", "hidden": [256, 128]}, {"preset": "local_sgd", "H": 2}, 25, cluster=cluster)
    slow = {"name": "slow_link", "factor": 5, "start": "300 ms", "end": "1800 ms"}
    for link in ("worker 1", "worker 0", None):
        faults = [slow | ({"link": link} if link else {})]
        path = tmp_path / "s.yaml"
        path.write_text(yaml.dump(document | {"faults": faults, "train": {"emulate_network": True}}))
        paceline("train", path, "--out", "run", "--quiet", "--force", cwd=tmp_path)
        run = Run.load(tmp_path / "run")
        exchanges = [span for span in run.lanes[0]["network"] if span[0] == "parameters"]
        within = [stop - start for _, start, stop in exchanges if start > 0.35 and stop < 1.75]
        after = sorted(stop - start for _, start, stop in exchanges if start > 2.3)
        assert min(within) > 2 * after[len(after) // 2]
        (entry,) = run.summary["faults"]
        assert (entry["link"], entry["seconds"]) == (link or "all", 0.3)
        assert [bool(lanes.get("faults")) for lanes in run.lanes] == [link != "worker 1", link != "worker 0"]


@pytest.mark.parametrize(
    ("more", "link", "message"),
    [
        ({}, "worker 1", r"s: faults\[1\]: only the links of an emulated network .*; write --emulate-network"),
        (
            {"train": {"emulate_network": True}},
            "bus",
            r'link: bus cannot be made slow for real; write link: "worker 0"',
        ),
        ({"train": {"emulate_network": True}, "shape": "two_level"}, None, 'link: all links .*; write link: "node 0"'),
        ({"train": {"emulate_network": True}, "shape": "two_level"}, "node 7", "link: node 7 cannot be made slow"),
    ],
)
def test_what_cannot_be_done_for_real_is_one_line(more, link, message):
    shape = more.pop("shape", "star")
    network = {"shape": shape, "bandwidth": "1 Gbit/s"} | ({"inside": "10 GB/s"} if shape == "two_level" else {})
    fault = {"name": "slow_link", "factor": 2} | ({"link": link} if link else {})
    found = document({"name": "pause", "worker": 0, "at": "1 s", "duration": "1 s"}, fault, **more)
    found["cluster"]["network"] = network
    made = validate(found, "s")
    with pytest.raises(ScenarioError, match=message):
        check_real("s", made, resolve(made, Path()).timing)


def test_a_rank_has_the_faults_that_are_left(tmp_path):
    """None where none names it. What the clock has passed while nothing ran does not strike, nor what has struck."""
    loss = {"name": "loss", "worker": 1, "at": "2 s"}
    job = resolve(validate(document(HARMLESS[3], loss, loss | {"during": "exchange"}), "s"), Path())
    assert rank_faults(job, 0, tmp_path, State(), 0.0) is None
    found = rank_faults(job, 1, tmp_path, State(), 0.0)
    assert found is not None
    assert [number for _, _, number, _ in found.by_clock] == [1]
    found.end()
    struck.append(tmp_path, {"worker": 1, **mark(2, job.scenario.faults[2]), "round": 3, "seconds": 2.1})
    with (tmp_path / "struck.jsonl").open("a") as file:
        file.write('{"worker": 1, "fau')  # of a rank that was killed as it wrote
    found = rank_faults(job, 1, tmp_path, State(round=4, step=16), 3.0)
    assert found is not None
    found.end()
    assert found.by_clock == []


class Clock:
    """Stands for the module time."""

    def __init__(self) -> None:
        self.now, self.lost = 100.0, 0.0

    def perf_counter(self) -> float:
        return self.now

    def thread_time(self) -> float:
        return self.now - self.lost

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.mark.parametrize(("slowness", "price"), [(1.0, None), (2.0, None), (1.0, lambda work: 2.0)])
def test_slow_faults_multiply_what_is_emulated(slowness, price, monkeypatch):
    """Only the part of a computation that lies in a window is slow, and a pause is not made longer."""
    clock, events = Clock(), [{"name": "slowdown", "worker": 0, "factor": 4, "start": "1 s", "end": "9 s"}]
    monkeypatch.setattr("paceline.runtime.faults.time", clock)
    monkeypatch.setattr("paceline.runtime.emulation.time", clock)
    faults = RankFaults(remaining(read_faults(events), ()), 0)
    faults.zero = 100.0
    pauses = list[tuple[float, float]]()
    monkeypatch.setattr(
        faults, "paused", lambda a, b: sum(max(0, min(b, end) - max(a, start)) for start, end in pauses)
    )
    emulated, step = FaultyEmulation(slowness, price, faults), Work("step")
    # From 0 s on: a second at full speed, then a quarter of the speed.
    emulated.begin()
    clock.now += 1.0
    wanted = slowness if price is None else 2.0
    assert emulated(step, 100.0, clock.now) == pytest.approx(100 + 1 + 4 * (wanted - 1))
    # From 3 s on: a second, half of which is a pause.
    clock.now = 103.0
    emulated.begin()
    clock.now, clock.lost, pauses[:] = 104.0, 0.5, [(103.25, 103.75)]
    wanted = 0.5 * slowness if price is None else 2.0
    slow = 4 * wanted if wanted <= 1.5 else 6 + (wanted - 1.5)
    assert emulated(step, 103.0, clock.now) == pytest.approx(103 + 0.5 + slow)


def test_a_process_pauses_and_goes_on():
    code = (
        "import time; from paceline.runtime.pausing import Pausing; import os; p = Pausing(os.getpid())\n"
        "begin = time.perf_counter(); p.pause(0.2); p.pause(1e-6); took = time.perf_counter() - begin\n"
        "assert took >= p.within(begin, begin + took) >= 0.2, took; assert p.within(0, begin) == 0; p.close()"
    )
    subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": str(ROOT)}, check=True, timeout=60)
