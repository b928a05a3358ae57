"""`paceline batch-sizes` through the real command line: its batches are compared with steps taken here."""

from __future__ import annotations

import gc
import re
from dataclasses import replace
from unittest.mock import MagicMock, Mock

import pytest
import torch
from torch import nn

from kit.cli import call, paceline, under_mpirun
from kit.learning import make, make_plan
from paceline import simulate
from paceline.algorithms.aggregations import Gradients
from paceline.algorithms.placements import Offloaded, Replicated, Sharded
from paceline.algorithms.rounds import Interval
from paceline.algorithms.strategy import Strategy
from paceline.batch_sizes import _two_steps
from paceline.config import yaml
from paceline.config.profile import workload_key
from paceline.config.scenario import load
from paceline.learning.flat_storage import HUGE, zeros
from paceline.learning.memory_meter import MARGIN, Reserved, Tensors, fits, free
from paceline.profiling import job_to_measure
from paceline.program.lockstep import lockstep
from paceline.program.outcome import Hooks

MODEL = {"name": "mlp", "hidden": [64, 32]}
SGD = {"name": "sgd", "lr": 0.05, "momentum": 0.9}


def scenario(*workers: dict, **more: object) -> dict:
    return {
        "workload": {"model": MODEL, "data": "digits", "batch": 32, "optimizer": SGD},
        "cluster": {"workers": list(workers), **more},
        "strategy": {"preset": "hdp", "mode": "no_restriction"},
        "budget": {"steps": 10},
    }


def peak_of(batch: int) -> float:
    """Bytes of tensors of two steps of that batch, taken here and now."""
    meter, plan = Tensors(), make_plan(batches=(batch,))
    with meter:
        (worker,) = make(make_plan(batches=(2,)), args={"hidden": [64, 32]}, shared=False, optimizer=SGD)
    meter.restart()
    with meter:
        for _ in range(2):
            worker.gradient(plan.first_round(), 0).run()
            worker.update(plan.first_round(), 0).run()
    return meter.peak


# -- through the command line -----------------------------------------------------------------------------------------


