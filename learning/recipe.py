"""How a training step computes, apart from model, data and optimizer. Loads no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from . import user_code

# What to use instead of a run that computes, where only time can be predicted so far.
TIMING_ONLY = "use simulate --timing-only, or train --phantom"

Precision = Literal["fp32", "bf16", "fp64"]


@dataclass(frozen=True)
class Augment:
    """Random changes of training images."""

    crop: int = 0  # pixels of padding on every side, from which a piece of the image's size is cut at random
    flip: bool = False  # half of the images are mirrored, left to right


@dataclass(frozen=True)
class Recipe:
    """How a step computes. The ranges of these numbers are checked by config.workload, where users write them."""

    loss: str = "cross_entropy"
    label_smoothing: float = 0.0  # see losses.training_loss
    micro_batch: int | None = None  # most examples that are processed at a time; None: the whole batch
    precision: Precision = "fp32"  # bf16: of products and convolutions only; fp64: of everything
    augment: Augment | None = None

    @property
    def item(self) -> int:
        """Bytes of a parameter."""
        return 8 if self.precision == "fp64" else 4


def check(recipe: Recipe, input_shape: tuple[int, ...]) -> None:
    """ValueError where the recipe does not fit the data or the loss, alike for timing-only and real runs."""
    if recipe.augment is not None and len(input_shape) != 3:
        shown = "x".join(map(str, input_shape))
        raise ValueError(f"augment changes images, channels x height x width; the data's examples are {shown}")
    if recipe.label_smoothing and user_code.named(recipe.loss):
        raise ValueError(f"label_smoothing is cross_entropy's; {recipe.loss} must smooth by itself")
