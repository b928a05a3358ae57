"""The scenario's `workload.optimizer:` section."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Discriminator, Field, Tag, WithJsonSchema, field_validator, model_validator

from .members import OWN, PATH, tag
from .sections import OpenSection, Section
from .units import Positive


class OptimizerSpec(Section):
    """What all optimizers take."""

    name: str
    lr: Positive
    decay: Literal["all", "matrices"] = "all"  # which parameters decay; biases and norms are 1-D, so not matrices
    clip: Positive | None = None  # the largest norm of a gradient: of a local step's own, of a synchronous step's mean


class SGDSpec(OptimizerSpec):
    """SGD as PyTorch defines it: v <- momentum v + g; x <- x - lr v (nesterov: g + momentum v)."""

    name: Literal["sgd"] = "sgd"
    weight_decay: float = Field(default=0.0, ge=0, le=1e30)
    momentum: float = Field(default=0.0, ge=0, lt=1)
    nesterov: bool = False

    @model_validator(mode="after")
    def _nesterov(self) -> SGDSpec:
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov needs a momentum above 0")
        return self


class AdamWSpec(OptimizerSpec):
    """AdamW as PyTorch defines it (Loshchilov and Hutter, arXiv 1711.05101)."""

    name: Literal["adamw"]
    betas: tuple[float, float] = (0.9, 0.999)
    eps: Positive = 1e-8
    weight_decay: float = Field(default=0.01, ge=0, le=1e30)

    @field_validator("betas")
    @classmethod
    def _shares(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not all(0 <= beta < 1 for beta in value):
            raise ValueError(f"{list(value)}: each must be 0 or more and below 1, like [0.9, 0.999]")
        return value


class OwnOptimizerSpec(OpenSection, OptimizerSpec):
    """A torch.optim.Optimizer by its import path, one of torch's or a user's own. Other keys are its arguments.

    What they may be is checked where torch is loaded: learning.own_optimizers.
    """

    model_config = ConfigDict(extra="allow", frozen=True)

    name: Annotated[str, WithJsonSchema(OWN)]


AnyOptimizer = Annotated[
    Annotated[SGDSpec, Tag("sgd")] | Annotated[AdamWSpec, Tag("adamw")] | Annotated[OwnOptimizerSpec, Tag(PATH)],
    Discriminator(tag),
]
