"""The scenario's `workload:` section: what is trained, and how a step computes."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from .lr_schedule import AnyLrSchedule, ConstantSpec
from .metrics import Metrics
from .optimizers import AnyOptimizer
from .sections import Named, Section
from .units import Count, Factor, Positive, Seed, Share

BATCH = 64  # samples per worker and step, where neither batch nor total_batch is given


class ResizedCrop(Section):
    """A piece of each image at random, scaled to the image's size (Szegedy et al., arXiv 1409.4842)."""

    scale: tuple[Share, Share] = (0.08, 1.0)  # the least and the largest area, as a share of the image's
    ratio: tuple[Factor, Factor] = (3 / 4, 4 / 3)  # the least and the largest width, as a multiple of the height

    @model_validator(mode="after")
    def _rising(self) -> ResizedCrop:
        for key, (low, high) in (("scale", self.scale), ("ratio", self.ratio)):
            if low > high:
                raise ValueError(f"{key} falls from {low:g} to {high:g}; write the lower number first")
        return self


class RandAugment(Section):
    """So many operations for each image, chosen at random (Cubuk et al., arXiv 1909.13719)."""

    depth: int = Field(default=2, ge=1, le=100)  # operations for each image
    severity: float = Field(default=9.0, ge=0, le=30)  # how strong they are; 10 is AutoAugment's strongest
    # "fixed": every operation is as strong as `severity`. "drawn": its strength is drawn, up to that (QSR's recipe).
    strength: Literal["fixed", "drawn"] = "fixed"

    @model_validator(mode="after")
    def _in_range(self) -> RandAugment:
        if self.strength == "drawn" and not 0.1 <= self.severity <= 10:
            raise ValueError(f"severity is {self.severity:g}; with strength: drawn it goes from 0.1 to 10")
        return self


class Augmentation(Section):
    """Training images changed at random, in this order: resized_crop, crop, flip, randaugment, mixup."""

    resized_crop: ResizedCrop | None = None  # a piece of the image, scaled to the image's size
    crop: int = Field(default=0, ge=0, le=10_000)  # pixels of padding on every side, before the image's size is cut out
    flip: bool = False  # whether half of the images are mirrored, left to right
    randaugment: RandAugment | None = None  # operations on colours and shape, chosen at random
    mixup: Factor | None = (
        None  # alpha; pairs of examples are mixed, one lambda of Beta(alpha, alpha) for a micro-batch
    )


class Workload(Section):
    """What is trained, and how a step computes."""

    model: Named
    data: Named = Named(name="digits")
    loss: Named = Named(name="cross_entropy")
    metrics: Metrics | None = None  # reported next to the test loss; by default accuracy where targets are labels
    batch: Count | None = None  # samples per worker and step, 64 if not said; the split may change it
    total_batch: Count | None = None  # samples of all workers in a step; give it or batch
    optimizer: AnyOptimizer
    lr_schedule: AnyLrSchedule = ConstantSpec(name="constant")
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)  # of cross_entropy, in training only
    micro_batch: Count | None = None  # most samples in memory at a time; the gradient is that of the whole batch
    # bf16, fp16: of products and convolutions; parameters stay fp32. In fp16 the loss is scaled.
    precision: Literal["fp32", "bf16", "fp16", "fp64"] = "fp32"
    loss_scale: Positive | None = None  # the scale at the beginning, in fp16; 65536 if not said
    augment: Augmentation | None = None
    threads: int = Field(default=1, ge=1, le=4096)  # per worker
    loaders: int = Field(default=0, ge=0, le=64)  # threads that load batches ahead in `train`; they change no number
    # A file with the initial weights, in place of random ones; relative to the scenario. Or by host, with a default.
    init: Path | dict[str, Path] | None = None
    # Of the initial parameters; of the order and choice of examples and their augmentation. By default both are the
    # scenario's seed. Dropout and the cluster's noise always use the scenario's.
    model_seed: Seed | None = None
    data_seed: Seed | None = None

    @model_validator(mode="before")
    @classmethod
    def _some_batch(cls, value: Any) -> Any:
        if not isinstance(value, dict) or value.get("total_batch") is not None:
            return value
        return value if value.get("batch") is not None else value | {"batch": BATCH}

    @model_validator(mode="after")
    def _one_batch(self) -> Workload:
        if self.batch is not None and self.total_batch is not None:
            raise ValueError(f"batch is {self.batch} and total_batch {self.total_batch}; leave one of them out")
        return self

    @model_validator(mode="after")
    def _scaled(self) -> Workload:
        if self.loss_scale is not None and self.precision != "fp16":
            raise ValueError(f"loss_scale is {self.loss_scale:g}; it is for precision: fp16 only, leave it out")
        return self

    @field_validator("optimizer", mode="before")
    @classmethod
    def _optimizer(cls, value: Any) -> Any:
        """{lr: 0.1} alone is SGDSpec."""
        return {"name": "sgd"} | value if isinstance(value, dict) else _by_name(value)

    @field_validator("lr_schedule", mode="before", json_schema_input_type=str | AnyLrSchedule)
    @classmethod
    def _rate(cls, value: Any) -> Any:
        return _by_name(value)


def _by_name(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value
