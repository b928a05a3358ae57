"""What the built-in models cost, unit by unit, without torch; tests compare every number with torch.

Rule: torch is never imported here, so that timing-only runs do not need it. The models' arguments have their defaults
here and in architectures, so that the same arguments are refused with and without torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from ..algorithms.costs import ModelCost, together
from ..algorithms.unitwise import UNIT_BYTES
from ..program.errors import nearest
from . import architectures
from .model_arguments import Shape, checked, image


@dataclass(frozen=True)
class UnitCost:
    """What one unit of a model costs."""

    name: str
    parameters: int = 0  # fp32 elements
    buffers: int = 0  # elements of the floating-point ones
    flops: float = 0.0  # of one sample's forward pass: convolutions and matrix products; a multiply-add counts as two
    # Bytes that one sample's forward pass allocates in training: outputs, dropout's masks, pooling's indices. What
    # works in place allocates nothing.
    activations: float = 0.0


def cost(model: str, args: Mapping[str, Any], input_shape: Shape, classes: int) -> list[UnitCost]:
    """Costs of the units of a model in TABLES. ValueError as `resolve`."""
    options = resolve(model, args, input_shape, classes)
    return TABLES[model](input_shape, classes, **options)


def resolve(model: str, args: Mapping[str, Any], input_shape: Any, classes: Any) -> dict[str, Any]:
    """The arguments of a built-in model, checked and with defaults filled in.

    ValueError: unknown model or argument, or an input that the model cannot take.
    """
    known: dict[str, Callable[..., object]] = {**TABLES, **architectures.NAMES}
    if model not in known:
        raise ValueError(
            f"no model {model!r}{nearest(model, known)}; "
            f"write {', '.join(known)} or an import path package.module:factory"
        )
    options = checked(model, known[model], args)
    known[model](input_shape, classes, **options)  # refuses inputs that the model cannot take
    return options


def total(units: Sequence[UnitCost]) -> ModelCost:
    """The whole model's cost."""
    return together([ModelCost(u.parameters, u.buffers, u.flops, u.activations) for u in units])


@lru_cache(maxsize=64)  # a plan asks again and again for the same model
def merged(cost: ModelCost, least: float) -> ModelCost:
    """The cost with consecutive units merged until each holds `least` bytes of parameters; see groups."""
    runs = groups([4.0 * unit.parameters for unit in cost.units], least)
    parts, cut = [cost.units[start:stop] for start, stop in runs], cost.cut
    if cut is not None:
        begins = tuple(cut.begins[start - 1] for start, _ in runs[1:])
        cut = replace(cut, begins=begins, parameters=tuple(sum(cut.parameters[a:b], ()) for a, b in runs))
    units = tuple(replace(together(part), shared=any(u.shared for u in part)) for part in parts)
    return replace(cost, units=units, cut=cut)


def groups(nbytes: Sequence[float], least: float = UNIT_BYTES) -> list[tuple[int, int]]:
    """(start, stop) of runs of units to merge: a run ends as soon as it holds `least` bytes of parameters.

    What is left at the end joins the last run when there is one, so no run but a lone first is smaller than `least`.
    """
    runs: list[tuple[int, int]] = []
    start, held = 0, 0.0
    for i, size in enumerate(nbytes):
        held += size
        if held >= least:
            runs.append((start, i + 1))
            start, held = i + 1, 0.0
    if start < len(nbytes):
        first = runs.pop()[0] if runs else 0
        runs.append((first, len(nbytes)))
    return runs


def mlp(
    input_shape: Shape, classes: int, *, hidden: tuple[int, ...] = (256, 128), dropout: float = 0.0
) -> list[UnitCost]:
    """Linear + ReLU (+ dropout) per hidden layer, and a linear classifier."""
    units, width = [], math.prod(input_shape)
    for i, out in enumerate(hidden):
        units.append(
            UnitCost(f"hidden{i + 1}", (width + 1) * out, 0, 2.0 * width * out, 4.0 * out + _drop(out, dropout))
        )
        width = out
    return [*units, UnitCost("classifier", (width + 1) * classes, 0, 2.0 * width * classes, 4.0 * classes)]


def cnn(
    input_shape: Shape, classes: int, *, channels: tuple[int, ...] = (16, 32), dropout: float = 0.0
) -> list[UnitCost]:
    """3x3 convolution + ReLU + 2x2 max-pool per entry of `channels`, (dropout,) and a linear classifier."""
    width, height, breadth = image(input_shape, "cnn")
    if min(height, breadth) >> len(channels) < 1:
        raise ValueError(
            f"model cnn halves the image once per entry of channels {list(channels)}; {height}x{breadth} is too small"
        )
    units: list[UnitCost] = []
    for i, out in enumerate(channels):
        kernels, pixels = width * out * 9, out * height * breadth
        height, breadth = height // 2, breadth // 2
        held = 4.0 * pixels + 12.0 * out * height * breadth  # pooling keeps 64-bit indices in addition to its output
        if not units and out > 1:
            held += 4.0 * pixels  # the channels-last copy
        units.append(UnitCost(f"conv{i + 1}", kernels + out, 0, 2.0 * kernels * pixels / out, held))
        width = out
    copied = bool(units) and width > 1 and height * breadth > 1  # flattening what is stored channels-last
    width *= height * breadth
    tail = 4.0 * width * copied + _drop(width, dropout) + 4.0 * classes
    return [*units, UnitCost("classifier", (width + 1) * classes, 0, 2.0 * width * classes, tail)]


