"""Builds the workers that train, from the names and numbers of a scenario.

Rule: torch's global stream is only moved by the worker of a rank, which owns it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from ..algorithms.plan import Plan
from ..algorithms.worker import ModelCost
from . import meter, storage, units
from .data import Dataset, DataShape
from .phantoms import cost_of, make_works
from .recipe import Recipe
from .worker import TorchWorker


def build_workers(
    plan: Plan,
    data: Dataset,
    *,
    model: str,
    optimizer: Mapping[str, Any],
    seed: int,
    shared_process: bool,
    model_args: Mapping[str, Any] | None = None,
    recipe: Recipe | None = None,
    indexes: Sequence[int] | None = None,
    warm: bool = True,
    cost: ModelCost | None = None,
    model_seed: int | None = None,
    data_seed: int | None = None,
    loaders: int = 0,
    device: str = "cpu",
    staged: Sequence[bool] | None = None,
) -> list[TorchWorker]:
    """The plan's workers numbered `indexes` (all by default); they share `data`.

    optimizer: {name: sgd or adamw, momentum: ..., ...}. recipe: how a step computes. shared_process: True in a
    simulation, False for the one worker of a rank. warm: the first worker takes a throw-away step (first-use costs are
    the process's). cost: the model's, where it is known already. model_seed: of the initial parameters, data_seed: of
    order and augmentation, `seed` by default. loaders: threads of a rank that load batches ahead. device: torch's,
    where they compute. staged: per worker of the plan, whether its device has memory of its own, so that what is
    exchanged is copied to the host and back. ValueError of one line for whatever is wrong with model, recipe or
    optimizer.
    """
    meter.anew(device)
    numbers = range(plan.workers) if indexes is None else indexes
    if not shared_process and len(numbers) != 1:
        raise ValueError(f"{len(numbers)} workers in one process; build them with shared_process=True")
    shape = data.shape
    args = model_args or {}
    recipe = recipe or Recipe()
    works = make_works(plan, cost or cost_of(model, args, shape), shape.test, recipe, staged)
    return [
        TorchWorker(
            index,
            plan.workers,
            _fresh(model, args, shape, seed if model_seed is None else model_seed, recipe),
            data,
            recipe=recipe,
            optimizer=optimizer,
            sampling=plan.strategy.sampling,
            seed=seed,
            works=works[index],
            unit_bytes=plan.strategy.placement.unit_bytes,
            shared_process=shared_process,
            warm=warm and place == 0,
            data_seed=data_seed,
            loaders=0 if shared_process else loaders,
            device=device,
        )
        for place, index in enumerate(numbers)
    ]


def _fresh(name: str, args: Mapping[str, Any], shape: DataShape, seed: int, recipe: Recipe) -> nn.Module:
    """The model in the recipe's precision, built anew: a copy of a user's may share closures with the original."""
    model = units.build(name, args, shape.input_shape, shape.classes, seed)
    storage.check(dict(model.named_parameters()), "parameter")
    storage.check(units.float_buffers(model), "buffer")
    return model.to(torch.float64 if recipe.precision == "fp64" else torch.float32)
