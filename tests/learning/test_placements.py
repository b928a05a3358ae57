"""Placements: all give the numbers of one process with the whole batch; their memory and bytes; what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from kit.learning import DIGITS
from kit.paths import SCENARIOS
from kit.placements import ADAMW, BATCHES, PLACEMENTS, SGD, VIT, parameters, plan_of, train_all, workers_of
from paceline.algorithms.aggregations import Parameters
from paceline.algorithms.costs import TAIL, footprint
from paceline.algorithms.loop import train
from paceline.algorithms.placements import Replicated, Sharded
from paceline.algorithms.rounds import State
from paceline.config.scenario import load, validate
from paceline.job import resolve
from paceline.learning.memory_meter import Tensors
from paceline.learning.phantoms import build_phantoms
from paceline.learning.recipe import Recipe
from paceline.program.errors import ScenarioError
from paceline.program.lockstep import lockstep
from paceline.program.outcome import Hooks


@pytest.fixture(scope="module")
def alone():
    """One process on the whole batch, by model and optimizer."""
    found = {}
    with torch.random.fork_rng(devices=[]):
        for name, optimizer, recipe, lr in (
            ("sgd", SGD, Recipe(), 0.05),
            ("adamw", ADAMW, Recipe(precision="fp64"), 1e-3),
            ("clipped", SGD | {"clip": 0.5}, Recipe(precision="fp64"), 0.05),
        ):
            plan = plan_of(Replicated(overlap=False), (sum(BATCHES),), lr=lr)
            (worker,) = workers_of(plan, optimizer=optimizer, recipe=recipe)
            lines, _ = train_all(plan, [worker])
            found[name] = parameters([worker]), lines
    return found


@pytest.mark.parametrize("place", PLACEMENTS)
@pytest.mark.parametrize(("name", "within"), [("sgd", 1e-6), ("adamw", 1e-9), ("clipped", 1e-9)])
def test_every_placement_is_one_process_on_the_whole_batch(alone, place, name, within):
    optimizer = {"sgd": SGD, "adamw": ADAMW, "clipped": SGD | {"clip": 0.5}}[name]
    recipe = Recipe() if name == "sgd" else Recipe(precision="fp64")
    plan = plan_of(PLACEMENTS[place], lr=1e-3 if name == "adamw" else 0.05)
    workers = workers_of(plan, optimizer=optimizer, recipe=recipe)
    lines, state = train_all(plan, workers)
    expected, expected_lines = alone[name]
    found = parameters(workers)
    assert state.step == 20
    assert found.dtype == (np.float32 if name == "sgd" else np.float64)
    assert np.abs(found - expected).max() <= within
    assert lines[-1]["train_loss"] == pytest.approx(expected_lines[-1]["train_loss"], rel=1e-5)
    assert lines[-1]["accuracy"] == pytest.approx(expected_lines[-1]["accuracy"], abs=0.01)
    assert all(w.params.tobytes() == workers[0].params.tobytes() for w in workers) or workers[0].works.held.parts > 1


@pytest.mark.parametrize("place", ["ddp", "fsdp", "lsdp", "fsdp-offload"])
def test_micro_batches_change_nothing_but_rounding(alone, place):
    plan = plan_of(PLACEMENTS[place])
    workers = workers_of(plan, recipe=Recipe(micro_batch=7))
    train_all(plan, workers)
    assert workers[0].chunks == 4
    assert np.abs(parameters(workers) - alone["sgd"][0]).max() <= 1e-6


@pytest.mark.parametrize("place", ["ddp", "lsdp"])  # a part's update may round otherwise where vectors end
@pytest.mark.parametrize("model", ["resnet20", "mlp"])
def test_units_have_the_bits_of_the_model_in_one_piece(place, model):
    args = {"width": 0.25} if model == "resnet20" else {"hidden": [48, 32, 16], "dropout": 0.3}
    results = []
    for placement in (PLACEMENTS["flat"], PLACEMENTS[place]):
        plan = plan_of(placement, (9, 5), 4)
        workers = workers_of(plan, model, args)
        train_all(plan, workers)
        results.append((parameters(workers), np.array(workers[1].buffers)))
    assert np.array_equal(results[0][0], results[1][0])
    assert np.array_equal(results[0][1], results[1][1])


@pytest.mark.parametrize("place", [name for name in PLACEMENTS if name not in ("flat", "fsdp-merged")])
def test_members_that_share_a_parameter_have_the_numbers_of_the_model_in_one_piece(place):
    """The first of them owns it: there it stays until its own backward pass, and there the gradients are added."""
    results, recipe = [], Recipe(micro_batch=3)
    for placement in (PLACEMENTS["flat"], PLACEMENTS[place]):
        plan = plan_of(placement, (9, 5), 4)
        workers = workers_of(plan, "kit.users:shared", {}, recipe=recipe)
        lines, _ = train_all(plan, workers)
        results.append((parameters(workers), lines[-1]["test_loss"]))
    assert len(workers[0].units) > 2
    assert workers[0].works.units[0].shared
    same = np.array_equal(results[0][0], results[1][0]) and results[0][1] == results[1][1]
    assert same or (place.startswith("fsdp") and np.abs(results[0][0] - results[1][0]).max() < 1e-7), place
    counted, predicted = workers[0].memory(), footprint(workers[0].works, 1, 64)
    assert counted["device"] + counted["host"] == pytest.approx(predicted.device + predicted.host, abs=4 * TAIL)
    phantoms = build_phantoms(plan, DIGITS.shape, model="kit.users:shared", recipe=recipe, optimizer=SGD)
    assert yielded(plan, phantoms) == yielded(plan, workers)


def test_local_steps_from_the_host_have_the_bits_of_local_steps():
    results = []
    for placement in (Replicated(), PLACEMENTS["lsdp"]):
        plan = replace(plan_of(placement, (9, 5), 6, aggregation=Parameters("samples")))
        workers = workers_of(plan, "mlp", {"hidden": [48, 32], "dropout": 0.3})
        lines, _ = train_all(plan, workers)
        results.append((parameters(workers), lines[-1]["train_loss"]))
    assert np.array_equal(results[0][0], results[1][0])
    assert results[0][1] == results[1][1]


@pytest.mark.parametrize("place", ["ddp", "fsdp", "lsdp", "fsdp-offload"])
def test_a_device_with_memory_of_its_own_gets_the_same_bits(place):
    """Copies to the host and back, as a GPU's, here between two places in one memory."""
    results = []
    for staged in ([False] * 2, [True, False]):
        plan = plan_of(PLACEMENTS[place], (9, 5), 4)
        workers = workers_of(plan, staged=staged)
        train_all(plan, workers)
        results.append(parameters(workers))
    assert np.array_equal(results[0], results[1])