def resnet20(input_shape: Shape, classes: int, *, width: float = 1.0) -> list[UnitCost]:
    """ResNet20 for small images (He et al., CVPR 2016, arXiv 1512.03385, section 4.2) with projection shortcuts.

    272,474 parameters for 3x32x32 and 10 classes.
    """
    channels, height, breadth = image(input_shape, "resnet20")
    widths = resnet_widths(width)

    def conv(size: int, out: int, kernel: int, name: str = "") -> UnitCost:
        """Convolution without bias + BatchNorm, to the current height and breadth."""
        kernels, pixels = size * out * kernel * kernel, out * height * breadth
        return UnitCost(name, kernels + 2 * out, 2 * out, 2.0 * kernels * height * breadth, 8.0 * pixels)

    size = widths[0]
    stem = conv(channels, size, 3, "stem")
    copy = 4.0 * size * height * breadth if size > 1 and height * breadth > 1 else 0.0  # to channels-last
    units = [replace(stem, activations=stem.activations + copy)]
    for stage, out in enumerate(widths):
        for block in range(3):
            stride = 2 if stage and not block else 1
            height, breadth = -(-height // stride), -(-breadth // stride)
            parts = [conv(size, out, 3), conv(out, out, 3)]
            if stride > 1 or size != out:
                parts.append(conv(size, out, 1))
            whole = total(parts)
            units.append(
                UnitCost(
                    f"block{stage + 1}.{block + 1}", whole.parameters, whole.buffers, whole.flops, whole.activations
                )
            )
            size = out
    return [*units, UnitCost("head", (size + 1) * classes, 0, 2.0 * size * classes, 4.0 * (size + classes))]


def vit(
    input_shape: Shape,
    classes: int,
    *,
    patch: int = 4,
    dim: int = 64,
    depth: int = 4,
    heads: int = 4,
    mlp_ratio: float = 2.0,
    dropout: float = 0.0,
) -> list[UnitCost]:
    """A small vision transformer (Dosovitskiy et al., ICLR 2021, arXiv 2010.11929): patches, pre-norm encoder blocks,
    and a linear classifier of the tokens' mean (there is no class token)."""
    channels, height, breadth = image(input_shape, "vit")
    if height % patch or breadth % patch:
        raise ValueError(f"model vit: patch {patch} does not divide images of {height}x{breadth}")
    if dim % heads:
        raise ValueError(f"model vit: dim {dim} must be a multiple of heads {heads}")
    tokens, hidden = (height // patch) * (breadth // patch), round(dim * mlp_ratio)
    held, kernels = tokens * dim, channels * patch * patch * dim
    first = UnitCost("patches", kernels + dim + held, 0, 2.0 * kernels * tokens, 8.0 * held + _drop(held, dropout))
    # Activations: two norms with their statistics, queries + keys + values, attention with a sum per row and head, its
    # output, the hidden layer before and after GELU, the MLP's output, two sums.
    block = UnitCost(
        "encoder",
        4 * dim * dim + 9 * dim + 2 * dim * hidden + hidden,
        0,
        2.0 * tokens * (4 * dim * dim + 2 * dim * hidden) + 4.0 * tokens * held,
        4.0 * (10 * held + 2 * tokens * hidden + tokens * (4 + heads)) + 2 * _drop(held, dropout),
    )
    norm = 4.0 * (held + 2 * tokens)
    head = UnitCost("head", 2 * dim + (dim + 1) * classes, 0, 2.0 * dim * classes, norm + 4.0 * (dim + classes))
    return [first, *(replace(block, name=f"encoder{i + 1}") for i in range(depth)), head]


def sized(input_shape: Shape, classes: int, *, parameters: int = 1_000_000) -> list[UnitCost]:
    """A model of which only the number of parameters is known, for timing-only runs: each is used once for a sample."""
    return [UnitCost("all", parameters, 0, 2.0 * parameters)]


TABLES: dict[str, Callable[..., list[UnitCost]]] = {
    "mlp": mlp,
    "cnn": cnn,
    "resnet20": resnet20,
    "vit": vit,
    "sized": sized,
}


def resnet_widths(width: float) -> tuple[int, int, int]:
    """Channels of ResNet20's three stages: 16, 32, 64 times the width ratio."""
    first, second, third = (max(1, round(base * width)) for base in (16, 32, 64))
    return first, second, third


def _drop(elements: int, rate: float) -> float:
    """Bytes of dropout on the CPU: a float mask and the output."""
    return 8.0 * elements if rate else 0.0
