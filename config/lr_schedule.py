"""The scenario's `lr_schedule:` section, and the learning rate that follows from it and the budget.

All of it counts in the budget's unit: in a budget of epochs, milestones are epochs, and so is a warm-up without a unit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Discriminator, Field, Tag, WithJsonSchema

from ..algorithms import learning_rates
from ..algorithms.rounds import Interval
from ..program.errors import ScenarioError, brief
from ..program.import_paths import FAILURES, in_words
from .arguments import hints_of
from .members import OWN, PATH, call, known, tag
from .sections import OpenSection, Section
from .units import Span


class LrSchedule(Section):
    """What all schedules take: a straight line to the optimizer's lr over the first `warm_up`."""

    name: str
    warm_up: Span = 0.0  # how long, in the budget's unit, or with a unit, like "10000 steps"
    warm_up_from: float | None = Field(
        default=None, ge=0, le=1e30
    )  # the learning rate at its beginning; final_lr if null
    final_lr: float = Field(default=0.0, ge=0, le=1e30)  # where a falling schedule ends


class ConstantSpec(LrSchedule):
    """The optimizer's lr throughout."""

    name: Literal["constant"]


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


class OwnLrSchedule(OpenSection, LrSchedule):
    """A user's own, by its import path. Its keys are the arguments that its signature names.

    Called as Name(lr, ...), it returns the learning rate as a function of progress (learning_rates.Rate). Where it has
    arguments `total`, `final_lr` or `start`, they are the budget (if `total` is not given), final_lr and the end of the
    warm-up.
    """

    model_config = ConfigDict(extra="allow")

    name: Annotated[str, WithJsonSchema(OWN)]

    @property
    def args(self) -> dict[str, Any]:
        """The user's own arguments."""
        return dict(self.model_extra or {})


AnyLrSchedule = Annotated[
    Annotated[ConstantSpec, Tag("constant")]
    | Annotated[MultistepSpec, Tag("multistep")]
    | Annotated[CosineSpec, Tag("cosine")]
    | Annotated[LinearSpec, Tag("linear")]
    | Annotated[CosineStepSpec, Tag("cosine_step")]
    | Annotated[OwnLrSchedule, Tag(PATH)],
    Discriminator(tag),
]


def warm_up_of(schedule: AnyLrSchedule, budget: Interval) -> Interval | None:
    """How long the learning rate warms up; None where it does not."""
    found = schedule.warm_up
    return found if isinstance(found, Interval) else Interval(found, budget.unit) if found else None


def build_rate(lr: float, schedule: AnyLrSchedule, budget: Interval, step: float | None = None) -> learning_rates.Rate:
    """The learning rate as a function of progress, in the budget's unit. ScenarioError where they do not fit.

    step: how much of the budget a nominal step is; None where that is not always the same.
    """
    warm_up = warm_up_of(schedule, budget)
    until = _in_budgets_unit(warm_up, budget, step) if warm_up else 0.0
    try:
        rate = _after_warm_up(lr, schedule, budget.amount, until)
    except ValueError as error:
        raise ScenarioError(f"workload.lr_schedule: {error}") from None
    if until == 0:
        if schedule.warm_up_from is not None:
            raise ScenarioError("workload.lr_schedule.warm_up_from: there is no warm-up; give warm_up, or leave it out")
        return rate
    if until >= budget.amount:
        raise ScenarioError(f"workload.lr_schedule.warm_up: {until:g} is not less than the budget of {budget.amount:g}")
    low = schedule.final_lr if schedule.warm_up_from is None else schedule.warm_up_from
    return learning_rates.WarmUp(until, low, lr, rate)


def _in_budgets_unit(warm_up: Interval, budget: Interval, step: float | None) -> float:
    if warm_up.unit == budget.unit:
        return warm_up.amount
    if warm_up.unit != "steps" or step is None:
        shown = f"{warm_up.amount:g} {warm_up.unit}"
        raise ScenarioError(
            f"workload.lr_schedule.warm_up: {shown} is not always the same part of a budget of {budget.unit}; "
            f"write a number of {budget.unit}"
        )
    return warm_up.amount * step


def _after_warm_up(lr: float, schedule: AnyLrSchedule, budget: float, start: float) -> learning_rates.Rate:
    """The rate after a warm-up that ends at `start`."""
    if isinstance(schedule, ConstantSpec):
        return learning_rates.Constant(lr)
    if isinstance(schedule, MultistepSpec):
        late = [m for m in schedule.milestones if m > budget]
        if late:
            raise ValueError(f"milestone {late[0]:g} lies after the end of the budget, {budget:g}; leave it out")
        return learning_rates.Multistep(lr, schedule.milestones, schedule.gamma)
    if isinstance(schedule, OwnLrSchedule):
        return _own(lr, schedule, budget, start)
    total, final = schedule.total or budget, schedule.final_lr
    if isinstance(schedule, CosineSpec):
        return learning_rates.Cosine(lr, total, final, start)
    if isinstance(schedule, LinearSpec):
        return learning_rates.Linear(lr, total, final, start)
    return learning_rates.CosineStep(lr, total, final, start, schedule.base)


@dataclass(frozen=True)
class _Checked:
    """A user's own learning rate. ScenarioError where it fails, or is not a rate."""

    rate: learning_rates.Rate
    name: str

    def __call__(self, progress: float) -> float:
        try:
            lr = self.rate(progress)
        except FAILURES as error:
            raise ScenarioError(
                f"workload.lr_schedule: {self.name} failed at {progress:g}: {in_words(error)}"
            ) from error
        if not (isinstance(lr, int | float) and math.isfinite(lr) and lr >= 0):
            raise ScenarioError(
                f"workload.lr_schedule: {self.name} gave {brief(lr)} at {progress:g}; return a number, 0 or more"
            )
        return float(lr)


def _own(lr: float, schedule: OwnLrSchedule, budget: float, start: float) -> learning_rates.Rate:
    """The user's own rate. What the scenario says of all schedules is passed where its signature has it."""
    path, name = "workload.lr_schedule", schedule.name
    kind = known(name, {}, path, "lr_schedule")
    common = {"lr": lr, "total": budget, "final_lr": schedule.final_lr, "start": start}
    if "lr" not in (taken := hints_of(kind)):
        raise ScenarioError(f"{path}: {name} does not take lr, the optimizer's; give it an argument lr: float")
    if "lr" in schedule.args:
        raise ScenarioError(f"{path}.lr: is the optimizer's; write it there")
    passed = {key: value for key, value in common.items() if key in taken}
    made = call(kind, passed | schedule.args, path, own=True)
    if not callable(made):
        raise ScenarioError(f"{path}: {name} returns {brief(made)}; return a function of progress")
    rate = _Checked(made, name)
    _check_pure(rate, [start + (budget - start) * part for part in (0.0, 0.25, 0.5, 0.75)])
    return rate


def _check_pure(rate: _Checked, places: Sequence[float]) -> None:
    """ScenarioError where the rate depends on what it was asked before: workers and simulations ask in any order."""
    first = [rate(place) for place in places]
    for place, lr in zip(reversed(places), reversed(first), strict=True):
        if (again := rate(place)) != lr:
            raise ScenarioError(
                f"workload.lr_schedule: {rate.name} gave {lr:g} and then {again:g} at {place:g}; "
                "return a function of progress alone"
            )
