"""Models that are not plain lists of modules: where they are cut, and that their units learn what they learn whole."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from kit import blocks
from kit.learning import DIGITS, SGD, make_plan, train_in_lockstep
from paceline.algorithms.aggregations import Gradients
from paceline.algorithms.placements import Offloaded, Replicated, Sharded, ShardedOffloaded
from paceline.algorithms.rounds import Interval
from paceline.learning import cutting, trained
from paceline.learning.build import build_workers, fresh_model
from paceline.learning.memory_meter import Tensors
from paceline.learning.paused import Paused
from paceline.learning.recipe import Recipe
from paceline.learning.works import cost_of
from paceline.program.errors import WorkloadError

MAKE = "kit.blocks:make"
WHOLE = Replicated(overlap=False, unit_bytes=0)
# A model's kind, its options, and where its units begin.
CUT = {
    "vit": ("vit", {}, [*(f"layers.encoder_layer_{i}" for i in range(3)), "ln"]),
    "gpt": ("gpt", {}, ["transformer.h.0", "transformer.h.1", "transformer.h.2", "ln_f"]),
    "tied": ("gpt", {"tied": True}, ["transformer.h.0", "transformer.h.1", "transformer.h.2", "ln_f"]),
    "llama": ("llama", {}, ["layers.0", "layers.1", "layers.2", "norm"]),
    "unet": ("unet", {}, ["downs.1", "ups.0", "ups.1", "head"]),
    "resnet": ("resnet", {}, ["stages.0.0", "stages.0.1", "stages.1.0", "stages.1.1", "fc"]),
    "skipping": ("deep", {"how": "skipping"}, ["blocks.0", "blocks.1", "blocks.2", "head"]),
    "residual": ("residual", {}, ["norms.0", "blocks.0.1", "norms.1", "blocks.1.1", "norms.2", "blocks.2.1", "head"]),
}


def cost(kind: str, **options):
    return cost_of(MAKE, {"kind": kind, **options}, DIGITS.shape)


@pytest.mark.parametrize("name", CUT)
def test_units_begin_at_blocks(name):
    kind, options, begins = CUT[name]
    found = cost(kind, **options)
    assert list(found.cut.begins) == begins
    model = blocks.KINDS[kind](10, **options)
    sizes = {n: p.numel() for n, p in model.named_parameters()}
    assert sorted(n for own in found.cut.parameters for n in own) == sorted(sizes)
    assert [unit.parameters for unit in found.units] == [sum(sizes[n] for n in own) for own in found.cut.parameters]
    assert [unit.shared for unit in found.units] == [name == "tied"] + [False] * len(begins)
    for path, own in zip(begins, found.cut.parameters[1:], strict=True):
        assert any(n.startswith(f"{path}.") for n in own)


@pytest.mark.parametrize("name", ["vit", "gpt", "unet"])
def test_the_meta_device_finds_what_the_cpu_finds(name):
    kind, options, _ = CUT[name]
    found = [cutting._measured(MAKE, {"kind": kind, **options}, DIGITS.shape, device) for device in ("meta", "cpu")]
    assert found[0] == found[1]
    assert found[0].flops > 0


def learned(name: str, placement, batches=(7, 8), micro_batch=None, **more):
    """(a model with what workers on digits have learned in two steps, their report lines)."""
    kind, options, _ = CUT[name]
    plan = make_plan(batches, aggregation=Gradients(), budget=Interval(2, "steps"))
    plan = replace(plan, strategy=replace(plan.strategy, placement=placement))
    args, recipe = {"kind": kind, **options}, Recipe(micro_batch=micro_batch)
    workers = build_workers(
        plan, DIGITS, model=MAKE, model_args=args, optimizer=SGD, seed=7, shared_process=True, recipe=recipe, **more
    )
    _, lines = train_in_lockstep(plan, workers)
    kept = [w.params for w in workers][: workers[0].works.held.parts]
    model, first = fresh_model(MAKE, args, DIGITS.shape, 1, recipe), workers[0]
    trained.fill(model, first.works, placement.unit_bytes, kept, first.snapshot(), first.buffers)
    return model, lines, workers


@pytest.mark.parametrize("name", CUT)
def test_units_learn_what_the_whole_model_learns(name):
    """To the last bit: with dropout, micro-batches of unequal size, and evaluations in between. Where an optimizer
    steps on parts of the parameters, it rounds some elements otherwise."""
    expected, (line, *_), _ = learned(name, WHOLE, micro_batch=3)
    for place in (Replicated, Offloaded, ShardedOffloaded):
        found, lines, workers = learned(name, place(unit_bytes=0), micro_batch=3)
        assert len(workers[0].units) == len(CUT[name][2]) + 1
        for key, tensor in expected.state_dict().items():
            same = torch.allclose if place is ShardedOffloaded else torch.equal
            assert same(tensor, found.state_dict()[key]), (place, key)
        assert lines[0]["train_loss"] == line["train_loss"]
        assert lines[0]["test_loss"] == pytest.approx(line["test_loss"], rel=1e-6)  # in pieces of other sizes


def test_a_device_holds_a_few_units(monkeypatch):
    monkeypatch.setitem(CUT, "large", ("deep", {"width": 64, "depth": 8}, []))
    held = {}
    for place in (WHOLE, Replicated(unit_bytes=0), Sharded(unit_bytes=0), Offloaded(unit_bytes=0)):
        *_, (w, _) = learned("large", place)
        held[type(place)] = w.memory()["device"]
    assert held[Sharded] < 0.8 * held[Replicated]
    assert held[Offloaded] < 0.8 * held[Replicated]


@pytest.mark.parametrize(
    ("how", "units", "why"),
    [
        ("twice", 1, "it has no list of blocks (nn.Sequential, nn.ModuleList) that it calls once each"),
        ("detached", 2, ""),  # before the head
        ("object", blocks.DEPTH + 2, ""),
        ("mapping", blocks.DEPTH + 2, ""),
        (
            "number",
            1,
            "a trial of its backward pass fails: ValueError: none of the tensors that it returns carries a gradient",
        ),
    ],
)
def test_what_cannot_be_cut_is_one_unit(how, units, why):
    found = cost("deep", how=how)
    assert len(found.units) == units
    assert found.cut.whole == why


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("failing", "the model's forward failed: RuntimeError: no luck"),
        ("turning", "calls its block 2 .Linear. after block 3, and not so when it was cut into units"),
    ],
)
def test_what_goes_wrong_between_blocks_is_said(how, message, monkeypatch):
    monkeypatch.setitem(CUT, how, ("deep", {"how": how}, []))
    with pytest.raises(WorkloadError, match=message):
        learned(how, Offloaded(unit_bytes=0), warm=False)


def test_a_pass_that_is_broken_off_leaves_nothing():
    plan = make_plan((4,), aggregation=Gradients())
    options = {"model": MAKE, "model_args": {"kind": "vit"}, "optimizer": SGD, "seed": 7, "shared_process": True}
    plan = replace(plan, strategy=replace(plan.strategy, placement=Replicated(unit_bytes=0)))
    (w,) = build_workers(plan, DIGITS, **options)
    round = plan.first_round()
    for units in ((0,), range(3), range(5)):
        for unit in units:
            w.forward(round, 0, 0, unit).run()
        w.forget()
    for unit in range(5):
        w.forward(round, 0, 0, unit).run()
    for unit in (4, 3):
        w.backward(round, 0, 0, unit).run()
    w.forget()
    assert all(p.grad is None for p in w.model.parameters())
    assert not any(m._forward_pre_hooks for m in w.model.modules())


def test_a_paused_function_goes_on_when_told():
    run, log = Paused(), []

    def body() -> None:
        log.append((1, torch.is_grad_enabled()))
        run.pause()
        log.append(2)
        raise ValueError("three")

    with torch.no_grad():
        run.begin(body)
    assert log == [(1, False)]
    with pytest.raises(ValueError, match="three"):
        run.resume()
    assert not run.running
    run.begin(body)
    run.abandon()
    assert log == [(1, False), 2, (1, True)]
    assert not run.running


def test_what_a_pass_makes_in_its_thread_is_metered():
    """The search for the largest batch counts a step's tensors with a dispatch mode, which torch keeps per thread."""
    peaks = []
    for place in (Replicated(unit_bytes=0), WHOLE):
        plan = make_plan((16,), aggregation=Gradients())
        plan = replace(plan, strategy=replace(plan.strategy, placement=place))
        options = {"model": MAKE, "model_args": {"kind": "vit"}, "optimizer": SGD, "seed": 7, "shared_process": True}
        (w,) = build_workers(plan, DIGITS, **options)
        with (meter := Tensors()):
            if place is WHOLE:
                w.gradient(plan.first_round(), 0).run()
            else:
                for unit in range(5):
                    w.forward(plan.first_round(), 0, 0, unit).run()
        peaks.append(meter.peak)
    assert 0.5 < peaks[0] / peaks[1] < 1.5


def test_backward_runs_in_the_thread_that_is_paused():
    """Torch's own thread for a GPU must not be paused: all workers of a process share it."""
    seen = list[bool]()
    Paused().begin(lambda: seen.append(torch._C._is_multithreading_enabled()))
    assert seen == [False]
    assert torch._C._is_multithreading_enabled(), "only there"
