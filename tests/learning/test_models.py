"""Models, and their cost tables against torch."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
from torch import nn

from kit.paths import ROOT
from paceline.learning import buffers, cost_tables, layers, measured_costs, models, user_code
from paceline.learning.dataset import DataShape
from paceline.learning.works import cost_of

DIGITS, CIFAR = (1, 8, 8), (3, 32, 32)
CASES = [
    ("mlp", {}, DIGITS),
    ("mlp", {"hidden": [300, 200], "dropout": 0.1}, CIFAR),
    ("mlp", {"hidden": []}, (20,)),
    ("cnn", {}, CIFAR),
    ("cnn", {"channels": [8, 16, 32], "dropout": 0.2}, DIGITS),
    ("cnn", {"channels": [4]}, (2, 5, 7)),
    ("resnet20", {}, CIFAR),
    ("resnet20", {}, DIGITS),
    ("resnet20", {"width": 0.5}, (3, 9, 7)),
    ("vit", {}, CIFAR),
    ("vit", {"patch": 2, "dim": 24, "depth": 2, "heads": 3, "mlp_ratio": 1.5, "dropout": 0.1}, (1, 8, 6)),
]


def own_model(input_shape: tuple[int, ...], classes: int, *, width: int = 4) -> nn.Module:
    """A model as a user would write one."""
    return nn.Sequential(nn.Flatten(), nn.Linear(torch.Size(input_shape).numel(), width), nn.Linear(width, classes))


def own_wrong(input_shape: tuple[int, ...], classes: int) -> object:
    return "no module"


def own_failing(input_shape: tuple[int, ...], classes: int) -> nn.Module:
    raise RuntimeError("first line\nsecond line")


def own_lazy(input_shape: tuple[int, ...], classes: int) -> nn.Module:
    return nn.LazyLinear(classes)


@pytest.mark.parametrize(("model", "args", "shape"), CASES)
def test_the_table_says_what_torch_does(model, args, shape):
    module = models.build(model, args, shape, 10, seed=0)
    table = cost_tables.cost(model, args, shape, 10)
    assert cost_tables.total(table) == measured_costs.measured_cost(module, DataShape(shape, 10, 100, 10))
    own = models.units(module)
    assert len(own) == len(table)
    x = torch.rand(2, *shape)
    for unit, row in zip(own, table, strict=True):
        assert row.parameters == sum(p.numel() for p in unit.parameters()), row.name
        assert row.buffers == sum(b.numel() for b in buffers.averaged(unit).values()), row.name
        with measured_costs.flop_counter() as counter, torch.no_grad():
            x = unit(x)
        assert 2 * row.flops == counter.get_total_flops(), row.name
    assert x.shape == (2, 10)


def test_resnet20_has_the_papers_parameters_and_begins_as_its_shortcuts():
    model = models.build("resnet20", {}, CIFAR, 10, seed=3)
    assert sum(p.numel() for p in model.parameters()) == 272_474
    blocks = [m for m in model if isinstance(m, layers.Block)]
    assert len(blocks) == 9
    assert all((b.norm2.weight == 0).all() and (b.norm1.weight == 1).all() for b in blocks)
    assert sum(b.shortcut is not None for b in blocks) == 2
    bound = (6 / (64 * 9 + 64 * 9)) ** 0.5
    last = blocks[-1].conv2.weight
    assert last.abs().max() <= bound
    assert last.abs().max() > 0.99 * bound


def test_a_model_depends_on_the_seed_alone_and_leaves_torchs_stream():
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = models.build("cnn", {}, DIGITS, 10, seed=7)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    again, other = (models.build("cnn", {}, DIGITS, 10, seed=s) for s in (7, 8))
    same = [torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True)]
    assert all(same)
    assert not torch.equal(next(first.parameters()), next(other.parameters()))


def test_measuring_leaves_torchs_stream():
    stream = torch.get_rng_state()
    measured_costs.measured_cost(models.build("mlp", {"dropout": 0.5}, DIGITS, 10, seed=0), DataShape(DIGITS, 10, 9, 9))
    assert torch.equal(torch.get_rng_state(), stream)


def test_units_are_merged_to_a_megabyte():
    assert cost_tables.groups([]) == []
    assert cost_tables.groups([1, 1], 4) == [(0, 2)]
    assert cost_tables.groups([1, 3, 9, 2, 2, 1], 4) == [(0, 2), (2, 3), (3, 6)]
    assert cost_tables.groups([9, 1, 1], 4) == [(0, 3)]
    model = models.build("mlp", {"hidden": [512] * 4}, CIFAR, 10, seed=0)
    merged = models.merge_units(models.units(model))
    assert [sum(p.numel() * 4 for p in u.parameters()) >= 1 << 20 for u in merged] == [True] * len(merged)
    x = torch.rand(2, *CIFAR)
    expected = model(x)
    for unit in merged:
        x = unit(x)
    assert torch.equal(x, expected)
    whole = nn.Bilinear(2, 2, 2)
    assert models.units(whole) == [whole]
    more = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    assert models.units(more) == list(more)
    more.scale = nn.Parameter(torch.ones(2))
    assert models.units(more) == [more]


def test_a_users_model_is_built_and_measured():
    shape = DataShape(DIGITS, 10, 100, 10)
    found = cost_of(f"{__name__}:own_model", {"width": 5}, shape)
    assert (found.parameters, found.flops, found.activations) == (64 * 5 + 5 + 60, 2.0 * (320 + 50), 4.0 * 15)


@pytest.mark.parametrize(
    ("model", "args", "shape", "message"),
    [
        (
            "resnet2",
            {},
            DIGITS,
            "no model 'resnet2'; did you mean 'resnet20'?; write mlp, cnn, resnet20, vit, sized, resnet18, ",
        ),
        ("mlp", {"hiden": 3}, DIGITS, "model mlp has no argument 'hiden'; it takes hidden, dropout"),
        ("mlp", {"hidden": [0]}, DIGITS, "model mlp: hidden is [0]; write a list of layer sizes"),
        ("mlp", {"dropout": 1}, DIGITS, "model mlp: dropout is 1; write a share from 0"),
        ("resnet20", {"width": "wide"}, DIGITS, "model resnet20: width is 'wide'; write a number above 0"),
        ("cnn", {}, (64,), "model cnn takes images, channels x height x width; the data's examples are 64"),
        ("cnn", {"channels": [4] * 4}, DIGITS, "8x8 is too small"),
        ("vit", {"patch": 3}, DIGITS, "model vit: patch 3 does not divide images of 8x8"),
        ("vit", {"heads": 5}, DIGITS, "model vit: dim 64 must be a multiple of heads 5"),
        ("vit", {"depth": 0}, DIGITS, "model vit: depth is 0; write a whole number, 1 or more"),
        ("no_such:model", {}, DIGITS, "model 'no_such:model': no module named 'no_such'; is its folder on PYTHONPATH?"),
        ("yaml:dump_", {}, DIGITS, "model 'yaml:dump_': yaml has no 'dump_'; did you mean 'dump"),
        (
            "numpy:__version__",
            {},
            DIGITS,
            "'numpy:__version__' is a str; name a function or class that makes",
        ),
        ("yaml:", {}, DIGITS, "is not an import path; write package.module:factory"),
        (f"{__name__}:own_wrong", {}, DIGITS, "gave a str; its factory must return a torch.nn.Module"),
        (f"{__name__}:own_failing", {}, DIGITS, "failed: RuntimeError: first line"),
        (f"{__name__}:own_lazy", {}, DIGITS, "has lazy layers without sizes"),
        (f"{__name__}:own_model", {"depth": 1}, DIGITS, "failed: TypeError: own_model() got an unexpected"),
    ],
)
def test_a_wrong_model_is_one_line(model, args, shape, message):
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the text is compared below
        models.build(model, args, shape, 10, seed=0)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    if not user_code.named(model):  # refused alike without torch
        with pytest.raises(ValueError) as alike:  # noqa: PT011
            cost_tables.cost(model, args, shape, 10)
        assert str(alike.value) == str(caught.value)


def test_a_module_that_needs_another_is_told_from_one_that_is_missing(tmp_path, monkeypatch):
    (tmp_path / "needs_another.py").write_text("import not_installed_at_all\n")
    (tmp_path / "broken.py").write_text("1 / 0\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match="no module named 'not_installed_at_all', which needs_another needs"):
        user_code.load("needs_another:f", "model")
    with pytest.raises(ValueError, match="importing broken failed: ZeroDivisionError: division by zero"):
        user_code.load("broken:f", "model")


def test_tables_data_and_phantoms_need_no_torch():
    code = (
        "import sys; from paceline.learning import cost_tables, loss_arguments, phantoms, works; "
        "from paceline.learning.data import shape_of; "
        "shape = shape_of('synthetic', {'train': 500}); print(works.cost_of('resnet20', {}, shape).parameters);"
        "shape_of('fashion_mnist', {'size': 224, 'classes': 1000});"
        "loss_arguments.check_loss('cross_entropy'); assert 'torch' not in sys.modules and 'sklearn' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (0, "272474\n"), done.stderr
