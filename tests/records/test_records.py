"""Run directories, checkpoints and traces: each is whole or absent, and is read back as it was written."""

from __future__ import annotations

import gzip
import json
import tracemalloc

import numpy as np
import pytest

from paceline.algorithms.rounds import State
from paceline.analysis.run import Run
from paceline.config.timing import Device, Timing
from paceline.program.effects import Compute, Program, Work, nothing
from paceline.program.errors import ScenarioError
from paceline.program.outcome import Hooks, Outcome, Spans
from paceline.records import checkpoints
from paceline.records.recorder import Recorder, per_epoch
from paceline.records.replacing import prepare
from paceline.records.trace import read_trace, split_waits, streamed_trace, write_trace
from paceline.sim.engine import simulate


def line(round: int, epoch: float = 0.0) -> dict:
    tested = {"train_loss": 1.0, "test_loss": 2.0, "accuracy": 0.5}
    return {"round": round, "step": round, "samples": 4 * round, "epoch": epoch, **tested}


def test_lines_without_an_evaluation_are_no_results(tmp_path):
    recorder = Recorder(tmp_path)
    logged = {key: value for key, value in line(3, 1.5).items() if key not in ("test_loss", "accuracy")}
    for fields in (line(1, 0.5), line(2, 1.0), logged | {"train_loss": 9.0}):
        recorder.log(0, 1.0, fields)
    summary = recorder.finish("simpy", [Outcome(0, result=State(round=3))], 1.0, {})
    assert (summary["accuracy"], summary["train_loss"]) == (0.5, 1.0)
    assert [(tmp_path / name).read_text() for name in ("loss.txt", "acc.txt")] == ["1.0\n", "0.5\n"]
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 3


def test_prepare_never_overwrites(tmp_path):
    (tmp_path / "summary.json").write_text("{}")
    (tmp_path / "scenario.yaml").write_text("recorded: {}")
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ScenarioError, match="--force"):
        prepare(tmp_path, force=False)
    assert (tmp_path / "summary.json").exists()
    prepare(tmp_path, force=True)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"notes.txt", ".replaced-1"}, "force moves a run's files and nothing else"
    with pytest.raises(ScenarioError, match="is a file"):
        prepare(tmp_path / "notes.txt", force=True)


def test_checkpoints_are_whole_or_absent(tmp_path):
    arrays = {"params": np.arange(5, dtype=np.float32), "rng": np.arange(3, dtype=np.uint8)}
    first = checkpoints.write_worker(tmp_path, 0, 7, arrays)
    assert checkpoints.newest(tmp_path) is None, "one of two workers has written"
    second = checkpoints.write_worker(tmp_path, 1, 7, {"rng": arrays["rng"]})
    saved = checkpoints.commit(tmp_path, [first, second], State(round=7, step=14), 1.5)
    assert checkpoints.newest(tmp_path) == saved
    meta = checkpoints.read_meta(saved)
    assert State(**meta["state"]) == State(round=7, step=14)
    for name, array in checkpoints.read_worker(saved, 0).items():
        assert np.array_equal(array, arrays[name])
    checkpoints.write_worker(tmp_path, 0, 7, arrays)  # the same round again, after a resume
    assert checkpoints.commit(tmp_path, [first], State(round=7), 2.0) == saved
    (saved / "meta.json").write_text("{}")
    with pytest.raises(ScenarioError, match=r"meta\.json: workers: Field required"):
        checkpoints.read_meta(saved)
    (saved / "worker_0.safetensors").write_bytes(b"broken")
    with pytest.raises(ScenarioError, match=r"worker_0.safetensors: cannot be read"):
        checkpoints.read_worker(saved, 0)


@pytest.mark.parametrize("written", ["local", "shared", "none"])
def test_a_run_resumes_with_the_optimizer_that_it_is_told(written, tmp_path):
    fresh = {"rng": np.zeros(1), "optimizer.momentum": np.zeros(3)}
    for worker in (0, 1):
        own = {"rng": np.full(1, worker), "optimizer.momentum": np.full(3, 1.0 + worker)}
        checkpoints.write_worker(tmp_path, worker, 1, own, written)
    saved = checkpoints.commit(tmp_path, ["", ""], State(round=1), 0.0)

    def momentum(worker: int, optimizer: str) -> float:
        found = checkpoints.resumed(saved, worker, optimizer, fresh)
        assert found["rng"][0] == worker
        return found["optimizer.momentum"][0]

    assert (momentum(0, "none"), momentum(1, "none")) == (0.0, 0.0)
    if written == "none":
        with pytest.raises(ScenarioError, match=r"state for worker 0; write checkpoint\.optimizer: none for zeros"):
            momentum(0, "shared")
    else:
        assert (momentum(0, "shared"), momentum(1, "shared")) == (1.0, 1.0)
        assert momentum(0, "local") == 1.0
    if written == "local":
        assert momentum(1, "local") == 2.0
    else:
        with pytest.raises(ScenarioError, match=r"state for worker 1; .*: shared for worker 0's, or none for zeros"):
            momentum(1, "local")
    plain = checkpoints.resumed(saved, 1, "none", {"rng": np.zeros(1)})
    assert set(plain) == {"rng"}, "plain SGD has no state"


