"""What a simulation says of a run that loses workers and goes on: its clock by closed forms, and its numbers."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kit.cli import MLP, call, paceline, read, scenario
from paceline import simulate
from paceline.analysis.run import Run
from paceline.config import yaml
from paceline.config.scenario import load, validate
from paceline.handover import Division, Handover
from paceline.job import resolve
from paceline.program.errors import FaultStruck, ProtocolError, WorkerLost
from paceline.program.lockstep import lockstep
from paceline.program.outcome import Hooks
from paceline.records import checkpoints
from paceline.recovering import next_job
from paceline.resuming import state_of

SYNC = {"preset": "sync_sgd"}
RESTART = {"max_restarts": 3}
SHRINK = {"shrink": True, "min_workers": 1}
LOSS = {"name": "loss", "worker": 2}


def described(strategy: dict[str, Any], steps: int, *faults: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Four workers that take a second for a step, on an infinitely fast network."""
    cluster = {"workers": [{"speed": "8 samples/s", "count": 4}]}
    plain = {"report": {}, "checkpoint": {"every": "4 rounds"}, "budget": {"steps": steps}, "cluster": cluster}
    return scenario(4, MLP, strategy, 1, faults=[*faults], **plain | more)


def predicted(*arguments: Any, **more: Any) -> dict[str, Any]:
    return simulate(validate(described(*arguments, **more), "test"), timing_only=True).summary


def near(seconds: float) -> Any:
    return pytest.approx(seconds, rel=1e-12)


def local(H: int) -> dict[str, Any]:
    return {"preset": "local_sgd", "schedule": {"fixed": H}}


# --- the clock --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("H", "at", "recovery", "at_noticed", "redone", "seconds", "end"),
    [
        # With a step a second, noticed after 50 ms. A checkpoint after 4 rounds, the ranks start for 5 s.
        (1, "10.3 s", RESTART, 10.35, 2, 5.0, 10.35 + 5 + 12),
        (1, "10 rounds", RESTART, 10.05, 2, 5.0, 10.05 + 5 + 12),
        (1, "3.9 s", RESTART, 3.95, 3, 5.0, 3.95 + 5 + 20),  # from the beginning
        (1, "10.3 s", RESTART | {"detection": "2 s", "start": "1 min"}, 12.3, 2, 60.0, 12.3 + 60 + 12),
        (2, "16.1 s", RESTART, 16.15, 0, 5.0, 16.15 + 5 + 4),
        # The others finish the step that they are in, and go on from the sync before it.
        (1, "10.3 s", SHRINK, 11.0, 0, 0.0, 11.0 + 10),
        (1, "10.98 s", SHRINK, 11.03, 0, 0.0, 11.03 + 10),
        (1, "10 rounds", SHRINK, 11.0, 0, 0.0, 11.0 + 10),
        (4, "10.3 s", SHRINK, 12.0, 0, 0.0, 12.0 + 12),
        (4, "10.3 s", SHRINK | {"detection": "3 s"}, 13.3, 0, 0.0, 13.3 + 12),
        (1, "0.5 s", SHRINK, 1.0, 0, 0.0, 1.0 + 20),
    ],
)
def test_a_loss_costs_what_is_redone_and_the_recovery(H, at, recovery, at_noticed, redone, seconds, end):
    found = predicted(local(H) if H > 1 else SYNC, 20, LOSS | {"at": at}, recovery=recovery)
    (entry,) = found["recoveries"]
    how = "shrink" if "shrink" in recovery else "restart"
    assert (entry["how"], entry["lost"], entry["redone"]) == (how, [2], redone)
    assert (entry["at"], entry["seconds"], found["seconds"]) == (near(at_noticed), near(seconds), near(end))
    assert (found["workers"], found["steps"]) == (3 if how == "shrink" else 4, 20)
    assert found.get("resumed_at_round", 0) == (entry["from_round"] if how == "restart" else 0)
    first = entry["from_round"] if how == "restart" else 0
    assert found["syncs"].get("gradients", 0) + found["syncs"].get("parameters", 0) == 20 // H - first


