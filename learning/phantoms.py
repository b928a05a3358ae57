"""Builds phantom workers: those of timing-only runs, which compute nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..algorithms.costs import ModelCost
from ..algorithms.phantom import Phantoms
from ..algorithms.plan import Plan
from ..algorithms.worker import evaluation_blocks
from .dataset import DataShape
from .metrics import described
from .optimizer_by_name import carried
from .recipe import Recipe
from .works import cost_of, make_works


def build_phantoms(
    plan: Plan,
    shape: DataShape,
    *,
    model: str,
    model_args: Mapping[str, Any] | None = None,
    indexes: Sequence[int] | None = None,
    cost: ModelCost | None = None,
    optimizer: Mapping[str, Any] | None = None,
    recipe: Recipe | None = None,
    staged: Sequence[bool] | None = None,
) -> Phantoms:
    """The plan's workers numbered `indexes` (all by default), as work and bytes only.

    cost: the model's, where it is known already.
    optimizer, recipe, staged: as build_workers takes them; plain SGD by default.
    """
    cost, spec = cost or cost_of(model, model_args or {}, shape), optimizer or {}
    works = make_works(plan, cost, shape.test, recipe, staged)
    numbers = range(plan.workers) if indexes is None else indexes
    return Phantoms(
        numbers,
        works if indexes is None else [works[index] for index in numbers],
        moments=carried(spec).moments,
        clips=spec.get("clip") is not None,
        blocks=evaluation_blocks(shape.test, plan.workers, shape.targets),
        metrics=described(recipe or Recipe(), shape),
    )
