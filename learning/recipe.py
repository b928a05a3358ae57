"""How a training step computes, apart from model, data and optimizer. Loads no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from . import user_code

Precision = Literal["fp32", "bf16", "fp64"]


@dataclass(frozen=True)
class Augment:
    """Random changes of training images. crop: pixels of padding, of which a crop of the image's size is taken at
    random. flip: left and right exchanged for half of the images."""

    crop: int = 0
    flip: bool = False


@dataclass(frozen=True)
class Recipe:
    """label_smoothing: see losses.training_loss. micro_batch: most examples that are processed at a time (None: the
    batch). precision: bf16 of products and convolutions, all else staying fp32; fp64 of everything."""

    loss: str = "cross_entropy"
    label_smoothing: float = 0.0
    micro_batch: int | None = None
    precision: Precision = "fp32"
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