@settings(max_examples=20, deadline=None)
@given(
    at=st.integers(1, 1990).map(lambda hundredths: hundredths / 100),
    every=st.integers(1, 6),
    detection=st.sampled_from([0.0, 0.05, 1.75]),
    shrink=st.booleans(),
)
def test_the_clock_after_a_loss_at_any_second(at, every, detection, shrink):
    """Rounds of one step and no checkpoints but the described ones."""
    recovery = (SHRINK if shrink else RESTART) | {"detection": f"{detection} s", "start": "5 s"}
    done = math.ceil(at) - 1 if at == int(at) else int(at)  # a worker lost as a step ends does not come to its sync
    found = predicted(SYNC, 20, LOSS | {"at": f"{at} s"}, recovery=recovery, checkpoint={"every": f"{every} rounds"})
    (entry,) = found["recoveries"]
    if shrink:
        met = max(done + 1, at + detection)
        assert (entry["from_round"], found["seconds"]) == (done, near(met + 20 - done))
    else:
        saved = done // every * every
        assert (entry["from_round"], entry["redone"]) == (saved, done - saved)
        assert found["seconds"] == near(at + detection + 5 + 20 - saved)


def test_losses_that_follow_one_another():
    events = [LOSS | {"worker": w, "at": at} for w, at in ((2, "3.5 s"), (3, "9.25 s"), (1, "9.5 s"))]
    found = predicted(SYNC, 20, *events, recovery=SHRINK)
    assert [(entry["lost"], entry["workers"], entry["at"]) for entry in found["recoveries"]] == [
        ([2], 3, near(4.0)),  # and the 17 rounds that are left begin here
        ([1, 3], 1, near(10.0)),
    ]
    assert found["seconds"] == near(10.0 + 20 - 8)
    found = predicted(SYNC, 20, *events, recovery=RESTART)
    # What would have struck at 9.25 s and 9.5 s struck the run that goes on at 8.55 s: one restart for both.
    assert [(entry["lost"], entry["at"]) for entry in found["recoveries"]] == [([2], near(3.55)), ([3], near(9.3))]
    assert found["seconds"] == near(9.3 + 5 + 20)


def test_a_new_process_takes_a_lost_workers_place():
    respawn = SHRINK | {"respawn": True, "start": "4.5 s"}
    found = predicted(SYNC, 20, LOSS | {"at": "5 rounds"}, recovery=respawn)
    shrink, join = found["recoveries"]
    assert (shrink["at"], shrink["workers"]) == (near(6.0), 3)
    # The others do one round; then all are started again.
    assert (join["how"], join["lost"], join["workers"], join["from_round"]) == ("join", [2], 4, 6)
    assert (join["at"], join["seconds"], join["start"], join["redone"]) == (near(7.0), near(4.5), 4.5, 0)
    assert (found["seconds"], found["resumed_at_round"]) == (near(7.0 + 4.5 + 14), 6)
    assert found["computing_seconds"] == [near(14.0)] * 4
    last = predicted(SYNC, 20, LOSS | {"at": "19 rounds"}, recovery=respawn)
    assert [entry["how"] for entry in last["recoveries"]] == ["shrink"], "nothing is left to do"
    events = [LOSS | {"at": at, "worker": w} for at, w in (("5 rounds", 2), ("6.2 s", 3), ("13 rounds", 1))]
    events.append(LOSS | {"at": "7 rounds", "worker": 0})
    often = predicted(SYNC, 20, *events, recovery=respawn | RESTART)["recoveries"]
    assert [(entry["how"], entry["lost"], entry["workers"], entry["from_round"]) for entry in often] == [
        ("shrink", [2], 3, 5),
        ("shrink", [3], 2, 5),
        ("join", [2, 3], 4, 6),
        ("restart", [0], 4, 6),  # from the checkpoint of workers 0 and 1
        ("shrink", [1], 3, 13),
        ("join", [1], 4, 14),
    ]


