"""A user's own model, data and loss: the unusual ones train as torch trains them, and an error says where it is."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from kit import users
from kit.learning import make_plan, train_in_lockstep
from kit.paths import TESTS
from kit.users import CLASSES, WIDTH
from paceline import simulate
from paceline.algorithms.aggregations import Gradients, Parameters
from paceline.algorithms.costs import TAIL
from paceline.algorithms.placements import Offloaded, Replicated, Sharded
from paceline.algorithms.rounds import Interval
from paceline.config import yaml
from paceline.config.scenario import validate
from paceline.learning import buffers, losses, memory_meter, models, user_code
from paceline.learning.build import build_workers, notes
from paceline.learning.data import load
from paceline.learning.phantoms import build_phantoms
from paceline.learning.recipe import Recipe
from paceline.learning.sources import Source
from paceline.program.errors import NotFinite, PacelineError, ReplicasDiffer, ScenarioError, WorkloadError

POINTS = load("kit.users:points", {})
ADAMW = {"name": "adamw", "weight_decay": 0.1}


def plan_of(batches=(8, 8), H=1, aggregation=None, steps=6, place=None, **options):
    plan = make_plan(batches, H, aggregation or Gradients(), Interval(steps, "steps"), **options)
    return replace(plan, strategy=replace(plan.strategy, placement=place or Replicated()), examples=40)


def make(plan, model, optimizer=None, **options):
    more = {"shared_process": True, "seed": 7} | options
    return build_workers(plan, POINTS, model=f"kit.users:{model}", optimizer=optimizer or {"name": "sgd"}, **more)


def scenario(model: str = "failing", out: Path | None = None, **changes):
    """A run of two workers on the points; `changes` replace keys of its document."""
    document = {
        "workload": {
            "model": {"name": f"kit.users:{model}"},
            "data": "kit.users:points",
            "batch": 8,
            "optimizer": {"name": "sgd", "lr": 0.1},
        },
        "cluster": {"workers": [{"step_time": "2 ms"}, {"step_time": "4 ms"}], "network": {"bandwidth": "1 Gbit/s"}},
        "strategy": {"preset": "sync_sgd"},
        "budget": {"steps": 20},
        "report": {"every": "5 steps"},
        "checkpoint": {"every": "5 steps"},
    }
    for key, value in changes.items():
        node, (*parents, last) = document, key.split("__")
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = value
    return document


# --- buffers ----------------------------------------------------------------------------------------------------------


def test_a_buffer_is_averaged_for_what_it_is_and_not_for_its_type():
    """Running statistics of norms are, by their module; unit vectors, moving averages, masks and counters are not,
    unless the model says so."""
    model = nn.ModuleDict(
        {
            "norm": nn.BatchNorm1d(4),
            "sync": nn.SyncBatchNorm(4),
            "plain": nn.BatchNorm1d(4, track_running_stats=False),
            "spectral": users.spectral((WIDTH,), CLASSES),
            "ema": users.ema((WIDTH,), CLASSES),
            "named": users.ema((WIDTH,), CLASSES, named=True),
        }
    )
    norms = [f"{name}.{part}" for name in ("norm", "sync", "spectral.norm") for part in ("running_mean", "running_var")]
    assert list(buffers.averaged(model)) == [*norms, "named.ema"]
    left = buffers.kept_apart(model)
    assert "ema.ema" in left
    assert "spectral.body.parametrizations.weight.0._u" in left
    assert not any("mask" in name or "seen" in name or "named.ema" in name for name in left)
    model.averaged_buffers = ("ema.ema",)
    assert "ema.ema" in buffers.averaged(model)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            ("emma",),
            r"the model's averaged_buffers names 'emma', which is not a floating-point buffer of it; did .*'ema'",
        ),
        (("seen",), "names 'seen', which is not a floating-point buffer"),
        ("ema", r"is 'ema'; write a tuple of names of its buffers, like \('ema',\)"),
    ],
)
def test_a_wrong_name_of_a_buffer_is_one_line(names, message):
    model = users.ema((WIDTH,), CLASSES)
    model.averaged_buffers = names
    with pytest.raises(ValueError, match=message):
        buffers.averaged(model)


@pytest.mark.parametrize("place", [Replicated(), Sharded(unit_bytes=1), Offloaded(unit_bytes=1)])
def test_a_worker_is_tested_with_its_own_buffers_and_the_averaged_ones(place):
    """The test loss of a model with unit vectors is near each worker's own, not that of the vectors' mean."""
    plan = plan_of(H=1 if place.sharded else 3, aggregation=None if place.sharded else Parameters(), place=place)
    workers = make(plan, "spectral", ADAMW)
    _, lines = train_in_lockstep(plan, workers)
    model, own = models.build("kit.users:spectral", {}, (WIDTH,), CLASSES, seed=7), [w.model for w in workers]
    if not place.sharded:
        model.load_state_dict(own[0].state_dict())
        mean = torch.stack([m.norm.running_mean for m in own]).mean(0)
        variance = torch.stack([m.norm.running_var for m in own]).mean(0)
        sums = 0.0
        for part, w in enumerate(own):
            w.norm.running_mean.copy_(mean)
            w.norm.running_var.copy_(variance)
            x, y = torch.from_numpy(POINTS.test_x[part * 10 :][:10]), torch.from_numpy(POINTS.test_y[part * 10 :][:10])
            with torch.no_grad():
                sums += nn.functional.cross_entropy(w.eval()(x), y).item()
        assert lines[-1]["test_loss"] == pytest.approx(sums / 2, rel=1e-5)
    phantoms = build_phantoms(plan, POINTS.shape, model="kit.users:spectral")
    assert [p.buffers.nbytes for p in phantoms] == [w.buffers.nbytes for w in workers] == [2 * 4 * WIDTH] * 2
    (line,) = notes(plan, workers[0], "kit.users:spectral", "cross_entropy")
    assert "body.parametrizations.weight.0._u" in line
    assert "averaged_buffers" in line


@pytest.mark.parametrize("model", ["spectral", "ema", "named"])
def test_a_resumed_worker_has_all_its_buffers_again(model):
    """Of any type and none, also those that a model gives a new tensor, or keeps out of its state: the same bits."""
    args = {"model_args": {"named": model == "named"}} if model != "spectral" else {}
    name = "spectral" if model == "spectral" else "ema"
    full, half = (plan_of(H=2, aggregation=Parameters(), steps=n, report=Interval(4, "steps")) for n in (8, 4))
    whole, saved = make(full, name, ADAMW, **args), {}
    _, lines = train_in_lockstep(full, whole)
    state, _ = train_in_lockstep(half, make(half, name, ADAMW, **args), saved=saved)
    resumed = make(full, name, ADAMW, **args)
    for w, arrays in saved.items():
        resumed[w].restore(arrays)
    _, more = train_in_lockstep(full, resumed, state)
    assert more[-1]["test_loss"] == lines[-1]["test_loss"]
    for a, b in zip(whole, resumed, strict=True):
        assert np.array_equal(a.params, b.params)
        for (key, x), y in zip(a.model.named_buffers(), b.model.buffers(), strict=True):
            assert torch.equal(x, y), key
    if model == "named":
        assert not np.array_equal(whole[0].buffers, whole[1].buffers)
        assert np.array_equal(whole[0].buffers, whole[0].model.ema.numpy())


def test_a_frozen_norm_keeps_its_statistics_when_others_are_re_estimated():
    (w,) = make(plan_of([8]), "frozen")
    assert np.array_equal(w.estimate_buffers(1, 2).run(), w.buffers)
    assert (w.buffers[:WIDTH] == 5.0).all()


# --- data -------------------------------------------------------------------------------------------------------------


def test_bytes_are_pixels_only_where_the_data_says_so(tmp_path):
    """Tokens in bytes stay what they are; bytes that look like images do too, unless they are said to be, and either
    way it is said what is done."""
    found = load("kit.users:tokens", {})
    assert found.train_x[0, :3].tolist() == [199, 1, 2]
    assert not found.notes
    found = load("kit.users:planes", {})
    assert found.train_x.max() == 200
    assert "bytes are taken as they are, 0 to 255; let it divide them by 255 if they are pixels" in found.notes[0]
    path = str(tmp_path / "a.npz")
    np.savez(path, **dict(zip(("x_train", "y_train", "x_test", "y_test"), users.planes(), strict=True)))
    (note,) = load(path, {}).notes
    assert "images: true" in note
    assert load(path, {}).train_x.max() == 200
    assert not load(path, {"images": False}).notes
    assert np.asarray(load(path, {"images": True}).train_x).max() == np.float32(200) / np.float32(255)
    with pytest.raises(ValueError, match="images is 'yes'; write true or false"):
        load(path, {"images": "yes"})
    np.savez(path, **dict(zip(("x_train", "y_train", "x_test", "y_test"), users.points(), strict=True)))
    with pytest.raises(ValueError, match=r"images: true is for bytes \(uint8\), .* are float32 and float32"):
        load(path, {"images": True})


def test_whole_numbers_stay_whole_numbers():
    """Nothing is rounded: they become int64 and not float32."""
    found = load("kit.users:tokens", {"dtype": "int64", "highest": (1 << 24) + 1})
    assert found.shape.kinds == "int64"
    assert Source(found.train_x).take(np.arange(2))[0, 0] == (1 << 24) + 1
    with pytest.raises(ValueError, match="train_x holds whole numbers beyond 9223372036854775807, the largest int64"):
        load("kit.users:tokens", {"dtype": "uint64", "highest": 1 << 63})


# --- losses -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "mean"),
    [
        *((name, False) for name in ("weighted", "ignoring", "total", "contrasting", "spread")),
        *((name, True) for name in ("smoothed", "two_heads", "likelihood", "binary")),
        ("ill", None),
    ],
)
@pytest.mark.parametrize("count", [3, 32])
def test_a_users_loss_is_tried_for_being_a_mean_over_examples(name, mean, count):
    """Also where the outputs are all alike, and where the first labels would not show it."""
    outputs, y = torch.zeros(count, CLASSES), torch.full((count,), 2)
    if name == "two_heads":
        outputs = (outputs, outputs + 1)
    if name == "binary":
        outputs = outputs + 0.5
    with torch.no_grad():
        assert losses.is_mean(getattr(users, name), outputs, y, torch.arange(CLASSES)) is mean


@pytest.mark.parametrize("place", [Replicated(), Sharded(unit_bytes=1)])
def test_micro_batches_are_refused_where_they_would_change_the_gradient(place):
    """A loss that weights, ignores or compares examples is not a mean over them: its micro-batches do not add up."""
    plan, recipe = plan_of(place=place), Recipe("kit.users:weighted", micro_batch=3)
    with pytest.raises(ValueError, match=r"loss kit.users:weighted is not the mean .* leave out micro_batch, or let"):
        make(plan, "sizes", recipe=recipe)
    make(plan, "sizes", recipe=replace(recipe, loss="kit.users:smoothed"))
    workers = make(plan, "sizes", recipe=replace(recipe, micro_batch=None))
    (line,) = notes(plan, workers[0], "kit.users:sizes", "kit.users:weighted")
    assert "test_loss is the mean of blocks of 256 examples at most, and a step is not that of all workers'" in line


# --- parameters -------------------------------------------------------------------------------------------------------


def torchs(model, optimizer, steps: int, clip=None, seed: int | None = None, batches=(8,)):
    """A plain loop with the same batches: each step on those of all workers. The parameters."""
    kinds = {"sgd": torch.optim.SGD, "adamw": torch.optim.AdamW}
    args = {k: v for k, v in optimizer.items() if k not in ("name", "clip")}
    own = kinds[optimizer["name"]](model.parameters(), lr=0.05, fused=True, **args)
    plan, total = plan_of(batches), sum(batches)
    if seed is not None:
        torch.manual_seed(seed)
    for i in range(steps):
        chosen = plan.strategy.sampling.indices(7, 40, 0, total * i, total)
        own.zero_grad()
        x, y = torch.from_numpy(POINTS.train_x[chosen]), torch.from_numpy(POINTS.train_y[chosen])
        nn.functional.cross_entropy(model(x), y).backward()
        if clip:
            nn.utils.clip_grad_norm_(model.parameters(), clip)
        own.step()
    return torch.cat([p.detach().reshape(-1) for p in model.parameters()]).numpy()


OPTIMIZERS = [{"name": "sgd", "momentum": 0.9, "weight_decay": 0.1}, ADAMW, ADAMW | {"clip": 0.1}]


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda o: f"{o['name']}{o.get('clip', '')}")
@pytest.mark.parametrize("model", ["unused", "sizes"])
def test_parameters_without_a_gradient_or_an_element_are_left_alone_as_torch_does(model, optimizer):
    """No decay, no momentum and no count of a step for what the loss never reaches, in local steps and in exchanged
    ones, in one piece and unit by unit."""
    expected = torchs(models.build(f"kit.users:{model}", {}, (WIDTH,), CLASSES, 7), optimizer, 5, optimizer.get("clip"))
    start = models.build(f"kit.users:{model}", {}, (WIDTH,), CLASSES, 7)
    for aggregation in (Parameters(), Gradients()):
        for place in (Replicated(), Offloaded(), Sharded()):
            if place.sharded and aggregation == Parameters():
                continue
            plan = plan_of((8,), aggregation=aggregation, steps=5, place=place)
            (w,) = make(plan, model, optimizer)
            train_in_lockstep(plan, [w])
            found = w.params[: len(expected)]
            if isinstance(place, Replicated):
                assert np.array_equal(found, expected)
            else:
                assert np.allclose(found, expected, rtol=0, atol=1e-6)
            if model == "unused":
                sizes = [p.numel() for p in start.parameters()]
                never = slice(sum(sizes[:2]), sum(sizes[:4]))
                first = torch.cat([p.detach().reshape(-1) for p in start.parameters()]).numpy()
                assert np.array_equal(found[never], first[never])


def test_a_parameter_that_only_some_steps_reach_is_as_torchs_and_alike_on_all_workers():
    """A branch that the data decides: locally as torch to the bit, exchanged the mean where any worker reached it."""
    expected = torchs(models.build("kit.users:unused", {"edge": 0.0}, (WIDTH,), CLASSES, 7), ADAMW, 5)
    (w,) = make(plan_of((8,), aggregation=Parameters(), steps=5), "unused", ADAMW, model_args={"edge": 0.0})
    train_in_lockstep(plan_of((8,), aggregation=Parameters(), steps=5), [w])
    assert np.array_equal(w.params[:-TAIL], expected)
    plan = plan_of((4, 3, 5))
    workers = make(plan, "unused", ADAMW, model_args={"edge": 0.5})
    train_in_lockstep(plan, workers)
    assert len({w.digest() for w in workers}) == 1


def test_a_model_of_nothing_to_train_or_of_other_types_is_one_line():
    with pytest.raises(ValueError, match="has no parameters to train"):
        make(plan_of(), "only_empty")
    with pytest.raises(
        ValueError, match=r"the model's parameter 1.weight is torch.bfloat16 on cpu; make it torch.float32"
    ):
        make(plan_of(), "half")


# --- what fails, and where --------------------------------------------------------------------------------------------


def test_a_step_is_tried_once_for_each_kind_of_worker(monkeypatch):
    """Batches differ, so what one worker can do another cannot: BatchNorm has no statistics of one example. Also of a
    micro-batch, or unit by unit."""
    for place in (Replicated(), Sharded(unit_bytes=1)):
        with pytest.raises(ValueError, match="worker 2: a training step of 1 examples fails in the model's forward"):
            make(plan_of((8, 8, 1), place=place), "normed")
    with pytest.raises(ValueError, match="worker 0: a training step of 3 examples fails in the model's forward"):
        make(plan_of((3,), place=Sharded(unit_bytes=1)), "normed", recipe=Recipe(micro_batch=2))
    for place in (Replicated(), Sharded(unit_bytes=1)):
        with pytest.raises(
            ValueError, match="worker 0: a training step of 8 examples fails in the evaluation: Runtime"
        ):
            make(plan_of(place=place), "failing", model_args={"how": "evaluation", "at": 1})
    tried = []
    monkeypatch.setattr("paceline.learning.worker.TorchWorker._warm_up", lambda self, data: tried.append(self.index))
    make(plan_of((8, 8, 4, 8, 4)), "normed")
    assert tried == [0, 2]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"how": "raise"}, r"^worker 0, step 5: the model's forward failed: RuntimeError: it is\n"),
        ({"how": "exit"}, r"^worker 0, step 5: the model's forward failed: SystemExit: 0\n"),
        ({"how": "backward"}, "^worker 0, step 5: backward failed: RuntimeError: it is ill"),
        ({"how": "evaluation"}, "^worker 0, step 5: the evaluation failed: RuntimeError: it is"),
        ({"how": "raise", "at": 1}, r"^workload.model: the model's forward fails on an input of \(2, 6\): "),
        (
            {"how": "raise", "at": 3},
            r"workload: worker 0: a training step of 8 examples fails in the model's forward: ",
        ),
        (
            {"how": "evaluation", "at": 3},
            r"workload: worker 0: a training step of 8 examples fails in the evaluation: ",
        ),
    ],
)
def test_where_a_users_code_fails_is_said_in_one_line(changes, message):
    """In the trial before the run, and later: worker, step, what it was at, and the error as the cause."""
    document = scenario()
    document["workload"]["model"] |= changes
    with pytest.raises(PacelineError, match=message) as caught:
        simulate(validate(document, "test"))
    assert caught.value.__cause__ is not None
    assert "\n" not in str(caught.value)


def test_a_users_loss_that_fails_or_ends_the_program_is_one_line():
    with pytest.raises(
        ScenarioError,
        match=r"8 examples fails in the loss of outputs \(8, 3\) and targets \(8,\): RuntimeError: it is ill",
    ):
        simulate(validate(scenario("sizes", workload__loss="kit.users:ill"), "test"))
    with pytest.raises(ScenarioError, match=r"data 'kit\.users:leaving' failed: SystemExit: 0"):
        simulate(validate(scenario(workload__data="kit.users:leaving"), "test"))
    with pytest.raises(ScenarioError, match=r"data 'kit\.users:short': an array of train_x failed: .* BFloat16"):
        simulate(validate(scenario(workload__data="kit.users:short"), "test"))


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        ("nothing", r"in the loss of outputs .*: TypeError: it gave a NoneType; a loss must return a tensor: the mean"),
        (
            "one_row",
            r"TypeError: it gave a tensor of shape \(1,\) for 8 examples; a loss must return a tensor: the mean",
        ),
        ("owing", r"TypeError: it gave the count -8; a loss that returns \(sum, count\) needs a count of 0 or more"),
    ],
)
def test_a_users_loss_that_gives_no_number_is_told_what_to_give(loss, message):
    with pytest.raises(ScenarioError, match=message):
        simulate(validate(scenario("sizes", workload__loss=f"kit.users:{loss}"), "test"))


def test_running_out_of_memory_is_known_as_such_in_a_workers_step():
    """As the search for the largest batch needs it; any other failure passes."""
    plan = plan_of((8,))
    for how, error in (("memory", None), ("raise", WorkloadError)):
        (w,) = make(plan, "failing", model_args={"how": how, "at": 5}, warm=False)
        steps = [w.steps(plan.first_round(), 0).run for _ in range(6)]
        if error is None:
            assert (
                memory_meter.fits(lambda steps=steps: [step() for step in steps], memory_meter.of("cpu"), 1e12) is False
            )
        else:
            with pytest.raises(error):
                memory_meter.fits(lambda steps=steps: [step() for step in steps], memory_meter.of("cpu"), 1e12)


@pytest.mark.parametrize("path", ["os:system", "sys:exit", "builtins:print", "kit.users:os.getcwd", "shutil:rmtree"])
def test_what_a_scenario_names_is_never_pythons_own_library(path):
    with pytest.raises(ValueError, match=r"is a module of Python's standard library; name a function of your own"):
        user_code.load(path, "data")
    assert user_code.load("torch.nn.functional:mse_loss", "loss") is nn.functional.mse_loss


# --- what is not finite -----------------------------------------------------------------------------------------------


def health_of(how: str, **options):
    """A worker that has lost its health in `how`, and the effect in which that shows."""
    plan = plan_of((8,), aggregation=Parameters())
    clip = {"name": "sgd", "clip": 1.0} if how == "norm" else {"name": "sgd"}
    (w,) = make(plan, "sizes", clip, **options)
    round = plan.first_round()
    if how == "loss":
        w.params[:] = np.inf
        return w.steps(round, 0).run
    if how == "norm":
        w.params[0] = 1e38
        w.grads[:-TAIL] = 1e38
        return w.update(round, 0).run
    w.steps(round, 0).run()
    if how == "test loss":
        w._passes.criterion.sums = lambda outputs, y: (torch.inf, 1)
        return w.evaluate(w.buffers).run
    w.params[2] = np.nan
    return {"parameter": w.evaluate(w.buffers).run, "saved": w.snapshot, "norms": w.squares().run}[how]


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("loss", "worker 0, step 1: the training loss is nan"),
        ("norm", "worker 0, before step 1: the gradient's norm is inf"),
        ("parameter", "worker 0, step 1: a parameter is nan"),
        ("saved", "worker 0, step 1: a parameter is nan"),
        ("norms", "worker 0, step 1: the norm of the parameters is nan"),
        ("test loss", "worker 0, step 1: the test loss is inf"),
    ],
)
def test_a_number_that_is_not_finite_ends_the_round_with_worker_step_and_quantity(how, message):
    """The loss of every step; norms and parameters wherever something reads them, a checkpoint too."""
    with pytest.raises(NotFinite, match=message):
        health_of(how)()
    health_of(how, health=False)()


def test_a_run_that_goes_bad_says_how_to_go_on_and_keeps_what_it_had(tmp_path):
    """The last good checkpoint and the lines before stay; `health: off` trains on, also as YAML's false."""
    document = scenario(workload__model={"name": "kit.users:failing", "how": "infinite", "at": 11})
    with pytest.raises(NotFinite) as caught:
        simulate(validate(document, "test"), out=tmp_path / "run")
    assert str(caught.value) == (
        "worker 0, step 8: the training loss is nan; round_000005 was saved; go on from it with: "
        f"paceline train --resume {tmp_path}/run --set=workload.optimizer.lr=0.05 (health: off trains on)"
    )
    assert [json.loads(line)["step"] for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()] == [5]
    assert [path.name for path in (tmp_path / "run/checkpoints").glob("round*")] == ["round_000005"]
    with pytest.raises(NotFinite, match="no checkpoint was saved; train again from the start, for example with --set"):
        simulate(validate(document, "test"))
    for off in ("off", False):
        found = simulate(validate(document | {"health": off}, "test"))
        assert np.isnan(found.summary["train_loss"])


