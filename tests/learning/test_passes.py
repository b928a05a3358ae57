"""Passes: micro-batches, precision, label smoothing, the losses of single examples, crops and flips."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from kit.learning import DIGITS, make, make_plan
from paceline.algorithms.rounds import State
from paceline.learning import models
from paceline.learning.augment import augment
from paceline.learning.dataset import DataShape
from paceline.learning.passes import Passes
from paceline.learning.recipe import Augment, Recipe, check
from paceline.program.streams import stream


def passes(recipe: Recipe, **options) -> Passes:
    return Passes(models.build("mlp", {}, (1, 8, 8), 10, seed=1), DIGITS, recipe, seed=3, worker=1, **options)


def gradient(p: Passes) -> torch.Tensor:
    return torch.cat([g.ravel() for g in p.gradients()])


@pytest.mark.parametrize("most", [1, 7, 16, 21, 64])
def test_micro_batches_add_up_to_the_batch(most):
    whole, parted = passes(Recipe()), passes(Recipe(micro_batch=most))
    indices = np.arange(100, 121)
    assert parted.backward(indices, 0) == pytest.approx(whole.backward(indices, 0), rel=1e-6)
    assert torch.allclose(gradient(parted), gradient(whole), rtol=0, atol=1e-6)
    sizes = [cut.stop - cut.start for cut in parted.chunks(21)]
    assert sum(sizes) == 21
    assert max(sizes) <= most
    assert max(sizes) - min(sizes) <= 1
    if most >= 21:
        assert torch.equal(gradient(parted), gradient(whole))


def test_smoothing_is_for_training_alone():
    usual, smooth = passes(Recipe()), passes(Recipe(label_smoothing=0.1))
    indices = np.arange(16)
    outputs, y = smooth.forward(smooth.inputs(indices)), torch.from_numpy(DIGITS.train_y[:16])
    expected = nn.functional.cross_entropy(outputs, y, label_smoothing=0.1).item()
    assert smooth.backward(indices, 0) == expected != usual.backward(indices, 0)
    assert smooth.criterion.sums(outputs, y) == (16 * nn.functional.cross_entropy(outputs, y).item(), 16)


def test_losses_of_single_examples():
    each = passes(Recipe(micro_batch=6, label_smoothing=0.1), each=True)
    mean = each.backward(np.arange(16), 0)
    assert each.losses.shape == (16,)
    assert each.losses.dtype == np.float32
    assert mean == pytest.approx(each.losses.mean(), rel=1e-6)
    together = passes(Recipe(label_smoothing=0.1))
    together.backward(np.arange(16), 0)
    assert torch.allclose(gradient(each), gradient(together), rtol=0, atol=1e-6)
    with pytest.raises(TypeError, match="needs every example's own, and it gave their mean"):
        passes(Recipe("torch.nn.functional:cross_entropy"), each=True).backward(np.arange(16), 0)


def test_bf16_computes_near_fp32_with_parameters_in_fp32():
    plan = make_plan([16])
    (full,), (half,) = make(plan), make(plan, recipe=Recipe(precision="bf16"))
    r = plan.next_round(State())
    for w in (full, half):
        w.steps(r, 0).run()
    assert half.model[0][1].weight.dtype == half.model[0][1].weight.grad.dtype == torch.float32
    assert not np.array_equal(half.params, full.params)
    assert np.allclose(half.params, full.params, atol=0.01)
    assert half.evaluate(half.buffers).run()[2] == pytest.approx(full.evaluate(full.buffers).run()[2], abs=10)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_bf16_computes_on_a_gpu_as_on_the_cpu():
    half, full = passes(Recipe(precision="bf16")), passes(Recipe())
    x = half.inputs(np.arange(64))
    expected, near = full.forward(x), half.forward(x)
    half.model.cuda()
    inside = []
    half.model[-1].register_forward_hook(lambda module, inputs, output: inside.append(output.dtype))
    found = half.forward(x.cuda())
    assert found.is_cuda
    assert found.dtype == torch.float32
    assert inside == [torch.bfloat16]
    assert torch.allclose(found.cpu(), near, atol=0.05)
    assert torch.allclose(found.cpu(), expected, atol=0.05)
    assert not torch.equal(found.cpu(), expected)


def by_hand(x: np.ndarray, crop: int, flip: bool, random: np.random.Generator) -> np.ndarray:
    """Example by example."""
    count, _, height, breadth = x.shape
    down, right = random.integers(0, 2 * crop + 1, (2, count)) if crop else np.zeros((2, count), int)
    flipped = random.integers(0, 2, count) if flip else np.zeros(count)
    made = np.empty_like(x)
    for i, image in enumerate(np.pad(x, ((0, 0), (0, 0), (crop, crop), (crop, crop)))):
        cut = image[:, down[i] : down[i] + height, right[i] : right[i] + breadth]
        made[i] = cut[:, :, ::-1] if flipped[i] else cut
    return made


@pytest.mark.parametrize(("crop", "flip"), [(4, True), (2, False), (0, True), (0, False)])
def test_crops_and_flips_are_what_they_are_by_hand(crop, flip):
    x = np.random.default_rng(0).standard_normal((9, 3, 6, 5), np.float32)
    found = augment(torch.from_numpy(x), Augment(crop, flip), stream(3, "augment", 1, 40))
    assert np.array_equal(found.numpy(), by_hand(x, crop, flip, stream(3, "augment", 1, 40)))
    assert found.is_contiguous()


def test_augmentation_depends_on_worker_and_position_alone():
    recipe = Recipe(augment=Augment(1, True))
    one, two = passes(recipe), passes(recipe)
    first, later = one.backward(np.arange(16), 0), one.backward(np.arange(16), 16)
    assert first != later
    assert two.backward(np.arange(16), 16) == later


@pytest.mark.parametrize(
    ("make_wrong", "message"),
    [
        (
            lambda: check(Recipe(augment=Augment(1)), DataShape((64,), 10, 9, 9)),
            "augment changes images, .* the data's examples are 64",
        ),
        (lambda: check(Recipe("a:b", 0.1), (64,)), "label_smoothing is cross_entropy's; a:b must smooth by itself"),
    ],
)
def test_wrong_recipes(make_wrong, message):
    with pytest.raises(ValueError, match=message):
        make_wrong()