def test_worker_0_and_too_few_workers_need_a_restart():
    both = SHRINK | {"max_restarts": 1}
    (entry,) = predicted(SYNC, 20, LOSS | {"worker": 0, "at": "10.3 s"}, recovery=both)["recoveries"]
    assert (entry["how"], entry["at"], entry["workers"]) == ("restart", near(10.35), 4)
    few = both | {"min_workers": 3}
    events = [LOSS | {"worker": w, "at": at} for w, at in ((1, "10.3 s"), (3, "10.9 s"))]
    (entry,) = predicted(SYNC, 20, *events, recovery=few)["recoveries"]
    assert (entry["how"], entry["lost"], entry["at"]) == ("restart", [1, 3], near(11.0)), "noticed as the two had met"
    sharded = predicted({"preset": "fsdp"}, 20, LOSS | {"at": "10.3 s"}, recovery=both)["recoveries"]
    assert [entry["how"] for entry in sharded] == ["restart"]


def test_a_run_that_cannot_go_on_ends_in_one_line(tmp_path, monkeypatch, capsys):
    path = tmp_path / "s.yaml"
    path.write_text(yaml.dump(described(SYNC, 20, *(LOSS | {"at": f"{n} rounds"} for n in (5, 6)))))
    line = ["simulate", path, "--timing-only", "--out", tmp_path / "run"]
    status, _, err = call(monkeypatch, capsys, *line)
    assert (status, err.count("\n")) == (1, 1)
    assert "worker 2 is lost, and no other worker takes over: each of workers 0, 1, 3 waits in AllReduce" in err
    status, _, err = call(monkeypatch, capsys, *line, "--force", "--max-restarts", 1)
    assert (status, err.count("\n")) == (1, 1)
    assert "worker 2 was lost at 12.05 s while it is in Compute" in err
    assert err.endswith("; the run has restarted once (max_restarts)\n")
    assert call(monkeypatch, capsys, *line, "--force", "--max-restarts", 2)[0] == 0
    assert [entry["from_round"] for entry in read(tmp_path / "run")[0]["recoveries"]] == [4, 4]
    status, _, err = call(monkeypatch, capsys, *line, "--force", "--min-workers", 4, "--shrink")
    assert (status, err.endswith("; 3 workers remain, and min_workers is 4; max_restarts is 0\n")) == (1, True)
    status, _, err = call(monkeypatch, capsys, *line, "--force", "--max-restarts", 2, "--limit", "8 s")
    assert (status, "not finished after the limit of 8 s: workers go on at 10.05 s only" in err) == (2, True)


def test_an_exception_and_a_loss_as_a_worker_begins_something():
    raised = {"name": "exception", "worker": 1, "at": "5 rounds"}
    for recovery, end in ((RESTART, 5.05 + 5 + 16), (SHRINK, 6.0 + 15)):
        found = predicted(SYNC, 20, raised, recovery=recovery)
        assert (found["seconds"], found["recoveries"][0]["lost"]) == (near(end), [1])
        assert [(entry["name"], entry["worker"]) for entry in found["faults"]] == [("exception", 1)]
    with pytest.raises(FaultStruck, match=r"worker 1 failed: the exception of faults\[0\], at: 5 rounds"):
        predicted(SYNC, 20, raised)
    again = [LOSS | {"at": "0 s", "during": "start"}, LOSS | {"worker": 3, "at": "7 rounds", "during": "exchange"}]
    found = predicted(SYNC, 20, *again, recovery=RESTART)
    assert [(entry["lost"], entry["at"]) for entry in found["recoveries"]] == [([2], near(0.05)), ([3], near(13.1))]
    assert found["seconds"] == near(13.1 + 5 + 16)


def test_times_of_faults_and_limit_count_from_the_start_of_the_run():
    slow = {"name": "slowdown", "worker": 0, "factor": 3, "start": "12 s", "end": "18 s"}
    found = predicted(SYNC, 20, LOSS | {"at": "10.3 s"}, slow, recovery=RESTART)
    # From 15.35 s on, 2.65 s are slow.
    assert found["seconds"] == near(15.35 + 12 + 2.65 * 2 / 3)
    document = described(SYNC, 20, LOSS | {"at": "10.3 s"}, recovery=RESTART)
    with pytest.raises(ProtocolError, match="not finished after the limit of 20 s"):
        simulate(validate(document, "test"), timing_only=True, limit=20.0)
    assert simulate(validate(document, "test"), timing_only=True, limit=1000.0).summary["seconds"] == near(27.35)
    document["faults"].append(LOSS | {"worker": 1, "at": "1 h"})  # after the end of the run, and after the limit
    assert simulate(validate(document, "test"), timing_only=True, limit=1000.0).summary["seconds"] == near(27.35)


