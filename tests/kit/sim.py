"""Helpers for tests of the simulated network."""

from __future__ import annotations

import math
from collections.abc import Callable

from paceline.sim.flows import Course, Flows


def ends(
    courses: list[Course], capacity: dict[str, float], then: Callable[[Flows], None] = lambda _: None
) -> list[float]:
    """When each of the courses ends, if all start at 0; NaN for one that does not end.

    capacity: bytes/s by link.
    then: called with the flows once all courses are under way.
    """
    flows, found = Flows(capacity.__getitem__), [math.nan] * len(courses)

    def over(number: int) -> Callable[[], None]:
        return lambda: found.__setitem__(number, now)

    now = 0.0
    for number, transfer in enumerate(courses):
        flows.add(transfer, 0.0, over(number))
    then(flows)
    while (now := flows.due()) < math.inf:
        flows.advance(now)
    return found
