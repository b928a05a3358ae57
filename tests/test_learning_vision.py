"""torchvision's models: their tables by known numbers and, where it is installed, against torchvision itself."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from paceline.learning import tables, torchvision_tables, units
from paceline.learning.data import DataShape, shape_of
from paceline.learning.phantoms import cost_of

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
    assert tables.total(small).flops == 6_997_645_312
    assert tables.total(small).activations == 74_737_568
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
        units.build("torchvision:vit_b_16", {}, (3, 224, 224), 1000, seed=0)
    with pytest.raises(ValueError, match="model torchvision:alexnet needs torchvision"):
        cost_of("torchvision:alexnet", {}, DataShape((3, 224, 224), 10, 100, 10))


def test_timing_only_needs_neither_torch_nor_torchvision():
    code = (
        "import sys, paceline; run = paceline.simulate('scenarios/local_sgd.yaml', timing_only=True, settings="
        "['workload.data=imagenet', 'workload.model=torchvision:vit_l_16', 'budget={rounds: 2}']);"
        "assert run.summary['seconds']; assert not {'torch', 'torchvision', 'PIL'} & set(sys.modules)"
    )
    root = Path(__file__).parent.parent
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        cwd=root,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("name", "pixels"), [("vit_b_32", 64), ("resnet50", 65), ("resnet101", 32)])
def test_torchvision_agrees(name, pixels):
    pytest.importorskip("torchvision", exc_type=ImportError)
    from paceline.learning.cost import measured_cost

    model = units.build(f"torchvision:{name}", {}, (3, pixels, pixels), 7, seed=0)
    assert tables.total(torchvision_tables.cost(name, (3, pixels, pixels), 7)) == measured_cost(
        model, (3, pixels, pixels)
    )