def test_a_staged_worker_takes_local_steps():
    results = []
    for staged in ([False] * 2, [True, False]):
        plan = plan_of(Replicated(), (9, 5), 6, aggregation=Parameters())
        workers = workers_of(plan, staged=staged)
        train_all(plan, workers)
        results.append(parameters(workers))
    assert np.array_equal(results[0], results[1])


@pytest.mark.parametrize("place", PLACEMENTS)
@pytest.mark.parametrize("clip", [None, 0.5])
def test_phantoms_yield_what_workers_yield(place, clip):
    """Effect by effect: kinds, bytes, phases, works."""
    plan = plan_of(PLACEMENTS[place], (9, 5), 2)
    recipe, optimizer = Recipe(micro_batch=5), SGD | {"clip": clip}
    real = workers_of(plan, recipe=recipe, optimizer=optimizer, staged=[True, False])
    phantoms = build_phantoms(
        plan, DIGITS.shape, model="vit", model_args=VIT, recipe=recipe, optimizer=optimizer, staged=[True, False]
    )
    assert yielded(plan, real) == yielded(plan, phantoms)


def yielded(plan, workers) -> list:
    """What the workers' programs yield, effect by effect."""
    log: list = []
    lockstep([spied(train(w, plan, State()), log) for w in workers], Hooks())
    return log


