"""Trials for profiles: what they watch, what they add, and which parts of their exchanges met a computation."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

import paceline
from kit.cli import scenario
from kit.plans import plan
from kit.toy import ToyWorker
from paceline import busy
from paceline.algorithms.aggregations import Gradients, Parameters
from paceline.algorithms.loop import train
from paceline.algorithms.rounds import Interval, State
from paceline.algorithms.schedules import Fixed
from paceline.algorithms.strategy import Strategy
from paceline.busy import Watch
from paceline.config import yaml
from paceline.config.profile import load_profile, workload_key
from paceline.config.scenario import validate
from paceline.program.effects import AllReduce, Compute, Handle, Move, Phantom, Program, Start, Wait, Work, nothing
from paceline.program.lockstep import lockstep
from paceline.program.outcome import Hooks
from paceline.runtime.job_folders import job_folders
from paceline.runtime.mpirun import command, environment, find_mpirun
from paceline.runtime.ranks import CORES, keep_to_own_cores
from paceline.trials import OVERLAPPED, Piece, Seen, late, parts_met, pieces_of, steps_for, trials, with_exchanges

QUIET = Hooks()


def watched(strategy: Strategy, change: Any = None) -> tuple[list[Seen], list[ToyWorker], list[Any]]:
    """Six steps of two toy workers."""
    p = plan(strategy, budget=Interval(6, "steps"), report=Interval(1000, "steps"))
    workers, seen = [ToyWorker(w, p) for w in range(2)], [Seen(2), Seen(2)]
    programs: list[Program[Any]] = [train(w, p, State()) for w in workers]  # type: ignore[arg-type]
    changed = [change()(program) if change else program for program in programs]
    return seen, workers, lockstep([s.watch(program) for s, program in zip(seen, changed, strict=True)], QUIET)


def test_what_is_watched_is_all_that_has_a_span_in_order():
    seen, workers, states = watched(Strategy(aggregation=Gradients(), schedule=Fixed(1)))
    bare, *_ = watched(Strategy(aggregation=Gradients(), schedule=Fixed(1)))
    computed = [(p.name, p.samples) for p in seen[0].pieces["compute"] if p.name != "evaluate"]
    assert computed == [("gradient", 4), ("update", 0)] * 6
    exchanges = [p for p in seen[0].pieces["network"] if p.phase not in ("evaluate", "begin")]
    assert len(exchanges) == 6
    assert {(p.name, p.nbytes) for p in exchanges} == {("AllReduce", workers[0].grads.nbytes)}
    assert seen[0].pieces == seen[1].pieces == bare[0].pieces
    assert [state.step for state in states] == [6, 6]
    local, *_ = watched(Strategy(aggregation=Parameters(), schedule=Fixed(3)))
    steps = [(p.name, p.first) for p in local[0].pieces["compute"] if p.name == "step"]
    assert steps == [("step", True), ("step", False), ("step", False)] * 2


def test_what_is_started_is_watched_where_it_begins():
    """A lane serves what is started in that order, whatever the order of the waits."""

    def program() -> Program[int]:
        first = yield from Start(Move(Phantom(8), "host"))
        second = yield from Start(Move(Phantom(16), "host", phase="late"))
        yield from Compute(Work("host update", fraction=0.5), nothing, on="host")
        yield from Wait(second)
        yield from Wait(first)
        return 7

    seen = Seen(1)
    assert lockstep([seen.watch(program())], QUIET) == [7]
    assert [(p.nbytes, p.phase) for p in seen.pieces["to host"]] == [(8, "move"), (16, "late")]
    assert seen.pieces["host"] == [Piece("host", "host update", part=0.5)]
    exchange = Piece("network", "AllReduce", nbytes=20, phase="sync")
    assert pieces_of(AllReduce(np.zeros(10, np.float32), wire="bf16"), 2) == [exchange]
    assert pieces_of(Wait(Handle(Move(Phantom(8), "host"))), 2) == []


def test_exchanges_are_added_after_updates_and_change_no_number():
    strategy = Strategy(aggregation=Gradients(), schedule=Fixed(1))
    seen, workers, _ = watched(strategy, lambda: with_exchanges((400, 8000)))
    _, plain, _ = watched(strategy)
    extra = [p.nbytes for p in seen[0].pieces["network"] if p.phase == "extra"]
    assert extra == [400, 8000] * 3
    for ours, theirs in zip(workers, plain, strict=True):
        assert ours.params.tobytes() == theirs.params.tobytes()


def test_which_part_of_an_exchange_met_a_computation():
    computed = [("a", 1.0, 2.0), ("b", 3.0, 5.0)]
    a, b = Piece("network", "AllReduce", nbytes=1), Piece("network", "AllReduce", nbytes=2)
    spans = [
        ("x", 0.0, 0.5),  # before all
        ("x", 1.5, 3.5),  # half a second of the first, half of the second
        ("x", 0.0, 6.0),  # both
        ("x", 5.0, 9.0),  # after all
        ("x", 4.0, 4.5),  # within one
        ("x", 2.0, 3.0),  # between them
    ]
    shares = [parts_met([a], [span], computed)[a] for span in spans]
    assert shares == pytest.approx([0.0, 0.5, 0.5, 0.0, 1.0, 0.0])
    assert parts_met([a, b, a], [spans[1], spans[3], spans[4]], computed) == {
        a: pytest.approx(0.75),
        b: pytest.approx(0.0),
    }
    assert parts_met([a], [("x", 4.0, 4.0)], computed) == {a: 0.0}, "no time, no part"


def test_a_phantom_is_late_by_what_it_has_slept_too_long():
    """What it slept too long once is taken off its next sleep."""
    computed = [("a", 0.0, 1.25), ("b", 2.0, 2.75), ("c", 3.0, 3.5)]
    moments = np.array([0.0, 1.25, 1.5, 2.8, 4.0])
    assert late(moments, computed, [1.0, 1.0, 0.75]).tolist() == [0.0, 0.25, 0.25, 0.0, 0.0], "never early"


@pytest.mark.parametrize(("units", "ranks"), [(1, 1), (1, 2), (4, 1), (4, 2)])
def test_trials_are_what_can_be_told_apart(units, ranks):
    found = set(trials(units, ranks))
    assert {"local", "flat", "fetched whole"} <= found
    assert ("kept" in found) == ("fetched" in found) == (units > 1)
    assert ("sharded" in found) == (ranks > 1)
    assert {name for name in found if name.endswith(OVERLAPPED)} == (
        {name + OVERLAPPED for name in ("kept", "fetched", "sharded") if name in found} if units > 1 else set()
    )


def test_trials_take_whole_rounds():
    assert [steps_for(seconds, 0.1, 8) for seconds in (0.0, 0.7, 0.8, 1.7, 1e9)] == [8, 8, 8, 16, 400]
    assert steps_for(1.0, 0.0, 8) == 400


# --- the machine ------------------------------------------------------------------------------------------------------


def test_a_busy_machine_is_said(monkeypatch):
    times = iter([[100, 0, 100, 800, 0, 0, 0, 0], *[[150, 0, 110, 830, 0, 0, 0, 10]] * 3])
    monkeypatch.setattr(busy, "_times", lambda: next(times))
    monkeypatch.setattr("os.getloadavg", lambda: (1.26, 5.0, 5.0))
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    watch = Watch()
    assert watch.said() == {"load_before": 1.26, "stolen": 0.1}
    loaded, stolen, drifted = watch.warnings(0.061)
    assert "load 1.3" in loaded
    assert "took 10 %" in stolen
    assert "varied by 6 %" in drifted
    monkeypatch.setattr("os.getloadavg", lambda: (1.0, 5.0, 5.0))
    monkeypatch.setattr(busy, "_times", lambda: [1] * 8)
    assert Watch().warnings(busy.DRIFT) == []


def test_the_stolen_time_is_read_where_linux_counts_it():
    found = busy._times()
    assert len(found) == 8
    assert sys.platform != "linux" or sum(found) > 0


@pytest.mark.parametrize(
    ("cores", "ranks", "threads", "own"),
    [
        ([0, 1, 2, 3], 2, 1, [[0, 1], [2, 3]]),
        ([0, 1, 2, 3], 2, 2, [[0, 1], [2, 3]]),
        ([4, 6, 9], 2, 1, [[4], [6, 9]]),
        ([0, 1, 2], 3, 1, [[0], [1], [2]]),
        ([0, 1, 2], 2, 2, [None, None]),  # there is no core for each thread
        ([0, 1], 1, 1, [None]),
        ([0, 1], 2, None, [None, None]),  # the launcher is not ours
    ],
)
def test_each_rank_keeps_to_its_part_of_its_hosts_cores(cores, ranks, threads, own, monkeypatch):
    kept: list[Any] = []
    monkeypatch.setattr("os.sched_setaffinity", lambda process, cores: kept.append(cores), raising=False)
    monkeypatch.setattr("os.sched_getaffinity", lambda process: set(cores), raising=False)
    monkeypatch.setenv("PMI_SIZE", "9")  # on all hosts
    monkeypatch.setenv("MPI_LOCALNRANKS", str(ranks))
    monkeypatch.delenv(CORES, raising=False)
    if threads is not None:
        monkeypatch.setenv(CORES, str(threads))
    for name in ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    for rank in range(ranks):
        monkeypatch.setenv("PMI_RANK", str(rank + 3))
        monkeypatch.setenv("MPI_LOCALRANKID", str(rank))
        kept.clear()
        keep_to_own_cores()
        assert kept == ([] if own[rank] is None else [own[rank]])


# --- the command ------------------------------------------------------------------------------------------------------

SHORT = "import paceline.measuring as m; m.SECONDS, m.REPEATS = 0.5, 1; from paceline.__main__ import main; main()"


def test_a_profile_of_two_ranks_has_all_sections_and_both_engines_read_it(tmp_path, monkeypatch):
    """As under an mpirun of the user's, with less time for each trial than a profile should have."""
    document = scenario(2, {"name": "mlp", "hidden": [16]}, {"preset": "fsdp"}, 4)
    document["cluster"] = {"workers": [{"device": "cpu", "count": 2}], "network": {"bandwidth": "1 Gbit/s"}}
    document["report"] = {"every": "2 rounds"}
    path, out = tmp_path / "s.yaml", tmp_path / "made" / "p.yaml"
    path.write_text(yaml.dump(document))
    mpirun = find_mpirun()
    line = command(mpirun, [sys.executable, "-c", SHORT, "profile", str(path), "--out", str(out)], 2)
    with job_folders(mpirun.kind) as folders:
        settings = environment(mpirun, 2, 1) | folders.variables
        done = subprocess.run(
            line, cwd=tmp_path, env=settings, capture_output=True, text=True, timeout=240, check=False
        )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "written to" in done.stdout
    found, key = load_profile(out), workload_key(validate(document, "here").workload)
    assert found.version == 2
    assert {"load_before", "stolen", "ranks"} <= set(found.machine)
    assert {"step", "gradient", "update", "evaluate"} <= set(found.devices["cpu"][key])
    assert list(found.devices["cpu"][key]["step"]) == [1, 2, 8, 16]
    pieces = found.pieces["cpu"][key]
    assert set(pieces.units) == {"kept", "fetched"}
    assert sum(pieces.units["kept"].forward.shares) == pytest.approx(1.0, abs=0.01)
    assert {phase: set(table) for phase, table in pieces.updates.items()} == {
        "update": {0.5, 1.0},
        "host update": {1.0},
    }
    assert list(pieces.first) == [1, 2, 8, 16]
    assert found.moves["cpu"].device
    assert found.moves["cpu"].host
    assert len(found.residuals["cpu"][key]) == 100
    assert found.variation["cpu"][key].lasting > 0
    assert found.network is not None
    assert found.network.described == 125e6
    assert found.network.pairs is None, "one host"
    assert 1_000_000 in found.network.all_reduce
    document["cluster"] |= {"profile": str(out), "noise": {"source": "profile"}}
    runs = [
        paceline.simulate(validate(document, "here"), timing_only=True, engine=engine) for engine in ("cohort", "simpy")
    ]
    ours, theirs = (json.dumps(run.summary | {"engine": ""}, default=str) for run in runs)
    assert ours == theirs
    assert runs[0].summary["seconds"] > 0