def test_a_loss_between_the_moments_at_which_workers_pass_a_sync():
    """Worker 0 pauses at a sync that worker 2 has passed: its checkpoint is not whole as worker 2 is lost."""
    pause = {"name": "pause", "worker": 0, "at": "8 rounds", "during": "checkpoint", "duration": "700 ms"}
    found = predicted(SYNC, 20, LOSS | {"at": "8.3 s"}, pause, recovery=RESTART)
    (entry,) = found["recoveries"]
    assert (entry["from_round"], entry["redone"], found["seconds"]) == (4, 3, near(8.35 + 5 + 16))


# --- the numbers ------------------------------------------------------------------------------------------------------

METHODS: dict[str, Any] = {
    "sync": SYNC,
    "local": local(3),
    "slowmo": {"preset": "slowmo", "H": 3},
    "biased": {"preset": "biased_local_sgd", "H": 3, "sampling": {"top_loss": {"refresh": 2}}},
}


def run(strategy: dict[str, Any], *faults: dict[str, Any], out: Path | None = None, **more: Any) -> Run:
    usual = {"report": {"every": "2 rounds", "trace": True}, "checkpoint": {"every": "3 rounds"}}
    timing_only = more.pop("timing_only", False)
    found = validate(scenario(3, MLP, strategy, 9, faults=[*faults], **usual | more), "test")
    return simulate(found, timing_only=timing_only, out=out)


@pytest.mark.parametrize("method", ["slowmo", "biased"])
def test_a_restarted_run_has_the_numbers_of_one_without_a_loss(method, tmp_path):
    loss = LOSS | {"at": "5 rounds"}
    plain, found = run(METHODS[method]), run(METHODS[method], loss, recovery=RESTART, out=tmp_path / "full")
    assert found.summary["params_sha256"] == plain.summary["params_sha256"]
    numbers = [[{k: v for k, v in line.items() if k != "seconds"} for line in each.lines] for each in (plain, found)]
    assert numbers[0] == numbers[1]
    in_memory = run(METHODS[method], loss, recovery=RESTART)
    assert (in_memory.lines, in_memory.summary) == (found.lines, found.summary)
    quick = run(METHODS[method], loss, recovery=RESTART, timing_only=True)
    assert [line["seconds"] for line in quick.lines] == [line["seconds"] for line in found.lines]
    assert quick.summary["recoveries"] == found.summary["recoveries"]


@pytest.mark.parametrize(("method", "respawn"), [("sync", True), ("biased", True), ("biased", False)])
def test_a_shrunk_run_has_the_same_clock_with_and_without_numbers(method, respawn, tmp_path):
    loss = LOSS | {"at": "3 rounds", "worker": 1}
    recovery = SHRINK | {"respawn": respawn, "start": "50 ms"}
    found, quick = (
        run(METHODS[method], loss, recovery=recovery, timing_only=timing_only) for timing_only in (False, True)
    )
    assert [line["seconds"] for line in quick.lines] == [line["seconds"] for line in found.lines]
    assert [line["samples"] for line in quick.lines] == [line["samples"] for line in found.lines]
    for key in ("seconds", "recoveries", "bytes_per_worker", "computing_seconds", "idle_share", "evaluation_seconds"):
        assert quick.summary[key] == found.summary[key]
    assert [entry["how"] for entry in found.summary["recoveries"]] == ["shrink", "join"][: 1 + respawn]
    assert found.summary["workers"] == 2 + respawn
    assert found.summary["replicas_agree"]
    assert quick.lanes == found.lanes
    assert all({"rounds", "compute", "network"} <= lanes.keys() for lanes in found.lanes)
    ends = [max(stop for spans in lanes.values() for _, _, stop in spans) for lanes in found.lanes]
    assert (ends[1] < ends[0]) == (not respawn)
    assert ends[0] == ends[2]


