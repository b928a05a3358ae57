"""Types of arguments that speak of single workers. They say what becomes of a list in a run with fewer workers."""

from __future__ import annotations

from typing import Annotated

EACH = "one value for each worker"
RELATIVE = "one value for each worker, and the largest is 1"
NUMBERS = "numbers of workers"

Sizes = Annotated[tuple[int, ...], EACH]
Factors = Annotated[tuple[float, ...], EACH]
Paces = Annotated[tuple[float, ...], RELATIVE]
Workers = Annotated[tuple[int, ...], NUMBERS]
