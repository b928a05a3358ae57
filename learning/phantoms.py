"""Phantom workers, and the work and costs that they share with real ones. Loads torch only to measure a model that has
no table.

Rule: both kinds of worker get their Works from here, so a timing-only clock equals the full one to the last bit.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ..algorithms.costs import Held, ModelCost, Works
from ..algorithms.phantom import PhantomWorker
from ..algorithms.plan import Plan
from ..algorithms.worker import evaluation_blocks
from . import imports, tables, torchvision_tables
from .dataset import DataShape
from .recipe import Recipe

MOST_PARTS = 100_000  # micro-batches of a step, each of which is planned


def cost_of(model: str, args: Mapping[str, Any], shape: DataShape) -> ModelCost:
    """The model's cost: from its table, or measured on forward passes, for which torch is loaded.

    ValueError as tables.cost and units.build.
    """
    if torchvision_tables.named(model) and not args:
        known = torchvision_tables.cost(model.removeprefix(torchvision_tables.PREFIX), shape.input_shape, shape.classes)
        if known is not None:
            return tables.total(known)
    if not imports.named(model):
        return tables.total(tables.cost(model, args, shape.input_shape, shape.classes))
    from .cost import measured_cost
    from .models import build

    return measured_cost(build(model, args, shape.input_shape, shape.classes, seed=0), shape.input_shape)


def moments_of(optimizer: Mapping[str, Any]) -> int:
    """How many vectors as long as the parameters the optimizer's state has."""
    return 2 if optimizer.get("name") == "adamw" else int(bool(optimizer.get("momentum")))


def held_by(plan: Plan, staged: bool = False, item: int = 4) -> Held:
    """How a worker of the plan holds its model."""
    place = plan.strategy.placement
    return Held(plan.workers if place.sharded else 1, place.offloaded, staged, place.prefetch, item)


def make_works(
    plan: Plan, cost: ModelCost, test: int, recipe: Recipe | None = None, staged: Sequence[bool] | None = None
) -> list[Works]:
    """Each worker's Works; workers with equal numbers share one, since prices are cached by identity.

    test: examples in the test set. An evaluation is priced as the largest share of them: shares differ by one example,
    all wait for the slowest in the exchange that follows, and equal workers stay equal. staged: whose device has its
    own memory.
    """
    recipe, place = recipe or Recipe(), plan.strategy.placement
    cost = tables.merged(cost, place.unit_bytes)
    counts = [math.ceil(batch / (recipe.micro_batch or batch)) for batch in plan.shares.batches]
    if max(counts) > MOST_PARTS:
        raise ValueError(
            f"micro_batch {recipe.micro_batch} cuts a batch of {max(plan.shares.batches)} in {max(counts)} parts, and "
            f"{MOST_PARTS} can be planned; raise micro_batch"
        )
    if place.sharded:  # units are gathered by all in every micro-batch
        counts = [max(counts)] * plan.workers
        if min(plan.shares.batches) < counts[0]:
            raise ValueError(
                f"micro_batch {recipe.micro_batch} cuts the largest batch in {counts[0]}, and so all where parameters "
                f"are sharded, but the smallest batch is {min(plan.shares.batches)}; raise micro_batch"
            )
    alone = plan.workers == 1 or not plan.strategy.aggregation.synchronous
    made: dict[tuple[int, bool], Works] = {}
    works = []
    for index, batch in enumerate(plan.shares.batches):
        # Units are gathered by all at the same place of the program: one device that needs a copy first makes all wait.
        apart = staged is not None and (any(staged) if place.sharded else staged[index])
        if (batch, apart) not in made:
            held = held_by(plan, apart, recipe.item)
            made[batch, apart] = Works(cost, batch, math.ceil(test / plan.workers), counts[index], held, alone)
        works.append(made[batch, apart])
    return works


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
) -> list[PhantomWorker]:
    """Workers of which only work and bytes are known: those numbered `indexes` (all by default) of the plan's.

    cost: the model's, where it is known already. optimizer, recipe, staged: as build_workers takes them; plain SGD by
    default.
    """
    cost, spec = cost or cost_of(model, model_args or {}, shape), optimizer or {}
    works = make_works(plan, cost, shape.test, recipe, staged)
    blocks = evaluation_blocks(shape.test, plan.workers)
    return [
        PhantomWorker(i, works[i], moments_of(spec), spec.get("clip") is not None, blocks)
        for i in (range(plan.workers) if indexes is None else indexes)
    ]