@pytest.mark.parametrize("method", ["local", "biased"])
def test_a_shrunk_run_has_the_numbers_of_workers_that_go_on_from_a_checkpoint(method, tmp_path):
    document = scenario(3, MLP, METHODS[method], 9, checkpoint={"every": "1 round"}, report={"every": "2 rounds"})
    (tmp_path / "s.yaml").write_text(yaml.dump(document))
    simulate(tmp_path / "s.yaml", out=tmp_path / "run")
    job = resolve(load(tmp_path / "s.yaml"), tmp_path)
    left = next_job(job, [1])
    handover = Handover(Division.of(job.plan), left.plan, [0, 2])
    saved = tmp_path / "run" / "checkpoints" / "round_000005"
    workers = left.problem.workers(left.plan, range(2), shared_process=True)
    for number, worker in enumerate(workers):
        fresh = worker.snapshot()
        worker.restore(handover.snapshot(number, lambda source: checkpoints.read_worker(saved, source), fresh))
    state = state_of(checkpoints.read_meta(saved)["state"], saved)
    lockstep(left.programs(workers, handover.state(state)), Hooks())
    loss = json.dumps(LOSS | {"at": "5 rounds", "worker": 1})
    found = simulate(tmp_path / "s.yaml", settings=[f"faults=[{loss}]", "recovery={shrink: true, min_workers: 2}"])
    assert found.summary["recoveries"][0]["from_round"] == 5
    assert found.summary["params_sha256"] == workers[0].digest()


@pytest.mark.long
@pytest.mark.parametrize(
    ("rounds", "flags"),
    [
        ([5], ["--shrink", "--min-workers", 2]),
        ([5], ["--max-restarts", 1]),
        # Worker 0 is lost, too. The newest checkpoint is of the two that are left, of all three, or there is none.
        ([5, 7], ["--shrink", "--min-workers", 1, "--max-restarts", 1]),
        ([4, 5], ["--shrink", "--min-workers", 1, "--max-restarts", 1]),
        ([1, 2], ["--shrink", "--min-workers", 1, "--max-restarts", 1]),
        # Worker 1 joins again after round 6; then worker 0 is lost, and all go on from the checkpoint of the others.
        ([5, 7], ["--shrink", "--min-workers", 2, "--max-restarts", 1, "--set=recovery.respawn=true"]),
    ],
)
def test_a_real_run_goes_on_as_predicted(rounds, flags, tmp_path):
    losses = [
        LOSS | {"worker": worker, "at": f"{round} rounds", "during": "exchange"}
        for worker, round in zip((1, 0), rounds, strict=False)
    ]
    document = scenario(3, MLP, local(2), 8, faults=losses, checkpoint={"every": "3 rounds"})
    (tmp_path / "s.yaml").write_text(yaml.dump(document))
    for command in ("simulate", "train"):
        paceline(command, tmp_path / "s.yaml", *flags, "--out", tmp_path / command, cwd=tmp_path)
    (predicted, foreseen), (real, lines) = (read(tmp_path / command) for command in ("simulate", "train"))
    for key in ("params_sha256", "workers", "samples", "syncs", "bytes_per_worker"):
        assert predicted[key] == real[key]
    keys = ("how", "lost", "workers", "from_round", "redone")
    told = [[[entry[key] for key in keys] for entry in each["recoveries"]] for each in (predicted, real)]
    assert told[0] == told[1]
    assert len(told[0]) == len(rounds) + ("--set=recovery.respawn=true" in flags)
    assert [each["train_loss"] for each in foreseen] == [each["train_loss"] for each in lines]
    figures = ["compare", tmp_path / "simulate", tmp_path / "train", "--figures", tmp_path / "figures"]
    assert paceline(*figures, cwd=tmp_path).stderr == ""


MOMENTS = st.integers(0, 3000).map(lambda ms: f"{ms} ms") | st.integers(0, 12).map(lambda n: f"{n} rounds")
LOSSES = st.fixed_dictionaries(
    {"name": st.sampled_from(["loss", "exception"]), "worker": st.integers(0, 2), "at": MOMENTS},
    optional={"during": st.sampled_from(["computing", "exchange", "evaluation", "checkpoint", "start"])},
)
RECOVERIES = st.sampled_from([RESTART, SHRINK, SHRINK | RESTART, SHRINK | {"respawn": True}])


