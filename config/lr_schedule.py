"""The scenario's `lr_schedule:` section, and the learning rate that follows from it and the budget.

All of it counts in the budget's unit: in a budget of epochs, milestones and warm-up are epochs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Discriminator, Field, Tag, WithJsonSchema

from ..algorithms import learning_rates
from ..program.errors import ScenarioError, brief
from ..program.import_paths import FAILURES, in_words, named
from .arguments import hints_of
from .members import OWN, PATH, call, known
from .sections import OpenSection, Section


class LrSchedule(Section):
    """What all schedules take: a straight line from final_lr to the optimizer's lr over the first `warm_up`."""

    name: str
    warm_up: float = Field(default=0.0, ge=0)
    final_lr: float = Field(default=0.0, ge=0, le=1e30)


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


def _kind(value: Any) -> str | None:
    """The tag of a schedule: its name, and PATH for one with an import path."""
    name = value.name if isinstance(value, LrSchedule) else value.get("name") if isinstance(value, dict) else None
    if not isinstance(name, str):
        return None
    return PATH if named(name) else name


AnyLrSchedule = Annotated[
    Annotated[ConstantSpec, Tag("constant")]
    | Annotated[MultistepSpec, Tag("multistep")]
    | Annotated[CosineSpec, Tag("cosine")]
    | Annotated[LinearSpec, Tag("linear")]
    | Annotated[CosineStepSpec, Tag("cosine_step")]
    | Annotated[OwnLrSchedule, Tag(PATH)],
    Discriminator(_kind),
]


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
    if isinstance(schedule, OwnLrSchedule):
        return _own(lr, schedule, budget)
    total, final, start = schedule.total or budget, schedule.final_lr, schedule.warm_up
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


def _own(lr: float, schedule: OwnLrSchedule, budget: float) -> learning_rates.Rate:
    """The user's own rate. What the scenario says of all schedules is passed where its signature has it."""
    path, name = "workload.lr_schedule", schedule.name
    kind = known(name, {}, path, "lr_schedule")
    common = {"lr": lr, "total": budget, "final_lr": schedule.final_lr, "start": schedule.warm_up}
    if "lr" not in (taken := hints_of(kind)):
        raise ScenarioError(f"{path}: {name} does not take lr, the optimizer's; give it an argument lr: float")
    if "lr" in schedule.args:
        raise ScenarioError(f"{path}.lr: is the optimizer's; write it there")
    passed = {key: value for key, value in common.items() if key in taken}
    made = call(kind, passed | schedule.args, path, own=True)
    if not callable(made):
        raise ScenarioError(f"{path}: {name} returns {brief(made)}; return a function of progress")
    return _Checked(made, name)
