"""The scenario's `lr_schedule:` section, and the learning rate that follows from it and the budget.

All of it counts in the budget's unit: in a budget of epochs, milestones and warm-up are epochs.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from ..algorithms import learning_rates
from ..program.errors import ScenarioError
from .sections import Section


class LrSchedule(Section):
    """What all schedules take: a straight line from final_lr to the optimizer's lr over the first `warm_up`."""

    warm_up: float = Field(default=0.0, ge=0)
    final_lr: float = Field(default=0.0, ge=0, le=1e30)


class ConstantSpec(LrSchedule):
    """The optimizer's lr throughout."""

    name: Literal["constant"] = "constant"


class MultistepSpec(LrSchedule):
    """lr * gamma at each milestone."""

    name: Literal["multistep"]
    milestones: tuple[Annotated[float, Field(ge=0)], ...] = Field(max_length=100)
    gamma: float = Field(default=0.1, gt=0, le=1000)


class CosineSpec(LrSchedule):
    """Half a cosine from lr to final_lr. total: where it ends, by default with the budget."""

    name: Literal["cosine"]
    total: float | None = Field(default=None, gt=0)


class LinearSpec(LrSchedule):
    """A straight line from lr to final_lr. total: where it ends, by default with the budget."""

    name: Literal["linear"]
    total: float | None = Field(default=None, gt=0)


class CosineStepSpec(LrSchedule):
    """The cosine rounded to the nearest power of `base`."""

    name: Literal["cosine_step"]
    total: float | None = Field(default=None, gt=0)
    base: float = Field(default=2.0, ge=1.001, le=1e9)


AnyLrSchedule = ConstantSpec | MultistepSpec | CosineSpec | LinearSpec | CosineStepSpec


def build_rate(lr: float, schedule: AnyLrSchedule, budget: float) -> learning_rates.Rate:
    """The learning rate as a function of progress. budget: its amount. ScenarioError where they do not fit."""
    try:
        rate = _after_warm_up(lr, schedule, budget)
    except ValueError as error:
        raise ScenarioError(f"workload.lr_schedule: {error}") from None
    if schedule.warm_up == 0:
        return rate
    if schedule.warm_up >= budget:
        raise ScenarioError(
            f"workload.lr_schedule.warm_up: {schedule.warm_up:g} is not less than the budget of {budget:g}"
        )
    return learning_rates.WarmUp(schedule.warm_up, schedule.final_lr, lr, rate)


def _after_warm_up(lr: float, schedule: AnyLrSchedule, budget: float) -> learning_rates.Rate:
    if isinstance(schedule, ConstantSpec):
        return learning_rates.Constant(lr)
    if isinstance(schedule, MultistepSpec):
        late = [m for m in schedule.milestones if m > budget]
        if late:
            raise ValueError(f"milestone {late[0]:g} lies after the end of the budget, {budget:g}; leave it out")
        return learning_rates.Multistep(lr, schedule.milestones, schedule.gamma)
    total, final, start = schedule.total or budget, schedule.final_lr, schedule.warm_up
    if isinstance(schedule, CosineSpec):
        return learning_rates.Cosine(lr, total, final, start)
    if isinstance(schedule, LinearSpec):
        return learning_rates.Linear(lr, total, final, start)
    return learning_rates.CosineStep(lr, total, final, start, schedule.base)