@pytest.mark.long
@settings(max_examples=60, deadline=None)
@given(
    losses=st.lists(LOSSES, min_size=1, max_size=4),
    recovery=RECOVERIES,
    method=st.sampled_from([*METHODS.values(), {"preset": "fsdp"}, {"preset": "lsdp"}]),
    noise=st.sampled_from([0.0, 0.2]),
)
def test_any_losses_cost_the_same_with_and_without_numbers(losses, recovery, method, noise):
    cluster = {"workers": [{"speed": "100 samples/s", "count": 3}], "noise": {"sigma": noise}}
    cluster["network"] = {"shape": "star", "bandwidth": "20 MB/s", "latency": "100 us"}
    found: list[Any] = []
    for timing_only in (True, False):
        try:
            found.append(run(method, *losses, recovery=recovery, cluster=cluster, timing_only=timing_only))
        except (WorkerLost, FaultStruck) as error:
            found.append(str(error).partition(":")[0])  # which worker is lost, or failed
    if isinstance(found[0], str):
        assert found[0] == found[1]
        return
    quick, full = found
    clocks = [line["seconds"] for line in quick.lines]
    assert clocks == [line["seconds"] for line in full.lines] == sorted(clocks)
    for key in (
        "seconds",
        "bytes_per_worker",
        "computing_seconds",
        "evaluation_seconds",
        "syncs",
        "workers",
        "samples",
    ):
        assert quick.summary[key] == full.summary[key]
    assert quick.summary.get("recoveries") == full.summary.get("recoveries")
    assert quick.lanes == full.lanes


def test_what_a_checkpoint_does_not_keep_is_not_there_after_a_restart():
    loss = LOSS | {"at": "5 rounds"}
    kept = [{"every": "3 rounds", "optimizer": kept} for kept in ("local", "shared", "none")]
    shas = {run(local(3), loss, recovery=RESTART, checkpoint=each).summary["params_sha256"] for each in kept}
    assert len(shas) == 3


# --- the records ------------------------------------------------------------------------------------------------------


def test_records_of_a_run_with_recoveries(tmp_path):
    events = [LOSS | {"at": "5 rounds"}, LOSS | {"worker": 0, "at": "8 rounds"}]
    both = SHRINK | {"max_restarts": 1, "start": "10 ms"}
    found = run(local(3), *events, out=tmp_path / "run", recovery=both)
    loaded = Run.load(tmp_path / "run")
    entries = loaded.summary["recoveries"]
    assert [(entry["how"], entry["lost"], entry["from_round"]) for entry in entries] == [
        ("shrink", [2], 5),
        ("restart", [0], 6),
    ]
    history = loaded.scenario["recorded"]["history"]
    assert [part.get("recovery") for part in history] == [None, *entries]
    assert [line["round"] for line in loaded.lines] == [2, 4, 6, 8, 9]
    clocks = [line["seconds"] for line in loaded.lines]
    assert clocks == sorted(clocks)
    spans = loaded.lanes[0]["recovery"]
    assert [stop - start for _, start, stop in spans] == [pytest.approx(e["seconds"], abs=1e-9) for e in entries]
    assert (loaded.summary["workers"], loaded.summary["resumed_at_round"]) == (2, 6)
    checkpoints = sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir())
    assert checkpoints == ["round_000003", "round_000006", "round_000009"]
    again = simulate(tmp_path / "run" / "scenario.yaml")  # a run's own scenario repeats it
    assert again.summary["params_sha256"] == found.summary["params_sha256"]
    assert again.summary["recoveries"] == entries


def test_a_sweep_over_recoveries(tmp_path, monkeypatch, capsys):
    (tmp_path / "s.yaml").write_text(yaml.dump(described(SYNC, 20, LOSS | {"at": "10 rounds"}, recovery=RESTART)))
    grids = ["--grid", "recovery.start=1 s,9 s", "--grid", "recovery.max_restarts=0,1"]
    line = ["sweep", tmp_path / "s.yaml", *grids, "-j", 1, "--quiet", "--out", tmp_path / "t.json"]
    assert call(monkeypatch, capsys, *line)[0] == 0
    rows = json.loads((tmp_path / "t.json").read_text())
    assert [row["seconds"] for row in rows] == [None, near(10.05 + 1 + 12), None, near(10.05 + 9 + 12)]
    assert all("worker 2 is lost" in row["error"] for row in rows[::2])