def spied(program, log):
    answer = None
    try:
        while True:
            effect = program.send(answer)
            log.append(described(effect))
            answer = yield effect
    except StopIteration as end:
        return end.value


def described(effect):
    inner = getattr(effect, "effect", effect)
    work, value = getattr(inner, "work", None), getattr(inner, "value", None)
    return (
        type(effect).__name__,
        type(inner).__name__,
        work and (work.phase, work.unit, work.samples, work.flops, work.bytes, work.fraction, inner.on),
        None if value is None else value.nbytes,
        getattr(inner, "phase", ""),
    )


def test_memory_is_what_was_predicted():
    found = {}
    for place in PLACEMENTS:
        plan = plan_of(PLACEMENTS[place], (24, 16, 16, 8))
        workers = workers_of(plan, optimizer=ADAMW)
        counted, predicted = workers[0].memory(), footprint(workers[0].works, 2, 64)
        total = counted["device"] + counted["host"]
        assert total == pytest.approx(predicted.device + predicted.host, rel=1e-3), place
        assert counted["host"] == pytest.approx(predicted.host, rel=1e-3), place
        assert 1 <= predicted.activations / counted["activations"] < 1.25, place
        found[place] = counted
    kept = 16 * workers[0].works.cost.parameters  # parameters, gradients, Adam's two
    largest = footprint(workers[0].works, 2, 64).largest_unit
    assert found["flat"]["device"] == pytest.approx(kept, rel=0.01)
    assert found["fsdp"]["device"] - 4 * largest == pytest.approx(kept / 4, rel=0.02)  # 1/n, and buffers of four units
    assert found["lsdp"]["device"] <= 4 * largest  # two units' parameters and two units' gradients
    assert found["lsdp"]["host"] == pytest.approx(kept, rel=0.01)


@pytest.mark.parametrize("micro_batch", [None, 8])
@pytest.mark.parametrize("place", ["flat", "ddp", "lsdp"])
@pytest.mark.parametrize("model", ["mlp", "cnn", "resnet20", "vit"])
def test_a_step_holds_no_more_than_was_predicted(model, place, micro_batch):
    """Compared with all tensors of two steps. What is estimated is not too little: it is compared with limits."""
    plan, meter = plan_of(PLACEMENTS[place], (24,)), Tensors()
    with meter:
        options = {"args": VIT if model == "vit" else {}, "recipe": Recipe(micro_batch=micro_batch)}
        (w,) = workers_of(plan, model, optimizer=ADAMW, **options | {"shared_process": False})
    counted, need = w.memory(), footprint(w.works, 2, 64, "flat" if place == "flat" else "units")
    held = counted["device"] + counted["host"]
    assert meter.now == pytest.approx(held, rel=0.005), "the warm-up left nothing behind"
    assert 1 <= need.activations / counted["activations"] < 1.45
    meter.restart()
    with meter:
        for _ in range(2):
            if place == "flat":
                w.gradient(plan.first_round(), 0).run()
                w.update(plan.first_round(), 0).run()
                continue
            for chunk in range(w.chunks):
                for u in range(len(w.units)):
                    w.forward(plan.first_round(), 0, chunk, u).run()
                for u in reversed(range(len(w.units))):
                    w.backward(plan.first_round(), 0, chunk, u).run()
    assert 0.7 < meter.peak / (need.device + need.host + need.activations + need.fresh) < 1


