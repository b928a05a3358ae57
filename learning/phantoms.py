"""Phantom workers, and the work and costs that they share with real ones. Loads torch only to measure a model that has
no table.

Rule: both kinds of worker get their Works from here, so a timing-only clock equals the full one to the last bit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..algorithms.phantom import PhantomWorker
from ..algorithms.plan import Plan
from ..algorithms.worker import ModelCost, Works, share
from . import imports, tables, torchvision_tables
from .data import DataShape


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
    from .units import build

    return measured_cost(build(model, args, shape.input_shape, shape.classes, seed=0), shape.input_shape)


def moments_of(optimizer: Mapping[str, Any]) -> int:
    """How many vectors as long as the parameters the optimizer's state has."""
    return 2 if optimizer.get("name") == "adamw" else int(bool(optimizer.get("momentum")))


def make_works(cost: ModelCost, batches: Sequence[int], test: int) -> list[Works]:
    """Each worker's Works; workers with equal numbers share one, since prices are cached by identity.

    batches: per worker. test: examples in the test set, of which each worker evaluates its share.
    """
    made: dict[tuple[int, int], Works] = {}
    works = []
    for index, batch in enumerate(batches):
        start, stop = share(test, index, len(batches))
        key = (batch, stop - start)
        if key not in made:
            made[key] = Works(cost, *key)
        works.append(made[key])
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
) -> list[PhantomWorker]:
    """Workers of which only work and bytes are known: those numbered `indexes` (all by default) of the plan's.

    cost: the model's, where it is known already. optimizer: as build_workers takes it; plain SGD by default.
    """
    cost = cost or cost_of(model, model_args or {}, shape)
    works = make_works(cost, plan.shares.batches, shape.test)
    return [
        PhantomWorker(i, works[i], cost.parameters, cost.buffers, moments_of(optimizer or {}))
        for i in (range(plan.workers) if indexes is None else indexes)
    ]
