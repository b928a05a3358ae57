"""The work and costs of a plan's workers, alike for those that compute and for phantoms. Loads torch only to measure a
model that has no table.

Rule: both kinds of worker get their Works from here, so a timing-only clock equals the full one to the last bit.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ..algorithms.costs import Holding, ModelCost, Works
from ..algorithms.plan import Plan
from . import architectures, cost_tables, torchvision_tables, user_code
from .dataset import DataShape
from .recipe import Recipe

MOST_PARTS = 100_000  # micro-batches of a step, since each is planned


def cost_of(model: str, args: Mapping[str, Any], shape: DataShape) -> ModelCost:
    """The model's cost: from its table, or measured on passes of a few examples, for which torch is loaded.

    Those passes are on torch's meta device and compute nothing, unless a user's model needs numbers.

    ValueError as cost_tables.cost and models.build.
    """
    own = user_code.named(model) and not torchvision_tables.named(model)
    one: Any
    classes: Any
    one, classes = (shape.input_shape, shape.classes) if own else _taken(model, args, shape)
    if torchvision_tables.named(model) and not args:
        known = torchvision_tables.cost(model.removeprefix(torchvision_tables.PREFIX), one, classes)
        if known is not None:
            return cost_tables.total(known)
    if not user_code.named(model) and model not in architectures.NAMES:
        return cost_tables.total(cost_tables.cost(model, args, one, classes))
    from .cutting import cost_of_own
    from .measured_costs import measured_cost
    from .models import on_meta

    if model in architectures.NAMES:
        made = on_meta(model, args, one, classes)
        return measured_cost(made, shape, list(made))
    return cost_of_own(model, args, shape)


def _taken(model: str, args: Mapping[str, Any], shape: DataShape) -> tuple[Any, Any]:
    """(input shape, classes) for a built-in model or torchvision's; ValueError where the data are not what it takes."""
    found = " and ".join(kind for _, kind in shape.inputs)
    wanted = "int64" if architectures.takes_tokens(model) else "float32"
    if len(shape.inputs) == 1:
        if shape.classes is None:
            raise ValueError(
                f"model {model} has an output for each class, and the data do not say how many: their targets are not "
                "labels; give them classes, the number of outputs, or write a model of your own"
            )
        if not torchvision_tables.named(model):
            cost_tables.resolve(model, args, shape.input_shape, shape.classes)
    if shape.kinds != wanted:
        what = {"int64": "tokens, which are whole numbers", "float32": "real numbers"}[wanted]
        raise ValueError(f"model {model} takes one array of {what}; the data's inputs are {found}")
    return shape.input_shape, shape.classes


def held_by(plan: Plan, staged: bool = False, item: int = 4) -> Holding:
    """How a worker of the plan holds its model."""
    place = plan.strategy.placement
    return Holding(plan.workers if place.sharded else 1, place.offloaded, staged, place.prefetch, item)


def make_works(
    plan: Plan, cost: ModelCost, test: int, recipe: Recipe | None = None, staged: Sequence[bool] | None = None
) -> list[Works]:
    """Each worker's Works; workers with equal numbers share one, since prices are cached by identity.

    test: examples in the test set. An evaluation is priced as the largest share of them: shares differ by one example,
        all wait for the slowest in the exchange that follows, and equal workers stay equal.
    staged: for each worker, whether its device has memory of its own.
    """
    recipe, place = recipe or Recipe(), plan.strategy.placement
    cost = cost_tables.merged(cost, place.unit_bytes)
    counts = {batch: math.ceil(batch / (recipe.micro_batch or batch)) for batch in dict.fromkeys(plan.shares.batches)}
    largest, most = max(counts), max(counts.values())
    if most > MOST_PARTS:
        raise ValueError(
            f"micro_batch {recipe.micro_batch} cuts a batch of {largest} in {most} parts, and "
            f"{MOST_PARTS} can be planned; raise micro_batch"
        )
    apart: Sequence[bool] = staged or [False] * plan.workers
    if place.sharded:  # units are gathered by all in every micro-batch
        counts = dict.fromkeys(counts, most)
        if min(counts) < most:
            raise ValueError(
                f"micro_batch {recipe.micro_batch} cuts the largest batch in {most}, and so all where parameters "
                f"are sharded, but the smallest batch is {min(counts)}; raise micro_batch"
            )
        # They are gathered at the same place of the program: one device that needs a copy first makes all wait.
        apart = [any(apart)] * plan.workers
    alone = plan.workers == 1 or not plan.strategy.aggregation.synchronous
    kinds = list(zip(plan.shares.batches, apart, strict=False))  # a plan for a trial may have fewer workers
    tested = math.ceil(test / plan.workers)
    made = {
        (batch, own): Works(cost, batch, tested, counts[batch], held_by(plan, own, recipe.item), alone)
        for batch, own in dict.fromkeys(kinds)
    }
    return [made[kind] for kind in kinds]