@pytest.mark.parametrize("name", ["ddp", "fsdp", "lsdp", "fsdp-offload"])
def test_norms_are_those_of_the_whole_vectors(name):
    """Whoever keeps which part of them."""
    found = []
    for placement in (PLACEMENTS["flat"], PLACEMENTS[name]):
        plan = replace(plan_of(placement, steps=3), norms=True)
        workers = workers_of(plan, optimizer=ADAMW)
        lines, _ = train_all(plan, workers)
        phantoms = build_phantoms(plan, DIGITS.shape, model="vit", model_args=VIT, optimizer=ADAMW)
        assert [set(line) for line in train_all(plan, phantoms)[0]] == [set(line) for line in lines]
        found.append([lines[-1][f"{norm}_norm"] for norm in ("grad", "param", "m", "v")])
    assert found[1] == pytest.approx(found[0], rel=1e-4)
    assert found[0][1] == pytest.approx(np.linalg.norm(parameters(workers)), rel=1e-4)


def fitting(memory: str, placement: str, **worker: str):
    """ViT-L/16 on four devices with so much memory."""
    return validate(
        {
            "workload": {
                "model": "torchvision:vit_l_16",
                "data": "imagenet",
                "batch": 8,
                "optimizer": {"name": "adamw", "lr": 1e-4},
            },
            "cluster": {"workers": [{"count": 4, "speed": "50 samples/s", "memory": memory} | worker]},
            "strategy": {"preset": "sync_sgd", "placement": placement},
            "budget": {"steps": 1},
        },
        "here",
    )


@pytest.mark.parametrize(
    ("memory", "placement", "worker", "message"),
    [
        (
            "4 GB",
            "replicated",
            {},
            r"workers\[0\].memory: .* need 4.53 GiB of 3.73 GiB; write placement: sharded",
        ),
        (
            "100 MB",
            "offloaded",
            {"host_link": "12 GB/s"},
            "2 units' parameters, two units' gradients and .* of 95.3674 MiB; write a smaller unit_bytes or prefetch$",
        ),
        (
            "4 GB",
            "offloaded",
            {"host_link": "12 GB/s", "host_memory": "4 GB"},
            r"workers\[0\].host_memory: parameters.*; write placement: sharded_offloaded$",
        ),
        (
            "10 MB",
            "sharded",
            {},
            "; write a smaller unit_bytes or prefetch or placement: sharded_offloaded or more workers$",
        ),
    ],
)
def test_what_does_not_fit_is_refused(memory, placement, worker, message):
    with pytest.raises(ScenarioError, match=message):
        resolve(fitting(memory, placement, **worker), Path())


def test_a_wire_is_for_fp32():
    settings = ["workload.precision=fp64", "strategy.placement={sharded: {wire: fp16}}"]
    scenario = load(SCENARIOS / "fsdp.yaml", settings)
    message = r"strategy.placement: only fp32 .* fp16, .* is fp64; write wire: fp32"
    with pytest.raises(ScenarioError, match=message):
        resolve(scenario, Path())


def test_what_may_not_fit_is_said():
    assert not resolve(fitting("24 GB", "replicated"), Path()).warnings
    (line,) = resolve(fitting("6 GB", "replicated"), Path()).warnings
    assert "about" in line
    assert "micro_batch" in line
    fits = resolve(fitting("1.5 GB", "sharded"), Path())
    assert fits.tight, "a quarter of the parameters fits, what 8 samples leave behind hardly"


def test_a_snapshot_of_other_units_is_refused():
    """Parts of other units may be as long, all together, and mean other parameters."""
    model = ("mlp", {"hidden": [32, 16]})
    fine, coarse = (workers_of(plan_of(Sharded(unit_bytes=size), (8, 8)), *model)[1] for size in (1, 1 << 20))
    assert fine.params.size == coarse.params.size
    fine.restore(fine.snapshot())
    with pytest.raises(ValueError, match="worker 1: the checkpoint's model is cut into other units; write the unit_b"):
        coarse.restore(fine.snapshot())