def test_a_resumed_run_keeps_the_lines_before_its_checkpoint(tmp_path):
    first = Recorder(tmp_path)
    for number in (1, 2, 3):
        first.log(0, float(number), line(number))
    again = Recorder(tmp_path)
    again.resume(2, 2.5)
    again.log(0, 0.5, line(3))
    rows = [json.loads(text) for text in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(row["round"], row["seconds"]) for row in rows] == [(1, 1.0), (2, 2.0), (3, 3.0)]


def test_one_line_per_epoch():
    lines = [line(1, 0.4), line(2, 1.0), line(3, 1.5), line(4, 3.1), line(5, 3.5)]
    assert [row["round"] for row in per_epoch(lines)] == [2, 4, 5]
    assert not [*per_epoch([])]


def test_trace_reads_back(tmp_path):
    lanes = [{"compute": [("step", 0.1, 0.25)], "network": [("parameters", 0.25, 0.5)]}, {"compute": []}]
    write_trace(tmp_path / "t.json.gz", lanes)
    read = read_trace(tmp_path / "t.json.gz")
    assert len(read) == 2
    assert read[0]["compute"] == [("step", pytest.approx(0.1), pytest.approx(0.25))]


WORK = Work("step", 1)


def tracks(path) -> dict[tuple[int, int], list[dict]]:
    """The trace's events by process and thread, after checking what the format asks for.

    Each track has a name; its events come in the order of time, and each lies within the one that it is nested in.
    """
    events = json.loads(gzip.decompress(path.read_bytes()))["traceEvents"]
    named = {(e["pid"], e["tid"]): e["args"]["name"] for e in events if e["name"] == "thread_name"}
    found: dict[tuple[int, int], list[dict]] = {key: [] for key in named}
    for event in events:
        if event["ph"] == "X":
            found[event["pid"], event["tid"]].append(event)
    slack = 1e-3  # microseconds
    for spans in found.values():
        open_: list[float] = []
        last = 0.0
        for span in spans:
            start, stop = span["ts"], span["ts"] + span["dur"]
            assert start >= last - slack
            while open_ and open_[-1] <= start + slack:
                open_.pop()
            assert not open_ or stop <= open_[-1] + slack, span
            open_.append(stop)
            last = start
    return found


def test_computing_is_nested_in_rounds_steps_and_passes(tmp_path):
    units = [("forward 0", 0, 1), ("forward 1", 1, 2), ("backward 1", 2, 4), ("backward 0", 4, 6), ("update", 6, 7)]
    again = [(name, start + 10, stop + 10) for name, start, stop in units]
    compute = [*units, *again, ("step", 20, 21), ("step", 21, 22), ("evaluate", 22, 24)]
    rounds = [("round 1", 0, 18), ("round 2", 18, 24)]
    network = [("gradients", 3, 8), ("gradients", 4, 9), ("gradients", 8.5, 10)]  # two of them at once
    path = tmp_path / "t.json.gz"
    write_trace(path, [{"network": network, "compute": compute, "rounds": rounds}])
    found = tracks(path)
    first, second, third = (found[0, tid] for tid in range(3))
    names = ["round 1", "step", "forward", "forward 0", "forward 1", "backward", "backward 1", "backward 0", "update"]
    assert [e["name"] for e in first] == [*names, *names[1:], "round 2", "step", "step", "evaluate"]
    assert [e["cat"] for e in first[:4]] == ["round", "step", "pass", "span"]
    assert [(e["ts"], e["dur"]) for e in first[:3]] == [(0, 18e6), (0, 7e6), (0, 2e6)]
    assert [[e["ts"] for e in track] for track in (second, third)] == [[3e6, 8.5e6], [4e6]]
    (read,) = read_trace(path)
    assert read == {"compute": compute, "rounds": rounds, "network": network}


