"""torchvision's models: the cost tables against known numbers and, if it is installed, against torchvision itself."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from torch import nn

from kit.paths import ROOT
from paceline.learning import cost_tables, models, torchvision_tables, torchvision_units
from paceline.learning.data import shape_of
from paceline.learning.dataset import DataShape
from paceline.learning.works import cost_of

# Parameters as torchvision documents them; FLOPs and bytes measured on torchvision 0.28 with cost.measured_cost.
KNOWN = {
    "vit_b_16": (86_567_656, 0, 35_127_656_448, 184_129_736),
    "vit_l_16": (304_326_632, 0, 123_109_425_152, 487_754_568),
    "vit_l_32": (306_535_400, 0, 30_755_078_144, 123_795_504),
    "resnet50": (25_557_032, 53_120, 8_178_368_512, 91_332_512),
    "resnet152": (60_192_808, 151_424, 23_027_253_248, 182_853_536),
}


@pytest.mark.parametrize("name", KNOWN)
def test_tables_have_the_known_numbers(name):
    found = cost_of(f"torchvision:{name}", {}, shape_of("imagenet", {}))
    assert (found.parameters, found.buffers, found.flops, found.activations) == KNOWN[name]


def test_tables_are_lists_of_units():
    found = torchvision_tables.cost("vit_l_16", (3, 224, 224), 1000)
    assert [u.name for u in found][:2] == ["conv_proj", "encoder1"]
    assert len(found) == 26
    assert len(torchvision_tables.cost("resnet152", (3, 224, 224), 1000)) == 52
    small = torchvision_tables.cost("resnet50", (3, 200, 200), 1000)
    assert cost_tables.total(small).flops == 6_997_645_312
    assert cost_tables.total(small).activations == 74_737_568
    assert torchvision_tables.cost("alexnet", (3, 224, 224), 1000) is None


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("vit_b_16", (3, 100, 100), "cuts square images into patches of 16; 100x100 does not fit"),
        ("resnet50", (1, 28, 28), "model torchvision:resnet50 takes images of 3 channels; the data's have 1"),
        ("resnet50", (64,), "model torchvision:resnet50 takes images, channels x height x width"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(name, shape, message):
    with pytest.raises(ValueError, match=message):
        cost_of(f"torchvision:{name}", {}, DataShape(shape, 10, 100, 10))


def test_without_torchvision_the_error_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision", None)
    message = "model torchvision:vit_b_16 needs torchvision, which is not installed: pip install 'paceline\\[vision\\]'"
    with pytest.raises(ValueError, match=message):
        models.build("torchvision:vit_b_16", {}, (3, 224, 224), 1000, seed=0)
    with pytest.raises(ValueError, match="model torchvision:alexnet needs torchvision"):
        cost_of("torchvision:alexnet", {}, DataShape((3, 224, 224), 10, 100, 10))


def test_timing_only_needs_neither_torch_nor_torchvision():
    code = (
        "import sys, paceline; run = paceline.simulate('scenarios/local_sgd.yaml', timing_only=True, settings="
        "['workload.data=imagenet', 'workload.model=torchvision:vit_l_16', 'budget={rounds: 2}']);"
        "assert run.summary['seconds']; assert not {'torch', 'torchvision', 'PIL'} & set(sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("name", "pixels"), [("vit_b_32", 64), ("resnet50", 65), ("resnet101", 32)])
def test_torchvision_agrees(name, pixels):
    pytest.importorskip("torchvision", exc_type=ImportError)
    from paceline.learning.measured_costs import measured_cost

    shape = (3, pixels, pixels)
    model, known = models.build(f"torchvision:{name}", {}, shape, 7, seed=0), torchvision_tables.cost(name, shape, 7)
    measured = measured_cost(model, DataShape(shape, 7, 100, 10))
    assert replace(cost_tables.total(known), units=()) == replace(measured, units=())
    assert [unit.parameters for unit in known] == [unit.parameters for unit in measured.units]


class Transformer(nn.Module):
    """Built of the parts of torchvision's VisionTransformer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv_proj, self.class_token = nn.Conv2d(3, 8, 4, 4), nn.Parameter(torch.zeros(1, 1, 8))
        self.encoder, self.heads = nn.Module(), nn.Linear(8, 5)
        self.encoder.pos_embedding, self.encoder.dropout = nn.Parameter(torch.randn(1, 5, 8)), nn.Dropout(0.5)
        blocks = [nn.Sequential(nn.Linear(8, 8), nn.GELU()) for _ in range(3)]
        self.encoder.layers, self.encoder.ln = nn.Sequential(*blocks), nn.LayerNorm(8)

    def _process_input(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv_proj(x).flatten(2).permute(0, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = torch.cat([self.class_token.expand(len(x), -1, -1), self._process_input(x)], 1)
        out = self.encoder.dropout(tokens + self.encoder.pos_embedding)
        return self.heads(self.encoder.ln(self.encoder.layers(out))[:, 0])


class Residual(nn.Module):
    """Built of the parts of torchvision's ResNet."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1, self.relu = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True)
        self.maxpool, self.avgpool, self.fc = nn.MaxPool2d(2), nn.AdaptiveAvgPool2d(1), nn.Linear(4, 5)
        for stage in range(1, 5):
            blocks = [nn.Sequential(nn.Conv2d(4, 4, 1), nn.ReLU(inplace=True)) for _ in range(2)]
            setattr(self, f"layer{stage}", nn.Sequential(*blocks))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        out = self.layer4(self.layer3(self.layer2(self.layer1(out))))
        return self.fc(self.avgpool(out).flatten(1))


@pytest.mark.parametrize(("kind", "place", "count"), [(Transformer, 0, 5), (Residual, 1, 10)])
def test_units_of_torchvisions_models_are_the_model(kind, place, count, monkeypatch):
    torch.manual_seed(0)
    model, x = kind(), torch.randn(2, 3, 8, 8)
    assert models.units(model) == [model], "a model with the same parts may have another forward pass"
    split = [*torchvision_units.SPLITS.values()][place]
    monkeypatch.setitem(torchvision_units.SPLITS, (kind.__module__, kind.__qualname__), split)
    found = models.units(model)
    assert len(found) == count
    assert {id(p) for unit in found for p in unit.parameters()} == {id(p) for p in model.parameters()}
    torch.manual_seed(1)
    expected = model(x)
    torch.manual_seed(1)
    for unit in found:
        x = unit(x)
    assert torch.equal(x, expected)
