"""Resized crops, RandAugment and mixup against their definitions."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from kit.learning import DIGITS, make, make_plan, train_in_lockstep
from paceline.algorithms.placements import Offloaded, Replicated, Sharded
from paceline.algorithms.rounds import Interval
from paceline.algorithms.strategy import Strategy
from paceline.learning import images
from paceline.learning.augment import augment
from paceline.learning.dataset import Dataset, DataShape, Pixels
from paceline.learning.losses import Loss
from paceline.learning.mixup import mixed, mixed_loss
from paceline.learning.models import build
from paceline.learning.passes import Passes
from paceline.learning.pieces import Pieces
from paceline.learning.rand_augment import OPERATIONS, rand_augment, strength
from paceline.learning.recipe import Augment, RandAugment, Recipe, ResizedCrop, check, check_data
from paceline.learning.sources import Source
from paceline.program.streams import stream

RGB = np.random.default_rng(3).integers(20, 220, (3, 24, 18), np.uint8)
MEAN, DEVIATION = np.float32([0.5, 0.4, 0.3])[:, None, None], np.float32([0.2, 0.25, 0.3])[:, None, None]
PIXELS = Pixels(255 * DEVIATION, MEAN / DEVIATION)


def changed(name: str, severity: float, sign: int = 1, kind: str = "fixed", factor: float = 0.5) -> np.ndarray:
    """RGB after one operation, (3, 24, 18)."""
    how = strength(name, RandAugment(1, severity, kind), 0.5, 0.2 if sign > 0 else 0.9, factor)
    picture = Image.fromarray(np.ascontiguousarray(RGB.transpose(1, 2, 0)))
    return np.asarray(OPERATIONS[name](picture, how)).transpose(2, 0, 1)


def shifted(down: int, right: int) -> np.ndarray:
    """RGB whose pixel (y, x) is its own (y + down, x + right), black outside."""
    made, (_, height, breadth) = np.zeros_like(RGB), RGB.shape
    for y in range(max(0, -down), min(height, height - down)):
        for x in range(max(0, -right), min(breadth, breadth - right)):
            made[:, y, x] = RGB[:, y + down, x + right]
    return made


def blended(degenerate: np.ndarray, factor: float) -> np.ndarray:
    return np.clip(degenerate + factor * (RGB - degenerate), 0, 255)


def luma(image: np.ndarray) -> np.ndarray:
    """ITU-R 601's grey, which Pillow's is."""
    return np.einsum("c,chw->hw", [0.299, 0.587, 0.114], image)


def stretched(channel: np.ndarray) -> np.ndarray:
    low, high = channel.min(), channel.max()
    return (channel - float(low)) * 255 / (high - low)


EXPECTED = {  # operation, severity, sign -> what the papers define
    ("identity", 9, 1): lambda: RGB,
    ("solarize", 5, 1): lambda: np.where(RGB < 128, RGB, 255 - RGB),
    ("posterize", 5, 1): lambda: RGB & 0b11111100,
    ("brightness", 5, 1): lambda: blended(np.zeros_like(RGB, float), 1.0),
    ("brightness", 10, 1): lambda: blended(np.zeros_like(RGB, float), 1.9),
    ("color", 2, 1): lambda: blended(np.broadcast_to(luma(RGB), RGB.shape), 0.46),
    ("contrast", 2, 1): lambda: blended(np.full(RGB.shape, round(luma(RGB).mean())), 0.46),
    ("autocontrast", 1, 1): lambda: np.stack([stretched(channel) for channel in RGB]),
    ("translate_x", 10, 1): lambda: shifted(0, int(150 / 331 * 18)),
    ("translate_x", 10, -1): lambda: shifted(0, -int(150 / 331 * 18)),
    ("translate_y", 5, 1): lambda: shifted(int(0.5 * 150 / 331 * 24), 0),
}


@pytest.mark.parametrize("case", EXPECTED, ids=lambda case: "-".join(map(str, case)))
def test_an_operation_is_what_the_papers_define(case):
    assert np.abs(changed(*case).astype(float) - EXPECTED[case]()).max() <= 1.5  # grey values are whole numbers


def test_operations_of_shape_turn_by_the_severity():
    line = np.zeros((41, 41), np.uint8)
    line[20] = 255
    picture = Image.fromarray(line)
    for name, slope in (("rotate", np.tan(np.radians(15))), ("shear_y", 0.15)):
        how = strength(name, RandAugment(1, 5), 0.0, 0.0, 0.0)
        made = np.asarray(OPERATIONS[name](picture, how)).astype(float)
        heights = (made * np.arange(41)[:, None]).sum(0)[10:31] / made.sum(0)[10:31]
        assert abs(np.polyfit(np.arange(10, 31), heights, 1)[0]) == pytest.approx(slope, rel=0.02), name
    across = np.asarray(OPERATIONS["shear_x"](picture.transpose(Image.Transpose.TRANSPOSE), how))
    assert np.abs(across.astype(int) - made.T).max() <= 1, "shear_x is shear_y on its side"
    bell = Image.fromarray(np.random.default_rng(0).normal(120, 20, (99, 99)).clip(0, 255).astype(np.uint8))
    flat = np.histogram(OPERATIONS["equalize"](bell, how), bins=8, range=(0, 256))[0]
    assert flat.max() - flat.min() < 0.06 * flat.sum()
    assert changed("sharpness", 10).std() > RGB.std() > changed("sharpness", 0).std()


def test_drawn_strengths_are_those_of_qsrs_recipe():
    """Levels from 0.1 to the severity; factors of one and below as often as above; brightness three quarters of it."""
    random, how = np.random.default_rng(0), RandAugment(2, 10, "drawn")
    found = [strength("color", how, *random.random(3)) for _ in range(4000)]
    levels, factors = np.array([s.share for s in found]), np.array([s.factor for s in found])
    assert (levels.min(), levels.max(), levels.mean()) == pytest.approx((0.01, 1, 0.505), abs=0.02)
    assert (factors.min(), factors.max(), np.mean(factors < 1)) == pytest.approx((0.1, 10, 0.5), abs=0.03)
    assert strength("brightness", how, 0.0, 0.1, 0.5).factor == 0.75 * 5.5
    assert strength("brightness", how, 0.0, 0.9, 0.5).factor == pytest.approx(0.55)
    assert np.array_equal(changed("posterize", 4.1, kind="drawn"), RGB & 0b11110000)


def test_randaugment_chooses_each_operation_as_often_and_normalises_as_the_data():
    x = torch.from_numpy(np.repeat(PIXELS.from_bytes(RGB)[None], 700, 0))
    kept = rand_augment(x, PIXELS, RandAugment(1, 9), stream(1, "augment"))
    made = {PIXELS.to_bytes(image).tobytes() for image in kept.numpy()}
    assert 14 <= len(made) <= 14 + 5, "an operation of shape has two signs"
    same = sum(torch.equal(image, x[0]) for image in kept)
    assert 700 / 14 * 0.6 < same < 700 / 14 * 1.6
    drawn = rand_augment(x[:50], PIXELS, RandAugment(2, 10, "drawn"), stream(1, "augment"))
    assert len({image.numpy().tobytes() for image in drawn}) > 40
    assert torch.equal(drawn, rand_augment(x[:50], PIXELS, RandAugment(2, 10, "drawn"), stream(1, "augment")))
    grey = torch.from_numpy(np.asarray(DIGITS.train_x[:20]))
    unchanged = rand_augment(grey, DIGITS.pixels, RandAugment(3, 0, "fixed"), stream(1, "augment"))
    assert (unchanged.shape, unchanged.dtype) == (grey.shape, grey.dtype)
    assert (DIGITS.pixels.to_bytes(grey.numpy()) % 255 // 17 * 17).max() > 200, "0 to 16 becomes 0 to 255"


def test_pieces_have_the_wanted_areas_and_shapes():
    pieces = Pieces(ResizedCrop(), 3000, stream(0, "augment"))
    boxes = np.array([pieces.box(row, 200, 160) for row in range(3000)])
    breadth, height = (boxes[:, 2:] - boxes[:, :2]).T
    assert boxes.min() == 0
    assert (boxes[:, 2].max(), boxes[:, 3].max()) == (200, 160)
    area, ratio = breadth * height / (200 * 160), breadth / height
    assert (area.min(), area.max()) == pytest.approx((0.08, 1), abs=0.03)
    assert (ratio.min(), ratio.max(), np.median(ratio)) == pytest.approx((0.75, 1.333, 1), abs=0.04)
    assert pieces.box(5, 400, 10) == (193, 0, 206, 10), "nothing fits: the largest piece in the middle"
    whole = Pieces(ResizedCrop((1, 1), (1, 1)), 2, stream(0, "augment"))
    x = torch.from_numpy(RGB[None, :, :18].astype(np.float32)).repeat(2, 1, 1, 1)
    assert torch.allclose(whole.cut(x), x, atol=1e-4)


def test_a_piece_of_an_image_file_is_cut_before_it_is_scaled(tmp_path):
    Image.fromarray(np.ascontiguousarray(RGB.transpose(1, 2, 0))).save(tmp_path / "a.png")
    source = Source(images.Images([tmp_path / "a.png"] * 4, 8))
    pieces = Pieces(ResizedCrop((0.2, 0.4)), 4, stream(2, "augment"))
    found = source.pieces(np.arange(4), pieces)
    for row in range(4):
        piece = Image.open(tmp_path / "a.png").crop(pieces.box(row, 18, 24)).resize((8, 8), Image.Resampling.BILINEAR)
        x = (np.asarray(piece, np.float32).transpose(2, 0, 1) / np.float32(255) - images.MEAN) / images.DEVIATION
        assert np.array_equal(found[row], x)


def test_new_changes_leave_the_bits_of_crops_and_flips():
    x = torch.from_numpy(np.random.default_rng(0).standard_normal((60, 3, 6, 5), np.float32))
    plain = augment(x, Augment(2, True), stream(3, "augment", 1, 40))
    after = augment(x, Augment(2, True, randaugment=RandAugment(1)), stream(3, "augment", 1, 40), PIXELS)
    rounded = torch.from_numpy(PIXELS.from_bytes(PIXELS.to_bytes(plain.numpy())))
    assert 0 < sum(map(torch.equal, after, rounded)) < 30, "identity is one of the operations"


def test_what_randaugment_cannot_change_is_refused():
    recipe = Recipe(augment=Augment(randaugment=RandAugment()))
    with pytest.raises(
        ValueError, match=r"augment.randaugment changes grey or RGB images; the data's examples are 4x8x8"
    ):
        check(recipe, DataShape((4, 8, 8), 10, 9, 9))
    unknown = Dataset(DIGITS.train_x, DIGITS.train_y, DIGITS.test_x, DIGITS.test_y)
    with pytest.raises(ValueError, match=r"augment.randaugment needs bytes, .*; give images as bytes"):
        check_data(recipe, unknown)


# -- mixup ------------------------------------------------------------------------------------------------------------


def test_mixup_is_one_lambda_for_a_micro_batch_and_two_sets_of_targets():
    chunks, x = [slice(0, 5), slice(5, 9)], torch.from_numpy(np.random.default_rng(0).random((9, 2, 3), np.float32))
    y = torch.arange(9)
    made, (first, second, weights) = mixed(x, y, 0.2, chunks, stream(1, "augment"))
    random = stream(1, "augment")
    for cut in chunks:
        share = random.beta(0.2, 0.2)
        share, others = np.float32(max(share, 1 - share)), random.permutation(np.arange(9)[cut])
        assert torch.equal(weights[cut], torch.full((len(others),), float(share)))
        assert torch.equal(second[cut], y[torch.from_numpy(others)]), "examples are mixed with those of the micro-batch"
        assert torch.allclose(made[cut], share * x[cut] + (1 - share) * x[others], atol=1e-6)
    assert torch.equal(first, y)
    shares = [mixed(x[:1], y[:1], 0.2, [slice(1)], stream(s, "augment"))[1][2].item() for s in range(2000)]
    assert min(shares) >= 0.5
    # Var[lambda] of Beta(a, a) is 1 / (4 (2 a + 1)), about 1/2.
    assert np.mean((np.array(shares) - 0.5) ** 2) == pytest.approx(1 / (4 * 1.4), rel=0.03)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("each", [False, True])
def test_a_mixed_loss_is_that_of_soft_labels(smoothing, each):
    """Cross entropy is linear in its targets, so two sets of labels are the same as their weighted mean."""
    random = torch.Generator().manual_seed(0)
    outputs, (first, second) = torch.randn(6, 10, generator=random), torch.randint(10, (2, 6), generator=random)
    soft = 0.7 * torch.nn.functional.one_hot(first, 10) + 0.3 * torch.nn.functional.one_hot(second, 10)
    loss = mixed_loss(Loss(Recipe(label_smoothing=smoothing), DIGITS))
    found = loss(outputs, (first, second, torch.full((6,), 0.7)), each)
    kind = "none" if each else "mean"
    expected = torch.nn.functional.cross_entropy(outputs, soft, label_smoothing=smoothing, reduction=kind)
    assert torch.allclose(found.each if each else found.value, expected, atol=1e-5)
    assert torch.allclose(found.value, expected.mean(), atol=1e-5)


def test_a_step_with_mixup_is_that_of_the_mixed_micro_batches():
    recipe = Recipe(label_smoothing=0.1, micro_batch=6, augment=Augment(flip=True, mixup=0.4))
    model = build("mlp", {"hidden": [16]}, (1, 8, 8), 10, 0)
    passes = Passes(model, DIGITS, recipe, seed=3, worker=1)
    loss = passes.backward(np.arange(10), 30)
    found = [p.grad for p in model.parameters()]
    x, (first, second, weights) = passes.load(30, np.arange(10))
    entropy = torch.nn.CrossEntropyLoss(label_smoothing=0.1, reduction="none")
    outputs = model(x)
    whole = (weights * entropy(outputs, first) + (1 - weights) * entropy(outputs, second)).mean()
    expected = torch.autograd.grad(whole, list(model.parameters()))
    assert loss == pytest.approx(whole.item(), rel=1e-6)
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(found, expected, strict=True))
    assert len(set(weights.tolist())) == 2
    assert passes.backward(np.arange(10), 40) != loss


@pytest.mark.parametrize("placement", [Replicated(), Sharded(), Offloaded()], ids=lambda place: type(place).__name__)
def test_mixup_works_unit_by_unit(placement):
    """The same losses wherever the parameters lie."""
    strategy = Strategy(placement=placement)
    p = replace(make_plan((9, 11), budget=Interval(3, "steps"), log=Interval(1, "steps")), strategy=strategy)
    recipe = Recipe(micro_batch=4, augment=Augment(flip=True, mixup=0.4))
    losses = [line["train_loss"] for line in train_in_lockstep(p, make(p, recipe=recipe))[1]]
    plain = replace(p, strategy=Strategy())
    expected = [line["train_loss"] for line in train_in_lockstep(plain, make(plain, recipe=recipe))[1]]
    assert losses == pytest.approx(expected, rel=1e-5)


def norm_first(input_shape, classes):
    return torch.nn.Sequential(torch.nn.BatchNorm2d(1), torch.nn.Flatten(), torch.nn.Linear(64, classes))


def test_batchnorm_is_estimated_from_augmented_images():
    """As QSR's code does. By hand, for a norm of the images themselves."""
    how = Augment(crop=1, randaugment=RandAugment(1, 9), mixup=0.3)
    p = make_plan((16, 16))
    w = make(p, f"{__name__}:norm_first", recipe=Recipe(augment=how))[1]
    found = w.estimate_buffers(5, 2).run()
    random = stream(7, "bn augment", 5, 1)
    drawn = stream(7, "bn", 5, 1).integers(0, 1437, (2, 16))
    x = torch.from_numpy(DIGITS.train_x)
    batches = [augment(x[torch.from_numpy(row)], how, random, DIGITS.pixels) for row in drawn]
    expected = [sum(batch.mean() for batch in batches) / 2, sum(batch.var() for batch in batches) / 2]
    assert found[:2] == pytest.approx([value.item() for value in expected], rel=1e-5)