def test_replicas_that_disagree_are_an_error_once_the_run_is_recorded(tmp_path):
    """A model that changes its parameters by itself, with its own batch: all exchanges were the same, and yet."""
    document = scenario(workload__model={"name": "kit.users:failing", "how": "drift"})
    with pytest.raises(ReplicasDiffer, match="replicas disagree: workers 1 end with other parameters than worker 0"):
        simulate(validate(document, "test"), out=tmp_path / "run")
    assert json.loads((tmp_path / "run/summary.json").read_text())["replicas_agree"] is False


def test_ranks_end_together_with_one_line_where_one_goes_bad(tmp_path):
    """Under MPI a loss that is not finite on one rank ends them all: one line, no traceback, the checkpoint stays."""
    model = {"name": "kit.users:failing", "how": "infinite", "at": 11, "rank": "1"}
    (tmp_path / "s.yaml").write_text(yaml.dump(scenario(workload__model=model)))
    command = [sys.executable, "-m", "paceline", "train", str(tmp_path / "s.yaml"), "--out", str(tmp_path / "run")]
    done = subprocess.run(command, cwd=TESTS, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 2, done.stdout + done.stderr
    (line,) = [text for text in done.stderr.splitlines() if text.startswith("paceline:")]
    assert "worker 1, step 8: the training loss is nan; round_000005 was saved; go on from it" in line
    assert "Traceback" not in done.stderr
    assert len((tmp_path / "run/metrics.jsonl").read_text().splitlines()) == 1
