"""Says what went wrong in a worker's computations, and where: in the user's own code, or in the numbers.

Rule: nothing here costs a step more than noting where it is.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor

from ..algorithms.rounds import Round
from ..program.errors import NotFinite, PacelineError, WorkloadError
from .parameter_memory import Memory
from .passes import Passes
from .user_code import FAILURES, in_words

T = TypeVar("T")


class Guard:
    """Runs the computations of worker `index`."""

    def __init__(self, index: int, passes: Passes, memory: Memory) -> None:
        self._index, self._passes, self._memory = index, passes, memory
        self.watching = False  # whether numbers must be finite; those of a step that is only tried may be anything
        self.at: tuple[Round, int] | None = None  # the step that the worker is in, or took last

    def run(self, body: Callable[..., T], *args: Any) -> T:
        """body(*args); what the user's code raises in it becomes a WorkloadError that says where that was.

        On a GPU the answer waits until the device is done, since whoever times a computation reads the clock then.
        """
        try:
            found = body(*args)
            if self._memory.device.type == "cuda":
                torch.cuda.synchronize(self._memory.device)
            return found
        except PacelineError:
            raise
        except FAILURES as error:
            raise WorkloadError(f"{self._where()}: {self._passes.doing} failed: {in_words(error)}") from error

    def check(self, quantity: str, value: float) -> None:
        """NotFinite unless the value is finite, where numbers are watched."""
        if self.watching and not math.isfinite(value):
            raise NotFinite(f"{self._where()}: {quantity} is {value}")

    def check_parameters(self) -> None:
        """The same for each of the worker's parameters."""
        parameters = self._memory.parameters
        if self.watching and parameters.numel():
            for extreme in torch.aminmax(parameters):
                self.check("a parameter", extreme.item())

    def check_norm(self, norm: Tensor | None) -> None:
        """The same for a gradient's norm, if the optimizer has computed one."""
        if norm is not None:
            self.check("the gradient's norm", norm.item())

    def _where(self) -> str:
        """Worker and step, for errors. A step is numbered as reports count it once it is done."""
        if self.at is None:
            return f"worker {self._index}, before step 1"
        round, i = self.at
        return f"worker {self._index}, step {round.nominal(self._index, i) + 1}"