def test_measured_written_and_read(tmp_path):
    """Two devices of unequal memory and speed: sizes and times are measured, and HDP's batches follow from the file."""
    budgets = {"big": 1e6, "small": 400e3}
    workers = [{"device": name, "memory": f"{size} B"} for name, size in budgets.items()]
    workers[1]["slowdown"] = 3
    (tmp_path / "s.yaml").write_text(yaml.dump(scenario(*workers, profile="p.yaml")))
    done = paceline("batch-sizes", "s.yaml", "--out", "p.yaml", cwd=tmp_path)
    profile = yaml.read_mapping(tmp_path / "p.yaml")
    key = workload_key(load(tmp_path / "s.yaml").workload)
    found = {name: profile["max_batch"][name][key] for name in budgets}
    for name, budget in budgets.items():
        assert MARGIN * peak_of(found[name]) <= budget < MARGIN * peak_of(found[name] + 1)
        assert set(profile["devices"][name][key]["step"]) == {str(max(1, found[name] // part)) for part in (8, 4, 2, 1)}
    run = simulate(tmp_path / "s.yaml", timing_only=True)
    batches = run.scenario["recorded"]["batches"]
    assert re.search(rf"no_restriction: {sum(batches)} samples", done.stdout)
    assert batches[0] == found["big"] or batches[1] == found["small"], "whoever is done first at its largest"


def test_under_mpirun_with_known_speeds(tmp_path):
    """Two ranks of one device take turns on the node; what the profile holds already stays."""
    (tmp_path / "s.yaml").write_text(yaml.dump(scenario({"device": "a", "count": 2, "speed": "900 samples/s"})))
    (tmp_path / "p.yaml").write_text(yaml.dump({"devices": {}, "max_batch": {"a": {"other": 5}, "b": {"other": 6}}}))
    arguments = ["batch-sizes", "s.yaml", "--out=p.yaml", "--memory=600 kB", "--mode=no_restriction"]
    done = under_mpirun(2, *arguments, cwd=tmp_path, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    profile = yaml.read_mapping(tmp_path / "p.yaml")
    key = workload_key(load(tmp_path / "s.yaml").workload)
    most = profile["max_batch"]["a"].pop(key)
    assert MARGIN * peak_of(most) <= 600e3 < MARGIN * peak_of(most + 1)
    assert profile["max_batch"] == {"a": {"other": 5}, "b": {"other": 6}}
    assert profile["devices"] == {}, "speeds were given, so none is measured"
    assert f"no_restriction: {2 * most} samples in {most / 900 * 1e3:.3f} ms" in done.stdout
    assert "fixed_total" not in done.stdout


def test_a_size_that_fails_leaves_nothing_behind(tmp_path):
    """Unit by unit, a worker holds activations between its computations; the search must still end at the budget."""
    document = scenario({"device": "a", "speed": "900 samples/s", "memory": "600 kB"})
    document["strategy"]["placement"] = "offloaded"
    (tmp_path / "s.yaml").write_text(yaml.dump(document))
    done = paceline("batch-sizes", "s.yaml", "--out", "p.yaml", "--mode", "equal", cwd=tmp_path)
    found = re.search(r"a +(\d+) +(0\.\d+) MB", done.stdout)
    assert found, done.stdout
    assert 0.97 * 600e3 < MARGIN * float(found[2]) * 1e6 < 1.001 * 600e3
    cut = ("--set", "workload.micro_batch=8")  # one micro-batch at a time is in memory
    done = paceline("batch-sizes", "s.yaml", "--out", "p.yaml", "--mode", "equal", *cut, cwd=tmp_path)
    more = re.search(r"a +(\d+) +(0\.\d+) MB", done.stdout)
    assert more, done.stdout
    assert int(more[1]) > 2 * int(found[1])


def test_a_batch_of_one_that_does_not_fit(tmp_path):
    (tmp_path / "s.yaml").write_text(yaml.dump(scenario({"device": "a", "speed": "900 samples/s", "memory": "50 kB"})))
    done = paceline("batch-sizes", "s.yaml", "--out", "p.yaml", cwd=tmp_path, check=False)
    assert done.returncode == 2
    assert "a batch of 1 does not fit on a: its step needs 1.1 times" in done.stderr
    assert "may use 0.05 MB" in done.stderr
    assert not (tmp_path / "p.yaml").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "how much memory may a use? write --memory, like --memory '4 GiB'"),
        (["--memory", "4 GBit"], "--memory '4 GBit' has the unit 'GBit'"),
        (["--memory", "0 GiB"], "--memory '0 GiB' must be above 0"),
        (["--memory", "4"], "--memory '4' is not a quantity with a unit; write it like '4 GiB'"),
        (["--memory", "4 GiB", "--mode", "all"], "--mode all: write fixed_total, no_restriction, equal"),
        (["--memory", "4 GiB", "-n", "1"], "1 ranks do not measure b; start 2 or more, with -n or mpirun -np"),
        (["--memory", "4 GiB", "--out", "."], "--out .: is a folder"),
        (["--memory", "4 GiB", "--out", "s.yaml/p.yaml"], "s.yaml cannot be written to; name another place"),
        (["--memory", "4 GiB", "--set", "cluster.profile=s.yaml"], "s.yaml"),
        (["--memory", "4 GiB", "--set", "strategy.total=many"], "strategy: total is 'many'"),
    ],
)
def test_bad_arguments(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "s.yaml").write_text(yaml.dump(scenario({"device": "a"}, {"device": "b"})))
    status, _, err = call(monkeypatch, capsys, "batch-sizes", "s.yaml", *arguments)
    assert (status, len(err.strip().splitlines())) == (2, 1), err
    assert message in err


# -- memory -----------------------------------------------------------------------------------------------------------


def test_tensors_by_hand():
    """One linear layer without bias: 4 bytes each of 6 weights, 15 inputs, 10 outputs and 10 of their gradient."""
    meter = Tensors()
    with meter:
        layer = nn.Linear(3, 2, bias=False)
        assert meter.now == 24
        x = torch.ones(5, 3)
        y = layer(x)
        assert meter.now == 24 + 60 + 40
        y.backward(torch.ones(5, 2))
        held = 24 + 60 + 40 + 24
        assert meter.now == held, "the weights have a gradient now, the outputs' is gone"
        assert meter.peak == held + 40
        view = y[1:]
        assert meter.now == held, "a view holds nothing of its own"
        del y
        assert meter.now == held
    del view
    assert meter.now == held - 40, "also what goes outside of it"
    meter.restart()
    assert meter.peak == held - 40


def test_what_was_there_before_is_not_counted():
    data, meter = torch.ones(100), Tensors()
    with meter:
        assert data[3:].sum() == 97
        assert data.add_(1)[0] == 2
    assert meter.now == 0
    assert meter.peak < 16


def test_large_vectors_are_counted():
    """What lies in huge pages otherwise: parameters, gradients and moments of 2 MiB or more."""
    meter = Tensors()
    with meter:
        vector = zeros(HUGE, torch.float32, torch.device("cpu"))
    assert meter.now == vector.nbytes == 4 * HUGE


@pytest.mark.parametrize("place", [Replicated(unit_bytes=1), Sharded(unit_bytes=1), Offloaded(unit_bytes=1)])
@pytest.mark.parametrize(("broken", "calls"), [("forward", 3), ("loss", 1), ("_keep", 2)])
def test_what_runs_out_of_memory_leaves_nothing_behind(place, broken, calls, monkeypatch):
    """Wherever the step is when memory ends: between units, at the loss, in backward."""
    plan, meter, silent = make_plan(batches=(32,)), Tensors(), Hooks()
    plan = replace(plan, strategy=Strategy(aggregation=Gradients(), placement=place), budget=Interval(2, "steps"))
    with meter:
        (worker,) = make(plan, args={"hidden": [64, 32]}, shared=False, optimizer=SGD)
    before = meter.now
    part = worker._units if broken == "_keep" else worker._passes
    works, left = getattr(part, broken), iter(range(calls - 1, -1, -1))

    def fails(*args: object) -> object:
        if next(left) == 0:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return works(*args)

    monkeypatch.setattr(part, broken, fails)
    assert not fits(lambda: lockstep([_two_steps(worker, plan)], silent), meter, float("inf"))
    worker.forget()
    gc.collect()
    assert meter.now == before


def test_what_fits():
    def take(count: int) -> None:
        torch.empty(count, dtype=torch.uint8)

    assert fits(lambda: take(1000), Tensors(), 1101)
    assert not fits(lambda: take(1000), Tensors(), 1099), "a tenth stays free"
    assert not fits(lambda: take(2**60), Tensors(), float("inf")), "the allocator says no"

    def out_of_memory() -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    assert not fits(out_of_memory, Tensors(), float("inf"))
    for words in ("CUDA error: out of memory", "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate`"):
        assert not fits(Mock(side_effect=RuntimeError(words)), Tensors(), float("inf")), words
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        fits(lambda: torch.ones(2, 3) @ torch.ones(2, 3), Tensors(), 1e9)


def test_each_rank_measures_its_own_device(tmp_path, monkeypatch):
    """A CPU, then three workers of one node on its two GPUs: batch-sizes takes a rank's steps where it trains."""
    (tmp_path / "s.yaml").write_text(
        yaml.dump(scenario({"device": "a"}, {"torch_device": "cuda", "count": 3, "node": "n"}))
    )
    job = job_to_measure(load(tmp_path / "s.yaml"), tmp_path, 4)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [job.problem.device(rank) for rank in range(4)] == ["cpu", "cuda:0", "cuda:1", "cuda:0"]
    made = MagicMock()
    monkeypatch.setattr("paceline.learning.build.build_workers", made)
    monkeypatch.setattr("paceline.learning.build.notes", lambda *_: [])
    for rank, device in enumerate(["cpu", "cuda:0", "cuda:1"]):
        job.problem.workers(make_plan(batches=(2,)), [0], shared_process=False, seat=rank)
        assert made.call_args.kwargs["device"] == device
        assert made.call_args.kwargs["staged"] == [device != "cpu"]
        assert made.call_args.kwargs["indexes"] == [0]


def test_what_is_free_is_of_the_own_gpu_and_shared_by_those_on_it(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: ({"cuda:0": 8, "cuda:1": 6}[device], 10))
    assert free("cuda:0", 1) == 8
    assert free("cuda:1", 2) == 3
    assert free("cpu", 4) == float("inf")


@pytest.mark.gpu
def test_what_a_gpu_reserves():
    meter = Reserved()
    assert fits(lambda: torch.empty(2**28, dtype=torch.uint8, device="cuda"), meter, 2**30)
    assert meter.peak >= 2**28
    assert not fits(lambda: torch.empty(2**28, dtype=torch.uint8, device="cuda"), meter, 2**28)
    assert not fits(lambda: torch.empty(2**46, dtype=torch.uint8, device="cuda"), meter, float("inf"))
