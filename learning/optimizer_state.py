"""What an optimizer carries from step to step."""

from __future__ import annotations

from typing import NamedTuple

ADAM = ("exp_avg", "exp_avg_sq")  # m and v
VELOCITY = ("momentum",)  # of SGD with momentum


class Carried(NamedTuple):
    """An optimizer's state."""

    moments: tuple[str, ...]  # names of the vectors that have one element per parameter
    size: float  # bytes of it all, as a multiple of the parameters' bytes
    others: tuple[str, ...] = ()  # names of tensors of other shapes, which cannot be averaged
    elementwise: bool = True  # whether it steps on a part of a parameter as on the whole, so that it may be sharded