def test_what_crosses_a_rounds_end_has_a_track_of_its_own(tmp_path):
    compute = [("step", 0, 1), ("late", 1, 3), ("step", 3, 4)]
    write_trace(tmp_path / "t.json.gz", [{"compute": compute, "rounds": [("round 1", 0, 2), ("round 2", 2, 5)]}])
    found = tracks(tmp_path / "t.json.gz")
    assert [[e["name"] for e in spans] for spans in found.values()] == [
        ["round 1", "step", "round 2", "step"],
        ["late"],
    ]


def test_spans_are_tuples_in_columns():
    spans = Spans()
    for place, name in enumerate("abc"):
        spans.add(name, place, place + 0.5)
    assert list(spans) == [("a", 0.0, 0.5), ("b", 1.0, 1.5), ("c", 2.0, 2.5)]
    assert spans[-1] == ("c", 2.0, 2.5)
    assert list(spans.take(2)) == [("a", 0.0, 0.5), ("b", 1.0, 1.5)]
    assert list(spans) == [("c", 2.0, 2.5)]


def test_spans_are_spooled_and_come_back(tmp_path):
    with streamed_trace(tmp_path, 2) as take:
        take(1, "compute", Spans(["a", "b"], [0.1, 0.2], [0.2, 0.3]))
        take(0, "compute", Spans(["b"], [0.0], [1 / 3]))
        take(1, "compute", Spans(["c"], [0.3], [0.4]))
    read = read_trace(tmp_path / "trace.json.gz")
    assert [name for name, _, _ in read[1]["compute"]] == ["a", "b", "c"]
    assert read[0]["compute"][0][2] == pytest.approx(1 / 3, rel=1e-14)
    assert [path.name for path in tmp_path.iterdir()] == ["trace.json.gz"]


def test_a_run_that_fails_leaves_its_trace(tmp_path):
    def fail() -> None:
        with streamed_trace(tmp_path, 1) as take:
            take(0, "compute", Spans(["a"], [0.1], [0.2]))
            raise OSError("disk")

    with pytest.raises(OSError, match="disk"):
        fail()
    assert read_trace(tmp_path / "trace.json.gz")[0]["compute"][0][0] == "a"


def test_memory_stays_flat_while_a_run_is_traced(tmp_path):
    def program(count: int) -> Program[None]:
        for _ in range(count):
            yield from Compute(WORK, nothing)

    timing = Timing((Device("d", speed=1.0),) * 2)

    def peak(count: int) -> int:
        tracemalloc.start()
        with streamed_trace(tmp_path, 2) as take:
            hooks = Hooks(spans=take)
            outcomes = simulate([program(count), program(count)], timing, hooks, trace=True)
        assert outcomes[0].lanes == {}
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    assert peak(20_000) < 1.5 * peak(4_000)
    assert len(read_trace(tmp_path / "trace.json.gz")[1]["compute"]) == 4_000


def test_waits_are_cut_from_exchanges():
    ranks = [
        {"network": [("begin", 0.0, 1.0), ("sync", 2.0, 6.0)]},
        {"network": [("begin", 0.5, 1.0), ("sync", 5.0, 6.0)]},
    ]
    first, second = split_waits(ranks)
    assert list(first["network"]) == [("wait", 0.0, 0.5), ("begin", 0.5, 1.0), ("wait", 2.0, 5.0), ("sync", 5.0, 6.0)]
    assert list(second["network"]) == ranks[1]["network"]
    alone = split_waits([{"network": [("sync", 0.0, 1.0)]}, {"network": []}])
    assert list(alone[0]["network"]) == [("sync", 0.0, 1.0)], "a group's exchange stays whole"


def test_run_load_says_what_is_missing(tmp_path):
    with pytest.raises(ScenarioError, match="it holds no run"):
        Run.load(tmp_path)
    (tmp_path / "scenario.yaml").write_text("seed: 1")
    with pytest.raises(ScenarioError, match="did not finish"):
        Run.load(tmp_path)


@pytest.mark.parametrize("accuracy", [None, float("nan"), 0.5])
def test_a_run_stopped_before_its_first_report_can_be_shown(accuracy, capsys):
    from paceline.printing import show_run

    summary = {"engine": "mpi", "workers": 2, "rounds": 1, "steps": 8, "samples": 64, "seconds": 0.5}
    summary |= {"idle_share": [0.1, 0.0], "bytes_per_worker": [8.0, 8.0], "accuracy": accuracy, "train_loss": 0.1}
    run = Run(summary, [], {})
    show_run(run)
    assert ("accuracy" in capsys.readouterr().out) == ("accuracy" in repr(run)) == (accuracy == 0.5)
