"""How a training step computes, apart from model, data and optimizer. Loads no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from .dataset import Dataset, DataShape
from .loss_arguments import check_labels, check_loss

# What to use instead of a run that computes, where only time can be predicted so far.
TIMING_ONLY = "use simulate --timing-only, or train --phantom"

Precision = Literal["fp32", "bf16", "fp16", "fp64"]

LOSS_SCALE = 65536.0  # the first one in fp16, as torch.amp.GradScaler has it


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
    mixup: float | None = None  # alpha of its Beta distribution; see mixup.py


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
    label_smoothing: float = 0.0  # the share of a label's weight that is spread over all classes (arXiv 1512.00567)
    micro_batch: int | None = None  # most examples that are processed at a time; None: the whole batch
    precision: Precision = "fp32"  # bf16, fp16: of products and convolutions only; fp64: of everything
    augment: Augment | None = None
    loss_scale: float | None = None  # see first_scale
    metrics: tuple[tuple[str, str], ...] | None = None  # see metrics.named_by
    loss_args: Mapping[str, Any] = field(default_factory=dict)  # of loss_arguments, or of a user's function

    @property
    def item(self) -> int:
        """Bytes of a parameter."""
        return 8 if self.precision == "fp64" else 4

    @property
    def first_scale(self) -> float | None:
        """By how much the loss is scaled at first; None where it is not."""
        return (self.loss_scale or LOSS_SCALE) if self.precision == "fp16" else None


def check(recipe: Recipe, shape: DataShape) -> None:
    """ValueError where the recipe does not fit the data or the loss, alike for timing-only and real runs."""
    how = recipe.augment
    if how is not None:
        shown = " and ".join("x".join(map(str, each)) or "one number" for each, _ in shape.inputs)
        if [(len(each), kind) for each, kind in shape.inputs] != [(3, "float32")]:
            raise ValueError(f"augment changes images, channels x height x width; the data's examples are {shown}")
        if how.randaugment and shape.input_shape[0] not in (1, 3):
            raise ValueError(f"augment.randaugment changes grey or RGB images; the data's examples are {shown}")
        if len(shape.target_shape) > 1:
            shown = "x".join(map(str, shape.target_shape))
            raise ValueError(f"augment changes images and not their targets, and those of the data are {shown}")
    if recipe.label_smoothing and recipe.loss != "cross_entropy":
        raise ValueError(f"label_smoothing is cross_entropy's; {recipe.loss} must smooth by itself")


def check_data(recipe: Recipe, data: Dataset) -> None:
    """The same, and ValueError where the recipe does not fit the values of the data."""
    check(recipe, data.shape)
    if recipe.augment is not None and recipe.augment.randaugment and data.pixels is None:
        raise ValueError(
            "augment.randaugment needs bytes, and it is not known how the data's values follow from bytes; "
            "give images as bytes (uint8), or a Dataset with pixels=Pixels(scale, shift)"
        )
    if recipe.loss == "cross_entropy":
        args = check_loss(recipe.loss, recipe.loss_args)
        check_labels(data, args["ignore_index"], args["weight"] and len(args["weight"]), classes=data.classes)
