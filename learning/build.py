"""Builds the workers that train, from the names and numbers of a scenario.

Rule: torch's global stream is only moved by the worker of a rank, which owns it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import nn

from ..algorithms.costs import ModelCost
from ..algorithms.plan import Plan
from ..algorithms.worker import EVALUATION_BATCH
from . import memory_meter, models, user_code
from .buffers import ATTRIBUTE, kept_apart
from .dataset import Dataset, DataShape
from .losses import Loss
from .passes import Passes
from .recipe import Recipe, check_data
from .weights import Weights
from .worker import TorchWorker
from .works import cost_of, make_works


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
    health: bool = True,
    initial: Weights | None = None,
) -> list[TorchWorker]:
    """The plan's workers numbered `indexes` (all by default); they share `data`.

    cost: the model's, where it is known already. model_seed: of its initial weights. initial: what replaces these.
    shared_process: True in a simulation, False for the one worker of a rank.
    warm: the first worker of each kind (batch, micro-batches, memory) takes a throw-away step, which finds what fails.
    staged: for each worker of the plan, whether its device has memory of its own. All others: see TorchWorker.
    ValueError of one line for whatever is wrong with model, loss or recipe. config.workload has checked their numbers.
    """
    numbers = _numbers(plan, indexes, shared_process, device)
    shape, args, recipe = data.shape, model_args or {}, recipe or Recipe()
    check_data(recipe, data)
    works = make_works(plan, cost or cost_of(model, args, shape), shape.test, recipe, staged)
    fresh = partial(fresh_model, model, args, shape, seed if model_seed is None else model_seed, recipe, initial)
    first, tried = fresh(), {id(works[index]): index for index in reversed(numbers)}.values()  # the first of each kind
    loss, own = Loss(recipe, data), user_code.named(model) or user_code.named(recipe.loss)
    unreached = Passes(first, data, recipe, seed=seed, worker=0, loss=loss).unreached() if own else ()
    return [
        TorchWorker(
            index,
            plan.workers,
            fresh() if place else first,
            data,
            recipe=recipe,
            optimizer=optimizer,
            sampling=plan.strategy.sampling,
            seed=seed,
            works=works[index],
            unit_bytes=plan.strategy.placement.unit_bytes,
            shared_process=shared_process,
            warm=warm and index in tried,
            data_seed=data_seed,
            loaders=0 if shared_process else loaders,
            device=device,
            unreached=unreached,
            health=health,
            loss=loss,
        )
        for place, index in enumerate(numbers)
    ]


def _numbers(plan: Plan, indexes: Sequence[int] | None, shared_process: bool, device: str) -> Sequence[int]:
    """The numbers of the workers to build, with memory for them. ValueError for several of them on a rank."""
    memory_meter.reset_peak(device)
    numbers = range(plan.workers) if indexes is None else indexes
    if not shared_process and len(numbers) != 1:
        raise ValueError(f"{len(numbers)} workers in one process; build them with shared_process=True")
    return numbers


def notes(plan: Plan, worker: TorchWorker, model: str, loss: str) -> list[str]:
    """What a reader of the results must know of a user's model and loss: a line each."""
    found, apart = list[str](), kept_apart(worker.model) if plan.workers > 1 else []
    if apart:
        more = f" and {len(apart) - 3} more" if len(apart) > 3 else ""
        found.append(
            f"model {model}: the buffers {', '.join(apart[:3])}{more} stay each worker's own, in evaluations too; a "
            f"module's attribute {ATTRIBUTE} = (names) has them averaged, as BatchNorm's running statistics are"
        )
    if worker.loss_is_mean is None and worker.chunks > 1:
        found.append(
            f"loss {loss}: it could not be tried whether it is a mean over examples, as micro-batches need: it fails "
            "or is not finite in a trial, or the model's outputs are not tensors"
        )
    if worker.loss_is_mean is False:
        synchronous = plan.workers > 1 and plan.strategy.aggregation.synchronous
        step = ", and a step is not that of all workers' batches in one" if synchronous else ""
        found.append(
            f"loss {loss} is not a mean over examples (it weights, leaves out or compares some): test_loss is the mean "
            f"of blocks of {EVALUATION_BATCH} examples at most{step}"
        )
    return found


def fresh_model(
    name: str, args: Mapping[str, Any], shape: DataShape, seed: int, recipe: Recipe, initial: Weights | None = None
) -> nn.Module:
    """The model in the recipe's precision, built again: a copy of a user's may share closures with the original.

    ValueError as models.build, and where the initial weights do not fit.
    """
    model = models.build(name, args, shape.input_shape, shape.classes, seed)
    if recipe.precision == "fp64":
        model.to(torch.float64)
    if initial is not None:
        initial.copy_into(model)
    return model
