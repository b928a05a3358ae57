"""What torchvision's models cost, unit by unit, by formula: timing-only runs need neither torchvision nor torch.

tests/learning/test_vision.py compares them with torchvision's own models, where it is installed. Terms as in
cost_tables.UnitCost.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from . import user_code
from .cost_tables import UnitCost, total
from .model_arguments import Shape, image

PREFIX = "torchvision:"


@dataclass(frozen=True)
class _ViT:
    """A vision transformer's sizes (Dosovitskiy et al., ICLR 2021, arXiv 2010.11929, table 1)."""

    patch: int
    layers: int
    heads: int
    dim: int
    hidden: int


def cost(name: str, input_shape: Shape, classes: int) -> list[UnitCost] | None:
    """The units of `torchvision:NAME`, None where there is no table. ValueError: an input that it cannot take."""
    table = TABLES.get(name)
    if table is None:
        return None
    if image(input_shape, PREFIX + name)[0] != 3:
        raise ValueError(f"model {PREFIX}{name} takes images of 3 channels; the data's have {input_shape[0]}")
    return table(input_shape, classes)


def _vit(sizes: _ViT, input_shape: Shape, classes: int) -> list[UnitCost]:
    _, height, breadth = input_shape
    patch, d, h = sizes.patch, sizes.dim, sizes.hidden
    if height != breadth or height % patch:
        raise ValueError(f"the model cuts square images into patches of {patch}; {height}x{breadth} does not fit")
    patches = (height // patch) ** 2
    n = patches + 1  # the class token
    kernels = 3 * patch * patch * d
    # The convolution's output, then the tokens with the class token before them, then with their positions.
    first = UnitCost("conv_proj", kernels + d + d + n * d, 0, 2.0 * kernels * patches, 4.0 * (patches + 2 * n) * d)
    # Activations: 17 of the tokens' size (norms; queries, keys and values with the copies that attention wants; its
    # output; sums; the MLP's output), 2 of the hidden layer, and what norms and attention keep of each row.
    block = UnitCost(
        "encoder",
        4 * d + 4 * (d * d + d) + 2 * d * h + h + d,
        0,
        2.0 * n * (4 * d * d + 2 * d * h) + 4.0 * n * n * d,
        4.0 * n * (17 * d + 2 * h + 4 + sizes.heads),
    )
    blocks = [replace(block, name=f"encoder{i + 1}") for i in range(sizes.layers)]
    last = UnitCost("head", 2 * d + (d + 1) * classes, 0, 2.0 * d * classes, 4.0 * (n * (d + 2) + classes))
    return [first, *blocks, last]


def _resnet(blocks: tuple[int, ...], input_shape: Shape, classes: int) -> list[UnitCost]:
    """Bottleneck blocks with the stride in the 3x3 convolution (He et al., CVPR 2016, arXiv 1512.03385, table 1)."""
    _, height, breadth = input_shape

    def conv(size: int, out: int, kernel: int) -> UnitCost:
        """Convolution without bias + BatchNorm, to the current height and breadth."""
        kernels, pixels = size * out * kernel * kernel, height * breadth
        return UnitCost("", kernels + 2 * out, 2 * out, 2.0 * kernels * pixels, 8.0 * out * pixels)

    height, breadth = -(-height // 2), -(-breadth // 2)
    stem = conv(3, 64, 7)
    height, breadth = -(-height // 2), -(-breadth // 2)
    pooled = 12.0 * 64 * height * breadth  # the largest values and their 64-bit places
    units = [replace(stem, name="stem", activations=stem.activations + pooled)]
    size = 64
    for stage, count in enumerate(blocks):
        width = 64 << stage
        for block in range(count):
            parts = [conv(size, width, 1)]
            if stage and not block:
                height, breadth = -(-height // 2), -(-breadth // 2)
            parts += [conv(width, width, 3), conv(width, 4 * width, 1)]
            if not block:
                parts.append(conv(size, 4 * width, 1))
            size = 4 * width
            whole = total(parts)
            numbers = whole.parameters, whole.buffers, whole.flops, whole.activations
            units.append(UnitCost(f"layer{stage + 1}.{block}", *numbers))
    return [*units, UnitCost("head", (size + 1) * classes, 0, 2.0 * size * classes, 4.0 * (size + classes))]


TABLES: dict[str, Callable[[Shape, int], list[UnitCost]]] = {
    "vit_b_16": partial(_vit, _ViT(16, 12, 12, 768, 3072)),
    "vit_b_32": partial(_vit, _ViT(32, 12, 12, 768, 3072)),
    "vit_l_16": partial(_vit, _ViT(16, 24, 16, 1024, 4096)),
    "vit_l_32": partial(_vit, _ViT(32, 24, 16, 1024, 4096)),
    "resnet50": partial(_resnet, (3, 4, 6, 3)),
    "resnet101": partial(_resnet, (3, 4, 23, 3)),
    "resnet152": partial(_resnet, (3, 8, 36, 3)),
}


def named(model: str) -> bool:
    """Whether `model` is one of torchvision's, `torchvision:NAME`; every other name with a colon is an import path."""
    return model.startswith(PREFIX) and user_code.named(model)
