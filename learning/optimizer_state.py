"""What an optimizer carries from step to step, without a model. Loads torch only for one with an import path."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from . import user_code

ADAM = ("exp_avg", "exp_avg_sq")  # m and v
VELOCITY = ("momentum",)  # of SGD with momentum


class Carried(NamedTuple):
    """An optimizer's state."""

    moments: tuple[str, ...]  # names of the vectors that have one element per parameter
    size: float  # bytes of it all, as a multiple of the parameters' bytes
    others: tuple[str, ...] = ()  # names of tensors of other shapes, which cannot be averaged
    elementwise: bool = True  # whether it steps on a part of a parameter as on the whole, so that it may be sharded


def carried(optimizer: Mapping[str, Any]) -> Carried:
    """The state of `{name: adamw, ...}`; of plain SGD by default. ValueError for an optimizer that cannot be used."""
    if user_code.named(optimizer.get("name", "sgd")):
        from . import own_optimizers

        return own_optimizers.carried(optimizer)
    if optimizer.get("name") == "adamw":
        return Carried(ADAM, 2.0)
    return Carried(VELOCITY, 1.0) if optimizer.get("momentum") else Carried((), 0.0)
