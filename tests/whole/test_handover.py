"""A run that goes on with another number of workers: what each of them begins with, and where the run is."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kit.cli import MLP, call, paceline, read, scenario
from paceline import simulate
from paceline.algorithms.rounds import State
from paceline.config import yaml
from paceline.config.fewer_workers import remaining
from paceline.config.scenario import load
from paceline.exporting import trained
from paceline.handover import Division, Handover
from paceline.job import Job, resolve
from paceline.program.effects import Array
from paceline.program.lockstep import lockstep
from paceline.program.outcome import Hooks
from paceline.records import checkpoints
from paceline.recovering import check_fewer, next_job
from paceline.replicas import fingerprints
from paceline.resuming import _gone_since, resumption
from paceline.sim.engine import simulate as run_programs

WORKLOAD = {"model": MLP, "data": "digits", "batch": 8, "optimizer": {"name": "sgd", "lr": 0.05, "momentum": 0.9}}
ADAMW = WORKLOAD | {"optimizer": {"name": "adamw", "lr": 0.002}}
NORMS = WORKLOAD | {"model": "resnet20"}
LOCAL = {"preset": "local_sgd", "schedule": {"fixed": 4}}
BIASED = {"preset": "biased_local_sgd", "H": 4, "sampling": {"top_loss": {"refresh": 4}}}
AVERAGED = LOCAL | {"aggregation": {"parameters": {"optimizer_state": "averaged"}}}
SLICED = {"preset": "hdp", "total": 24, "sampling": "sliced"}
METHODS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "sync": ({"preset": "sync_sgd"}, WORKLOAD),
    "sync, weights": ({"preset": "sync_sgd", "aggregation": {"gradients": [1, 2, 3]}}, WORKLOAD),
    "sync, micro-batches": ({"preset": "lsdp"}, WORKLOAD | {"micro_batch": 3}),
    "sync, BatchNorm": ({"preset": "sync_sgd"}, NORMS),
    "sliced": (SLICED, WORKLOAD),
    "local": (LOCAL, WORKLOAD),
    "local, AdamW": (LOCAL, ADAMW),
    "local, averaged moments": (AVERAGED, ADAMW),
    "local, fp16": (LOCAL, WORKLOAD | {"precision": "fp16"}),
    "biased": (BIASED, WORKLOAD),
    "post-local": ({"preset": "post_local_sgd", "t": "2 rounds", "H": 3}, WORKLOAD),
    "qsr": ({"preset": "qsr", "alpha": 0.1, "h_base": 2}, ADAMW),
    "slowmo": ({"preset": "slowmo", "H": 3}, WORKLOAD),
    "diloco": ({"preset": "diloco", "H": 3}, ADAMW),
    "fednova": ({"preset": "fednova", "H": 4}, WORKLOAD),
}


def job_of(folder: Path, strategy: dict[str, Any], workers: int = 3, **more: Any) -> Job:
    document = scenario(workers, MLP, strategy, 3, **({"report": {}} | more))
    (folder / "s.yaml").write_text(yaml.dump(document))
    return resolve(load(folder / "s.yaml"), folder)


def on(job: Job, *settings: str) -> Job:
    """The same scenario with settings."""
    return resolve(load(job.problem.folder / "s.yaml", settings), job.problem.folder, like=job)


class Part:
    """A part of a run: the workers of one process, in lockstep to the end of their job's budget.

    until: the rounds after which it is stopped. Every round ends with a checkpoint then.
    """

    def __init__(
        self, job: Job, state: State, handover: Handover | None = None, saved: Any = None, until: float = np.inf
    ) -> None:
        self.job, self.saved, self.begun = job, dict[int, dict[str, Array]](), dict[int, dict[str, Array]]()
        self.rounds, self.lines = 0, list[dict[str, Any]]()
        self.workers = job.problem.workers(job.plan, range(job.workers), shared_process=True)
        self.fresh = [w.snapshot() for w in self.workers]
        for w in self.workers if handover else ():
            assert handover
            self.begun[w.index] = handover.snapshot(w.index, saved.__getitem__, w.snapshot())
            w.restore(self.begun[w.index])

        def save(worker: int, _seconds: float, state: Any, arrays: dict[str, Array]) -> None:
            self.rounds = state.round
            self.saved[worker] = {name: np.array(array) for name, array in arrays.items()}

        # The hook is asked in the round that follows.
        hooks = Hooks(lambda _w, _s, line: self.lines.append(line), save, lambda: self.rounds >= until - 1)
        self.state = lockstep(job.programs(self.workers, state), hooks)[0]
        self.digest = fingerprints([w.digest() for w in self.workers], False)["params_sha256"]
        assert len({w.digest() for w in self.workers}) == 1, "replicas agree"


def own(arrays: dict[str, Array], *without: str) -> dict[str, bytes]:
    """A snapshot without the parameters, and without what belongs to the division of the work."""
    left_out = ("params", "scores.chosen", "scores.seen", *without)
    return {name: np.array(array).tobytes() for name, array in arrays.items() if name not in left_out}


@pytest.mark.parametrize("name", METHODS)
def test_workers_that_stay_keep_what_is_theirs(name, tmp_path):
    """3 workers, of which the middle one is lost; every method goes on, and its replicas agree."""
    strategy, workload = METHODS[name]
    job = job_of(tmp_path, strategy, workload=workload, budget={"steps": 12})
    first = Part(job, State())
    fewer = next_job(on(job, "budget.steps=21"), [1])
    handover = Handover(Division.of(job.plan), fewer.plan, remaining(3, [1]))
    state = handover.state(first.state)
    assert (state.round, state.step, state.H) == (first.state.round, first.state.step, first.state.H)
    second = Part(fewer, state, handover, first.saved)
    assert own(second.begun[0]) == own(first.saved[0])
    assert own(second.begun[1]) == own(first.saved[2])
    assert np.array_equal(second.begun[0]["params"], first.saved[0]["params"])
    assert second.state.step == 21
    assert fewer.problem.__dict__["data"] is job.problem.__dict__["data"], "it is not loaded again"


@pytest.mark.parametrize("name", ["sync, BatchNorm", "sliced", "local, AdamW", "biased", "slowmo"])
def test_a_new_worker_begins_with_worker_0s_state_and_its_own_stream(name, tmp_path):
    strategy, workload = METHODS[name]
    job = job_of(tmp_path, strategy, 2, workload=workload)
    more = job_of(tmp_path, strategy, 3, workload=workload, budget={"rounds": 5})
    first, handover = Part(job, State()), Handover.by_number(Division.of(job.plan), more.plan)
    second = Part(more, handover.state(first.state), handover, first.saved)
    assert own(second.begun[2], "rng") == own(first.saved[0], "rng")
    assert np.array_equal(second.begun[2]["rng"], second.fresh[2]["rng"])
    assert own(second.begun[1]) == own(first.saved[1])
    assert second.state.round == 5
    assert "worker 2 begins with worker 0's optimizer state and BatchNorm statistics" in handover.lines()


def test_where_worker_0_is_gone_its_parameters_go_on(tmp_path):
    job = job_of(tmp_path, LOCAL)
    first, fewer = Part(job, State()), next_job(on(job, "budget.rounds=4"), [0])
    handover = Handover(Division.of(job.plan), fewer.plan, remaining(3, [0]))
    second = Part(fewer, handover.state(first.state), handover, first.saved)
    assert np.array_equal(second.begun[0]["params"], first.saved[0]["params"])
    assert own(second.begun[0]) == own(first.saved[1])
    lost = "of worker {}, optimizer state, BatchNorm statistics and random stream are lost"
    assert lost.format(0) in handover.lines()
    assert lost.format(3) in handover.lines((3,)), "by its number at the start of the run"


def test_with_the_same_workers_nothing_is_handed_over(tmp_path):
    """Not even with biased sampling, in the middle of an interval: the bits of a run that was not interrupted."""
    job = job_of(tmp_path, BIASED, budget={"rounds": 6}, checkpoint={"every": "1 rounds"})
    whole, first = Part(job, State()), Part(job, State(), until=3)
    handover = Handover.by_number(Division.of(job.plan), job.plan)
    assert first.state.round == 3
    assert handover.same
    assert [*handover.lines()] == []
    assert handover.state(first.state) == first.state
    second = Part(job, handover.state(first.state), handover, first.saved)
    assert second.digest == whole.digest
    other = on(job, "strategy.split={given: {batches: [8, 8, 4], paces: [1, 1, 1]}}")
    assert not Handover.by_number(Division.of(job.plan), other.plan).same


def test_sharded_workers_keep_their_parts_with_other_batches(tmp_path):
    job = job_of(tmp_path, {"preset": "fsdp"})
    handover = Handover.by_number(Division.of(job.plan), on(job, "workload.batch=4").plan)
    assert not handover.same
    for number in range(3):
        part = {"params": np.arange(number, number + 4), "rng": np.zeros(2)}
        assert handover.snapshot(number, lambda worker, part=part: part, {}) == part


# --- where the run is -------------------------------------------------------------------------------------------------


def drawn(job: Job, state: State, until: float) -> Counter[int]:
    """How often the steps use each example from a state to the end of so many epochs."""
    plan, found = job.plan, Counter[int]()
    while plan.epochs(state) < until - 1e-9:
        r = plan.next_round(state)
        for worker in range(plan.workers):
            for i in range(r.steps[worker]):
                found.update(plan.strategy.sampling.draw(1, plan.examples, worker, *r.batch(worker, i)).tolist())
        state.after(r, 0.0)
    return found


@pytest.mark.parametrize(("workers", "gone"), [(4, [1]), (4, [0, 3]), (3, [])])
def test_no_example_of_an_epoch_is_left_out_or_used_twice(workers, gone, tmp_path):
    """Shuffled, with unequal paces: of 1437 examples in an epoch, each once, although workers are lost within it."""
    job = job_of(tmp_path, {"preset": "local_sgd", "H": 5}, workers, budget={"epochs": 1})
    state = State()
    found = drawn(job, state, 0.4)
    fewer = next_job(job, gone)
    state = Handover(Division.of(job.plan), fewer.plan, remaining(workers, gone)).state(state)
    assert 0.4 <= fewer.plan.epochs(state) < 0.6
    found += drawn(fewer, state, 1.0)
    assert state.samples >= 1437
    assert len(found) == 1437
    assert sum(found.values()) == state.samples, "those beyond the epoch's end belong to the next one"


@pytest.mark.parametrize(("total", "least", "wrong"), [(24, 2, 0), (24, 1, 0), (20, 2, 3), (36, 1, 0), (40, 1, 3)])
def test_what_fewer_workers_could_not_do_is_said_before_the_run(total, least, wrong, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    job = job_of(tmp_path, {"preset": "hdp", "mode": "equal", "total": total}, 4)
    if not wrong:
        check_fewer(on(job, f"recovery={{max_restarts: 1, min_workers: {least}}}"))
        return
    flags = ("--max-restarts", 1, "--min-workers", least)
    status, _, err = call(monkeypatch, capsys, "train", "s.yaml", *flags)
    assert (status, err.count("\n"), Path("runs").exists()) == (2, 1, False)
    assert f"recovery.min_workers is {least}, and with {wrong} workers strategy.split: total is {total}" in err
    assert "or leave min_workers out" in err


@pytest.mark.parametrize("tail", ["pad", "drop"])
@pytest.mark.parametrize("epochs", [0.3, 1.0, 2.4])
def test_slices_go_on_at_the_same_place_of_the_epoch(epochs, tail, tmp_path):
    job = job_of(tmp_path, SLICED | {"sampling": {"sliced": tail}}, budget={"epochs": 3})
    state = State()
    drawn(job, state, epochs)
    fewer = next_job(job, [2])
    assert sum(fewer.plan.shares.batches) == 24
    for other in (on(job, "strategy.total=50"), on(job, "strategy.total=7"), fewer):
        now = Handover.by_number(Division.of(job.plan), other.plan).state(state)
        step, length = sum(other.plan.shares.batches), other.plan.strategy.sampling.length(1437)
        before = job.plan.epochs(state)
        assert now.samples % step == 0
        assert before - step / length - 1e-9 < other.plan.epochs(now) <= before + 1e-9
        assert now.samples // length == int(before + 1e-9), "the same epoch"


def test_reference_epochs_go_on_although_their_length_changes(tmp_path):
    """They are counted in rounds, of which an epoch has more when there are fewer workers."""
    budget = {"epochs": 4, "epoch": "reference"}
    job = job_of(tmp_path, {"preset": "local_sgd", "H": 4, "split": "even"}, 4, budget=budget)
    fewer = next_job(job, [3])
    assert (job.plan.rounds_per_epoch, fewer.plan.rounds_per_epoch) == (11, 14)
    state = State()
    while job.plan.epochs(state) < 2:
        state.after(job.plan.next_round(state), 0.0)
    now = Handover(Division.of(job.plan), fewer.plan, (0, 1, 2)).state(state)
    assert now.round == state.round == 22
    assert fewer.plan.epochs(now) == pytest.approx(2)
    back = Handover.by_number(Division.of(fewer.plan), job.plan).state(now)
    assert job.plan.epochs(back) == pytest.approx(2)
    while not fewer.plan.finished(now):
        r = fewer.plan.next_round(now)
        assert r.progress == pytest.approx(2 + (now.round - 22) / 14), "so the learning rate goes on"
        now.after(r, 0.0)
    assert now.round == 22 + 28


def test_phantoms_go_on_as_well(tmp_path):
    """Biased sampling, at a refresh and between two of them: the simulated clock equals that of the full simulation."""
    for rounds in (3, 4):
        job = job_of(tmp_path, BIASED, budget={"rounds": rounds})
        first, fewer = Part(job, State()), next_job(on(job, "budget.rounds=9"), [1])
        handover = Handover(Division.of(job.plan), fewer.plan, (0, 2))
        workers = Part(fewer, handover.state(first.state), handover, first.saved).workers
        clocks = []
        for each in (fewer.problem.phantoms(fewer.plan), workers):
            if each is workers:
                for w in workers:
                    w.restore(handover.snapshot(w.index, first.saved.__getitem__, w.snapshot()))
            outcomes = run_programs(fewer.programs(each, handover.state(first.state)), fewer.timing, Hooks())
            clocks.append([outcome.seconds for outcome in outcomes])
        assert clocks[0] == clocks[1]


@pytest.mark.long
@pytest.mark.parametrize("name", ["sync", "sliced", "local", "local, AdamW", "biased", "diloco", "fednova"])
def test_a_run_that_loses_a_worker_and_gets_it_back_learns_as_well(name, tmp_path):
    """8 epochs of digits: the second of 4 workers is gone for a third of them. Test accuracy within 3 points."""
    strategy, workload = METHODS[name]
    often = {"budget": {"epochs": 8}, "checkpoint": {"every": "1 rounds"}}
    whole = job_of(tmp_path, strategy, 4, workload=workload, **often)
    straight = Part(whole, State())
    third = straight.state.round // 3
    first, fewer = Part(whole, State(), until=third), next_job(whole, [1])
    lost = Handover(Division.of(whole.plan), fewer.plan, remaining(4, [1]))
    second = Part(fewer, lost.state(first.state), lost, first.saved, until=2 * third)
    back = Handover(Division.of(fewer.plan), whole.plan, [0, None, 1, 2])
    last = Part(whole, back.state(second.state), back, second.saved)
    assert last.lines[-1]["accuracy"] > straight.lines[-1]["accuracy"] - 0.03
    assert last.state.samples == pytest.approx(straight.state.samples, rel=0.01)


# --- resuming ---------------------------------------------------------------------------------------------------------


def test_ranks_resume_without_a_worker_to_the_bits_of_the_rule(tmp_path):
    """A run of 3 workers goes on without one of them under mpirun, and in one process; then both parts are exported."""
    strategy = {"preset": "local_sgd", "schedule": {"fixed": 4}, "aggregation": {"parameters": [1, 2, 3]}}
    job = job_of(tmp_path, strategy, budget={"rounds": 2})
    simulate(tmp_path / "s.yaml", out=tmp_path / "run")
    fewer = next_job(on(job, "budget.rounds=4"), [1])
    saved = checkpoints.newest(tmp_path / "run")
    assert saved
    found = resumption(saved, fewer, change=False, gone=[1])
    expected = Part(fewer, found.state, found.handover, [checkpoints.read_worker(saved, worker) for worker in range(3)])

    done = paceline("train", "--resume", "run", "--without", 1, "--set=budget.rounds=4", cwd=tmp_path)
    assert "resumed: 2 workers instead of 3: the work is divided again, into batches of [8, 8]; model" in done.stderr
    assert "of worker 1, optimizer state, BatchNorm statistics and random stream are lost" in done.stderr
    summary, lines = read(tmp_path / "run")
    assert summary["params_sha256"] == expected.digest
    assert (summary["workers"], summary["rounds"], summary["resumed_at_round"]) == (2, 4, 2)
    assert [line["round"] for line in lines] == [2, 4]
    document = yaml.read_mapping(tmp_path / "run" / "scenario.yaml")
    assert document["strategy"]["aggregation"] == {"parameters": [1, 3]}
    history = document["recorded"]["history"]
    assert history[1]["handed_over"] == [*found.handover.lines()]
    assert "cluster.workers" in history[1]["changed"]
    assert [trained(tmp_path / "run", number).round for number in (2, 4)] == [2, 4]


def test_a_run_resumes_on_the_cluster_that_it_is_told(tmp_path):
    """Workers that are not named go on by their numbers: the last ones are gone, or new."""
    job_of(tmp_path, BIASED, workload=WORKLOAD | {"total_batch": 24, "batch": None})
    simulate(tmp_path / "s.yaml", out=tmp_path / "run")
    saved = checkpoints.newest(tmp_path / "run")
    assert saved
    for speeds, members in (([9, 4], [0, 1]), ([9, 4, 2, 1], [0, 1, 2, None]), ([9, 9, 9], [0, 1, 2])):
        cluster = f"cluster={{workers: [{', '.join(f'{{speed: {speed} samples/s}}' for speed in speeds)}]}}"
        job = resolve(load(tmp_path / "run" / "scenario.yaml", [cluster]), tmp_path / "run")
        found = resumption(saved, job, change=False)
        assert found.handover.members == members
        assert not found.handover.same, "with other paces, biased sampling divides the work in another way"
        assert found.parts[-1]["handed_over"]
        assert found.state.refreshed == found.state.mark()


def test_workers_that_a_run_has_lost_since_a_checkpoint_are_known():
    def part(how: str, lost: int, workers: int, round: int) -> dict[str, Any]:
        entry = {"how": how, "lost": [lost], "workers": workers, "at": 1.0, "redone": 0, "seconds": 1.0}
        return {"from_round": round, "recovery": entry | {"from_round": round}}

    history = [{"from_round": 0}, part("shrink", 1, 3, 5), part("restart", 0, 3, 4), part("shrink", 2, 2, 9)]
    assert _gone_since(history, 4, 4) == (1, 2)
    assert _gone_since(history, 7, 3) == (1,), "the second of the three that were left then"
    assert _gone_since(history, 9, 3) == (1,), "it was written before the loss"
    assert _gone_since(history, 10, 2) == ()
    assert _gone_since([*history, {"from_round": 10}], 10, 2) == (), "since then another command numbers them"


@pytest.mark.parametrize(
    ("strategy", "settings", "says"),
    [
        (LOCAL, ["--without=0", "--set=workload.batch=4"], "workload.batch is 4, and was 8, so this would be another"),
        ({"preset": "fsdp"}, ["--without=2"], "was written by 3 workers, each of which has a part of the parameters"),
        (LOCAL, ["--without=3"], "worker 3 does not exist; there are workers 0 to 2"),
        (LOCAL, ["--without=0", "--without=1", "--without=2"], "no worker is left of 3"),
    ],
)
def test_what_does_not_go_on_is_one_line(strategy, settings, says, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    job_of(tmp_path, strategy)
    simulate("s.yaml", out="run")
    before = {path: path.stat().st_mtime_ns for path in Path("run").rglob("*")}
    status, _, err = call(monkeypatch, capsys, "train", "--resume", "run", *settings)
    assert (status, err.count("\n")) == (2, 1)
    assert says in err
    assert before == {path: path.stat().st_mtime_ns for path in Path("run").rglob("*")}
