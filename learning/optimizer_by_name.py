"""The optimizer that a scenario names, and what it carries. Loads torch only to make or to try one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from . import user_code
from .optimizer_state import ADAM, VELOCITY, Carried

if TYPE_CHECKING:
    from .optimizers import Layout, Optimizer


def carried(spec: Mapping[str, Any]) -> Carried:
    """The state of `{name: adamw, ...}`; of plain SGD by default. ValueError for an optimizer that cannot be used."""
    if user_code.named(spec.get("name", "sgd")):
        from . import own_optimizers

        return own_optimizers.carried(spec)
    if spec.get("name") == "adamw":
        return Carried(ADAM, 2.0)
    return Carried(VELOCITY, 1.0) if spec.get("momentum") else Carried((), 0.0)


def make(spec: Mapping[str, Any], layout: Layout) -> Optimizer:
    """The optimizer of `{name: sgd, momentum: ..., ...}`, checked by config.optimizers.

    A built-in one is made without its `lr`: each step gets its learning rate from the round.
    """
    if user_code.named(spec.get("name", "sgd")):
        from .own_optimizers import OwnOptimizer

        return OwnOptimizer(layout, spec, carried(spec).moments)
    from .optimizers import OPTIMIZERS

    options = {key: value for key, value in spec.items() if key not in ("name", "lr")}
    return OPTIMIZERS[spec.get("name", "sgd")](layout, **options)
