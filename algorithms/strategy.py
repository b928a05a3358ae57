"""A strategy: one member of each of the five axes. Presets are expressions of this; see presets.py."""

from __future__ import annotations

from dataclasses import dataclass

from .aggregations import Aggregation, Gradients, Parameters
from .placements import Placement, Replicated
from .sampling import Sampling, Shuffled, Uniform
from .schedules import Every, Fixed, Schedule
from .splits import BySteps, Even, Given, Split

# The axes' members by the names that scenarios use.
AXES: dict[str, dict[str, type]] = {
    "split": {"even": Even, "by_steps": BySteps, "given": Given},
    "schedule": {"every": Every, "fixed": Fixed},
    "sampling": {"shuffled": Shuffled, "uniform": Uniform},
    "aggregation": {"gradients": Gradients, "parameters": Parameters},
    "placement": {"replicated": Replicated},
}


@dataclass(frozen=True)
class Strategy:
    """How to train. Any combination that makes sense works; one that does not is a ValueError."""

    split: Split = Even()
    schedule: Schedule = Every()
    sampling: Sampling = Shuffled()
    aggregation: Aggregation = Gradients()
    placement: Placement = Replicated()

    def __post_init__(self) -> None:
        if self.aggregation.synchronous and isinstance(self.split, BySteps):
            raise ValueError(
                "split by_steps gives workers unequal steps, but aggregation gradients exchanges in every "
                "step; write aggregation: parameters, or split: even"
            )
