"""How a training step computes, apart from model, data and optimizer. Loads no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from . import user_code

# What to use instead of a run that computes, where only time can be predicted so far.
TIMING_ONLY = "use simulate --timing-only, or train --phantom"

Precision = Literal["fp32", "bf16", "fp64"]


@dataclass(frozen=True)
class ResizedCrop:
    """A piece of each image at random, scaled to the image's size (Szegedy et al., arXiv 1409.4842)."""

    scale: tuple[float, float] = (0.08, 1.0)  # its area, as a share of the image's
    ratio: tuple[float, float] = (3 / 4, 4 / 3)  # its width over its height


@dataclass(frozen=True)
class RandAugment:
    """So many operations for each image, chosen at random; see rand_augment.py."""

    depth: int = 2  # operations
    severity: float = 9.0  # 10 is AutoAugment's strongest
    strength: Literal["fixed", "drawn"] = "fixed"  # of each operation: `severity`, or drawn up to it


@dataclass(frozen=True)
class Augment:
    """Random changes of training images; see config.workload."""

    crop: int = 0  # pixels of padding on every side, from which a piece of the image's size is cut at random
    flip: bool = False  # half of the images are mirrored, left to right
    resized_crop: ResizedCrop | None = None
    randaugment: RandAugment | None = None


def augmentation(
    *, resized_crop: Mapping[str, Any] | None, randaugment: Mapping[str, Any] | None, **others: Any
) -> Augment:
    """The augmentation with these keys of the scenario."""
    return Augment(
        resized_crop=None if resized_crop is None else ResizedCrop(**resized_crop),
        randaugment=None if randaugment is None else RandAugment(**randaugment),
        **others,
    )


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
    shown, how = "x".join(map(str, input_shape)), recipe.augment
    if how is not None and len(input_shape) != 3:
        raise ValueError(f"augment changes images, channels x height x width; the data's examples are {shown}")
    if how is not None and how.randaugment and input_shape[0] not in (1, 3):
        raise ValueError(f"augment.randaugment changes grey or RGB images; the data's examples are {shown}")
    if recipe.label_smoothing and user_code.named(recipe.loss):
        raise ValueError(f"label_smoothing is cross_entropy's; {recipe.loss} must smooth by itself")
