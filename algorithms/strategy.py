"""A strategy: one member of each of the five axes. Presets are expressions of this; see presets.py."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .aggregations import Aggregation, Gradients
from .outer import AGGREGATIONS
from .placements import PLACEMENTS, Placement, Replicated
from .rounds import Interval
from .sampling import SAMPLINGS, Sampling, Shuffled
from .schedules import SCHEDULES, Every, Schedule
from .splits import SPLITS, Even, Shares, Split

# The axes' members by the names that scenarios use. A new member is entered in the table of its own module.
AXES: dict[str, dict[str, Callable[..., Any]]] = {
    "split": SPLITS,
    "schedule": SCHEDULES,
    "sampling": SAMPLINGS,
    "aggregation": AGGREGATIONS,
    "placement": PLACEMENTS,
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
        if self.split.unequal_steps and self.aggregation.synchronous and not self.aggregation.local:
            raise ValueError(
                "the split gives workers unequal steps, but the aggregation exchanges gradients in every step; "
                "write aggregation: parameters, or a split of equal steps, like even or by_batch"
            )
        if self.placement.sharded and self.aggregation.local:
            raise ValueError(
                "a sharded worker has a part of the parameters, which cannot take local steps; "
                "write aggregation: gradients, or placement: replicated or offloaded"
            )

    def resolve(
        self, shares: Shares, speeds: Sequence[float], warm_up: Interval | None, optimizer: Mapping[str, Any]
    ) -> Strategy:
        """The strategy with what follows from the workers, the rate's warm-up and the inner optimizer filled in."""
        return dataclasses.replace(
            self,
            sampling=self.sampling.resolve(shares),
            schedule=self.schedule.resolve(speeds, warm_up),
            aggregation=self.aggregation.resolve(optimizer),
        )
